"""No operation takes longer than its timeout, whatever the server or another process does."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine

import memory
from memory import CommitInDoubtError, Conversation, PersistenceError, Run, Store, StoreUnavailableError, where
from memory.adapters.sql import SqlRepository
from memory.domain.records import RunRecord
from memory.port.changes import Change, ChangeSet
from memory.port.paging import Query
from memory.port.repository import Repository, Window
from tests.adapters.sql.children import started
from tests.rounds import rounds
from tests.servers import KillableServer, postgres
from tests.servers.processes import ProcessServer
from tests.servers.proxy import Proxy

TIMEOUT = 1.0
AT_MOST = 3.5  # a connection may take two seconds (libpq), and the machine is busy
RUN = RunRecord(0, "r", "1", "2", "{}", 1)

OPERATIONS: dict[str, Callable[[Repository], object]] = {
    "get": lambda repository: repository.get("default", "c"),
    "find": lambda repository: repository.find("default", Query(where("n") == 1, limit=1)),
    "count": lambda repository: repository.count("default", where("n") == 1),
    "runs": lambda repository: repository.runs("default", "c", Window()),
    "commit": lambda repository: repository.commit("default", ChangeSet((Change("c", append=(RUN,)),))),
    "namespaces": lambda repository: repository.namespaces(),
    "schema_status": lambda repository: repository.schema_status(),
}


def with_timeout(url: str, seconds: float = TIMEOUT) -> str:
    return f"{url}{'&' if '?' in url else '?'}timeout={seconds}"


def ended_in_time(work: Callable[[], object], kind: type[PersistenceError] = StoreUnavailableError) -> PersistenceError:
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        work()
    assert time.monotonic() - begun < AT_MOST
    return caught.value


@contextmanager
def stopped(server: KillableServer) -> Iterator[None]:
    """Stop the processes of a server, as a machine that hangs: its kernel goes on to acknowledge what comes."""
    assert isinstance(server, ProcessServer)
    main = psutil.Process(server._process.pid)
    family = [main, *main.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in main.children(recursive=True):
            process.resume()
        main.resume()


@pytest.fixture
def stalling(killable_postgres: KillableServer) -> str:
    with memory.connect(killable_postgres.url) as store:
        store.migrate()
        if "c" not in store.begin().conversations:
            with store.begin() as uow:
                uow.conversations.add(Conversation("c", metadata={"n": 1}))
    return killable_postgres.url


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_stopped_server_is_unavailable_in_time(
    killable_postgres: KillableServer, stalling: str, operation: str
) -> None:
    """On a pooled connection, and on a new one."""
    work = OPERATIONS[operation]
    with memory.connect(with_timeout(stalling)) as store, memory.connect(with_timeout(stalling)) as new:
        work(store.repository)
        with stopped(killable_postgres):
            for each in (store, new):
                ended_in_time(lambda each=each: work(each.repository))  # type: ignore[misc]
        work(store.repository)
        work(new.repository)


def test_a_stopped_server_is_unavailable_in_time_to_an_applications_engine(
    killable_postgres: KillableServer, stalling: str
) -> None:
    """Its connections were opened before the engine was given to us; a joined unit of work is one of them."""
    engine = create_engine(stalling)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    repository = SqlRepository(engine, timeout=TIMEOUT)
    with engine.connect() as connection:
        joined = repository.joining(connection)
        joined.get("default", "c")
        with stopped(killable_postgres):
            error = ended_in_time(lambda: OPERATIONS["commit"](repository))
            assert "within 1 s" in str(error)
            ended_in_time(lambda: joined.get("default", "c"))
    OPERATIONS["commit"](repository)
    engine.dispose()


@pytest.fixture
def proxied(postgres_url: str) -> Iterator[tuple[Store, Proxy]]:
    with Proxy(postgres_url, postgres.commits) as proxy, memory.connect(with_timeout(proxy.url)) as store:
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))
        yield store, proxy


def test_a_commit_that_is_not_answered_in_time_is_in_doubt(proxied: tuple[Store, Proxy]) -> None:
    store, proxy = proxied
    proxy.cuts.append("never answers")
    error = ended_in_time(lambda: OPERATIONS["commit"](store.repository), CommitInDoubtError)
    assert not error.retryable
    with store.begin() as uow:
        assert uow.runs.last("c", 1)[0].id == "r"  # here it was written


def test_a_locked_row_is_waited_for_until_the_deadline(proxied: tuple[Store, Proxy], postgres_url: str) -> None:
    store, _ = proxied
    with postgres.connect(postgres_url) as other, other.transaction():
        other.execute("UPDATE memory_conversations SET version = version")
        error = ended_in_time(lambda: OPERATIONS["commit"](store.repository))
        assert "within 1 s" in str(error)
    OPERATIONS["commit"](store.repository)


def test_a_locked_file_is_waited_for_until_the_deadline(sqlite_url: str, tmp_path: Path) -> None:
    with memory.connect(with_timeout(sqlite_url)) as store:
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))
        with closing(sqlite3.connect(tmp_path / "conversations.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            error = ended_in_time(lambda: OPERATIONS["commit"](store.repository))
            assert "within 1 s" in str(error)
        OPERATIONS["commit"](store.repository)


@pytest.mark.parametrize("own", [False, True])
def test_a_long_statement_of_sqlites_ends_at_the_deadline(sqlite_url: str, *, own: bool) -> None:
    """Here, one that a trigger keeps counting."""
    engine = create_engine(sqlite_url)
    with memory.connect(with_timeout(sqlite_url, 0.3)) as opened:
        opened.migrate()
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER counts AFTER UPDATE ON memory_conversations BEGIN UPDATE memory_conversations SET version = "
                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) FROM n); END"
            )
        store = Store(SqlRepository(engine, timeout=0.3)) if own else opened
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))
        ended_in_time(lambda: OPERATIONS["commit"](store.repository))
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER counts")
        OPERATIONS["commit"](store.repository)
        with store.begin() as uow:
            assert uow.conversations.get("c").run_count == 1
    engine.dispose()


def test_a_server_that_accepts_and_says_nothing_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql+psycopg://postgres@127.0.0.1:{server.getsockname()[1]}/db"
        with memory.connect(with_timeout(url)) as store:
            for operation in (OPERATIONS["runs"], OPERATIONS["commit"]):
                error = ended_in_time(lambda operation=operation: operation(store.repository))  # type: ignore[misc]
                assert error.retryable


def test_a_doubt_stays_one_when_the_host_is_out_of_reach_afterwards(
    proxied: tuple[Store, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect again takes too long, and says nothing of the commit."""
    store, proxy = proxied
    uow = store.begin()
    uow.runs.append("c", Run("q", "a"))
    proxy.cuts.append("after")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(proxy, "_server", silent.getsockname())
        ended_in_time(uow.commit, CommitInDoubtError)


