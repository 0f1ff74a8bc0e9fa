"""Opens engines for sqlite and PostgreSQL, and begins transactions that write."""

import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from memory.adapters.sql.errors import NO_TRANSACTION, NO_WAL
from memory.errors import ConfigurationError
from memory.port.deadlines import DEFAULT_TIMEOUT, remaining
from memory.port.urls import option, options, seconds, sqlite_file

_DRIVERS: Final = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")


def _one_of(**meanings: object) -> Callable[[str], Any]:
    return lambda value: meanings[value.lower()]


def _matching(pattern: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        if not re.fullmatch(pattern, value):
            raise ValueError(value)
        return convert(value)

    return read


_whole: Final = _matching("[0-9]+", int)
_switch: Final = _one_of(true=True, false=False, **{"1": True, "0": False})

_SQLITE: Final[dict[str, Callable[[str], Any]]] = {
    "synchronous": _one_of(full="FULL", normal="NORMAL"),
    "journal_mode": _one_of(wal="WAL", delete="DELETE"),
    "mode": _matching("ro"),
    "immutable": _switch,
    "timeout": seconds,
}
_POOL: Final[dict[str, Callable[[str], Any]]] = {  # arguments of `create_engine`
    "pool_size": _whole,
    "max_overflow": _whole,
    "pool_timeout": seconds,
    "pool_recycle": _whole,
    "pool_pre_ping": _switch,
}
_CONNECTION: Final[dict[str, Callable[[str], Any]]] = {  # arguments of `psycopg.connect`
    "connect_timeout": _whole,
    "prepare_threshold": lambda value: None if value.lower() == "none" else _whole(value),
}
_POSTGRESQL: Final = {  # libpq gets the other options
    **_POOL,
    **_CONNECTION,
    "schema": _matching("[^%]*"),  # a percent sign would begin a parameter of the driver
    "statement_timeout": _matching("[0-9]+(us|ms|s|min|h|d)?"),
    "timeout": seconds,
}


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
    given = {
        name: option(name, str(location.query[name]), read)
        for name, read in _POSTGRESQL.items()
        if name in location.query
    }
    timeout = cast(float, given.get("timeout", DEFAULT_TIMEOUT))
    connection = {name: given[name] for name in _CONNECTION if name in given}
    if "statement_timeout" in given:
        options_ = str(location.query.get("options", ""))
        connection["options"] = f"{options_} -c statement_timeout={given['statement_timeout']}".lstrip()
    pool: dict[str, Any] = {"pool_timeout": timeout, **{name: given[name] for name in _POOL if name in given}}
    # A URL without a driver means psycopg2 to SQLAlchemy 2.0, and psycopg from 2.1 on.
    location = location.difference_update_query(list(_POSTGRESQL)).set(drivername="postgresql+psycopg")
    engine = create_engine(location, connect_args=connection, isolation_level="READ COMMITTED", **pool)
    return in_schema(engine, cast(str | None, given.get("schema"))), timeout


def in_schema(engine: Engine, schema: str | None) -> Engine:
    """Return the engine with our tables in a schema; None leaves it to the connection's ``search_path``."""
    return engine if schema is None else engine.execution_options(schema_translate_map={None: schema})


def _open_sqlite(url: str) -> tuple[Engine, float]:
    given = options(url, _SQLITE)
    timeout = cast(float, given.get("timeout", DEFAULT_TIMEOUT))
    location = make_url(url.partition("?")[0])
    if location.host:
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
    is_read_only = "mode" in given or bool(given.get("immutable"))
    if is_read_only and file is not None:
        event.listen(engine, "do_connect", _reading(Path(file), immutable=bool(given.get("immutable"))))

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _: object) -> None:
        try:
            connection.execute(f"PRAGMA busy_timeout={timeout * 1000:.0f}")
            if not is_read_only:
                _set_journal_mode(connection, str(given.get("journal_mode", "WAL")), remaining(timeout))
            connection.execute(f"PRAGMA synchronous={given.get('synchronous', 'FULL')}")
        except BaseException:
            connection.close()  # the pool has not taken it over yet
            raise

    return engine, timeout


def _reading(file: Path, *, immutable: bool) -> Callable[..., None]:
    """Return a listener that has the file opened read-only; the engine's URL keeps its plain name."""
    uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"

    def open_read_only(_: object, __: object, arguments: list[Any], named: dict[str, Any]) -> None:
        arguments[0], named["uri"] = uri, True

    return open_read_only


def check_driver(name: str) -> None:
    """Refuse the drivers whose errors `reraise` cannot read."""
    if name not in _DRIVERS:
        raise ConfigurationError(f"there is no support for {name}, only for sqlite:// and postgresql+psycopg://")


def _set_journal_mode(connection: sqlite3.Connection, mode: str, seconds: float) -> None:
    """Set the journal of a file. When several open a new one at once, sqlite refuses some of them without waiting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            (found,) = connection.execute(f"PRAGMA journal_mode={mode}").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.002)
        else:
            if found.upper() not in (mode, "MEMORY"):
                raise ConfigurationError(NO_WAL)
            return


def _commits_each_statement(connection: Connection) -> bool:
    own = connection.get_execution_options().get("isolation_level")
    of_engine = getattr(connection.dialect, "_on_connect_isolation_level", None)  # it has no public name
    return (own or of_engine) == "AUTOCOMMIT"


def begin_writing(connection: Connection, *, joined: bool = False) -> None:
    """Begin a transaction that writes. On sqlite it takes the write lock now: after a read, it might fail to get the lock.

    A listener of the application's engine may have begun a sqlite transaction already; it contains nothing yet, and is replaced.
    A joined transaction is the application's, and is begun only if the driver has not begun it yet: otherwise sqlite would commit
    at the end of the savepoint.
    """
    if not connection.in_transaction():
        connection.begin()
    if connection.dialect.name != "sqlite":
        return
    if joined and _commits_each_statement(connection):
        raise ConfigurationError(f"{connection.engine.url}: {NO_TRANSACTION}")
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction and not joined:
        driver.execute("COMMIT")
    if not driver.in_transaction:  # aiosqlite's `execute` would have to be awaited
        execute = driver.execute if isinstance(driver, sqlite3.Connection) else connection.exec_driver_sql
        execute("BEGIN IMMEDIATE")
