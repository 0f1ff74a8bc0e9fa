"""The boto3 client of a store: one for each process, with every answer checked before it is used."""

import json
import zlib
from collections.abc import Callable
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import HTTPClientError, ReadTimeoutError

from memory.errors import ConfigurationError
from memory.port.deadlines import remaining
from memory.port.forking import ForkAware, watch

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class BadAnswerError(HTTPClientError):
    """An answer that was cut off, or is another request's, or no answer of DynamoDB's at all."""

    fmt = "the answer is incomplete, or not DynamoDB's to this request ({what})"


class Clients(ForkAware):
    """The client that this process uses.

    Args:
        given: the application's own client, if it handed one in.
        make: else, make one.
    """

    def __init__(self, given: "DynamoDBClient | None", make: Callable[[], "DynamoDBClient"]) -> None:
        self._is_given = given is not None
        self._make = make
        self._lock = Lock()
        self._inherited: list[object] = []
        self._client: DynamoDBClient | None = checked(given or make())
        watch(self)

    def get(self) -> "DynamoDBClient":
        """Return the client.

        Raises:
            ConfigurationError: it was handed in by the application, and then the process forked.
        """
        if (client := self._client) is not None:
            return client
        with self._lock:
            if self._client is None:
                if self._is_given:
                    raise ConfigurationError(
                        "this process was forked after a boto3 client was handed in: two processes would mix up the answers "
                        "on its connections. Make the client, and open the store, after the fork; or hand in a boto3 Session"
                    )
                self._client = checked(self._make())
            return self._client

    def renew(self) -> None:
        """Make the next call with a new client: botocore's keep for good that there were no credentials."""
        if not self._is_given:
            self._client = None

    def close(self) -> None:
        """Close the client, unless it is the application's."""
        if not self._is_given and self._client is not None:
            self._client.close()

    def after_fork_in_child(self) -> None:
        self._lock = Lock()
        # Kept: to collect it would take locks of urllib3, which a thread of the parent may have held.
        self._inherited.append(self._client)
        self._client = None


def checked(client: "DynamoDBClient") -> "DynamoDBClient":
    """Let a client refuse answers that are not whole, and keep to the deadline of an operation of ours."""
    events = client.meta.events
    # By name: stores that share a client register once.
    events.register("before-parse.dynamodb", _check_answer, unique_id="conversation-memory-answers")
    events.register("request-created.dynamodb", _keep_to_deadline, unique_id="conversation-memory-deadlines")
    return client


def _check_answer(response_dict: dict[str, Any], **_: object) -> None:
    """Refuse an answer that is not whole: botocore takes what is no JSON for an answer that says nothing.

    DynamoDB sends the CRC32 of its answers; DynamoDB Local not of errors.
    """
    body, crc = response_dict["body"], response_dict["headers"].get("x-amz-crc32")
    try:  # no proper beginning of a JSON object is one
        is_whole = isinstance(json.loads(body), dict) if crc is None else str(zlib.crc32(body)) == crc
    except ValueError:
        is_whole = False
    if not is_whole:
        raise BadAnswerError(what=f"HTTP {response_dict['status_code']}, {len(body)} bytes")


def _keep_to_deadline(request: Any, **_: object) -> None:
    """Wait for the answer no longer than the operation may take."""
    left = remaining(inf)
    if left == 0:  # a client that repeats by itself would do so now
        raise ReadTimeoutError(endpoint_url=request.url)
    if left < inf:
        configured = cast(float, request.context["client_config"].read_timeout)
        request.context["read_timeout"] = min(left, configured)
