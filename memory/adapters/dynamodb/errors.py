"""What DynamoDB's errors mean: the one place where they become errors of `memory.errors`, by their codes and types."""

import random
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final, NamedTuple

from botocore import exceptions as aws
from pynamodb.exceptions import PynamoDBException

from memory.errors import (
    CommitInDoubtError,
    ConfigurationError,
    InvalidValueError,
    PersistenceError,
    SchemaError,
    StoreUnavailableError,
    UnsupportedError,
)

_FIRST_DELAY, _LONGEST_DELAY = 0.025, 1.0  # seconds
_SERVER_FAILED: Final = 500  # and above: the HTTP status

_BUSY: Final = re.compile(
    "Throttl|ThroughputExceeded|RequestLimitExceeded|TooManyRequests|Transaction(Conflict|InProgress)|WriteConflict"
)
_REFUSED: Final = re.compile("AccessDenied|Signature|Token|UnrecognizedClient")
_CREDENTIALS_SERVICE: Final = re.compile(
    "AssumeRole|RoleCredentials|Token"
)  # in the names of operations of STS and SSO
_CREDENTIALS_REFUSED: Final = re.compile("AccessDenied|Invalid|Signature|Validation")
_MEANINGS: Final[dict[str, tuple[type[PersistenceError], str]]] = {
    "ResourceNotFoundException": (SchemaError, "there is no table: run `memory migrate`, or call store.migrate()"),
    "ResourceInUseException": (StoreUnavailableError, "the table is being changed; nothing was written"),
    "LimitExceededException": (StoreUnavailableError, "the account is at a limit; nothing was written"),
    "ValidationException": (InvalidValueError, "DynamoDB refuses the request; nothing was written"),
    "ValidationError": (InvalidValueError, "DynamoDB refuses the request; nothing was written"),
    "UnknownOperationException": (UnsupportedError, "this server does not support the operation"),
}

_AWAY: Final = (aws.CredentialRetrievalError, aws.MetadataRetrievalError, aws.WaiterError)
_LOST: Final = (aws.HTTPClientError, aws.ConnectionError)
_NOT_REACHED: Final = (aws.ConnectTimeoutError, aws.EndpointConnectionError, aws.ProxyConnectionError)
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")


class Failure(NamedTuple):
    """What an error of AWS or of the connection means.

    Attributes:
        kind: the error of ours, for what can be said for certain.
        what: happened, in words.
        details: what AWS said, or the connection.
        passes: the same request may succeed a moment later.
        in_doubt: if the request was a write, it may have been written.
    """

    kind: type[PersistenceError]
    what: str
    details: str
    passes: bool = False
    in_doubt: bool = False

    def error(self, where: object, *, in_doubt: bool = False) -> PersistenceError:
        """Return the error of ours; ``in_doubt`` for a write that this, or an earlier try, leaves in doubt."""
        if in_doubt:
            return CommitInDoubtError(
                f"{where}: the commit may have been written, and was not confirmed ({self.details})"
            )
        return self.kind(f"{where}: {self.what} ({self.details})")


def failure_of(error: Exception, *, repeats: bool = False) -> Failure | None:
    """Return what an error of PynamoDB or botocore means; None for any other.

    Args:
        error: the error.
        repeats: the client repeats requests by itself: of its tries, any but the last may have arrived.
    """
    cause = cause_of(error)
    if isinstance(cause, aws.ClientError):
        return _answered(cause)
    return _unanswered(cause, repeats=repeats) if isinstance(cause, aws.BotoCoreError) else None


def failure_by(code: str, message: object) -> Failure:
    """Return what a code of AWS means: that of an error, or of a reason why a transaction was cancelled."""
    details = f"{code}: {message}"
    if code in _MEANINGS:
        return Failure(*_MEANINGS[code], details)
    if _BUSY.search(code):
        what = "the table is at its throughput, or other transactions were in the way; nothing was written"
        return Failure(StoreUnavailableError, what, details, passes=True)
    if _REFUSED.search(code):
        return Failure(ConfigurationError, "these credentials are refused, expired, or lack the right", details)
    return Failure(StoreUnavailableError, "the server failed", details, in_doubt=True)


def translate(error: Exception, where: object) -> PersistenceError | None:
    """Return the error of ours that a driver's error means for a request that writes nothing; None for any other error.

    Args:
        error: what PynamoDB or botocore raised.
        where: what failed: the repository.
    """
    failure = failure_of(error)
    return None if failure is None else failure.error(where)


def cause_of(error: BaseException | None) -> BaseException | None:
    """Return the error of botocore in one of PynamoDB's, which wraps it: as the server's answer had it."""
    cause = error.cause if isinstance(error, PynamoDBException) else error
    inner = cause.__cause__ if isinstance(cause, aws.ClientError) else None
    return inner if isinstance(inner, aws.ClientError) else cause


def code_of(error: Exception) -> str | None:
    """Return the code that AWS gave an error; None where no answer came."""
    cause = cause_of(error)
    return str(cause.response.get("Error", {}).get("Code")) if isinstance(cause, aws.ClientError) else None


def _answered(cause: aws.ClientError) -> Failure:
    answer, about = cause.response.get("Error", {}), cause.response.get("ResponseMetadata", {})
    code, message = str(answer.get("Code")), answer.get("Message", "")
    if _CREDENTIALS_SERVICE.search(cause.operation_name):  # the request itself was not sent
        if _CREDENTIALS_REFUSED.search(code):
            return Failure(ConfigurationError, "the credentials were refused; nothing was written", str(cause))
        return Failure(StoreUnavailableError, "there are no credentials for now; nothing was written", str(cause))
    if about.get("HTTPStatusCode", 0) >= _SERVER_FAILED:
        return Failure(StoreUnavailableError, "the server failed", f"{code}: {message}", passes=True, in_doubt=True)
    failure = failure_by(code, message)
    # A client of the application's that repeats by itself only reports how its last try ended.
    return failure._replace(in_doubt=failure.in_doubt or bool(about.get("RetryAttempts")))


def _unanswered(cause: aws.BotoCoreError, *, repeats: bool) -> Failure:
    if isinstance(cause, _AWAY):
        return Failure(StoreUnavailableError, "the credentials, or the table, are not there for now", str(cause))
    if not isinstance(cause, _LOST):
        return Failure(ConfigurationError, "the client is not configured", str(cause))
    # Only these prove that the request was not sent: TLS can fail at any later moment, too.
    is_untrusted = any(isinstance(error, ssl.SSLCertVerificationError) for error in _chain(cause))
    is_sent = not (is_untrusted or isinstance(cause, _NOT_REACHED))
    if is_untrusted or any(map(_is_permanent, _chain(cause))):
        return Failure(ConfigurationError, "the server cannot be reached", str(cause), in_doubt=is_sent or repeats)
    what = "the connection was lost" if is_sent else "the server could not be reached; nothing was written"
    return Failure(StoreUnavailableError, what, str(cause), passes=is_sent, in_doubt=is_sent or repeats)


def _is_permanent(error: BaseException) -> bool:
    """Whether a connection failed because there is no such host, or no TLS."""
    if isinstance(error, socket.gaierror):
        return error.errno in _NO_SUCH_HOST
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in _NO_TLS


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those from which, or while handling which, it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def delays(times: int) -> Iterator[float]:
    """Yield how long to wait before each of so many tries more: doubling, with jitter."""
    for n in range(times):
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))
        yield random.uniform(longest / 4, longest)  # noqa: S311  # jitter is no secret
