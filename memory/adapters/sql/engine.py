"""Engines: how sqlite and PostgreSQL are opened, how a writing transaction begins, and what their errors mean."""

import os
import sqlite3
import time
from typing import Final, NoReturn
from weakref import WeakSet

from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from memory.connecting import options, redact
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConfigurationError,
    CorruptRecordError,
    InvalidValueError,
    PersistenceError,
    SchemaError,
    StoreUnavailableError,
)

BUSY_TIMEOUT: Final = 20_000
"""Milliseconds that a sqlite connection waits for another writer."""

_DRIVERS: Final = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
_SYNCHRONOUS: Final = {"full": "FULL", "normal": "NORMAL"}


class ConnectionLostError(StoreUnavailableError):
    """The connection broke before the transaction was committed; another one may be whole."""


class TakenError(AlreadyExistsError):
    """A unique key was taken between looking and writing, or a token was written before."""


_UNFORESEEN: Final = (PersistenceError, "the database refused the work; nothing was written")

# Result codes of sqlite (https://sqlite.org/rescode.html); the low byte of an extended code is its primary one.
_SQLITE: Final[dict[int, tuple[type[PersistenceError], str]]] = {
    sqlite3.SQLITE_ERROR: (
        SchemaError,
        "the tables are not as they should be: run `memory migrate`, or call store.migrate()",
    ),
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, "another process kept the database locked; nothing was written"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "the database is locked; nothing was written"),
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "the disk is full; nothing was written"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "the disk could not be read or written; nothing was written"),
    sqlite3.SQLITE_READONLY: (ConfigurationError, "the database, or its directory, is read-only"),
    sqlite3.SQLITE_CANTOPEN: (
        ConfigurationError,
        "the file cannot be opened or made: look at its directory and permissions",
    ),
    sqlite3.SQLITE_PERM: (ConfigurationError, "the file may not be read or written: look at its permissions"),
    sqlite3.SQLITE_NOTADB: (ConfigurationError, "the file is not a sqlite database"),
    sqlite3.SQLITE_CORRUPT: (CorruptRecordError, "the database file is damaged"),
    sqlite3.SQLITE_CONSTRAINT: (TakenError, "the key is taken"),
    sqlite3.SQLITE_TOOBIG: (InvalidValueError, "a value is larger than sqlite can keep"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailableError, "the work was interrupted; nothing was written"),
    sqlite3.SQLITE_NOMEM: (StoreUnavailableError, "there was no memory left; nothing was written"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailableError, "other processes kept the log locked; nothing was written"),
}

# Classes and codes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), the longest that fits.
_POSTGRESQL: Final[dict[str, tuple[type[PersistenceError], str]]] = {
    "08007": (CommitInDoubtError, "the server cannot tell whether it committed"),
    "08": (StoreUnavailableError, "the connection failed; nothing was written"),
    "23505": (TakenError, "the key is taken"),
    "25P01": (ConfigurationError, "the connection commits each statement by itself: there is no transaction to join"),
    "25006": (ConfigurationError, "the database is read-only"),
    "28": (ConfigurationError, "the user or password was refused"),
    "3D": (ConfigurationError, "there is no such database"),
    "40003": (CommitInDoubtError, "the server cannot tell whether it committed"),
    "40": (StoreUnavailableError, "the transaction was rolled back for the sake of another; nothing was written"),
    "42501": (ConfigurationError, "the user has no right to these tables"),
    "42P01": (SchemaError, "the tables are not there: run `memory migrate`, or call store.migrate()"),
    "53": (StoreUnavailableError, "the server is out of resources; nothing was written"),
    "54": (InvalidValueError, "a value is larger than PostgreSQL can keep"),
    "55": (StoreUnavailableError, "the server is not in the state for it; nothing was written"),
    "57": (StoreUnavailableError, "the server stopped the work; nothing was written"),
    "58": (StoreUnavailableError, "the server's system failed; nothing was written"),
    "XX": (CorruptRecordError, "the server found its data damaged"),
}


def open_engine(url: str) -> Engine:
    """Return an engine for a URL, with the pragmas and the pool that a sqlite store needs.

    Raises:
        ConfigurationError: the URL or an option of it cannot be one.
    """
    try:
        location = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: the port is no number
        raise ConfigurationError(f"{redact(url)} is no URL of a database") from error
    check_driver(location.drivername)
    if "@" in (location.host or ""):
        raise ConfigurationError(f"{redact(url)} is no URL of a database: in a password, write %40 for @")
    try:
        return _open_sqlite(url) if url.startswith("sqlite") else _apart_after_fork(create_engine(location))
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError(f"{redact(url)} is no URL of a database: {error}") from error


def _open_sqlite(url: str) -> Engine:
    given = options(url, {"synchronous": lambda value: _SYNCHRONOUS[value.lower()]})
    location = make_url(url.partition("?")[0])
    if location.database in (None, "", ":memory:"):
        # One connection that everybody waits for: each connection to ":memory:" is a database of its own.
        engine = create_engine(
            location, poolclass=QueuePool, pool_size=1, max_overflow=0, connect_args={"check_same_thread": False}
        )
    else:
        engine = _apart_after_fork(create_engine(location, connect_args={"timeout": BUSY_TIMEOUT / 1000}))
    synchronous = given.get("synchronous", "FULL")

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver is not to begin transactions by itself
        try:
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT}")
            _switch_to_wal(connection)
            connection.execute(f"PRAGMA synchronous={synchronous}")
        except sqlite3.Error:
            connection.close()  # the pool has not taken it over yet
            raise

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN"
        )  # SQLAlchemy's transactions are real ones, those of an application that joins too

    return engine


