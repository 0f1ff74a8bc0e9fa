"""What DynamoDB's errors mean: the one place where they become errors of `memory.errors`, by their codes and types."""

import random
from collections.abc import Iterator
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
    TokenRetrievalError,
)
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
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    TokenRetrievalError,
)
_NOT_REACHED: Final = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError)


def code_of(error: Exception) -> str | None:
    """Return the code that AWS gave an error; None where no answer came."""
    cause = error.cause if isinstance(error, PynamoDBException) else error
    return str(cause.response.get("Error", {}).get("Code")) if isinstance(cause, ClientError) else None


def is_passing(code: str | None) -> bool:
    """Tell whether an error of this code goes by: the same call may succeed a moment later."""
    return code in THROTTLED or code in _BUSY or code in _FAILED


def leaves_doubt(error: Exception) -> bool:
    """Tell whether a write that the server answered so may have been written all the same."""
    cause = error.cause if isinstance(error, PynamoDBException) else error
    if not isinstance(cause, ClientError):
        return False
    if code_of(cause) in _FAILED:
        return True
    # A client of the application's repeats by itself, and tells only how the last of its tries ended. PynamoDB's own error does
    # not say how many there were.
    told = cause.__cause__ if isinstance(cause.__cause__, ClientError) else cause
    return bool(told.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def meaning_of(code: str, where: object, message: str = "", *, writing: bool = False) -> PersistenceError:
    """Return the error of ours for a code of AWS.

    Args:
        code: of an error, or of a reason why a transaction was cancelled.
        where: what failed: the repository.
        message: what the server says.
        writing: whether it was a write, of which a failure of the server leaves open what became of it.
    """
    told = f"({code}: {message})" if message else f"({code})"
    if code in _MEANINGS:
        kind, what = _MEANINGS[code]
        return kind(f"{where}: {what} {told}")
    if code in THROTTLED:
        return StoreUnavailableError(
            f"{where}: the table, or the account, is at its throughput; nothing was written {told}"
        )
    if code in _BUSY:
        return StoreUnavailableError(f"{where}: other transactions stood in the way; nothing was written {told}")
    if writing:
        return CommitInDoubtError(f"{where}: the server failed at the commit {told}")
    return StoreUnavailableError(f"{where}: the server failed {told}")


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
    cause = error.cause if isinstance(error, PynamoDBException) else error
    if isinstance(cause, ClientError):
        details = cause.response.get("Error", {})
        return meaning_of(str(details.get("Code")), where, str(details.get("Message", "")), writing=writing)
    if isinstance(cause, _CONFIGURATION):
        return ConfigurationError(f"{where}: {cause}")
    if isinstance(cause, ParamValidationError):
        return InvalidValueError(f"{where}: {cause}")
    if isinstance(cause, _NOT_REACHED) and (sent_once or not writing):
        return StoreUnavailableError(f"{where}: the server could not be reached; nothing was written ({cause})")
    if isinstance(cause, (TransportError, *_NOT_REACHED)):
        if writing:
            return CommitInDoubtError(f"{where}: the connection was lost at the commit ({cause})")
        return StoreUnavailableError(f"{where}: the connection was lost ({cause})")
    if isinstance(cause, BotoCoreError):
        return ConfigurationError(f"{where}: {cause}")
    return None


def is_lost(error: Exception) -> bool:
    """Tell whether no answer came: of a read, which may be sent again."""
    cause = error.cause if isinstance(error, PynamoDBException) else error
    return isinstance(cause, TransportError) and not isinstance(cause, SSLError)


def delays(times: int) -> Iterator[float]:
    """Yield how long to wait before each of so many tries more: doubling, with jitter."""
    for n in range(times):
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))
        yield random.uniform(longest / 4, longest)  # noqa: S311  # jitter is no secret