def test_an_exhausted_pool_is_waited_for_until_the_deadline(postgres_url: str) -> None:
    with memory.connect(with_timeout(postgres_url)) as store:
        store.migrate()
        assert isinstance(store.repository, SqlRepository)
        taken = [store.repository.engine.connect() for _ in range(15)]
        error = ended_in_time(lambda: OPERATIONS["get"](store.repository))
        assert "no connection was free" in str(error)
        for connection in taken:
            connection.close()


_INTERRUPTED = """
import os, signal, sys, threading, time, memory
from memory import Run
def leave(*_):
    raise SystemExit(7)
signal.signal(signal.SIGTERM, leave)
store = memory.connect(sys.argv[1])
store.begin()
print("ready", flush=True)
sys.stdin.readline()
rng = __import__("random").Random(int(sys.argv[3]))
bad = 0
for n in range(int(sys.argv[2])):
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    timer = threading.Timer(rng.uniform(0.001, 0.01), os.kill, [os.getpid(), number])
    try:
        try:
            timer.start()
            while True:
                with store.begin() as uow:
                    uow.runs.append("c", Run(n, None))
        finally:
            timer.join()
    except (KeyboardInterrupt, SystemExit):
        pass
    except BaseException as error:
        print(n, repr(error), flush=True)
        bad += 1
    store.begin().conversations.get("c")
pool = store.repository.engine.pool
assert pool.checkedout() <= 1, pool.status()
print(bad)
"""


def test_an_interrupt_leaves_as_itself_and_takes_no_connection_with_it(store: Store, url: str) -> None:
    """Ctrl-C, and the exception that a handler of SIGTERM raises, at any moment of an append."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))
    with started(_INTERRUPTED, [url, str(rounds(60)), "1"]) as (child,):
        child.go()
        assert child.finish(120).splitlines() == ["0"]
    with store.begin() as uow:
        conversation, runs = uow.conversations.get("c"), uow.runs.list("c")
    assert [run.position for run in runs] == list(range(1, conversation.run_count + 1))
