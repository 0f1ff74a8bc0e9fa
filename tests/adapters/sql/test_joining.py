"""Units of work inside the application's own transaction: its rows and ours are committed together, or not at all."""

import asyncio
import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from threading import Barrier, Thread
from threading import enumerate as enumerate_threads
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, ForeignKey, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.compiler import SQLCompiler

import memory
from memory import (
    AlreadyExistsError,
    ClosedError,
    Committed,
    ConflictError,
    Conversation,
    InvalidValueError,
    NotFoundError,
    Run,
    Store,
    TransactionAbortedError,
    UnsupportedError,
    where,
)
from memory.adapters.sql import SqlRepository, joining
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


def put(store: Store, connection: Connection | Session | None, id: str = "ours") -> None:
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
        subscribers_are_done()
        assert seen == [(1, 1)]


def subscribers_are_done() -> None:
    """Wait for the threads that call them after the commit of a connection."""
    for thread in enumerate_threads():
        if thread.name == joining.THREAD:
            thread.join()


def test_subscribers_may_use_the_session_that_was_committed(store: Store, engine: Engine) -> None:
    """Its connection is back in the pool, and its next transaction may begin (E3)."""
    seen: list[tuple[int, ...]] = []

    def handler(_: Committed) -> None:
        pool = engine.pool
        assert isinstance(pool, QueuePool)
        out = pool.checkedout()
        with store.begin(connection=session) as uow:
            seen.append(
                (out, uow.conversations.count(), session.execute(text("SELECT count(*) FROM orders")).scalar_one())
            )
        if len(seen) == 1:
            with store.begin(connection=session) as uow:
                uow.runs.append("ours", Run("from a handler", None))
            session.commit()

    store.subscribe(handler)
    with Session(engine) as session:
        session.add(Order(id=1))
        with session.begin_nested():
            put(store, session)
        assert seen == []
        session.commit()
        assert seen == [(0, 1, 1)] * 2
        session.rollback()
    assert [run.input for run in store.begin().runs.list("ours")] == ["question", "from a handler"]


def test_subscribers_of_a_session_on_the_applications_connection(
    store: Store, engine: Engine, told: list[Committed]
) -> None:
    """Its end is not the end of the transaction: only the connection's commit is."""
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            put(store, session)
            session.commit()
        assert told == []
        transaction.commit()
    subscribers_are_done()
    assert len(told) == 1


