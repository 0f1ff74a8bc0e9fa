"""What can go wrong between this adapter and the service, as errors of `memory.errors`."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLCertVerificationError
from typing import Final

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from memory.errors import (
    CommitInDoubtError,
    ConfigurationError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PersistenceError,
    StoreUnavailableError,
)

KEY_VARIABLE: Final = "GT_CLOUD_API_KEY"
_NEVER_SENT: Final = {NewConnectionError, NameResolutionError, ConnectTimeoutError}
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class MissingError(NotFoundError):
    """The service has no such thread or message."""


class UnansweredError(CommitInDoubtError):
    """A request got no answer, or one that does not show what was done.

    ``wait`` is how many seconds the service asked to wait, ``may_be_done`` whether it may have done what was asked.
    """

    def __init__(self, message: str, wait: float = 0.0, *, may_be_done: bool = True) -> None:
        super().__init__(message)
        self.wait = wait
        self.may_be_done = may_be_done


@contextmanager
def doubting(message: str) -> Iterator[None]:
    """Raise `CommitInDoubtError` where a look for a write fails: that does not show that nothing was written."""
    try:
        yield
    except (StoreUnavailableError, ConfigurationError, CorruptRecordError, InvalidValueError) as error:
        raise CommitInDoubtError(f"{message}: {error}") from error


def meaning_of(error: BaseException, host: str, what: str) -> PersistenceError:
    """Return what an exception of requests means, by its type and the types of those it wraps."""
    causes = list(_causes(error))
    kinds = set(map(type, causes))
    if SSLCertVerificationError in kinds:
        return ConfigurationError(
            f"the certificate of {host} is not verified: name your own authority in REQUESTS_CA_BUNDLE"
        )
    if isinstance(error, requests.exceptions.InvalidJSONError):
        return InvalidValueError(f"{what} has a value that is not JSON; nothing was written")
    if isinstance(error, ValueError | HTTPError) or type(error) is OSError:
        # An address, a proxy or a certificate file: requests wraps everything that happens once it sends.
        return ConfigurationError(f"requests cannot send to {host}: {type(error).__name__}")
    if any(isinstance(one, socket.gaierror) and one.errno in _NO_SUCH_HOST for one in causes):
        return ConfigurationError(f"the host name in {host}, or that of its proxy, does not exist")
    if isinstance(error, requests.ConnectionError) and kinds & _NEVER_SENT:
        return UnansweredError(f"no connection to {host} could be made for {what}", may_be_done=False)
    return UnansweredError(f"{host} did not answer {what}: {type(error).__name__}")


def _causes(error: BaseException, depth: int = 6) -> Iterator[BaseException]:
    """Yield an exception of requests and those it wraps: urllib3 keeps them in ``reason``, requests in ``args``."""
    yield error
    for inner in (error.__cause__, *error.args, getattr(error, "reason", None)):
        if isinstance(inner, BaseException) and depth:
            yield from _causes(inner, depth - 1)


def refusal(status: int, said: str, host: str, what: str) -> PersistenceError:
    """Return the error for an answer with a status of 3xx or 4xx."""
    if status in (401, 403, 407):
        return ConfigurationError(f"{host} refused the API key with {status}{said}: set {KEY_VARIABLE} to a valid key")
    if status < requests.codes.bad_request:
        return ConfigurationError(f"{host} redirects {what} ({status}): connect to the address it redirects to")
    if status in (404, 410):
        return MissingError(f"{host} has nothing for {what}{said}")
    if status == requests.codes.conflict:  # an alias that is taken: perhaps by the same write, sent before
        return UnansweredError(f"{host} says that it exists already: {what}{said}")
    return InvalidValueError(f"{host} refused {what} with {status}{said}; nothing was written")
