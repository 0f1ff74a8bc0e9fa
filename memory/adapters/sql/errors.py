"""What the errors of sqlite and PostgreSQL mean: the one place where they become ours, by their codes."""

import logging
import sqlite3
from typing import Any, Final, NoReturn, Protocol

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

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
from memory.port.deadlines import remaining

_log = logging.getLogger("memory")


class ConnectionLostError(StoreUnavailableError):
    """The connection broke before the transaction was committed; another one may be whole."""


class FileGoneError(StoreUnavailableError):
    """The file of a connection has lost its name; another connection may find another file under it."""

    what = "was deleted, or replaced, while it was open; nothing was written"


class TakenError(AlreadyExistsError):
    """A unique key was taken between looking and writing, or a token was written before."""


_NOT_WRITTEN: Final = "; nothing was written"
NO_WAL: Final = "WAL needs shared memory, which network file systems do not have: add ?journal_mode=delete to the URL"
_SCHEMA: Final = "run `memory migrate`, or call store.migrate()"
_UNFORESEEN: Final = (PersistenceError, f"the database refused the work{_NOT_WRITTEN}")

# Result codes of sqlite (https://sqlite.org/rescode.html): an extended one, or that of its low byte.
_SQLITE: Final[dict[int, tuple[type[PersistenceError], str]]] = {
    sqlite3.SQLITE_ERROR: (SchemaError, f"the tables are not as they should be: {_SCHEMA}"),
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, "another process kept the database locked; nothing was written"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "the database is locked; nothing was written"),
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "the disk is full; nothing was written"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "the disk could not be read or written; nothing was written"),
    **dict.fromkeys(
        [
            sqlite3.SQLITE_IOERR_SHMOPEN,
            sqlite3.SQLITE_IOERR_SHMSIZE,
            sqlite3.SQLITE_IOERR_SHMLOCK,
            sqlite3.SQLITE_IOERR_SHMMAP,
        ],
        (ConfigurationError, NO_WAL),
    ),
    sqlite3.SQLITE_READONLY: (
        ConfigurationError,
        "the database, or its directory, is read-only: ?mode=ro reads it, ?immutable=1 also in a directory that is read-only",
    ),
    sqlite3.SQLITE_READONLY_DBMOVED: (FileGoneError, FileGoneError.what),
    sqlite3.SQLITE_CANTOPEN: (
        ConfigurationError,
        "the file cannot be opened or made: check its directory and permissions (?immutable=1 reads it in a read-only directory)",
    ),
    sqlite3.SQLITE_PERM: (ConfigurationError, "the file may not be read or written: check its permissions"),
    sqlite3.SQLITE_NOTADB: (ConfigurationError, "the file is not a sqlite database"),
    sqlite3.SQLITE_CORRUPT: (CorruptRecordError, "the database file is damaged"),
    sqlite3.SQLITE_CONSTRAINT: (TakenError, "the key is taken"),
    sqlite3.SQLITE_TOOBIG: (InvalidValueError, "a value is larger than sqlite can keep"),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailableError, f"the work was interrupted, or took too long{_NOT_WRITTEN}"),
    sqlite3.SQLITE_NOMEM: (StoreUnavailableError, "there was no memory left; nothing was written"),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailableError, "other processes kept the log locked; nothing was written"),
}

# Classes and codes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), the longest that fits.
_POSTGRESQL: Final[dict[str, tuple[type[PersistenceError], str]]] = {
    "08007": (CommitInDoubtError, "the server cannot tell whether it committed"),
    "08": (StoreUnavailableError, "the connection failed; nothing was written"),
    "23505": (TakenError, "the key is taken"),
    "25P01": (ConfigurationError, "the connection commits each statement by itself: there is no transaction to join"),
    "22003": (CorruptRecordError, "a stored number is out of range"),
    "22021": (InvalidValueError, "the database's encoding cannot keep a character"),
    "22P05": (InvalidValueError, "the database's encoding cannot keep a character"),
    "25006": (StoreUnavailableError, "the server takes no writes, or no longer; nothing was written"),
    "28": (ConfigurationError, "the user, or the password, was refused"),
    "3D": (ConfigurationError, "there is no such database"),
    "40003": (CommitInDoubtError, "the server cannot tell whether it committed"),
    "40": (StoreUnavailableError, "the transaction was rolled back for the sake of another; nothing was written"),
    "42501": (ConfigurationError, "the user has no right to these tables"),
    "42P01": (SchemaError, f"the tables are not there: {_SCHEMA}"),
    "53": (StoreUnavailableError, "the server is out of resources; nothing was written"),
    "54": (InvalidValueError, "a value is larger than PostgreSQL can keep"),
    "55": (StoreUnavailableError, "the server is not in the state for it; nothing was written"),
    "57": (StoreUnavailableError, "the server stopped the work; nothing was written"),
    "58": (StoreUnavailableError, "the server's system failed; nothing was written"),
    "XX": (CorruptRecordError, "the server found its data damaged"),
    "no TLS": (ConfigurationError, "the server has no TLS, and sslmode requires it"),
    "no host": (ConfigurationError, "no host has this name"),
    "no option": (
        ConfigurationError,
        "PgBouncer refuses `options` and `statement_timeout` in the URL: set them for the role, by ALTER ROLE ... SET",
    ),
}
_READ_ONLY: Final = "25006"

