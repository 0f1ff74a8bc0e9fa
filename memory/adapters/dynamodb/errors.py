"""What DynamoDB's errors mean: the one place where they become errors of `memory.errors`, by their codes and types."""

import random
import socket
import ssl
from collections.abc import Iterator
from typing import Final, TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    LoginError,
    MetadataRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as ConnectingError
from botocore.exceptions import HTTPClientError as TransportError
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

CONDITION_FAILED: Final = "ConditionalCheckFailed"

THROTTLED: Final = frozenset(
    [
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
    ]
)
"""The server did not take the call: too many at once."""

_BUSY: Final = frozenset(["TransactionConflict", "TransactionConflictException", "TransactionInProgressException"])
_FAILED: Final = frozenset(
    ["InternalServerError", "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException"]
)
_MOVED: Final = "the credentials were refused"

_MEANINGS: Final[dict[str, tuple[type[PersistenceError], str]]] = {
    "ResourceNotFoundException": (
        SchemaError,
        "the table is not there: run `memory migrate`, or call store.migrate()",
    ),
    "ResourceInUseException": (StoreUnavailableError, "the table is being changed; nothing was written"),
    "AccessDeniedException": (ConfigurationError, "these credentials have no right to it"),
    "ExpiredTokenException": (ConfigurationError, "the credentials have expired"),
    "IncompleteSignatureException": (ConfigurationError, _MOVED),
    "InvalidClientTokenId": (ConfigurationError, _MOVED),
    "InvalidSignatureException": (ConfigurationError, _MOVED),
    "MissingAuthenticationTokenException": (ConfigurationError, _MOVED),
    "UnrecognizedClientException": (ConfigurationError, _MOVED),
    "OptInRequired": (ConfigurationError, "the account may not use DynamoDB in this region"),
    "ItemCollectionSizeLimitExceeded": (UnsupportedError, "a local secondary index of the table limits a conversation"),
    "ItemCollectionSizeLimitExceededException": (
        UnsupportedError,
        "a local secondary index of the table limits a conversation",
    ),
    "LimitExceededException": (StoreUnavailableError, "the account is at a limit; nothing was written"),
    "ReplicatedWriteConflictException": (StoreUnavailableError, "another region writes the same; nothing was written"),
    "ValidationException": (InvalidValueError, "DynamoDB refuses the request as invalid; nothing was written"),
    "ValidationError": (InvalidValueError, "DynamoDB refuses the request as invalid; nothing was written"),
    "UnknownOperationException": (UnsupportedError, "this server cannot do it"),
}

