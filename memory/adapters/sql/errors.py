"""Translates the errors of sqlite and PostgreSQL, by their codes, to the errors of this package."""

import logging
import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeAlias

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
from memory.port.repository import Repository

_log = logging.getLogger("memory")


class ConnectionLostError(StoreUnavailableError):
    """The connection was lost before the transaction was committed. Another connection may work."""


class FileGoneError(StoreUnavailableError):
    """The file of a connection was deleted or replaced. A new connection may open another file."""

    what = "was deleted, or replaced, while it was open; nothing was written"


class TakenError(AlreadyExistsError):
    """A unique key was taken between a read and the write, or a token was written before."""


_NOT_WRITTEN: Final = "; nothing was written"
NO_WAL: Final = "WAL needs shared memory, which network file systems do not have: add ?journal_mode=delete to the URL"
NO_TRANSACTION: Final = "the connection commits each statement by itself: there is no transaction to join"
_SCHEMA: Final = "run `memory migrate`, or call store.migrate()"
_UNFORESEEN: Final = (PersistenceError, f"the database refused the work{_NOT_WRITTEN}")

_Meaning: TypeAlias = tuple[type[PersistenceError], str]


def _each(meanings: Mapping[str, _Meaning]) -> dict[str, _Meaning]:
    """Return the meaning of each of the names in a key."""
    return {name: meaning for names, meaning in meanings.items() for name in names.split()}


_UNAVAILABLE: Final[_Meaning] = StoreUnavailableError, "the database cannot do the work now; nothing was written"
_TOO_LARGE: Final[_Meaning] = InvalidValueError, "a value is larger than the database can keep"
_TAKEN: Final[_Meaning] = TakenError, "the key is taken"

# Result codes of sqlite (https://sqlite.org/rescode.html): an extended one, or that of its low byte.
_SQLITE: Final[dict[int, _Meaning]] = {
    getattr(sqlite3, f"SQLITE_{name}"): meaning
    for name, meaning in _each(
        {
            "BUSY LOCKED FULL IOERR INTERRUPT NOMEM PROTOCOL": _UNAVAILABLE,
            "IOERR_SHMOPEN IOERR_SHMSIZE IOERR_SHMLOCK IOERR_SHMMAP": (ConfigurationError, NO_WAL),
            "READONLY_DBMOVED": (FileGoneError, FileGoneError.what),
            "READONLY": (
                ConfigurationError,
                "the database, or its directory, is read-only: ?mode=ro reads it, ?immutable=1 also in a read-only directory",
            ),
            "CANTOPEN PERM": (
                ConfigurationError,
                "the file cannot be opened or created: check its directory and permissions (?immutable=1 reads it in a read-only "
                "directory)",
            ),
            "ERROR": (SchemaError, f"the tables are not as they should be: {_SCHEMA}"),
            "NOTADB": (ConfigurationError, "the file is not a sqlite database"),
            "CORRUPT": (CorruptRecordError, "the database file is damaged"),
            "CONSTRAINT": _TAKEN,
            "TOOBIG": _TOO_LARGE,
        }
    ).items()
}

# Classes and codes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), the longest that fits.
_POSTGRESQL: Final = _each(
    {
        "08 40 53 55 57 58": _UNAVAILABLE,
        "08007 40003": (CommitInDoubtError, "the server cannot tell whether it committed"),
        "25006": (StoreUnavailableError, "the server takes no writes, or no longer; nothing was written"),
        "22021 22P05": (InvalidValueError, "the database's encoding cannot keep a character"),
        "22003 22P02 XX": (CorruptRecordError, "the server found stored data damaged"),
        "23505": _TAKEN,
        "54": _TOO_LARGE,
        "25P01": (ConfigurationError, NO_TRANSACTION),
        "28": (ConfigurationError, "the user, or the password, was refused"),
        "3D": (ConfigurationError, "there is no such database"),
        "3F": (ConfigurationError, "there is no such schema: create it first"),
        "42501": (ConfigurationError, "the user has no right to these tables"),
        "42P01": (SchemaError, f"the tables are not there: {_SCHEMA}"),
        "NO_TLS": (ConfigurationError, "the server has no TLS, and sslmode requires it"),
        "NO_HOST": (ConfigurationError, "no host has this name"),
        "NO_OPTION": (
            ConfigurationError,
            "PgBouncer refuses `options` and `statement_timeout` in the URL: set them for the role, by ALTER ROLE ... SET",
        ),
    }
)
_READ_ONLY: Final = "25006"


def reraise(error: BaseException, where: Repository, dialect: Dialect, connection: Connection | None) -> NoReturn:
    """Raise the error of this package for a driver's error, and any other error unchanged. A lost connection is invalidated."""
    cause = driver_error(error)
    ours = _ours(cause, where, dialect, connection)
    try:
        if ours is None:
            raise cause
        raise ours from cause
    finally:
        del error, cause, ours  # otherwise their tracebacks and this frame form a cycle, which only the collector frees


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's error that SQLAlchemy wrapped; any other error unchanged."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def is_disconnect(error: BaseException, dialect: Dialect, connection: Connection) -> bool:
    """Return whether the connection is lost, or its server has become read-only."""
    cause = driver_error(error)
    if connection.invalidated or getattr(cause, "sqlstate", None) == _READ_ONLY:
        return True
    if not isinstance(cause, dialect.loaded_dbapi.Error):
        return False
    return dialect.is_disconnect(cause, connection.connection.dbapi_connection, None)


def _ours(
    error: BaseException, where: Repository, dialect: Dialect, connection: Connection | None
) -> PersistenceError | None:
    if not isinstance(error, Exception):
        if connection is not None:
            connection.invalidate()  # an interrupt may have left its driver in the middle of a command
        return None
    if isinstance(error, PersistenceError):
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


def _meaning(error: BaseException, dialect: Dialect, *, connected: bool) -> _Meaning | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None:
            return _SQLITE.get(code) or _SQLITE.get(code & 0xFF, _UNFORESEEN)
        # Errors without a code are the driver's own: an OperationalError for a text that it cannot decode, others for misuse.
        return (CorruptRecordError, "a text is damaged") if isinstance(error, sqlite3.OperationalError) else None
    if isinstance(error, UnicodeEncodeError):  # nothing was sent
        return InvalidValueError, "the connection's encoding cannot keep a character: open it with client_encoding=utf8"
    if isinstance(error, UnicodeDecodeError):
        return CorruptRecordError, "a text is damaged, or in another encoding than the database's"
    if dialect.name == "sqlite" or not isinstance(error, dialect.loaded_dbapi.Error):
        return None
    return _meaning_in_postgresql(error, dialect, connected=connected)


def _meaning_in_postgresql(error: Any, dialect: Dialect, *, connected: bool) -> _Meaning | None:
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
