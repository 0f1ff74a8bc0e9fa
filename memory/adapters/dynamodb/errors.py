"""What DynamoDB's errors mean: the one place where they become errors of `memory.errors`, by their codes and types."""

import random
import socket
import ssl
from collections.abc import Iterator
from typing import Final, TypeAlias

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

CONDITION_FAILED: Final = "ConditionalCheckFailed"

Meaning: TypeAlias = tuple[type[PersistenceError], str]

_THROTTLED: Final = (
    "ProvisionedThroughputExceeded ProvisionedThroughputExceededException RequestLimitExceeded ThrottlingError "
    "ThrottlingException Throttling TooManyRequestsException"
)
_BUSY: Final = "TransactionConflict TransactionConflictException TransactionInProgressException"
_FAILED: Final = "InternalServerError InternalFailure ServiceUnavailable ServiceUnavailableException"
_PASSING: Final = frozenset(f"{_THROTTLED} {_BUSY} {_FAILED}".split())

_MEANINGS: Final[tuple[tuple[str, type[PersistenceError], str], ...]] = (
    (_THROTTLED, StoreUnavailableError, "the table, or the account, is at its throughput; nothing was written"),
    (_BUSY, StoreUnavailableError, "other transactions stood in the way; nothing was written"),
    ("ResourceNotFoundException", SchemaError, "there is no table: run `memory migrate`, or call store.migrate()"),
    ("ResourceInUseException", StoreUnavailableError, "the table is being changed; nothing was written"),
    ("AccessDeniedException", ConfigurationError, "these credentials have no right to do this"),
    ("ExpiredTokenException", ConfigurationError, "the credentials have expired"),
    (
        "IncompleteSignatureException InvalidClientTokenId InvalidSignatureException MissingAuthenticationTokenException "
        "UnrecognizedClientException",
        ConfigurationError,
        "the credentials were refused",
    ),
    ("LimitExceededException", StoreUnavailableError, "the account is at a limit; nothing was written"),
    ("ReplicatedWriteConflictException", StoreUnavailableError, "another region writes too; nothing was written"),
    ("ValidationException ValidationError", InvalidValueError, "DynamoDB refuses the request; nothing was written"),
    ("UnknownOperationException", UnsupportedError, "this server does not support the operation"),
)
_BY_CODE: Final[dict[str, Meaning]] = {code: (kind, what) for codes, kind, what in _MEANINGS for code in codes.split()}