_CONFIGURATION: Final = (
    LoginError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_CREDENTIALS_OPERATIONS: Final = frozenset(
    ["AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "CreateToken", "GetRoleCredentials"]
)
_REFUSED: Final = frozenset(
    ["AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ValidationError"]
)
_CREDENTIALS_AWAY: Final = (CredentialRetrievalError, MetadataRetrievalError)
_NOT_REACHED: Final = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError)
_LOST: Final = (TransportError, ConnectingError)
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")

E = TypeVar("E", bound=BaseException)


def cause_of(error: Exception) -> BaseException | None:
    """Return the error of botocore in one of PynamoDB's, which it wraps: as the server's answer had it."""
    cause = error.cause if isinstance(error, PynamoDBException) else error
    return cause.__cause__ if isinstance(cause, ClientError) and isinstance(cause.__cause__, ClientError) else cause


def code_of(error: Exception) -> str | None:
    """Return the code that AWS gave an error; None where no answer came."""
    cause = cause_of(error)
    return str(cause.response.get("Error", {}).get("Code")) if isinstance(cause, ClientError) else None


def is_passing(code: str | None) -> bool:
    """Return whether an error of this code is temporary: the same call may succeed a moment later."""
    return code in THROTTLED or code in _BUSY or code in _FAILED


def leaves_doubt(error: Exception) -> bool:
    """Return whether a write may have been written although the server answered with this error."""
    cause = cause_of(error)
    if not isinstance(cause, ClientError) or _is_of_credentials(cause):
        return False
    # A client of the application's retries by itself, and only reports how its last try ended.
    return code_of(cause) in _FAILED or bool(cause.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def meaning_of(code: str, where: object, message: str = "", *, writing: bool = False) -> PersistenceError:
    """Return the error of ours for a code of AWS.

    Args:
        code: of an error, or of a reason why a transaction was cancelled.
        where: what failed: the repository.
        message: what the server says.
        writing: whether it was a write, of which a failure of the server leaves open what became of it.
    """
    details = f"({code}: {message})" if message else f"({code})"
    if code in _MEANINGS:
        kind, what = _MEANINGS[code]
        return kind(f"{where}: {what} {details}")
    if code in THROTTLED:
        return StoreUnavailableError(
            f"{where}: the table, or the account, is at its throughput; nothing was written {details}"
        )
    if code in _BUSY:
        return StoreUnavailableError(f"{where}: other transactions stood in the way; nothing was written {details}")
    if writing:
        return CommitInDoubtError(f"{where}: the server failed at the commit {details}")
    return StoreUnavailableError(f"{where}: the server failed {details}")


def translate(
    error: Exception, where: object, *, writing: bool = False, sent_once: bool = True
) -> PersistenceError | None:
    """Return the error of ours that a driver's error means; None for any other.

    Args:
        error: what PynamoDB or botocore raised.
        where: what failed: the repository.
        writing: whether it was a write, which a lost answer leaves in doubt.
        sent_once: whether the client sends a request once. Of one that repeats by itself, any try but the last may have arrived.
    """
    cause = cause_of(error)
    if isinstance(cause, ClientError):
        answer = cause.response.get("Error", {})
        code, message = str(answer.get("Code")), str(answer.get("Message", ""))
        if _is_of_credentials(cause):
            return _without_credentials(code, where, f"{cause}")
        return meaning_of(code, where, message, writing=writing)
    if not isinstance(cause, BotoCoreError):
        return None
    if isinstance(cause, _CREDENTIALS_AWAY):
        return StoreUnavailableError(f"{where}: there are no credentials for now; nothing was written ({cause})")
    if isinstance(cause, _CONFIGURATION):
        return ConfigurationError(f"{where}: {cause}")
    if isinstance(cause, ParamValidationError):
        return InvalidValueError(f"{where}: {cause}")
    return _unreached(cause, where, writing=writing, sent_once=sent_once)


def _unreached(cause: BotoCoreError, where: object, *, writing: bool, sent_once: bool) -> PersistenceError:
    """Return the error of ours where no answer came."""
    # Only these prove that the request was not sent: TLS can fail at any later moment, too.
    is_unsent = isinstance(cause, _NOT_REACHED) or _within(cause, ssl.SSLCertVerificationError) is not None
    if writing and not (is_unsent and sent_once):
        return CommitInDoubtError(f"{where}: the connection was lost at the commit ({cause})")
    if _can_never_be(cause):
        return ConfigurationError(f"{where}: {cause}; nothing was written")
    if is_unsent:
        return StoreUnavailableError(f"{where}: the server could not be reached; nothing was written ({cause})")
    if isinstance(cause, _LOST):
        return StoreUnavailableError(f"{where}: the connection was lost ({cause})")
    return ConfigurationError(f"{where}: {cause}")


def _can_never_be(cause: BaseException) -> bool:
    """Return whether a connection failed for a permanent reason: unknown host, untrusted certificate, no TLS."""
    unknown, insecure = _within(cause, socket.gaierror), _within(cause, ssl.SSLError)
    return (unknown is not None and unknown.errno in _NO_SUCH_HOST) or (
        insecure is not None
        and (isinstance(insecure, ssl.SSLCertVerificationError) or getattr(insecure, "reason", None) in _NO_TLS)
    )


def _within(error: BaseException, kind: type[E]) -> E | None:
    """Return the first error of a kind among an error and what it was raised from, or while handling."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, kind):
        at = at.__cause__ or at.__context__
    return at


def _is_of_credentials(error: ClientError) -> bool:
    """Return whether the error is of the service that issues credentials: the request itself was not sent."""
    return error.operation_name in _CREDENTIALS_OPERATIONS


def _without_credentials(code: str, where: object, details: str) -> PersistenceError:
    if code in _REFUSED:
        return ConfigurationError(f"{where}: the credentials were refused; nothing was written ({details})")
    return StoreUnavailableError(f"{where}: there are no credentials for now; nothing was written ({details})")


def is_lost(error: Exception) -> bool:
    """Return whether the request may have arrived and no answer came."""
    cause = cause_of(error)
    return isinstance(cause, _LOST) and not isinstance(cause, _NOT_REACHED) and not _can_never_be(cause)


def delays(times: int) -> Iterator[float]:
    """Yield how long to wait before each of so many tries more: doubling, with jitter."""
    for n in range(times):
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))
        yield random.uniform(longest / 4, longest)  # noqa: S311  # jitter is no secret