def test_a_scoped_session_is_joined(store: Store, engine: Engine, told: list[Committed]) -> None:
    sessions = scoped_session(sessionmaker(engine))
    put(store, sessions)  # type: ignore[arg-type]  # it is a Session for everybody who uses it
    assert told == []
    sessions.commit()
    assert len(told) == 1
    sessions.remove()


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("joins", ["session", "connection"])
def test_subscribers_that_read_need_no_second_connection(postgres_url: str, joins: str) -> None:
    """16 threads on a pool of 5: each handler gets a connection, for the application's are back in the pool by then (E3)."""
    engine = create_engine(postgres_url, pool_size=5, max_overflow=0)
    store = Store(SqlRepository(engine))
    store.migrate()
    seen: list[bool] = []
    errors: list[BaseException] = []

    def handler(committed: Committed) -> None:
        try:
            seen.append(committed.changes.changes[0].id in store.conversations)
        except BaseException as error:  # noqa: BLE001  # the store would only log it
            errors.append(error)

    def work(number: int) -> None:
        try:
            for turn in range(3):
                with Session(engine) if joins == "session" else engine.connect() as mine:
                    mine.execute(text("SELECT 1"))
                    started.wait() if number < 5 and turn == 0 else None  # all connections of the pool are in use
                    put(store, mine, f"c{number}-{turn}")
                    mine.commit()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    store.subscribe(handler)
    started = Barrier(5)
    threads = [Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads[:5]:
        thread.start()
    for thread in threads[5:]:
        thread.start()
    for thread in threads:
        thread.join()
    subscribers_are_done()
    assert errors == []
    assert seen == [True] * 48
    engine.dispose()


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
    subscribers_are_done()
    assert [committed.changes.changes[0].id for committed in told] == ["kept"]
    assert there(store) == (0, 1)


@pytest.mark.parametrize("kind", [Session, Connection])
def test_a_savepoint_that_is_rolled_back_takes_back_what_a_unit_of_work_wrote_in_it(
    store: Store, engine: Engine, told: list[Committed], kind: type
) -> None:
    """Also if the unit of work began before it; and what it goes on to write is checked against what is left."""
    put(store, None)
    with Session(engine) if kind is Session else engine.connect() as joined:
        uow = store.begin(connection=joined)
        run, conversation = Run("taken back", None), uow.conversations.get("ours")
        with suppress(ZeroDivisionError), joined.begin_nested():
            uow.runs.append("ours", run)
            conversation.metadata["tier"] = "taken back"
            uow.commit()
            raise ZeroDivisionError
        assert (run.position, conversation.version) == (None, 1)
        conversation.metadata["tier"] = "kept"
        uow.commit()
        assert conversation.version == 2
        joined.commit()
    subscribers_are_done()
    assert len(told) == 2
    with store.begin() as uow:
        assert [run.input for run in uow.runs.list("ours")] == ["question"]
        assert uow.conversations.get("ours").metadata == {"tier": "kept"}


@pytest.mark.parametrize("engine", [(create_engine, "postgres_url")], ids=["postgresql"], indirect=True)
@pytest.mark.needs("postgres")
def test_a_transaction_that_the_applications_statement_aborted(store: Store, engine: Engine) -> None:
    with engine.connect() as connection:
        with suppress(DBAPIError):
            connection.exec_driver_sql("SELECT 1 / 0")
        with pytest.raises(TransactionAbortedError, match="roll it back"):
            put(store, connection)


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
    subscribers_are_done()
    assert len(told) == 20


def test_a_long_lived_session_gathers_no_listeners(store: Store, engine: Engine, told: list[Committed]) -> None:
    with Session(engine) as session:
        for n in range(20):
            put(store, session, f"c{n}")
            session.commit()
        assert len(list(session.dispatch.after_transaction_end)) == 1
    assert [committed.changes.changes[0].id for committed in told] == [f"c{n}" for n in range(20)]


def test_a_joined_unit_of_work_keeps_no_connection_alive(store: Store, engine: Engine) -> None:
    gc.collect()
    before = len(joining._pending)
    with engine.connect() as connection:
        put(store, connection)
        connection.commit()
    del connection
    gc.collect()
    assert len(joining._pending) == before


def test_a_second_joined_unit_of_work_compiles_nothing(
    store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To compile the statements anew each time took 3 ms of CPU (E2)."""
    with engine.begin() as connection:
        put(store, connection, "first")
        with store.begin(connection=connection) as uow:
            uow.runs.last("first", 1)
    compiled: list[str] = []
    compile_ = SQLCompiler.__init__

    def noted(self: SQLCompiler, dialect: Any, statement: Any, *arguments: Any, **options: Any) -> None:
        compiled.append(type(statement).__name__)
        compile_(self, dialect, statement, *arguments, **options)

    monkeypatch.setattr(SQLCompiler, "__init__", noted)
    with engine.begin() as connection:
        put(store, connection, "second")
        with store.begin(connection=connection) as uow:
            assert len(uow.runs.last("second", 1)) == 1
    assert compiled == []


def test_a_unit_of_work_ends_with_the_transaction_that_it_joined(store: Store, engine: Engine) -> None:
    """By the application's commit or rollback (E6)."""
    with Session(engine) as session:
        uow = store.begin(connection=session)
        uow.conversations.add(Conversation("ours"))
        uow.commit()
        session.commit()
        with pytest.raises(ClosedError, match="has ended"):
            uow.conversations.get("another")
    with engine.connect() as connection:
        uow = store.begin(connection=connection)
        uow.conversations.count()
        connection.rollback()
        with pytest.raises(ClosedError, match="has ended"):
            uow.conversations.count()


def test_an_entity_keeps_no_version_that_was_rolled_back(store: Store, engine: Engine) -> None:
    """E7."""
    with store.begin() as uow:
        stored = Conversation("stored")
        uow.conversations.add(stored)
    with engine.connect() as connection:
        with store.begin(connection=connection) as uow:
            stored = uow.conversations.get("stored")
            stored.metadata["n"] = 1
            new = Conversation("new")
            uow.conversations.add(new)
            uow.runs.append("new", Run("q", "a"))
            uow.commit()
            assert (stored.version, new.version, new.run_count) == (2, 1, 1)
            stored.metadata["n"] = 2
            uow.commit()
            assert stored.version == 3
        connection.rollback()
        assert (stored.version, new.version, new.run_count) == (1, 0, 0)
        with store.begin(connection=connection) as uow:
            uow.conversations.get("stored").metadata["n"] = 3
        connection.commit()
    assert store.begin().conversations.get("stored").version == 2


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_serialization_failure_aborts_the_whole_transaction(postgres_url: str, isolation: str) -> None:
    """The unit of work cannot be retried inside it, and nothing of it is committed (E5)."""
    engine = create_engine(postgres_url, isolation_level=isolation)
    Base.metadata.create_all(engine)
    store = Store(SqlRepository(engine))
    store.migrate()
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))

    def write(session: Session, meanwhile: Callable[[], object]) -> None:
        session.add(Order(id=1))
        session.flush()
        meanwhile()
        with store.begin(connection=session) as uow:
            uow.runs.append("c", Run("joined", None))
        session.commit()

    def append() -> None:
        with store.begin() as uow:
            uow.runs.append("c", Run("in the way", None))

    with Session(engine) as session:
        with pytest.raises(TransactionAbortedError, match="repeat all of it") as caught:
            write(session, append)
        assert not caught.value.retryable
        assert isinstance(caught.value.__cause__, psycopg.errors.SerializationFailure)
        with pytest.raises(PendingRollbackError):
            session.execute(text("SELECT 1"))
        session.rollback()
        write(session, lambda: None)
    assert there(store) == (1, 1)
    assert [run.input for run in store.begin().runs.list("c")] == ["in the way", "joined"]
    engine.dispose()


