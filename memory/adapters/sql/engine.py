"""Engines: how sqlite and PostgreSQL are opened, and how a writing transaction begins."""

import sqlite3
import time
from typing import Final, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from memory.errors import ConfigurationError
from memory.port.deadlines import DEFAULT_TIMEOUT, remaining
from memory.port.urls import options, seconds, sqlite_file

_DRIVERS: Final = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
_SYNCHRONOUS: Final = {"full": "FULL", "normal": "NORMAL"}


def open_engine(url: str) -> tuple[Engine, float]:
    """Return an engine for a URL, with the pragmas and the pool that a store needs, and the URL's ``timeout``."""
    try:
        location = make_url(url)
        check_driver(location.drivername)
        if "@" not in (location.host or ""):
            return _open_sqlite(url) if url.startswith("sqlite") else _open_postgresql(location)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
    # Raised here, for SQLAlchemy's exception quotes the URL, and whatever is wrong with it may be its password.
    raise ConfigurationError(
        "this is no URL of a database: write sqlite:///file.db or postgresql+psycopg://user:password@host/database, and in a "
        "password %40 for @, %2F for /, %3A for :"
    )


def _open_postgresql(location: URL) -> tuple[Engine, float]:
    given = location.query.get("timeout", DEFAULT_TIMEOUT)
    try:
        timeout = seconds(str(given))
    except ValueError:
        timeout = 0
    if not timeout:  # raised here: no exception that quotes the URL hangs on it
        raise ConfigurationError("the option timeout of the URL cannot have the value given")
    # A URL without a driver means psycopg2 to SQLAlchemy 2.0, and psycopg from 2.1 on.
    location = location.difference_update_query(["timeout"]).set(drivername="postgresql+psycopg")
    return create_engine(location, pool_timeout=timeout, isolation_level="READ COMMITTED"), timeout


def _open_sqlite(url: str) -> tuple[Engine, float]:
    given = options(url, {"synchronous": lambda value: _SYNCHRONOUS[value.lower()], "timeout": seconds})
    timeout = cast(float, given.get("timeout", DEFAULT_TIMEOUT))
    location = make_url(url.partition("?")[0])
    if location.host or url.partition("?")[0].endswith(":///"):
        raise ConfigurationError(
            "a sqlite URL is sqlite:///file.db, or sqlite:////absolute/path; sqlite:// alone is in memory"
        )
    file = sqlite_file(url)
    if file is None:
        # One connection that everybody waits for: each connection to ":memory:" is a database of its own.
        pool = {"pool_size": 1, "max_overflow": 0}
        arguments: dict[str, object] = {"check_same_thread": False}
    else:
        location = location.set(database=file)
        pool, arguments = {}, {"timeout": timeout}
    engine = create_engine(location, poolclass=QueuePool, connect_args=arguments, pool_timeout=timeout, **pool)
    synchronous = given.get("synchronous", "FULL")

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _: object) -> None:
        try:
            connection.execute(f"PRAGMA busy_timeout={timeout * 1000:.0f}")
            _switch_to_wal(connection, remaining(timeout))
            connection.execute(f"PRAGMA synchronous={synchronous}")
        except sqlite3.Error:
            connection.close()  # the pool has not taken it over yet
            raise

    return engine, timeout


def check_driver(name: str) -> None:
    """Refuse the drivers whose errors `reraise` cannot read."""
    if name not in _DRIVERS:
        raise ConfigurationError(f"there is no support for {name}, only for sqlite:// and postgresql+psycopg://")


def _switch_to_wal(connection: sqlite3.Connection, seconds: float) -> None:
    """Have the file keep a write-ahead log. When several open a new one at once, sqlite refuses some of them without waiting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.002)
        else:
            return


def begin_writing(connection: Connection, *, joined: bool = False) -> None:
    """Begin a transaction that takes sqlite's write lock now: one that reads first could only fail when it comes to write.

    A fresh transaction may have been begun by a recipe of the application's engine; it holds nothing yet. A joined one is the
    application's own: it is begun only if the driver has not begun it (sqlite would commit at the end of the savepoint else).
    """
    if not connection.in_transaction():
        connection.begin()
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        if driver.in_transaction and not joined:
            driver.execute("COMMIT")
        if not driver.in_transaction:
            driver.execute("BEGIN IMMEDIATE")
