"""The boto3 client of a store: one per process, with every response verified before it is parsed."""

import json
import zlib
from collections.abc import Callable
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import HTTPClientError

from memory.port.deadlines import remaining
from memory.port.forking import ForkAware, watch

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class BadAnswerError(HTTPClientError):
    """The response is truncated, belongs to another request, or was not sent by DynamoDB."""

    fmt = "the response is incomplete, or is not DynamoDB's response to this request ({what})"


class Clients(ForkAware):
    """Provides the client of the current process, created by ``make``."""

    def __init__(self, make: Callable[[], "DynamoDBClient"]) -> None:
        self._make = make
        self._lock = Lock()
        self._inherited: list[object] = []
        self._client: DynamoDBClient | None = None
        watch(self)

    def get(self) -> "DynamoDBClient":
        """Return the client."""
        if (client := self._client) is not None:
            return client
        with self._lock:
            if self._client is None:
                self._client = checked(self._make())
            return self._client

    def renew(self) -> None:
        """Use a new client for the next call: a botocore client that found no credentials never looks for them again."""
        self._client = None

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()

    def after_fork_in_child(self) -> None:
        self._lock = Lock()
        # Stays referenced: collecting it takes locks of urllib3, which a thread of the parent may have held.
        self._inherited.append(self._client)
        self._client = None


def checked(client: "DynamoDBClient") -> "DynamoDBClient":
    """Register handlers on a client that reject incomplete responses and apply the deadline of the operation."""
    client.meta.events.register("before-parse.dynamodb", _check_answer)
    client.meta.events.register("request-created.dynamodb", _keep_to_deadline)
    return client


def _check_answer(response_dict: dict[str, Any], **_: object) -> None:
    """Reject an incomplete response: botocore parses a body that is not JSON as an empty response.

    DynamoDB sends the CRC32 of every response; DynamoDB Local omits it for errors.
    """
    body, crc = response_dict["body"], response_dict["headers"].get("x-amz-crc32")
    try:  # a truncated JSON object is never valid JSON
        is_whole = isinstance(json.loads(body), dict) if crc is None else str(zlib.crc32(body)) == crc
    except ValueError:
        is_whole = False
    if not is_whole:
        raise BadAnswerError(what=f"HTTP {response_dict['status_code']}, {len(body)} bytes")


def _keep_to_deadline(request: Any, **_: object) -> None:
    """Limit the read timeout to the time left for the operation."""
    configured = cast(float, request.context["client_config"].read_timeout)
    request.context["read_timeout"] = min(max(remaining(inf), 0.001), configured)  # urllib3 accepts no timeout of 0