@pytest.mark.needs("postgres")
@pytest.mark.parametrize(
    ("isolation", "appends", "edits"),
    [
        ("READ COMMITTED", None, ConflictError),
        ("REPEATABLE READ", TransactionAbortedError, TransactionAbortedError),
        ("SERIALIZABLE", TransactionAbortedError, TransactionAbortedError),
    ],
)
def test_a_joined_unit_of_work_has_the_isolation_of_the_transaction(
    postgres_url: str, isolation: str, appends: type[Exception] | None, edits: type[Exception] | None
) -> None:
    """The table in docs/sqlalchemy.md."""

    def append(uow: memory.UnitOfWork) -> None:
        uow.runs.append("c", Run(None, None))

    def edit(uow: memory.UnitOfWork) -> None:
        uow.conversations.get("c").metadata["n"] = uow.conversations.get("c").version

    engine = create_engine(postgres_url, isolation_level=isolation)
    store = Store(SqlRepository(engine))
    store.migrate()
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))
    for work, expected in ((append, appends), (edit, edits)):
        with engine.connect() as connection:
            mine = store.begin(connection=connection)
            work(mine)
            connection.execute(text("SELECT 1 FROM memory_conversations"))
            with store.begin() as other:  # commits at READ COMMITTED
                work(other)
            with pytest.raises(expected) if expected else nullcontext():
                mine.commit()
            connection.rollback()
    engine.dispose()


@pytest.mark.parametrize("engine", [(create_engine, "postgres_url")], ids=["postgresql"], indirect=True)
@pytest.mark.needs("postgres")
def test_a_deadlock_aborts_the_whole_transaction(store: Store, engine: Engine) -> None:
    with store.begin() as uow:
        for id in ("a", "b"):
            uow.conversations.add(Conversation(id))

    def append(connection: Connection, id: str) -> None:
        with store.begin(connection=connection) as uow:
            uow.runs.append(id, Run(None, None))

    errors: list[BaseException] = []

    def other() -> None:
        with engine.connect() as connection:
            append(connection, "b")
            met.wait()
            try:
                append(connection, "a")
                connection.commit()
            except TransactionAbortedError as error:
                errors.append(error)

    met = Barrier(2)
    thread = Thread(target=other)
    with engine.connect() as connection:
        append(connection, "a")
        thread.start()
        met.wait()
        try:
            append(connection, "b")
            connection.commit()
        except TransactionAbortedError as error:
            errors.append(error)
        connection.rollback()
    thread.join()
    assert [type(error.__cause__) for error in errors] == [psycopg.errors.DeadlockDetected]


