"""Engines: those of an application, and those that `connect` opens."""

import gc
import os
import pwd
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool

import memory
from memory import ConfigurationError, Conversation, Run, Store, StoreUnavailableError, UnsupportedError
from memory.adapters.sql import SqlRepository
from memory.port.urls import sqlite_url as sqlite_url_of
from tests.adapters.sql.checking import assert_consistent
from tests.adapters.sql.test_joining import with_begin
from tests.adapters.sql.test_races import add_shared, append, assert_all_there, at_once
from tests.servers import postgres

ENGINES = [
    pytest.param(create_engine, "sqlite_url", id="sqlite-default"),
    pytest.param(with_begin, "sqlite_url", id="sqlite-recipe"),
    pytest.param(lambda url: create_engine(url, poolclass=NullPool), "sqlite_url", id="sqlite-no-pool"),
    pytest.param(lambda url: create_engine(url, isolation_level="AUTOCOMMIT"), "sqlite_url", id="sqlite-autocommit"),
    pytest.param(create_engine, "postgres_url", id="postgresql", marks=pytest.mark.needs("postgres")),
    pytest.param(
        lambda url: create_engine(url, poolclass=NullPool),
        "postgres_url",
        id="postgresql-no-pool",
        marks=pytest.mark.needs("postgres"),
    ),
    pytest.param(
        lambda url: create_engine(url, isolation_level="AUTOCOMMIT"),
        "postgres_url",
        id="postgresql-autocommit",
        marks=pytest.mark.needs("postgres"),
    ),
]


@pytest.mark.parametrize(("make", "url"), ENGINES)
def test_an_applications_engine_will_do_as_it_is(request: pytest.FixtureRequest, make: object, url: str) -> None:
    """Appends from threads, a rollback, and the engine is the application's as before."""
    assert callable(make)
    theirs: Engine = make(request.getfixturevalue(url))
    store = Store(SqlRepository(theirs))
    store.migrate()
    add_shared(store)
    at_once(*[lambda name=f"thread{n}": append(store, name, 10) for n in range(4)])
    refused = store.begin()
    refused.conversations.add(Conversation("another"))
    refused.conversations.add(Conversation("shared"))
    with pytest.raises(memory.AlreadyExistsError):
        refused.commit()
    assert_all_there(store, 40)
    with store.begin() as uow:
        assert uow.conversations.count() == 1
    store.close()
    with theirs.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    theirs.dispose()


def test_the_pragmas_of_an_applications_engine_are_left_alone(sqlite_url: str) -> None:
    theirs = create_engine(sqlite_url)
    store = Store(SqlRepository(theirs))
    store.migrate()
    add_shared(store)
    with theirs.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
        assert connection.connection.driver_connection is not None
        assert connection.connection.driver_connection.isolation_level == ""
    theirs.dispose()


def test_close_ends_every_connection_that_connect_opened(sqlite_url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        store = memory.connect(sqlite_url)
        add_shared(store)
        assert isinstance(store.repository, SqlRepository)
        pool = store.repository.engine.pool
        assert isinstance(pool, QueuePool)
        assert pool.checkedin() + pool.checkedout() > 0  # the one that wrote is kept for the next writer
        store.close()
        assert pool.checkedin() + pool.checkedout() == 0
        del store
        gc.collect()


def test_a_store_that_nobody_closes_goes_with_its_connections(sqlite_url: str) -> None:
    store = memory.connect(sqlite_url)
    add_shared(store)
    assert isinstance(store.repository, SqlRepository)
    engine = ref(store.repository.engine)
    del store
    gc.collect()  # the connection returns to the pool
    gc.collect()
    assert engine() is None


def test_the_pragmas_of_connect_hold_for_each_connection(sqlite_url: str) -> None:
    for option, synchronous in (("", 2), ("?synchronous=full", 2), ("?synchronous=NORMAL", 1)):
        with memory.connect(sqlite_url + option) as store:
            assert isinstance(store.repository, SqlRepository)
            with store.repository.engine.connect() as one, store.repository.engine.connect() as other:
                for connection in (one, other):
                    assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                    assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous
                    assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


class RefusesTwice(sqlite3.Connection):
    """As sqlite does when others open the same new file at the same moment: its time-out does not help there."""

    refused = 0

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "PRAGMA journal_mode=WAL" and RefusesTwice.refused < 2:
            RefusesTwice.refused += 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(sql, *arguments)


def test_a_file_that_many_open_at_once_is_asked_again(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=RefusesTwice))
    monkeypatch.setattr("sqlite3.dbapi2.connect", sqlite3.connect)
    with memory.connect(sqlite_url) as store:
        add_shared(store)
    assert RefusesTwice.refused == 2


