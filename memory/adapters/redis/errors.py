"""What Redis's errors mean: the one place where they get their meaning, by their codes and types."""

from typing import Final

from redis.exceptions import AuthenticationError, BusyLoadingError, ConnectionError, RedisError, TimeoutError  # noqa: A004

from memory.errors import (
    ConfigurationError,
    CorruptRecordError,
    PersistenceError,
    StoreUnavailableError,
)

Meaning = tuple[type[PersistenceError], str]

NO_CLUSTER: Final = (
    "a unit of work may be of several slots of a cluster: take a single server, or a primary with replicas"
)
"""What to say of a cluster."""

_CLUSTER: Final[Meaning] = ConfigurationError, NO_CLUSTER
_REFUSED: Final[Meaning] = (ConfigurationError, "the user, the password or the user's rights were refused")

# The first word of an error is its code (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors).
_CODES: Final[dict[str, Meaning]] = {
    "ASK": _CLUSTER,
    "BUSY": (StoreUnavailableError, "the server is busy with a script; nothing was written"),
    "CLUSTERDOWN": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "LOADING": (StoreUnavailableError, "the server still reads its data; nothing was written"),
    "MASTERDOWN": (StoreUnavailableError, "the server has lost its primary; nothing was written"),
    "MISCONF": (StoreUnavailableError, "the server cannot write to its disk; nothing was written"),
    "MOVED": _CLUSTER,
    "NOAUTH": _REFUSED,
    "NOPERM": _REFUSED,
    "NOREPLICAS": (StoreUnavailableError, "the server has too few replicas; nothing was written"),
    "OOM": (StoreUnavailableError, "the server's memory is full; nothing was written"),
    "READONLY": (StoreUnavailableError, "the server is a replica; nothing was written"),
    "WRONGPASS": _REFUSED,
    "WRONGTYPE": (CorruptRecordError, "there is something else at the key of a record"),
}
# What has no code but ERR. (Redis says this of a command of a script; of one of a client's it says NOPERM.)
_TEXTS: Final[dict[str, Meaning]] = {
    "ACL failure in script": _REFUSED,
}

LOST: Final = (ConnectionError, TimeoutError, OSError)
"""What a broken connection raises; also, as subclasses, some of what a server answers: see `translate`."""


def code(error: Exception) -> str:
    """Return the code of an error that the server answered with."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def _meaning(error: RedisError) -> Meaning | None:
    said = str(error)
    return _CODES.get(code(error)) or next((means for text, means in _TEXTS.items() if text in said), None)


def translate(error: Exception, where: object) -> PersistenceError | None:
    """Return the error of ours that an answer of the server's, or a failure to connect, means; None for any other."""
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
