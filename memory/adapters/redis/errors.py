"""Our errors for those of Redis: the one place that translates them, by their codes and types."""

import socket
import ssl
from collections.abc import Iterator
from queue import Empty
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004
    InvalidResponse,
    RedisError,
    TimeoutError,  # noqa: A004
)

from memory.errors import (
    ConfigurationError,
    CorruptRecordError,
    PersistenceError,
    StoreUnavailableError,
)

Meaning = tuple[type[PersistenceError], str]

NO_CLUSTER: Final = (
    "a unit of work may touch several slots of a cluster: use a single server, or a primary with replicas"
)
"""What the error says about a cluster."""

_CLUSTER: Final[Meaning] = ConfigurationError, NO_CLUSTER
_REFUSED: Final[Meaning] = (ConfigurationError, "the user, the password or the user's rights were refused")

# The first word of an error is its code (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors).
_CODES: Final[dict[str, Meaning]] = {
    "ASK": _CLUSTER,
    "BUSY": (StoreUnavailableError, "the server is busy with a script; nothing was written"),
    "CLUSTERDOWN": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "DENIED": (ConfigurationError, "the server is in protected mode: set a password, or bind it to another interface"),
    "LOADING": (StoreUnavailableError, "the server is still loading its data; nothing was written"),
    "MASTERDOWN": (StoreUnavailableError, "the server has lost its primary; nothing was written"),
    "MISCONF": (StoreUnavailableError, "the server cannot write to its disk; nothing was written"),
    "MOVED": _CLUSTER,
    "NOAUTH": _REFUSED,
    "NOPERM": _REFUSED,
    "NOPROTO": (ConfigurationError, "the server does not speak RESP3"),
    "NOREPLICAS": (StoreUnavailableError, "the server has too few replicas; nothing was written"),
    "OOM": (StoreUnavailableError, "the server's memory is full; nothing was written"),
    "READONLY": (StoreUnavailableError, "the server is a replica; nothing was written: try again"),
    "WRONGPASS": _REFUSED,
    "WRONGTYPE": (CorruptRecordError, "there is something else at the key of a record"),
}
# Errors without a code of their own. (Redis says this about a script's command; about a client's it says NOPERM.)
_TEXTS: Final[dict[str, Meaning]] = {
    "ACL failure in script": _REFUSED,
}

ELSEWHERE: Final = frozenset({"LOADING", "MASTERDOWN", "READONLY"})
"""Codes of a server that is not, or not yet, the right one: the next attempt opens another connection."""


LOST: Final = (ConnectionError, TimeoutError, OSError)
"""The errors of a broken connection. Some answers of a server are subclasses of them: see `translate`."""


def code(error: Exception) -> str:
    """Return the code of an error that the server sent."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def _meaning(error: RedisError) -> Meaning | None:
    said = str(error)
    return _CODES.get(code(error)) or next((means for text, means in _TEXTS.items() if text in said), None)


def unreachable(error: Exception, where: object) -> PersistenceError:
    """Return our error for a failure to connect. If waiting cannot help, it is a `ConfigurationError`."""
    for cause in _chain(error):
        if (meaning := _why(cause)) is not None:
            kind, what = meaning
            return kind(f"{where}: {what} ({error})")
    return translate(error, where) or StoreUnavailableError(f"{where}: {error}; nothing was written")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _why(error: BaseException) -> Meaning | None:
    match error:
        case _ if type(error).__name__ == "MaxConnectionsError":  # the stubs that come with redis-om do not know it
            return StoreUnavailableError, (
                "the client's pool has no connection left: give it more max_connections, or a redis.BlockingConnectionPool, "
                "which waits; nothing was written"
            )
        case Empty():  # of a queue of connections
            return StoreUnavailableError, (
                "all connections stayed in use until the deadline: raise max_connections or timeout; nothing was written"
            )
        case socket.gaierror(errno=socket.EAI_NONAME | socket.EAI_NODATA):  # EAI_AGAIN is temporary
            return ConfigurationError, "there is no host of this name"
        case ssl.SSLCertVerificationError():
            return ConfigurationError, "the server's certificate cannot be trusted: see ssl_ca_certs"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():  # the server closed the connection
            return None
        case OSError() if "handshake operation timed out" in str(error):  # to Redis, TLS begins like half a command
            return StoreUnavailableError, "the server did not answer to TLS: it may be one without TLS, or stopped"
        case ssl.SSLError() | InvalidResponse():
            return ConfigurationError, (
                "only one side uses TLS, or the two sides cannot agree: rediss:// uses TLS, redis:// does not"
            )
        case _:
            return None


def translate(error: Exception, where: object) -> PersistenceError | None:
    """Return our error for a refusal of the server or a failure to connect; None for any other error."""
    if isinstance(error, BusyLoadingError):
        meaning: Meaning | None = _CODES["LOADING"]
    elif isinstance(error, AuthenticationError):
        meaning = _REFUSED
    elif isinstance(error, LOST):
        meaning = StoreUnavailableError, "the server could not be reached; nothing was written"
    else:
        meaning = _meaning(error) if isinstance(error, RedisError) else None
    if meaning is None:
        return None
    kind, what = meaning
    return kind(f"{where}: {what} ({error})")
