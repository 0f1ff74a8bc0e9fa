"""Everything works through a PgBouncer in transaction mode, where each transaction may get another connection of the server."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from threading import Barrier

import pytest
from sqlalchemy import create_engine

import memory
from memory import Conversation, Run, Store, where
from memory.adapters.sql import SqlRepository
from memory.errors import ConfigurationError, StoreUnavailableError
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.base import put, run
from memory.transfer.mirroring import MirroredStore, mirror
from memory.transfer.verifying import verify
from tests.adapters.sql.checking import assert_consistent
from tests.adapters.sql.children import started
from tests.rounds import rounds
from tests.servers import Server, pgbouncer, postgres

pytestmark = pytest.mark.needs("postgres", "pgbouncer")


@pytest.fixture(scope="module")
def shared(postgres_server: Server, pgbouncer_server: Server) -> Iterator[Store]:
    with (
        pgbouncer.fresh_database(postgres_server, pgbouncer_server) as (url, _),
        memory.connect(url) as store,
    ):
        store.migrate()
        yield store


class TestThroughPgbouncer(RepositoryContract):
    examples = rounds(3)

    @pytest.fixture
    def repository(self, shared: Store) -> Repository:
        return shared.repository


@pytest.fixture
def urls(postgres_server: Server, pgbouncer_server: Server) -> Iterator[tuple[str, str]]:
    """Through PgBouncer, and directly."""
    with pgbouncer.fresh_database(postgres_server, pgbouncer_server) as both:
        with memory.connect(both[0]) as store:
            store.migrate()
        yield both


def test_eight_threads_use_four_connections_of_the_server(urls: tuple[str, str]) -> None:
    with memory.connect(f"{urls[0]}&pool_size=8") as store:
        put(store, "shared")
        ready = Barrier(8)

        def work(thread: int) -> int:
            random, own = Random(thread), f"own-{thread}"
            put(store, own, {"thread": thread}, run())
            ready.wait()
            for n in range(199):
                with store.begin() as uow:
                    match random.randrange(7):
                        case 0:
                            uow.conversations.get(own).metadata.update(n=n)
                        case 1:
                            uow.runs.append(own, Run(n, "own"), Run(n, "own"))
                        case 2:
                            uow.conversations.remove(own)
                            uow.commit()
                            uow.conversations.add(Conversation(own, {"thread": thread}))
                        case 3:
                            uow.runs.append("shared", Run(thread, n))
                        case 4:
                            assert uow.conversations.find(where("thread") == thread).items[0].id == own
                        case 5:
                            assert uow.conversations.count() > 0
                        case _:
                            assert len(uow.runs.last("shared", 5)) <= 5
            return thread

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(work, range(8))) == list(range(8))
    engine = create_engine(urls[1])
    with engine.connect() as connection:
        used = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).scalar()
    assert used == pgbouncer.POOL_SIZE
    assert_consistent(engine)
    engine.dispose()


@pytest.mark.parametrize("relays", [2, 6])
def test_one_of_several_relays_has_the_lock(urls: tuple[str, str], relays: int) -> None:
    with ExitStack() as stack:
        stores = [stack.enter_context(mirror(urls[0], copies="memory://")) for _ in range(relays)]
        for _ in range(3):
            with ExitStack() as locks:
                outboxes = [locks.enter_context(store.repository.relaying("copies")) for store in stores]
                assert [outbox is not None for outbox in outboxes] == [True] + [False] * (relays - 1)


def test_six_relays_deliver_each_change_set_once(urls: tuple[str, str]) -> None:
    replica = memory.connect("memory://")
    with ExitStack() as stack:
        stores = [stack.enter_context(mirror(urls[0], copies=replica)) for _ in range(7)]
        written: list[int] = []

        def write(store: Store) -> None:
            for n in range(200):
                put(store, f"c{n}", {"n": n}, run())
            written.append(200)

        def relay(store: MirroredStore) -> int:
            delivered = 0
            while not written or store.lag()["copies"].change_sets:
                for done in store.relay():
                    assert (done.failure, done.repaired) == (None, 0)
                    delivered += done.delivered
                    time.sleep(0.01 * done.busy)
            return delivered

        with ThreadPoolExecutor(7) as threads:
            writer = threads.submit(write, stores[0])
            delivered = list(threads.map(relay, stores[1:]))
            writer.result()
        assert sum(delivered) == 200
        assert list(verify(stores[0], replica)) == []


DELIVERS = """
import os, sys, memory
from memory.transfer.mirroring import mirror
url, file, signal = sys.argv[1:]
with mirror(url, copies=file) as store:
    store.ensure_ready()
    print("ready", flush=True)
    sys.stdin.readline()
    seen = []
    def stop(_):
        seen.append(1)
        if len(seen) == 3:
            print("stops", flush=True)
            os.kill(os.getpid(), int(signal))
    store.replicas["copies"].subscribe(stop)
    (done,) = store.relay()
    print(done.delivered, done.repaired, done.failure)
