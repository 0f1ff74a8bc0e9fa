"""Translation of Redis's errors to those of `memory.errors`, by code and type."""

import ssl
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004
    InvalidResponse,
    TimeoutError,  # noqa: A004
)

from memory.errors import ConfigurationError, CorruptRecordError, PersistenceError, StoreUnavailableError
from memory.port.causes import chain, is_unknown_host

NO_CLUSTER: Final = (
    "a cluster is not supported, because a unit of work may span slots: use a single server, or a primary with replicas"
)
"""The error message for a cluster."""

# The first word of an error is its code (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors).
# With a code in `LATER` the server rejects a whole script, or its first write; another server may accept it.
LATER: Final = frozenset({"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"})
_NEVER: Final = frozenset({"ASK", "CLUSTERDOWN", "CROSSSLOT", "DENIED", "MOVED", "NOPROTO"})
_RIGHTS: Final = frozenset({"NOAUTH", "NOPERM", "WRONGPASS"})
_NO_RIGHT: Final = "ACL failure in script"  # this error has no code

LOST: Final = (ConnectionError, TimeoutError, OSError)
"""The errors of a broken connection. redis-py also derives some error replies of the server from them."""

_ENDED: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # the server closed the connection


def code(error: Exception) -> str:
    """Return the code of an error reply."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def translate(error: Exception, where: object) -> PersistenceError | None:
    """Return our error for an error reply or a broken connection; None for any other error.

    Permanent failures are a `ConfigurationError`.
    """
    said = f"{where}: {error}"
    if isinstance(error, AuthenticationError) or code(error) in _RIGHTS or _NO_RIGHT in said:
        return ConfigurationError(f"{where}: the server rejected the user, password or permissions ({error})")
    if code(error) in _NEVER:
        return ConfigurationError(said)
    if code(error) == "WRONGTYPE":
        return CorruptRecordError(f"{where}: the key of a record contains a value of another type ({error})")
    if code(error) in LATER or isinstance(error, BusyLoadingError):
        return StoreUnavailableError(f"{said}; nothing was written")
    if not isinstance(error, (*LOST, InvalidResponse)):
        return None
    causes = chain(error)
    if any("handshake" in str(cause) or isinstance(cause, ssl.SSLError | InvalidResponse) for cause in causes):
        said += " (rediss:// uses TLS, redis:// does not)"
    if any(map(_is_permanent, causes)):
        return ConfigurationError(said)
    return StoreUnavailableError(f"{said}; the server could not be reached, and nothing was written")


def _is_permanent(error: BaseException) -> bool:
    """Whether the host does not exist, or TLS or its certificate was rejected."""
    is_rejected = isinstance(error, ssl.SSLError | InvalidResponse) and not isinstance(error, _ENDED)
    return is_rejected or is_unknown_host(error)
