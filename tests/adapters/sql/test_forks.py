"""A process that forks: parent and children use connections of their own, and lose nothing."""

import multiprocessing
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool, StaticPool

import memory
from memory import Committed, ConfigurationError, Conversation, PersistenceError, Run, Store
from memory.adapters.sql import SqlRepository
from tests.adapters.sql.checking import assert_consistent
from tests.rounds import rounds

NEEDS = pytest.mark.needs("postgres")
WAITING = {"timeout": 30}  # for the file's lock; sqlite's driver would wait five seconds, which a busy machine may need
OPENED = [
    pytest.param((None, "sqlite_url"), id="sqlite-url"),
    pytest.param((partial(create_engine, connect_args=WAITING), "sqlite_url"), id="sqlite-engine"),
    pytest.param((partial(create_engine, connect_args=WAITING, poolclass=NullPool), "sqlite_url"), id="sqlite-no-pool"),
    pytest.param((None, "postgres_url"), id="postgresql-url", marks=NEEDS),
    pytest.param((create_engine, "postgres_url"), id="postgresql-engine", marks=NEEDS),
]


@pytest.fixture(params=OPENED)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with a conversation, opened by URL or with an engine of the application's."""
    make, name = request.param
    url = request.getfixturevalue(name)
    with ExitStack() as stack:
        if make is None:
            store = stack.enter_context(memory.connect(url))
        else:
            engine: Engine = make(url)
            stack.callback(engine.dispose)
            store = Store(SqlRepository(engine))
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))
        yield store


def append(store: Store, name: str) -> None:
    with store.begin() as uow:
        uow.runs.append("c", Run(name, None))


def said(store: Store) -> list[object]:
    assert isinstance(store.repository, SqlRepository)
    assert_consistent(store.repository.engine)
    with store.begin() as uow:
        return [run.input for run in uow.runs.iterate("c")]


@contextmanager
def forked(work: Callable[[], object]) -> Iterator[None]:
    """Do something in a child while the block runs; fail if it failed there, or does not end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        failure = b""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # the parent is to see it
            failure = repr(error).encode()
        finally:
            os.write(write, failure)
            os._exit(bool(failure))
    os.close(write)
    try:
        yield
    finally:
        with os.fdopen(read, "rb") as pipe:
            if not select.select([pipe], [], [], 60)[0]:
                os.kill(child, signal.SIGKILL)
            failure = pipe.read()
        _, status = os.waitpid(child, 0)
    assert (status, failure) == (0, b"")


def appends(store: Store, name: str, times: int) -> list[str]:
    names = [f"{name}-{n}" for n in range(times)]
    for each in names:
        append(store, each)
    return names


def test_what_parent_and_children_acknowledge_is_there(store: Store) -> None:
    expected = appends(store, "before", 3)
    for n in range(rounds(3)):
        with forked(lambda n=n: appends(store, f"child{n}", 10)):  # type: ignore[misc]
            expected += appends(store, f"parent{n}", 10)
        expected += [f"child{n}-{m}" for m in range(10)]
    assert sorted(map(str, said(store))) == sorted(expected)


def test_what_is_acknowledged_is_there_although_the_parent_ends_first(sqlite_url: str, tmp_path: Path) -> None:
    """The last one to close a file removes its log: the parent must not take the child's with it."""
    acknowledged = tmp_path / "acknowledged"

    def parent() -> None:
        store = memory.connect(sqlite_url)
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(write)
            append(store, "first")
            os.read(read, 1)  # until the parent has ended
            acknowledged.write_text(" ".join(["first", *appends(store, "child", 20)]))
            os._exit(0)
        appends(store, "parent", 5)
        store.close()

    with forked(parent):
        pass
    for _ in range(1000):
        if acknowledged.exists() and acknowledged.read_text().endswith("child-19"):
            break
        Event().wait(0.01)
    with memory.connect(sqlite_url) as store:
        there = said(store)
    assert set(acknowledged.read_text().split()) <= set(there)
    assert len(there) == 26


def test_a_fork_while_other_threads_commit_loses_nothing(store: Store) -> None:
    ended = Event()
    expected: list[str] = []

    def commit(name: str) -> None:
        n = 0
        while not ended.is_set():
            append(store, f"{name}-{n}")
            expected.append(f"{name}-{n}")
            n += 1

    threads = [Thread(target=commit, args=[f"thread{n}"]) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for n in range(rounds(5)):
            with forked(lambda n=n: appends(store, f"child{n}", 3)):  # type: ignore[misc]
                pass
            expected += [f"child{n}-{m}" for m in range(3)]
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    assert sorted(map(str, said(store))) == sorted(expected)


def test_multiprocessing_forks_too(store: Store) -> None:
    append(store, "parent")
    process = multiprocessing.get_context("fork").Process(target=append, args=[store, "child"])
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert sorted(map(str, said(store))) == ["child", "parent"]


def test_a_subscriber_may_fork(store: Store) -> None:
    """The thread that forks is the one that has just committed: nobody else would end what it waits for."""

    def fork(_: Committed) -> None:
        with forked(lambda: store.begin().conversations.get("c")):
            pass

    stop = store.subscribe(fork)
    append(store, "parent")
    stop()
    assert said(store) == ["parent"]


def test_a_file_in_use_by_the_application_at_the_fork_is_refused_in_the_child(sqlite_url: str) -> None:
    """sqlite would lose what the child commits: an error says so, and the parent goes on."""
    engine = create_engine(sqlite_url)
    store = Store(SqlRepository(engine))
    store.migrate()
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))

    def refused() -> None:
        for again in (store, memory.connect(sqlite_url)):
            with pytest.raises(ConfigurationError, match="when the process forked"):
                append(again, "child")

    with engine.connect() as connection, store.begin(connection=connection) as uow:
        uow.runs.append("c", Run("joined", None))
        with forked(refused):
            pass
        uow.commit()
        connection.commit()
    assert said(store) == ["joined"]
    engine.dispose()


def test_a_database_in_memory_is_copied(sqlite_url: str) -> None:
    del sqlite_url
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    for store in (memory.connect("sqlite://"), Store(SqlRepository(engine))):
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))

        def use(store: Store = store) -> None:
            append(store, "child")
            assert said(store) == ["child"]

        with forked(use):
            append(store, "parent")
        assert said(store) == ["parent"]
    engine.dispose()


def test_a_child_may_migrate_although_a_thread_of_its_parent_did(sqlite_url: str, tmp_path: Path) -> None:
    """The lock around Alembic's state is the parent's."""
    from memory.adapters.sql import schema

    del sqlite_url
    with schema._IN_THIS_PROCESS, forked(lambda: memory.connect(f"sqlite:///{tmp_path}/other.db").begin()):
        pass


def test_the_outbox_that_a_parent_relays_is_refused_in_the_child(sqlite_url: str) -> None:
    with memory.connect(sqlite_url) as store:
        store.begin()

        def relay() -> None:
            with pytest.raises(ConfigurationError, match="when the process forked"), store.repository.relaying("r"):
                pass
            with store.repository.relaying("another") as outbox:
                assert outbox is not None

        with store.repository.relaying("r") as outbox, forked(relay):
            assert outbox is not None
        with store.repository.relaying("r") as outbox:
            assert outbox is not None


def test_an_error_in_a_child_is_one_of_ours(store: Store) -> None:
    def fail() -> None:
        with pytest.raises(PersistenceError), store.begin() as uow:
            uow.runs.append("nobody", Run(1, 2))

    with forked(fail):
        pass