"""


def test_a_relay_that_dies_in_the_midst_lets_the_next_deliver_again(urls: tuple[str, str], tmp_path: Path) -> None:
    file = f"sqlite:///{tmp_path}/copies.db"
    with mirror(urls[0], copies=file) as store:
        for n in range(10):
            put(store, f"c{n}", {"n": n}, run())
        with started(DELIVERS, [urls[0], file, str(int(signal.SIGKILL))]) as (child,):
            child.go()
            child.process.wait(30)
            deadline = time.monotonic() + 10
            while (done := store.relay()[0]).busy and time.monotonic() < deadline:
                time.sleep(0.01)  # PgBouncer takes a moment to notice
        assert (done.delivered, done.repaired, done.failure) == (10, 0, None)
        assert list(verify(store, store.replicas["copies"])) == []


def test_a_relay_that_is_suspended_keeps_the_lock(urls: tuple[str, str], tmp_path: Path) -> None:
    with postgres.connect(urls[1]) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET idle_in_transaction_session_timeout = '200ms'")  # to no avail
    file = f"sqlite:///{tmp_path}/copies.db"
    with mirror(urls[0], copies=file) as store:
        for n in range(10):
            put(store, f"c{n}", {"n": n}, run())
        with started(DELIVERS, [urls[0], file, str(int(signal.SIGSTOP))]) as (child,):
            child.go()
            assert child.output.readline() == "stops\n"
            end = time.monotonic() + 1
            while time.monotonic() < end:
                assert store.relay()[0].busy
            os.kill(child.process.pid, signal.SIGCONT)
            assert child.finish() == "10 0 None\n"
        assert store.lag()["copies"].change_sets == 0
        assert list(verify(store, store.replicas["copies"])) == []


def test_a_relay_that_loses_its_connection_removes_nothing_while_another_delivers(urls: tuple[str, str]) -> None:
    replica = memory.connect("memory://")
    with mirror(urls[0], copies=replica) as store, mirror(urls[0], copies=replica) as other:
        for n in range(10):
            put(store, f"c{n}", {"n": n}, run())

        def take_over(_: object) -> None:
            unsubscribe()
            pgbouncer.end_connections(urls[1], "idle in transaction")
            (done,) = other.relay()
            assert (done.delivered, done.repaired, done.failure) == (10, 0, None)
            with other.begin() as uow:
                uow.conversations.remove("c0")

        unsubscribe = replica.subscribe(take_over)
        with pytest.raises(StoreUnavailableError, match="the connection"):
            store.relay()
        assert store.lag()["copies"].change_sets == 1
        assert store.relay()[0].delivered == 1
        assert list(verify(store, replica)) == []


def test_settings_are_those_of_the_role_or_the_database(urls: tuple[str, str]) -> None:
    for option in ("statement_timeout=5s", "options=-csearch_path%3Dother"):
        with (
            memory.connect(f"{urls[0]}&{option}") as store,
            pytest.raises(ConfigurationError, match=r"set them for the role, by ALTER ROLE \.\.\. SET"),
        ):
            store.schema_status()
    with postgres.connect(urls[1]) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET statement_timeout = '7s'")
    pgbouncer.end_connections(urls[1])
    with memory.connect(urls[0]) as store:
        assert isinstance(store.repository, SqlRepository)
        with store.repository.engine.connect() as connection_:
            assert connection_.exec_driver_sql("SHOW statement_timeout").scalar() == "7s"
