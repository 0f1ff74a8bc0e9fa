"""What an operation costs: statements on sqlite, round trips to PostgreSQL; and that none grows with a conversation."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import create_engine

import memory
from memory import Conversation, Run, Store, UnitOfWork, where
from memory.adapters.sql import SqlRepository
from tests.servers.proxy import Proxy

Work = Callable[[UnitOfWork], object]


def fill(store: Store) -> None:
    with store.begin() as uow:
        for n in range(60):
            uow.conversations.add(Conversation(f"c{n:02}", metadata={"n": n, "tier": "gold"}))
        uow.runs.append("c07", *[Run(n, None) for n in range(300)])
        uow.conversations.add(Conversation("sliding", expires_after=timedelta(days=1)))
        uow.runs.append("sliding", Run("q", "", id="open", is_open=True))


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """Gather what sqlite is told, on the connection that is kept and the one in the pool."""
    assert isinstance(store.repository, SqlRepository)
    told: list[str] = []

    def listen(callback: Callable[[str], None] | None) -> None:
        assert isinstance(store.repository, SqlRepository)
        connections, engine = store.repository._connections, store.repository.engine
        both = connections.take(engine), engine.connect()
        for connection in both:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.set_trace_callback(callback)
            connections.give_back(connection)

    listen(told.append)
    yield told
    listen(None)


def add(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("new", metadata={"n": 1}))
    uow.runs.append("new", Run("q", "a"))


def edit(uow: UnitOfWork) -> None:
    uow.conversations.get("c07").metadata["n"] = -1


def replace_last(uow: UnitOfWork) -> None:
    uow.runs.replace("c07", replace(uow.runs.last("c07", 1)[0], output="better"))


# What it does; statements on sqlite, BEGIN and COMMIT among them; round trips to PostgreSQL, likewise.
WORK: dict[str, tuple[Work, int, int]] = {
    "append a run": (lambda uow: uow.runs.append("c07", Run("q", "a")), 5, 3),
    "append a run and move the expiry": (lambda uow: uow.runs.append("sliding", Run("q", "a")), 5, 3),
    "complete a run": (lambda uow: uow.runs.complete("sliding", "open", output="a"), 6, 6),
    "append ten runs": (lambda uow: uow.runs.append("c07", *[Run(n, "a") for n in range(10)]), 14, 5),
    "append after a position": (lambda uow: uow.runs.append("c07", Run("q", "a"), after=300), 6, 6),
    "add a conversation with a run": (add, 7, 7),
    "get a conversation": (lambda uow: uow.conversations.get("c07"), 1, 1),
    "get fifty conversations": (lambda uow: uow.conversations.get_many([f"c{n:02}" for n in range(50)]), 1, 1),
    "change a number in metadata": (edit, 8, 8),
    "replace the last run": (replace_last, 7, 7),
    "the last twenty runs": (lambda uow: uow.runs.last("c07", 20), 1, 1),
    "the first twenty runs": (lambda uow: uow.runs.first("c07", 20), 1, 1),
    "the last runs of fifty conversations": (lambda uow: uow.runs.last_of([f"c{n:02}" for n in range(50)], 5), 1, 1),
    "the open runs": (lambda uow: uow._session.repository.open_runs("default", None, 9), 1, 1),
    "one run": (lambda uow: uow.runs.get("c07", 150), 1, 1),
    "the runs of an empty conversation": (lambda uow: uow.runs.last("c08", 20), 1, 1),
    "all runs, page by page": (lambda uow: sum(1 for _ in uow.runs.iterate("c07")), 2, 2),
    "the newest conversations": (lambda uow: uow.conversations.find(limit=20), 1, 1),
    "the conversations where": (lambda uow: uow.conversations.find(where("n") == 7), 2, 2),
    "the conversations where, and where": (
        lambda uow: uow.conversations.find((where("n") < 7) & (where("tier") == "gold")),
        2,
        2,
    ),
    "how many conversations": (lambda uow: uow.conversations.count(), 1, 1),
    "how many conversations where": (lambda uow: uow.conversations.count(where("n") == 7), 2, 2),
    "nothing": (lambda _: None, 0, 0),
}


@pytest.mark.parametrize("name", WORK)
def test_statements_on_sqlite(sqlite_url: str, name: str) -> None:
    work, expected, _ = WORK[name]
    with memory.connect(sqlite_url) as store:
        fill(store)
        with statements(store) as told, store.begin() as uow:
            work(uow)
            uow.commit()
            assert len(told) == expected, told


@pytest.fixture(scope="module")
def through_proxy(request: pytest.FixtureRequest) -> Iterator[tuple[Store, Proxy]]:
    """A store behind a proxy, with a connection in its pool, for tests that read, or write beside each other."""
    from tests.servers import postgres

    server = request.getfixturevalue("postgres_server")
    with postgres.fresh_database(server) as url, Proxy(url, postgres.commits) as proxy:
        # To prepare a statement, at its fifth use, costs the driver a round trip once.
        engine = create_engine(proxy.url, connect_args={"prepare_threshold": None})
        store = Store(SqlRepository(engine))
        store.migrate()
        yield store, proxy
        engine.dispose()


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("name", WORK)
def test_round_trips_to_postgresql(through_proxy: tuple[Store, Proxy], name: str) -> None:
    work, _, expected = WORK[name]
    store, proxy = through_proxy[0].namespace(name), through_proxy[1]
    fill(store)
    with store.begin() as uow:
        before = proxy.round_trips
        work(uow)
        uow.commit()
        assert proxy.round_trips - before == expected


@pytest.mark.parametrize("name", ["append a run", "the last twenty runs", "change a number in metadata", "one run"])
def test_a_long_conversation_costs_what_a_short_one_costs(sqlite_url: str, name: str) -> None:
    """In sqlite's own unit of work: the steps of its virtual machine."""
    work, _, _ = WORK[name]
    with memory.connect(sqlite_url) as store:
        fill(store)
        steps = []
        for _ in range(2):
            with counted_steps(store) as counted, store.begin() as uow:
                work(uow)
            steps.append(counted[0])
            with store.begin() as uow:
                uow.conversations.get("c07").metadata["n"] = 7
                uow.runs.append("c07", *[Run(n, "x" * 100) for n in range(20_000)])
    assert steps[1] <= steps[0] * 1.1, steps


@contextmanager
def counted_steps(store: Store) -> Iterator[list[int]]:
    assert isinstance(store.repository, SqlRepository)
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    def listen(callback: Callable[[], int] | None) -> None:
        assert isinstance(store.repository, SqlRepository)
        pooled = store.repository.engine.raw_connection()
        assert isinstance(pooled.driver_connection, sqlite3.Connection)
        pooled.driver_connection.set_progress_handler(callback, 1)
        pooled.close()

    listen(count)
    yield counted
    listen(None)