_CONFIGURATION: Final = (
    aws.LoginError,
    aws.NoCredentialsError,
    aws.NoRegionError,
    aws.PartialCredentialsError,
    aws.ProfileNotFound,
    aws.SSOError,
    aws.TokenRetrievalError,
)
_CREDENTIALS_OPERATIONS: Final = frozenset(
    ["AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "CreateToken", "GetRoleCredentials"]
)
_REFUSALS: Final = frozenset(
    ["AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ValidationError"]
)
_REFUSED: Final[Meaning] = ConfigurationError, "the credentials were refused; nothing was written"
_AWAY: Final[Meaning] = StoreUnavailableError, "there are no credentials for now; nothing was written"
_CREDENTIALS_AWAY: Final = (aws.CredentialRetrievalError, aws.MetadataRetrievalError)
_NOT_REACHED: Final = (aws.ConnectTimeoutError, aws.EndpointConnectionError, aws.ProxyConnectionError)
_LOST: Final = (aws.HTTPClientError, aws.ConnectionError)
_NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")


def cause_of(error: Exception) -> BaseException | None:
    """Return the error of botocore in one of PynamoDB's, which it wraps: as the server's answer had it."""
    cause = error.cause if isinstance(error, PynamoDBException) else error
    inner = cause.__cause__ if isinstance(cause, aws.ClientError) else None
    return inner if isinstance(inner, aws.ClientError) else cause


def code_of(error: Exception) -> str | None:
    """Return the code that AWS gave an error; None where no answer came."""
    cause = cause_of(error)
    return str(cause.response.get("Error", {}).get("Code")) if isinstance(cause, aws.ClientError) else None


def is_passing(code: str | None) -> bool:
    """Return whether an error of this code is temporary: the same call may succeed a moment later."""
    return code in _PASSING


def leaves_doubt(error: Exception) -> bool:
    """Return whether a write may have been written although the server answered with this error."""
    cause = cause_of(error)
    if not isinstance(cause, aws.ClientError) or _is_of_credentials(cause):
        return False
    # A client of the application's retries by itself, and only reports how its last try ended.
    return code_of(cause) in _FAILED.split() or bool(cause.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def meaning_of(code: str, where: object, message: str = "", *, writing: bool = False) -> PersistenceError:
    """Return the error of ours for a code of AWS.

    Args:
        code: of an error, or of a reason why a transaction was cancelled.
        where: what failed: the repository.
        message: what the server says.
        writing: whether it was a write, of which a failure of the server leaves open what became of it.
    """
    details = f"({code}: {message})" if message else f"({code})"
    if code in _BY_CODE:
        kind, what = _BY_CODE[code]
    elif writing:
        kind, what = CommitInDoubtError, "the server failed at the commit"
    else:
        kind, what = StoreUnavailableError, "the server failed"
    return kind(f"{where}: {what} {details}")


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
    if isinstance(cause, aws.ClientError) and not _is_of_credentials(cause):
        answer = cause.response.get("Error", {})
        return meaning_of(str(answer.get("Code")), where, str(answer.get("Message", "")), writing=writing)
    if isinstance(cause, aws.ClientError):
        kind, what = _REFUSED if code_of(cause) in _REFUSALS else _AWAY
    elif isinstance(cause, aws.BotoCoreError):
        kind, what = _unanswered(cause, writing=writing, sent_once=sent_once)
    else:
        return None
    return kind(f"{where}: {what} ({cause})")


def _unanswered(cause: aws.BotoCoreError, *, writing: bool, sent_once: bool) -> Meaning:
    """Return the error of ours where no answer came."""
    if isinstance(cause, _CREDENTIALS_AWAY):
        return _AWAY
    if isinstance(cause, _CONFIGURATION):
        return ConfigurationError, "the client is not configured"
    if isinstance(cause, aws.ParamValidationError):
        return InvalidValueError, "the request is invalid"
    if isinstance(cause, aws.WaiterError):
        return StoreUnavailableError, "the table is not active yet"
    # Only these prove that the request was not sent: TLS can fail at any later moment, too.
    is_unsent = isinstance(cause, _NOT_REACHED) or any(
        isinstance(error, ssl.SSLCertVerificationError) for error in _chain(cause)
    )
    if writing and not (is_unsent and sent_once):
        return CommitInDoubtError, "the connection was lost at the commit"
    if is_unsent and not _can_never_be(cause):
        return StoreUnavailableError, "the server could not be reached; nothing was written"
    if isinstance(cause, _LOST) and not _can_never_be(cause):
        return StoreUnavailableError, "the connection was lost"
    return ConfigurationError, "the server cannot be reached; nothing was written"


def _can_never_be(cause: BaseException) -> bool:
    """Return whether a connection failed for a permanent reason: unknown host, untrusted certificate, no TLS."""
    return any(
        (isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST)
        or isinstance(error, ssl.SSLCertVerificationError)
        or (isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in _NO_TLS)
        for error in _chain(cause)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those from which, or while handling which, it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_credentials(error: aws.ClientError) -> bool:
    """Return whether the error is of the service that issues credentials: the request itself was not sent."""
    return error.operation_name in _CREDENTIALS_OPERATIONS


def is_lost(error: Exception) -> bool:
    """Return whether the request may have arrived and no answer came."""
    cause = cause_of(error)
    return isinstance(cause, _LOST) and not isinstance(cause, _NOT_REACHED) and not _can_never_be(cause)


def delays(times: int) -> Iterator[float]:
    """Yield how long to wait before each of so many tries more: doubling, with jitter."""
    for n in range(times):
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))
        yield random.uniform(longest / 4, longest)  # noqa: S311  # jitter is no secret
