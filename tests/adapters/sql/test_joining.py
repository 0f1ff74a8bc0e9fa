"""Units of work inside the application's own transaction: its rows and ours are committed together, or not at all."""

import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, ForeignKey, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import memory
from memory import (
    AlreadyExistsError,
    Committed,
    ConflictError,
    Conversation,
    NotFoundError,
    Run,
    Store,
    UnsupportedError,
    where,
)
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.engine import open_engine
from tests.adapters.sql.checking import assert_consistent


class Base(DeclarativeBase):
    pass


class Order(Base):
    """The application's own."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[int | None] = mapped_column(ForeignKey("orders.id", deferrable=True, initially="DEFERRED"))


def with_begin(url: str) -> Engine:
    """Return an engine with the recipe of SQLAlchemy's documentation for sqlite transactions."""
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


@pytest.fixture(
    params=[
        pytest.param((lambda url: open_engine(url)[0], "sqlite_url"), id="sqlite-ours"),
        pytest.param((create_engine, "sqlite_url"), id="sqlite-default"),
        pytest.param((with_begin, "sqlite_url"), id="sqlite-recipe"),
        pytest.param((create_engine, "postgres_url"), id="postgresql", marks=pytest.mark.needs("postgres")),
    ]
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The application's engine, and the schemas of both in its database."""
    make, url = request.param
    engine: Engine = make(request.getfixturevalue(url))
    Base.metadata.create_all(engine)
    SqlRepository(engine).migrate()
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(SqlRepository(engine))


def put(store: Store, connection: Connection | Session, id: str = "ours") -> None:
    with store.begin(connection=connection) as uow:
        uow.conversations.add(Conversation(id, metadata={"tier": "gold"}))
        uow.runs.append(id, Run("question", "answer"))


def there(store: Store) -> tuple[int, int]:
    """Return how many rows there are of theirs, and conversations of ours."""
    assert isinstance(store.repository, SqlRepository)
    assert_consistent(store.repository.engine)
    with store.repository.engine.connect() as connection:
        theirs = connection.execute(text("SELECT count(*) FROM orders")).scalar_one()
    with store.begin() as uow:
        return theirs, uow.conversations.count()


def insert(connection: Connection) -> None:
    connection.execute(text("INSERT INTO orders (id) VALUES (1)"))


def test_a_connections_rows_and_ours_are_committed_together(store: Store, engine: Engine) -> None:
    with engine.begin() as connection:
        insert(connection)
        put(store, connection)
    assert there(store) == (1, 1)


def test_ours_may_come_first(store: Store, engine: Engine) -> None:
    with engine.begin() as connection:
        put(store, connection)
        insert(connection)
    assert there(store) == (1, 1)


@pytest.mark.parametrize("ours_first", [False, True])
def test_a_connections_rows_and_ours_are_rolled_back_together(
    store: Store, engine: Engine, *, ours_first: bool
) -> None:
    with engine.connect() as connection:
        if ours_first:
            put(store, connection)
        insert(connection)
        if not ours_first:
            put(store, connection)
        connection.rollback()
    assert there(store) == (0, 0)


def test_a_connection_that_is_closed_without_a_commit_leaves_nothing(store: Store, engine: Engine) -> None:
    with engine.connect() as connection:
        put(store, connection)
    assert there(store) == (0, 0)


def test_a_sessions_rows_and_ours_are_committed_together(store: Store, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        put(store, session)
        session.commit()
    assert there(store) == (1, 1)


def test_a_sessions_rows_and_ours_are_rolled_back_together(store: Store, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        put(store, session)
        session.rollback()
    assert there(store) == (0, 0)


def test_a_session_goes_on_after_its_commit(store: Store, engine: Engine) -> None:
    with Session(engine) as session:
        put(store, session, "first")
        session.commit()
        put(store, session, "second")
        session.rollback()
        put(store, session, "third")
        session.commit()
    assert there(store) == (0, 2)


def test_a_unit_of_work_that_raises_leaves_the_applications_transaction_alone(store: Store, engine: Engine) -> None:
    with engine.begin() as connection:
        insert(connection)
        with suppress(LookupError), store.begin(connection=connection) as uow:
            uow.conversations.add(Conversation("ours"))
            raise LookupError
    assert there(store) == (1, 0)


def test_a_conflict_leaves_the_applications_transaction_usable(store: Store, engine: Engine) -> None:
    with engine.begin() as connection:
        put(store, connection)
    with engine.connect() as connection:
        insert(connection)
        mine = store.begin(connection=connection)
        mine.conversations.get("ours").metadata["tier"] = "basic"
        mine.conversations.add(Conversation("another"))
        with store.begin(connection=connection) as other:
            other.conversations.get("ours").metadata["tier"] = "silver"
        with pytest.raises(ConflictError):
            mine.commit()
        connection.execute(text("INSERT INTO orders (id) VALUES (2)"))
        connection.commit()
    assert there(store) == (2, 1)
    with store.begin() as uow:
        assert uow.conversations.get("ours").metadata == {"tier": "silver"}


def test_a_taken_id_leaves_the_applications_transaction_usable(store: Store, engine: Engine) -> None:
    with engine.begin() as connection:
        put(store, connection)
        with pytest.raises(AlreadyExistsError):
            put(store, connection)
        insert(connection)
    assert there(store) == (1, 1)


def test_what_is_written_is_seen_inside_and_not_outside(store: Store, engine: Engine) -> None:
    with engine.connect() as connection:
        put(store, connection)
        with store.begin(connection=connection) as inside:
            assert inside.conversations.count(where("tier") == "gold") == 1
            assert inside.conversations.count() == len(inside.conversations.find())
            assert [one.id for one in inside.conversations.find(order="metadata.tier")] == [
                one.id for one in inside.conversations.find(where("tier").exists(), order="id")
            ]
            assert [run.output for run in inside.runs.last("ours", 5)] == ["answer"]
        with store.begin() as outside, pytest.raises(NotFoundError):
            outside.conversations.get("ours")
        connection.rollback()


@pytest.fixture
def told(store: Store) -> list[Committed]:
    told: list[Committed] = []
    store.subscribe(told.append)
    return told


def test_subscribers_are_told_after_the_application_commits(store: Store, engine: Engine) -> None:
    """When they are told, it is there for everybody."""
    seen: list[tuple[int, int]] = []
    store.subscribe(lambda _: seen.append(there(store)))
    with engine.connect() as connection:
        insert(connection)
        put(store, connection)
        assert seen == []
        connection.commit()
        assert seen == [(1, 1)]


def test_subscribers_are_told_of_each_unit_of_work_once(store: Store, engine: Engine, told: list[Committed]) -> None:
    with Session(engine) as session:
        put(store, session, "a")
        put(store, session, "b")
        session.commit()
        put(store, session, "c")
        session.commit()
        session.execute(text("SELECT 1"))
        session.commit()
    assert [committed.changes.changes[0].id for committed in told] == ["a", "b", "c"]


def test_subscribers_are_not_told_of_what_is_rolled_back(store: Store, engine: Engine, told: list[Committed]) -> None:
    with engine.connect() as connection:
        put(store, connection)
        connection.rollback()
        insert(connection)
        connection.commit()
    assert told == []


def test_subscribers_are_not_told_of_what_a_savepoint_takes_back(
    store: Store, engine: Engine, told: list[Committed]
) -> None:
    with engine.begin() as connection:
        with connection.begin_nested() as savepoint:
            put(store, connection, "taken back")
            savepoint.rollback()
        with connection.begin_nested():
            put(store, connection, "kept")
    assert [committed.changes.changes[0].id for committed in told] == ["kept"]
    assert there(store) == (0, 1)


def test_subscribers_are_not_told_when_the_applications_commit_fails(
    store: Store, engine: Engine, told: list[Committed]
) -> None:
    """A row whose parent is missing is found out at the commit; the error is SQLAlchemy's, as always."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.connection.cursor().execute("PRAGMA foreign_keys=ON")
        connection.execute(text("INSERT INTO orders (id, parent) VALUES (1, 99)"))
        put(store, connection)
        with pytest.raises(IntegrityError):
            connection.commit()
        connection.rollback()
    assert told == []
    assert there(store) == (0, 0)


def test_a_long_lived_connection_gathers_no_listeners(store: Store, engine: Engine, told: list[Committed]) -> None:
    with engine.connect() as connection:
        for n in range(20):
            put(store, connection, f"c{n}")
            connection.commit()
        assert len(list(connection.dispatch.commit)) == 1
    assert len(told) == 20


def test_a_joined_unit_of_work_keeps_no_connection_alive(store: Store, engine: Engine) -> None:
    from memory.adapters.sql import joining

    gc.collect()
    before = len(joining._untold)
    with engine.connect() as connection:
        put(store, connection)
        connection.commit()
    del connection
    gc.collect()
    assert len(joining._untold) == before


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda _: object(), id="object"),
        pytest.param(lambda engine: engine, id="engine"),
        pytest.param(str, id="str"),
    ],
)
def test_something_else_than_a_connection_is_a_type_error(
    store: Store, engine: Engine, wrong: Callable[[Engine], Any]
) -> None:
    with pytest.raises(TypeError, match="SQLAlchemy Connection or Session"):
        store.begin(connection=wrong(engine))


def test_a_store_without_transactions_cannot_join(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(UnsupportedError, match="Connection"):
        memory.connect("memory://").begin(connection=connection)


@pytest.mark.needs("postgres")
def test_a_connection_that_commits_each_statement_cannot_be_joined(postgres_url: str) -> None:
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    store = Store(SqlRepository(engine))
    store.migrate()
    with engine.connect() as connection, pytest.raises(memory.ConfigurationError, match="no transaction to join"):
        put(store, connection)
    with store.begin() as uow:
        assert uow.conversations.count() == 0
    engine.dispose()
