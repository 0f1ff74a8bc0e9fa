"""What DynamoDB's errors mean: the one place where they become errors of `memory.errors`, by their codes and types."""

import random
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final, NamedTuple

from botocore import exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError

from memory import errors as ours
from memory.errors import PersistenceError

_FIRST_DELAY, _LONGEST_DELAY = 0.025, 1.0  # seconds
_SERVER_FAILED: Final = 500  # and above: the HTTP status

_BUSY: Final = "Throttl|ThroughputExceeded|RequestLimit|TooManyRequests|WriteConflict|Transaction(Conflict|InProgress)"
_MEANINGS: Final[tuple[tuple[str, type[PersistenceError], str], ...]] = (
    (_BUSY, ours.StoreUnavailableError, "the table is at its throughput, or other transactions were in the way"),
    (
        "ResourceInUse|LimitExceeded",
        ours.StoreUnavailableError,
        "the table is being changed, or the account at a limit",
    ),
    ("ResourceNotFound", ours.SchemaError, "there is no table: run `memory migrate`, or call store.migrate()"),
    ("Validation", ours.InvalidValueError, "DynamoDB refuses the request"),
    ("UnknownOperation", ours.UnsupportedError, "this server does not support the operation"),
    ("AccessDenied|Signature|Token|UnrecognizedClient", ours.ConfigurationError, "the credentials were refused"),
)
"""What the codes mean by which DynamoDB refuses a request: the first pattern that is found in a code counts."""

_CREDENTIALS_SERVICE: Final = re.compile(
    "AssumeRole|RoleCredentials|Token"
)  # in the names of operations of STS and SSO
_CREDENTIALS_REFUSED: Final = re.compile("AccessDenied|Invalid|Signature|Validation")
_AWAY: Final = (aws.CredentialRetrievalError, aws.MetadataRetrievalError, aws.WaiterError)
_LOST: Final = (aws.HTTPClientError, aws.ConnectionError)
_NOT_REACHED: Final = (aws.ConnectTimeoutError, aws.EndpointConnectionError, aws.ProxyConnectionError)
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")


class Failure(NamedTuple):
    """What an error of AWS or of the connection means."""

    kind: type[PersistenceError]  # unless the request was a write that is in doubt
    what: str
    details: str  # as AWS or the connection said
    passes: bool = False  # the same request may succeed a moment later
    in_doubt: bool = False  # if the request was a write, it may have been written; if not, nothing was

    def error(self, where: object, *, in_doubt: bool = False) -> PersistenceError:
        """Return the error of ours; ``in_doubt`` for a write that this, or an earlier try, leaves in doubt."""
        if in_doubt:
            return ours.CommitInDoubtError(
                f"{where}: the commit was not confirmed, and may be written ({self.details})"
            )
        return self.kind(f"{where}: {self.what}{'' if self.in_doubt else '; nothing was written'} ({self.details})")


def failure_of(error: BotoCoreError | ClientError, *, repeats: bool = False) -> Failure:
    """Return what an error of botocore means; of a client that ``repeats`` requests by itself any try may have arrived."""
    return _answered(error) if isinstance(error, ClientError) else _unanswered(error, repeats=repeats)


def failure_by(code: str, message: object) -> Failure:
    """Return what a code of AWS means: that of an error, or of a reason why a transaction was cancelled."""
    for pattern, kind, what in _MEANINGS:
        if re.search(pattern, code):
            return Failure(kind, what, f"{code}: {message}", passes=pattern is _BUSY)
    return Failure(ours.StoreUnavailableError, "the server failed", f"{code}: {message}", in_doubt=True)


def translate(error: Exception, where: object) -> PersistenceError | None:
    """Return the error of ours that a driver's error means for a request that writes nothing; None for any other error.

    Args:
        error: what botocore raised.
        where: what failed: the repository.
    """
    return failure_of(error).error(where) if isinstance(error, BotoCoreError | ClientError) else None


def code_of(error: Exception) -> str | None:
    """Return the code that AWS gave an error; None where no answer came."""
    return str(error.response.get("Error", {}).get("Code")) if isinstance(error, ClientError) else None


def _answered(cause: ClientError) -> Failure:
    answer, about = cause.response.get("Error", {}), cause.response.get("ResponseMetadata", {})
    code, message = str(answer.get("Code")), answer.get("Message", "")
    if _CREDENTIALS_SERVICE.search(cause.operation_name):  # the request itself was not sent
        if _CREDENTIALS_REFUSED.search(code):
            return Failure(ours.ConfigurationError, "the credentials were refused", str(cause))
        return Failure(ours.StoreUnavailableError, "there are no credentials for now", str(cause))
    if about.get("HTTPStatusCode", 0) >= _SERVER_FAILED:
        return Failure(
            ours.StoreUnavailableError, "the server failed", f"{code}: {message}", passes=True, in_doubt=True
        )
    failure = failure_by(code, message)
    # A client of the application's that repeats by itself only reports how its last try ended.
    return failure._replace(in_doubt=failure.in_doubt or bool(about.get("RetryAttempts")))


def _unanswered(cause: BotoCoreError, *, repeats: bool) -> Failure:
    if isinstance(cause, _AWAY):
        return Failure(ours.StoreUnavailableError, "the credentials, or the table, are not there for now", str(cause))
    if not isinstance(cause, _LOST):
        return Failure(ours.ConfigurationError, "the client is not configured", str(cause))
    chain = _chain(cause)
    # Only these prove that the request was not sent: TLS can fail at any later moment, too.
    is_untrusted = any(isinstance(error, ssl.SSLCertVerificationError) for error in chain)
    is_sent = not (is_untrusted or isinstance(cause, _NOT_REACHED))
    if is_untrusted or any(map(_is_permanent, chain)):
        what = "the server is not there, or not to be trusted, or without TLS"
        return Failure(ours.ConfigurationError, what, str(cause), in_doubt=is_sent or repeats)
    what = "the connection was lost, or not made"
    return Failure(ours.StoreUnavailableError, what, str(cause), passes=is_sent, in_doubt=is_sent or repeats)


def _is_permanent(error: BaseException) -> bool:
    """Whether a connection failed because there is no such host, or no TLS."""
    if isinstance(error, socket.gaierror):
        return error.errno in _NO_SUCH_HOST
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in _NO_TLS


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error, and those from which, or while handling which, it was raised; one that is raised again may be its own."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def delays(times: int) -> Iterator[float]:
    """Yield how long to wait before each of so many tries more: doubling, with jitter."""
    for n in range(times):
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))
        yield random.uniform(longest / 4, longest)  # noqa: S311  # jitter is no secret
