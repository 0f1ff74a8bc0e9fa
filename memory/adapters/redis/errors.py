"""Our errors for those of Redis: the one place that translates them, by their codes and types."""

import socket
import ssl
from collections.abc import Iterator
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004
    InvalidResponse,
    TimeoutError,  # noqa: A004
)

from memory.errors import ConfigurationError, CorruptRecordError, PersistenceError, StoreUnavailableError

NO_CLUSTER: Final = (
    "a unit of work may touch several slots of a cluster: use a single server, or a primary with replicas"
)
"""What the error says about a cluster."""

# The first word of an error is its code (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors).
# With one of the first the server refuses a whole script, or its first write; another server may be better.
LATER: Final = frozenset({"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"})
_NEVER: Final = frozenset({"ASK", "CLUSTERDOWN", "CROSSSLOT", "DENIED", "MOVED", "NOPROTO"})
_RIGHTS: Final = frozenset({"NOAUTH", "NOPERM", "WRONGPASS"})
_NO_RIGHT: Final = "ACL failure in script"  # has no code of its own

LOST: Final = (ConnectionError, TimeoutError, OSError)
"""The errors of a broken connection. Some answers of a server are subclasses of them: see `translate`."""

_ENDED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # the server closed the connection


def code(error: Exception) -> str:
    """Return the code of an error that the server sent."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def translate(error: Exception, where: object) -> PersistenceError | None:
    """Return our error for a refusal of the server or a broken connection; None for any other error.

    It is a `ConfigurationError` if waiting cannot help.
    """
    said = f"{where}: {error}"
    if isinstance(error, AuthenticationError) or code(error) in _RIGHTS or _NO_RIGHT in said:
        return ConfigurationError(f"{where}: the user, the password or the user's rights were refused ({error})")
    if code(error) in _NEVER:
        return ConfigurationError(said)
    if code(error) == "WRONGTYPE":
        return CorruptRecordError(f"{where}: there is something else at the key of a record ({error})")
    if code(error) in LATER or isinstance(error, BusyLoadingError):
        return StoreUnavailableError(f"{said}; nothing was written")
    if not isinstance(error, (*LOST, InvalidResponse)):
        return None
    causes = list(_chain(error))
    if any("handshake" in str(cause) or isinstance(cause, ssl.SSLError | InvalidResponse) for cause in causes):
        said += " (rediss:// uses TLS, redis:// does not)"
    if any(map(_is_hopeless, causes)):
        return ConfigurationError(said)
    return StoreUnavailableError(f"{said}; the server could not be reached, and nothing was written")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_hopeless(error: BaseException) -> bool:
    """Whether there is no such host, or the two sides cannot agree on TLS or on a certificate."""
    if isinstance(error, socket.gaierror):
        return error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}  # EAI_AGAIN is temporary
    return isinstance(error, ssl.SSLError | InvalidResponse) and not isinstance(error, _ENDED)