_opened: Final[WeakSet[Engine]] = WeakSet()
_inherited: Final[list[object]] = []  # kept, and never closed: they are the parent's


class Connections:
    """An engine's connections of the driver, each for one user at a time.

    Of a sqlite file opened here the one that was used last is kept: to bring it to the pool and back costs a sixth of an append.
    It is one for reading and writing, because what another connection writes empties the cache of this one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._keeps = engine in _opened and engine.dialect.name == "sqlite"
        self._kept: list[PoolProxiedConnection] = []
        _lending.add(self)

    def take(self) -> PoolProxiedConnection:
        """Return a connection; `give_back` is to have it afterwards."""
        try:
            return self._kept.pop()
        except IndexError:
            return self._engine.raw_connection()

    def give_back(self, driver: PoolProxiedConnection) -> None:
        """Keep the connection for whoever comes next, or give it to the pool."""
        if self._keeps and not self._kept and driver.is_valid and not is_in_transaction(driver):
            self._kept.append(driver)
        else:
            driver.close()

    def close(self) -> None:
        """Give to the pool what is kept."""
        while self._kept:
            self._kept.pop().close()

    def leave_to_parent(self) -> None:
        """Forget, in a process that was forked off, what is kept; it stays open for the parent."""
        _inherited.append(self._kept)
        self._kept = []


_lending: Final[WeakSet[Connections]] = WeakSet()


def _apart_after_fork(engine: Engine) -> Engine:
    """Have a process that is forked off open connections of its own; on a shared one, two would talk at once."""
    _opened.add(engine)
    return engine


def _leave_connections_to_parent() -> None:
    for connections in _lending:
        connections.leave_to_parent()
    for engine in _opened:
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_connections_to_parent)


def check_driver(name: str) -> None:
    """Refuse the drivers whose errors `reraise` cannot read.

    Raises:
        ConfigurationError: it is one of them.
    """
    if name not in _DRIVERS:
        raise ConfigurationError(f"there is no support for {name}, only for sqlite:// and postgresql+psycopg://")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Have the file keep a write-ahead log. When several open a new one at once, sqlite refuses some of them without waiting."""
    deadline = time.monotonic() + BUSY_TIMEOUT / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.002)
        else:
            return


def begin_writing(driver: PoolProxiedConnection, *, joined: bool = False) -> None:
    """Take sqlite's write lock now: a transaction that reads first could only fail when it comes to write.

    A fresh transaction may have been begun by a recipe of the application's engine; it holds nothing yet. A joined one is the
    application's own: it is begun only if the driver has not begun it (sqlite would commit at the end of the savepoint else).
    PostgreSQL's driver begins with the first statement, unless the application's engine has it commit each by itself.
    """
    connection = driver.driver_connection
    if isinstance(connection, sqlite3.Connection):
        if connection.in_transaction and not joined:
            connection.execute("COMMIT")
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
    elif not joined and getattr(connection, "autocommit", False):
        driver.cursor().execute("BEGIN")


def is_in_transaction(driver: PoolProxiedConnection) -> bool:
    """Tell whether sqlite is in a transaction that was begun, and did not end."""
    connection = driver.driver_connection
    return isinstance(connection, sqlite3.Connection) and connection.in_transaction


def has_ended(driver: PoolProxiedConnection) -> bool:
    """Tell whether sqlite has rolled back a whole transaction by itself, as it may when the disk is full."""
    connection = driver.driver_connection
    return isinstance(connection, sqlite3.Connection) and not connection.in_transaction


def reraise(error: BaseException, where: object, dialect: Dialect, driver: PoolProxiedConnection | None) -> NoReturn:
    """Raise the error of ours that a driver's error means; any other as it is. A connection that broke is not used again.

    The one place where errors of sqlite and PostgreSQL get their meaning, by their codes.
    """
    driver_error = error.orig if isinstance(error, DBAPIError) and error.orig else error
    if isinstance(error, PoolTimeoutError):
        raise StoreUnavailableError(f"{where}: no connection was free in time; nothing was written") from error
    if driver is not None and is_disconnect(driver_error, dialect, driver):
        if driver.is_valid:  # else SQLAlchemy has noticed too
            driver.invalidate()
        raise ConnectionLostError(f"{where}: the connection was lost; nothing was written") from error
    if (meaning := _meaning(driver_error, connected=driver is not None)) is not None:
        kind, what = meaning
        raise kind(f"{where}: {what} ({str(driver_error).strip():.500})") from error
    raise error


def is_disconnect(error: BaseException, dialect: Dialect, driver: PoolProxiedConnection) -> bool:
    """Tell whether the error says that the connection is gone."""
    if not isinstance(error, dialect.loaded_dbapi.Error):
        return False
    return not driver.is_valid or dialect.is_disconnect(error, driver.dbapi_connection, None)


def _meaning(error: BaseException, *, connected: bool) -> tuple[type[PersistenceError], str] | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None:
            return _SQLITE.get(code & 0xFF, _UNFORESEEN)
        # Without a code it is the driver that complains: of a text it cannot decode, or (a ProgrammingError) of its use by us.
        return (CorruptRecordError, "a text is damaged") if isinstance(error, sqlite3.OperationalError) else None
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return next((_POSTGRESQL[state[:size]] for size in (5, 2) if state[:size] in _POSTGRESQL), _UNFORESEEN)
    if type(error).__module__.startswith("psycopg") and not connected:  # the server's refusals have no code here
        return {
            "OperationalError": (
                StoreUnavailableError,
                "the server could not be reached, or refused the connection; nothing was written",
            ),
            "ProgrammingError": (ConfigurationError, "the URL cannot be one of PostgreSQL"),
        }.get(type(error).__name__)
    return None