def test_an_asynchronous_session_is_named_with_what_to_write(store: Store) -> None:
    with pytest.raises(InvalidValueError, match=r"AsyncSession is joined by memory\.aio"):
        store.begin(connection=AsyncSession())


def do_everything(store: Store, session: Session) -> None:
    """Execute each kind of statement: the parameters of asyncpg have an order, and psycopg's have names."""
    put(store, session)
    with store.begin(connection=session) as uow:
        uow.runs.append("ours", Run("q", "one"), Run("q", "two"))
        uow.conversations.get("ours").metadata["size"] = [1, 2.5]
        uow.conversations.add(Conversation("removed"))
    with store.begin(connection=session) as uow:
        uow.runs.remove("ours", before=2)
        uow.runs.remove("ours", 2)
        uow.runs.replace("ours", replace(uow.runs.get("ours", 3), output="II"))
        uow.conversations.remove("removed")
    with store.begin(connection=session) as uow:
        assert [run.output for run in uow.runs.last("ours", 5)] == ["II"]
        assert list(uow.conversations.get_many(["missing", "ours"])) == ["ours"]
        assert [run.output for run in uow.runs.last_of(["ours"], 5)["ours"]] == ["II"]
        uow.runs.append("ours", Run("q", "", id="open", is_open=True))
        matching = (where("size").contains(2.5)) & ~(where("tier") == "basic")
        assert [found.id for found in uow.conversations.find(matching, order="metadata.tier")] == ["ours"]
        assert uow.conversations.count() == uow.conversations.count(matching) == 1
    with store.begin(connection=session) as uow:
        uow.runs.complete("ours", "open", output="final")
    with pytest.raises(AlreadyExistsError):
        put(store, session)


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_asynchronous_session_joins_through_run_sync(postgres_url: str, driver: str) -> None:
    told: list[Committed] = []

    def in_the_way(session: Session) -> None:
        with opened.begin(connection=session) as uow:
            uow.conversations.get("ours").metadata["size"] = 1
            with opened.begin() as other:
                other.conversations.get("ours").metadata["changes"] = other.conversations.get("ours").version

    async def work() -> None:
        engine = create_async_engine(make_url(postgres_url).set(drivername=f"postgresql+{driver}"))
        async with AsyncSession(engine) as session:
            for end in (session.rollback, session.commit):
                await session.execute(text("SELECT 1"))
                await session.run_sync(partial(do_everything, opened))
                assert told == []
                await end()
            with pytest.raises(ConflictError):
                await session.run_sync(in_the_way)
            await session.rollback()
            await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            with pytest.raises(TransactionAbortedError):
                await session.run_sync(in_the_way)
        await engine.dispose()

    with memory.connect(postgres_url) as opened:
        opened.migrate()
        opened.subscribe(told.append)
        asyncio.run(work())
        assert len(told) == 7
        assert [found.id for found in opened.begin().conversations.find()] == ["ours"]


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


@pytest.mark.parametrize(
    "url",
    ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.needs("postgres"))],
    ids=["sqlite", "postgresql"],
)
def test_a_connection_that_commits_each_statement_cannot_be_joined(url: str, request: pytest.FixtureRequest) -> None:
    engine = create_engine(request.getfixturevalue(url), isolation_level="AUTOCOMMIT")
    store = Store(SqlRepository(engine))
    store.migrate()
    for options in ({}, {"isolation_level": "AUTOCOMMIT"}):
        connecting = engine.connect().execution_options(**options)
        with connecting as connection, pytest.raises(memory.ConfigurationError, match="no transaction to join"):
            put(store, connection)
    with store.begin() as uow:
        assert uow.conversations.count() == 0
    engine.dispose()