def test_sqlite_in_memory_is_one_database_for_all_threads() -> None:
    with memory.connect("sqlite://") as store:
        add_shared(store)
        at_once(*[lambda name=f"thread{n}": append(store, name, 10) for n in range(4)])
        assert_all_there(store, 40)


def test_two_sqlite_databases_in_memory_are_two() -> None:
    with memory.connect("sqlite://") as one, memory.connect("sqlite:///:memory:") as other:
        add_shared(one)
        with other.begin() as uow:
            assert uow.conversations.count() == 0


def test_a_pool_with_nothing_free_is_unavailable(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    store = Store(SqlRepository(engine))
    store.migrate()
    with engine.connect(), pytest.raises(StoreUnavailableError, match="no connection was free"):
        add_shared(store)
    add_shared(store)
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://conversations.db",
        "sqlite+nothing:///x.db",
        "sqlite:///x.db?synchronous=off",
        "sqlite:///x.db?timeout=0",
        "sqlite:///x.db?timeout=soon",
        "postgresql+psycopg://host/db?timeout=-1",
        "postgresql+nothing://host/db",
        "postgresql+psycopg2://host/db",
        "postgresql+asyncpg://host/db",
        "postgresql://host:port/db",
        "postgresql://",
        "mysql://host/db",
        "sqlite",
        "",
    ],
)
def test_a_url_that_cannot_be_one_is_a_configuration_error(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if url == "postgresql://":
        memory.connect(url).close()  # the library of PostgreSQL has defaults for everything
        return
    with pytest.raises(ConfigurationError):
        memory.connect(url)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_of_another_database_is_a_configuration_error() -> None:
    engine = create_engine("mysql+pymysql://host/db", module=sqlite3)
    with pytest.raises(ConfigurationError, match="mysql"):
        SqlRepository(engine)


def test_a_process_that_forks_shares_no_connection(url: str) -> None:
    """As servers do that load the application once: parent and child go on with connections of their own."""
    with memory.connect(url) as store:
        store.migrate()
        add_shared(store)
        assert isinstance(store.repository, SqlRepository)
        child = os.fork()
        if child == 0:
            try:
                append(store, "child", 30)
            finally:
                os._exit(0)
        append(store, "parent", 30)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert_all_there(store, 60)
        assert_consistent(store.repository.engine)


def test_the_static_pool_of_a_test_suite_will_do() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    store = Store(SqlRepository(engine))
    store.migrate()
    add_shared(store)
    with store.begin() as uow:
        uow.runs.append("shared", Run("q", "a"))
    assert_all_there(store, 1)
    engine.dispose()


@pytest.mark.parametrize("pool", [SingletonThreadPool, StaticPool])
def test_a_transaction_of_the_applications_on_the_only_connection_is_not_committed(pool: type[Pool]) -> None:
    engine = create_engine("sqlite://", poolclass=pool, connect_args={"check_same_thread": False})
    store = Store(SqlRepository(engine))
    store.migrate()
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE own (n INTEGER)")
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO own VALUES (1)")
        with pytest.raises(UnsupportedError, match="connection="):
            add_shared(store)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM own").scalar() == 0
    add_shared(store)
    engine.dispose()


def test_a_database_in_memory_for_each_thread_is_refused_by_name() -> None:
    """SQLAlchemy's default for ``sqlite://``: fine in one thread, and in another one a database without tables."""
    engine = create_engine("sqlite://")
    store = Store(SqlRepository(engine))
    store.migrate()
    add_shared(store)
    with pytest.raises(ConfigurationError, match="StaticPool"):
        at_once(lambda: append(store, "another", 1))
    append(store, "this", 1)
    assert_all_there(store, 1)
    engine.dispose()
    with pytest.raises(ConfigurationError, match="StaticPool"):
        SqlRepository(create_engine("sqlite://", poolclass=NullPool))


def test_close_may_be_called_twice(store: Store) -> None:
    store.repository.close()
    store.repository.close()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run the block without root's rights, which permissions of files do not bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A store that may only be read, in a directory in which nothing may be made."""
    folder = Path(tempfile.mkdtemp())
    file = folder / "my chats?.db"
    with memory.connect(sqlite_url_of(file)) as store:
        add_shared(store)
    assert [each.name for each in folder.iterdir()] == [file.name]
    file.chmod(0o444)
    folder.chmod(0o555)
    try:
        yield file
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize("option", ["immutable=1", "mode=ro&immutable=true"])
def test_a_file_that_may_only_be_read_is_read(read_only: Path, option: str) -> None:
    with as_nobody():
        for too_little in ("", "?mode=ro"):  # in WAL mode a reader makes files too
            with (
                memory.connect(sqlite_url_of(read_only) + too_little) as store,
                pytest.raises(ConfigurationError, match=r"\?immutable=1"),
            ):
                store.begin().conversations.get("shared")
        with memory.connect(f"{sqlite_url_of(read_only)}?{option}") as store:
            assert store.begin().conversations.get("shared").id == "shared"
            assert store.schema_status().is_current
            with pytest.raises(ConfigurationError, match="read-only"), store.begin() as uow:
                uow.runs.append("shared", Run(1, 1))
    assert [each.name for each in read_only.parent.iterdir()] == [read_only.name]


def test_mode_ro_reads_a_file_that_others_write(sqlite_url: str, tmp_path: Path) -> None:
    with memory.connect(sqlite_url) as writer, memory.connect(f"{sqlite_url}?mode=ro") as reader:
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            reader.begin()
        assert list(tmp_path.iterdir()) == []
        add_shared(writer)
        append(writer, "a", 3)
        assert_all_there(reader, 3)
        append(writer, "b", 3)
        assert_all_there(reader, 6)
        with pytest.raises(ConfigurationError, match="read-only"):
            append(reader, "c", 1)
        assert reader.migrate().is_current  # nothing to do


def test_journal_mode_delete_needs_no_shared_memory(sqlite_url: str, tmp_path: Path) -> None:
    with memory.connect(sqlite_url) as store:
        add_shared(store)
    with memory.connect(f"{sqlite_url}?journal_mode=delete&timeout=20") as store:
        at_once(*[lambda name=f"thread{n}": append(store, name, 5) for n in range(4)])
        assert_all_there(store, 20)
        assert [file.name for file in tmp_path.iterdir()] == ["conversations.db"]
        assert isinstance(store.repository, SqlRepository)
        with store.repository.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"


class WithoutSharedMemory(sqlite3.Connection):
    """As on a network file system: sqlite's own file system of this name has none."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(f"{Path(name).as_uri()}?vfs=unix-dotfile", **{**options, "uri": True})


class FailsToMap(sqlite3.Connection):
    """As where shared memory can be made, but not mapped."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql == "PRAGMA journal_mode=WAL":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMMAP
            raise error
        return super().execute(sql, *arguments)


@pytest.mark.parametrize("factory", [WithoutSharedMemory, FailsToMap])
def test_where_wal_cannot_be_had_the_error_says_what_to_write(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, factory: type[sqlite3.Connection]
) -> None:
    monkeypatch.setattr("sqlite3.dbapi2.connect", factory)
    with memory.connect(sqlite_url) as store, pytest.raises(ConfigurationError, match=r"add \?journal_mode=delete"):
        add_shared(store)
    with memory.connect(f"{sqlite_url}?journal_mode=delete") as store:
        add_shared(store)
        append(store, "a", 3)
        assert_all_there(store, 3)


@pytest.mark.parametrize("option", ["mode=rw", "immutable=maybe", "journal_mode=off"])
def test_other_options_of_sqlite_are_refused_by_name(option: str) -> None:
    with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
        memory.connect(f"sqlite:///x.db?{option}")


@pytest.mark.needs("postgres")
def test_the_pool_of_postgresql_is_set_in_the_url(postgres_url: str) -> None:
    url = f"{postgres_url}?pool_size=1&max_overflow=0&pool_timeout=0.2&pool_recycle=60&pool_pre_ping=true"
    with memory.connect(url) as store:
        store.migrate()
        assert isinstance(store.repository, SqlRepository)
        pool = store.repository.engine.pool
        assert isinstance(pool, QueuePool)
        assert (pool.size(), pool._max_overflow, pool._recycle, pool._pre_ping) == (1, 0, 60, True)
        with store.repository.engine.connect(), pytest.raises(StoreUnavailableError, match="no connection was free"):
            store.begin().conversations.count()


@pytest.mark.needs("postgres")
def test_a_connection_to_postgresql_is_set_in_the_url(postgres_url: str) -> None:
    options = "connect_timeout=7&prepare_threshold=none&statement_timeout=300ms&options=-c%20work_mem%3D8MB"
    with memory.connect(f"{postgres_url}?{options}&application_name=chats&timeout=20") as store:
        store.migrate()
        assert isinstance(store.repository, SqlRepository)
        with store.repository.engine.connect() as connection:
            for setting, value in {
                "statement_timeout": "300ms",
                "work_mem": "8MB",
                "application_name": "chats",
            }.items():
                assert connection.exec_driver_sql(f"SHOW {setting}").scalar() == value
            driver: Any = connection.connection.driver_connection
            assert driver.prepare_threshold is None
            assert driver.info.get_parameters()["connect_timeout"] == "7"
            with pytest.raises(OperationalError, match="statement timeout"):
                connection.exec_driver_sql("SELECT pg_sleep(5)")
    with memory.connect(f"{postgres_url}?prepare_threshold=3") as store:
        assert isinstance(store.repository, SqlRepository)
        with store.repository.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver.prepare_threshold == 3


@pytest.mark.parametrize(
    "option",
    [
        *("pool_size=many", "max_overflow=-1", "pool_timeout=0", "pool_recycle=1h", "pool_pre_ping=maybe"),
        *(
            "connect_timeout=soon",
            "statement_timeout=1 fortnight",
            "statement_timeout=5 -c work_mem=1",
            "prepare_threshold=off",
        ),
        "pool_size=1&pool_size=2",
    ],
)
def test_an_option_of_postgresql_that_makes_no_sense_is_refused_by_name(option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the value of the option {option.partition('=')[0]}"):
        memory.connect(f"postgresql://host/db?{option}")


@pytest.mark.needs("postgres")
def test_an_option_that_nobody_knows_is_refused_by_name(postgres_url: str) -> None:
    with (
        memory.connect(f"{postgres_url}?pgbouncer=true") as store,
        pytest.raises(ConfigurationError, match="pgbouncer"),
    ):
        store.schema_status()


@pytest.mark.needs("postgres")
def test_a_lost_connection_is_logged_without_a_password(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    url = make_url(postgres_url).set(password="s3cret").render_as_string(hide_password=False)
    with memory.connect(url) as store, postgres.connect(postgres_url) as other:
        store.migrate()
        add_shared(store)
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        append(store, "a", 1)
        assert_all_there(store, 1)
        logged = [record.getMessage() for record in caplog.records if record.name == "memory"]
        assert set(logged) == {f"{store.repository!r}: the connection was lost"}
        assert "s3cret" not in caplog.text
    other.close()