Meaning = tuple[type[PersistenceError], str]


class Place(Protocol):
    """A repository, as errors name it."""

    timeout: float


def reraise(error: BaseException, where: Place, dialect: Dialect, connection: Connection | None) -> NoReturn:
    """Raise the error of ours that a driver's error means; any other as it is. A connection that broke is not used again."""
    cause = driver_error(error)
    ours = _ours(cause, where, dialect, connection)
    try:
        if ours is None:
            raise cause
        raise ours from cause
    finally:
        del error, cause, ours  # else their tracebacks lead here and back: garbage that only the collector finds


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's error inside SQLAlchemy's; any other as it is."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def is_disconnect(error: BaseException, dialect: Dialect, connection: Connection) -> bool:
    """Whether the error says that the connection is gone, or leads to a server that takes no writes any more."""
    cause = driver_error(error)
    if connection.invalidated or getattr(cause, "sqlstate", None) == _READ_ONLY:
        return True
    if not isinstance(cause, dialect.loaded_dbapi.Error):
        return False
    return dialect.is_disconnect(cause, connection.connection.dbapi_connection, None)


def _ours(
    error: BaseException, where: Place, dialect: Dialect, connection: Connection | None
) -> PersistenceError | None:
    if not isinstance(error, Exception) or isinstance(error, PersistenceError):
        return None
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailableError(f"{where}: no connection was free in time; nothing was written")
    kind: type[PersistenceError]
    if connection is not None and is_disconnect(error, dialect, connection):
        connection.invalidate()
        _log.warning("%s: the connection was lost", where)
        kind, what = ConnectionLostError, "the connection was lost; nothing was written"
        if getattr(error, "sqlstate", None) == _READ_ONLY:
            what = _POSTGRESQL[_READ_ONLY][1]
    elif (meaning := _meaning(error, dialect, connected=connection is not None)) is not None:
        kind, what = meaning
    else:
        return None
    if issubclass(kind, StoreUnavailableError) and remaining(1) <= 0:
        what = f"there was no answer within {where.timeout:g} s (timeout); nothing was written"
    return kind(f"{where}: {what} ({str(error).strip():.500})")


def _meaning(error: BaseException, dialect: Dialect, *, connected: bool) -> Meaning | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None:
            return _SQLITE.get(code) or _SQLITE.get(code & 0xFF, _UNFORESEEN)
        # Without a code it is the driver that complains: of a text it cannot decode, or (a ProgrammingError) of its use by us.
        return (CorruptRecordError, "a text is damaged") if isinstance(error, sqlite3.OperationalError) else None
    if isinstance(error, UnicodeEncodeError):  # before anything is sent
        return InvalidValueError, "the connection's encoding cannot keep a character: open it with client_encoding=utf8"
    if isinstance(error, UnicodeDecodeError):
        return CorruptRecordError, "a text is damaged, or in another encoding than the database's"
    if dialect.name == "sqlite" or not isinstance(error, dialect.loaded_dbapi.Error):
        return None
    return _meaning_in_postgresql(error, dialect, connected=connected)


def _meaning_in_postgresql(error: Any, dialect: Dialect, *, connected: bool) -> Meaning | None:
    state = error.sqlstate
    if not connected and state is None:
        if not isinstance(error, dialect.loaded_dbapi.OperationalError):
            return ConfigurationError, "the URL cannot be one of PostgreSQL"
        from memory.adapters.sql.postgresql import why_refused

        state = why_refused(error)
        if state is None:
            return StoreUnavailableError, f"the server could not be reached, or refused the connection{_NOT_WRITTEN}"
    if state is None:
        return None
    return next((_POSTGRESQL[key] for key in (state, state[:2]) if key in _POSTGRESQL), _UNFORESEEN)
