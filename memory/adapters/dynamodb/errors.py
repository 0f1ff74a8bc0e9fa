"""Translation of DynamoDB's and botocore's errors to those of `memory.errors`, by code and type."""

import random
import re
import ssl
from collections.abc import Iterator
from typing import Final, NamedTuple

from botocore import exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError

from memory import errors as ours
from memory.errors import PersistenceError
from memory.port.causes import chain, is_unknown_host

_FIRST_DELAY, _LONGEST_DELAY = 0.025, 1.0  # seconds
_SERVER_FAILED: Final = 500  # the lowest HTTP status of a server error

_BUSY: Final = "Throttl|ThroughputExceeded|RequestLimit|TooManyRequests|WriteConflict|Transaction(Conflict|InProgress)"
_MEANINGS: Final[tuple[tuple[str, type[PersistenceError], str], ...]] = (
    (_BUSY, ours.StoreUnavailableError, "the table's throughput is exceeded, or another transaction is in conflict"),
    (
        "ResourceInUse|LimitExceeded",
        ours.StoreUnavailableError,
        "the table is being changed, or the account has reached a limit",
    ),
    ("ResourceNotFound", ours.SchemaError, "the table does not exist: run `memory migrate`, or call store.migrate()"),
    ("Validation", ours.InvalidValueError, "DynamoDB rejected the request as invalid"),
    ("UnknownOperation", ours.UnsupportedError, "this server does not support the operation"),
    ("AccessDenied|Signature|Token|UnrecognizedClient", ours.ConfigurationError, "the credentials were refused"),
)
"""The meanings of DynamoDB's error codes. The first pattern that is found in a code applies."""

_CREDENTIALS_SERVICE: Final = re.compile("AssumeRole|RoleCredentials|Token")  # operations of STS and SSO
_CREDENTIALS_REFUSED: Final = re.compile("AccessDenied|Invalid|Signature|Validation")
_UNAVAILABLE: Final = (aws.CredentialRetrievalError, aws.MetadataRetrievalError, aws.WaiterError)
_LOST: Final = (aws.HTTPClientError, aws.ConnectionError)
_NOT_REACHED: Final = (aws.ConnectTimeoutError, aws.EndpointConnectionError, aws.ProxyConnectionError)
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")


class Failure(NamedTuple):
    """The meaning of an error of AWS or of the connection."""

    kind: type[PersistenceError]  # the error to raise, unless a write is in doubt
    what: str
    details: str  # the message of AWS or of the connection
    is_temporary: bool = False  # whether the same request may succeed a moment later
    in_doubt: bool = False  # whether a write may have been done; if False, it was not

    def error(self, where: object, *, in_doubt: bool = False) -> PersistenceError:
        """Return our error. Pass ``in_doubt`` for a write that this or an earlier attempt may have done."""
        if in_doubt:
            return ours.CommitInDoubtError(
                f"{where}: the commit was not confirmed, and may be written ({self.details})"
            )
        return self.kind(f"{where}: {self.what}{'' if self.in_doubt else '; nothing was written'} ({self.details})")


def failure_of(error: BotoCoreError | ClientError) -> Failure:
    """Return the meaning of a botocore error."""
    return _answered(error) if isinstance(error, ClientError) else _unanswered(error)


def failure_by(code: str, message: object) -> Failure:
    """Return the meaning of an AWS code, of an error or of a cancellation reason of a transaction."""
    for pattern, kind, what in _MEANINGS:
        if re.search(pattern, code):
            return Failure(kind, what, f"{code}: {message}", is_temporary=pattern is _BUSY)
    return Failure(ours.StoreUnavailableError, "the server failed", f"{code}: {message}", in_doubt=True)


def translate(error: Exception, where: object) -> PersistenceError | None:
    """Return our error for a botocore error of a request that writes nothing; None for any other exception."""
    return failure_of(error).error(where) if isinstance(error, BotoCoreError | ClientError) else None


def code_of(error: Exception) -> str | None:
    """Return the AWS code of an error, or None if there was no response."""
    return str(error.response.get("Error", {}).get("Code")) if isinstance(error, ClientError) else None


def _answered(cause: ClientError) -> Failure:
    answer, about = cause.response.get("Error", {}), cause.response.get("ResponseMetadata", {})
    code, message = str(answer.get("Code")), answer.get("Message", "")
    if _CREDENTIALS_SERVICE.search(cause.operation_name):  # the request itself was not sent
        if _CREDENTIALS_REFUSED.search(code):
            return Failure(ours.ConfigurationError, "the credentials were refused", str(cause))
        return Failure(ours.StoreUnavailableError, "the credentials are temporarily unavailable", str(cause))
    if about.get("HTTPStatusCode", 0) >= _SERVER_FAILED:
        return Failure(
            ours.StoreUnavailableError, "the server failed", f"{code}: {message}", is_temporary=True, in_doubt=True
        )
    return failure_by(code, message)


def _unanswered(cause: BotoCoreError) -> Failure:
    if isinstance(cause, _UNAVAILABLE):
        return Failure(ours.StoreUnavailableError, "credentials or table are temporarily unavailable", str(cause))
    if not isinstance(cause, _LOST):
        return Failure(ours.ConfigurationError, "the client is not configured correctly", str(cause))
    causes = chain(cause)
    # Only these errors prove that the request was not sent: other TLS errors can also occur after it was.
    is_untrusted = any(isinstance(error, ssl.SSLCertVerificationError) for error in causes)
    is_sent = not (is_untrusted or isinstance(cause, _NOT_REACHED))
    if is_untrusted or any(map(_is_permanent, causes)):
        what = "the server does not exist, is not trusted, or does not use TLS"
        return Failure(ours.ConfigurationError, what, str(cause), in_doubt=is_sent)
    what = "the connection was lost or could not be established"
    return Failure(ours.StoreUnavailableError, what, str(cause), is_temporary=is_sent, in_doubt=is_sent)


def _is_permanent(error: BaseException) -> bool:
    """Whether a connection failed because the host does not exist or does not use TLS."""
    has_no_tls = isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in _NO_TLS
    return has_no_tls or is_unknown_host(error)


def delays(times: int) -> Iterator[float]:
    """Yield the delays in seconds before up to ``times`` retries: exponential backoff with jitter."""
    for n in range(times):
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))
        yield random.uniform(longest / 4, longest)  # noqa: S311  # jitter is no secret
