"""`Table`: the few calls of DynamoDB that the adapter makes, repeated where that is safe, their errors translated.

All reads are strongly consistent. PynamoDB makes the requests; its own loops over what is left unprocessed do not wait, so
these are here.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from math import inf
from operator import attrgetter, or_
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar, cast, get_args

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from pynamodb.exceptions import PynamoDBException, TransactWriteError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.update import Action as Assignment

from memory.adapters.dynamodb.clients import BadAnswerError, Clients
from memory.adapters.dynamodb.errors import (
    CONDITION_FAILED,
    cause_of,
    code_of,
    delays,
    is_lost,
    is_passing,
    leaves_doubt,
    meaning_of,
    translate,
)
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.models import UNREADABLE, Models, size_of
from memory.errors import CommitInDoubtError, CorruptRecordError, StoreUnavailableError
from memory.port.deadlines import remaining

T = TypeVar("T")
Kind: TypeAlias = Literal["check", "delete", "put", "update"]

DRIVER_ERRORS: Final = (PynamoDBException, BotoCoreError, ClientError)

MOST_ACTIONS: Final = 100
"""Of one transaction."""

MOST_BYTES: Final = 3_900_000
"""Of one transaction: DynamoDB's limit is 4 MB, and it counts a little otherwise."""

_TRIES: Final = 7  # over about two seconds
_TRIES_TO_WRITE: Final = (
    12  # over about five: other transactions of the same items stand in the way longer than that only in a jam
)
_QUERIED_AT_MOST: Final = 10_000
_READ_AT_ONCE, _WRITTEN_AT_ONCE = 100, 25  # DynamoDB's limits of a batch


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a transaction."""

    kind: Kind
    key: Key
    request: dict[str, Any]
    size: int = 0


@dataclass(slots=True)
class Requests:
    """How many requests were made so far."""

    count: int = 0


@dataclass
class RefusedError(Exception):
    """A transaction whose conditions did not all hold: nothing of it was written.

    Attributes:
        found: what stands at the keys whose condition failed (None: nothing), where DynamoDB tells.
    """

    found: dict[Key, Any] = field(default_factory=dict)


class Timed(Protocol):
    """The repository, which errors name."""

    timeout: float


class Table:
    """One table. Safe to use from several threads."""

    def __init__(self, models: Models, name: str, where: Timed, clients: Clients, *, sent_once: bool) -> None:
        self.models = models
        self.name = name
        self._where = where
        self._clients = clients
        self._sent_once = sent_once

    # reading

    def get(self, key: Key) -> Any:
        """Return an item, None if there is none."""
        connection = self.models.connection
        response = self._read(
            lambda: connection.get_item(cast(Any, key[0]), cast(Any, key[1]), consistent_read=True),
            lambda response: "Item" not in response or self._key(response["Item"]) == key,
        )
        return self._item(response["Item"]) if "Item" in response else None

    def get_many(self, keys: Iterable[Key], *, attributes: Sequence[str] | None = None) -> dict[Key, Any]:
        """Return those of the items that are there, a hundred with each request."""
        found: dict[Key, Any] = {}
        for some in in_batches(dict.fromkeys(keys), _READ_AT_ONCE):
            for raw in self._get_batch(some, attributes):
                item = self._item(raw, attributes)
                found[item.pk, item.sk] = item
        return found

    def _get_batch(self, keys: Iterable[Key], attributes: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        wanted = list(keys)
        names = None if attributes is None else [*self.models.keys, "kind", *attributes]
        waits = delays(_TRIES)
        while wanted:
            asked = [dict(zip(self.models.keys, key, strict=True)) for key in wanted]
            response = self._read(
                lambda asked=asked: self.models.connection.batch_get_item(  # type: ignore[misc]
                    asked, consistent_read=True, attributes_to_get=names
                ),
                lambda response, wanted=wanted: self._is_of(response["Responses"].get(self.name, ()), wanted),  # type: ignore[misc]
            )
            read = response["Responses"].get(self.name, ())
            yield from read
            unread = response.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", ())
            wanted = list(map(self._key, unread))
            if wanted and not read:
                self._wait_or_fail(waits, "reads")

    def _is_of(self, items: Sequence[dict[str, Any]], wanted: Collection[Key]) -> bool:
        """Tell whether items are among those that were asked for."""
        return {self._key(raw) for raw in items} <= set(wanted)

    def _key(self, raw: dict[str, Any]) -> Key:
        """Return the key of an item as DynamoDB's answer has it."""
        pk, sk = (raw[name]["B"] for name in self.models.keys)
        return pk, sk

    def query(
        self,
        pk: bytes,
        low: bytes,
        high: bytes,
        *,
        backwards: bool = False,
        limit: int | None = None,
        then: int | None = None,
        attributes: Sequence[str] | None = None,
        requests: Requests | None = None,
    ) -> Iterator[Any]:
        """Yield the items of a partition with ``low <= sort key <= high``, in order; each request is made when it is needed.

        Args:
            pk: the partition.
            low: where to begin.
            high: where to end.
            backwards: from the highest to the lowest.
            limit: how many the first request asks for; when left out, or too many, all that fit a megabyte.
            then: how many each further request asks for.
            attributes: read these only, beside the keys; the cost is the same.
            requests: counts them.
        """
        requests = requests or Requests()
        within = Path([self.models.keys[1]]).between(cast(Any, {"B": low}), cast(Any, {"B": high}))
        names = None if attributes is None else [*self.models.keys, "kind", *attributes]
        start: dict[str, Any] | None = None
        while True:
            response = self._read(
                lambda start=start, limit=limit: self.models.connection.query(  # type: ignore[misc]
                    cast(Any, pk),
                    within,
                    consistent_read=True,
                    exclusive_start_key=start,
                    limit=limit if limit and limit <= _QUERIED_AT_MOST else None,
                    scan_index_forward=not backwards,
                    attributes_to_get=names,
                ),
                lambda response: all(
                    key[0] == pk and low <= key[1] <= high for key in map(self._key, response["Items"])
                ),
            )
            requests.count += 1
            for raw in response["Items"]:
                yield self._item(raw, attributes)
            if (start := response.get("LastEvaluatedKey")) is None:
                return
            limit = then

    def scan_partitions(self, *letters: bytes) -> Iterator[bytes]:
        """Yield the partition key of each item whose partition key begins with a letter; all items are read, and paid for."""
        name = self.models.keys[0]
        ends: list[tuple[Any, Any]] = [({"B": letter}, {"B": bytes([letter[0] + 1])}) for letter in letters]
        within = reduce(or_, (Path([name]).between(*two) for two in ends))  # PynamoDB has `startswith` for texts only
        start: Any = None
        while True:
            response = self._read(
                lambda start=start: self.models.connection.scan(  # type: ignore[misc]
                    within, [name], exclusive_start_key=start, consistent_read=True
                ),
                lambda response: all(raw[name]["B"][:1] in letters for raw in response["Items"]),
            )
            yield from (raw[name]["B"] for raw in response["Items"])
            if (start := response.get("LastEvaluatedKey")) is None:
                return

    def _read(self, call: Callable[[], dict[str, Any]], answers: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the answer to a request that may be sent again; ``answers`` tells whether it is one."""
        waits = delays(_TRIES)
        while True:
            self._check_time()
            try:
                return _checked(call(), answers)
            except DRIVER_ERRORS as error:
                wait = next(waits, None)
                if wait is None or not (is_passing(code_of(error)) or is_lost(error)) or remaining(inf) <= wait:
                    raise self.translated(error) from error
            time.sleep(wait)

    def _check_time(self) -> None:
        """Refuse to begin a request when the operation has taken too long."""
        if remaining(inf) == 0:
            raise StoreUnavailableError(
                f"{self._where}: took longer than {self._where.timeout:g} s; nothing was written"
            )

    def _item(self, raw: dict[str, Any], attributes: Sequence[str] | None = None) -> Any:
        try:
            return self.models.item(raw, attributes)
        except UNREADABLE as error:
            key = [raw.get(name) for name in self.models.keys]
            raise CorruptRecordError(f"{self._where}: the item {key} is stored but cannot be read: {error}") from error

    # writing

    def put(self, item: Any, condition: Condition | None = None) -> Action:
        """Return the action of putting an item; if the condition does not hold, what stands there is told."""
        raw = self.models.raw(item)
        size = sum(len(name) + _size(*value.values()) for name, value in raw.items())
        return Action("put", (item.pk, item.sk), self._request({"Item": raw}, condition), size)

    def delete(self, key: Key, condition: Condition | None = None, *, size: int = 0) -> Action:
        """Return the action of removing what is at a key."""
        return Action("delete", key, self._request({"Key": self._raw_key(key)}, condition), size)

    def _raw_key(self, key: Key) -> dict[str, dict[str, bytes]]:
        return {name: {"B": value} for name, value in zip(self.models.keys, key, strict=True)}

    def _request(self, request: dict[str, Any], condition: Condition | None) -> dict[str, Any]:
        """Return the request of an action; if it has a condition, it asks for what stands there when that does not hold."""
        request["TableName"] = self.name
        if condition is not None:
            names: dict[str, str] = {}
            values: dict[str, Any] = {}
            request["ConditionExpression"] = condition.serialize(names, values)
            request["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in names.items()}
            if values:
                request["ExpressionAttributeValues"] = values
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return request

    def check(self, key: Key, condition: Condition) -> Action:
        """Return the action of checking a condition."""
        return Action("check", key, self._request({"Key": self._raw_key(key)}, condition))

    def update(self, key: Key, assignments: list[Assignment], condition: Condition) -> Action:
        """Return the action of changing attributes."""
        request = self.models.Item(*key).get_update_kwargs_from_instance(assignments, condition=condition)
        return Action("update", key, request)

    def is_absent(self) -> Condition:
        """Return the condition that there is no item."""
        return Path([self.models.keys[0]]).does_not_exist()

    def write(self, actions: Sequence[Action]) -> None:
        """Write all of it in one transaction, or nothing; try again while others stand in the way.

        Raises:
            RefusedError: a condition does not hold.
            StoreUnavailableError: nothing was written.
            CommitInDoubtError: the answer was lost, or that of a try before the one that failed.
        """
        ordered = sorted(actions, key=attrgetter("kind"))  # as PynamoDB sends them: reasons come in this order
        checks, deletes, puts, updates = (
            [action.request for action in ordered if action.kind == kind] for kind in get_args(Kind)
        )
        waits, in_doubt = delays(_TRIES_TO_WRITE), False
        self._check_time()
        while True:
            try:
                self.models.connection.connection.transact_write_items(checks, deletes, puts, updates)
            except TransactWriteError as error:
                reason = self._reason(error, ordered)
                in_doubt = in_doubt or leaves_doubt(error)
                wait = next(waits, None)
                if wait is None or not is_passing(reason) or remaining(inf) <= wait:
                    raise self._given_up(error, reason, in_doubt=in_doubt) from error
            else:
                return
            time.sleep(wait)

    def _given_up(self, error: TransactWriteError, reason: str | None, *, in_doubt: bool) -> Exception:
        """Return the error that ends a transaction's tries; in doubt, if one of them may have been written."""
        if reason is None or reason == code_of(error):
            last = self.translated(error, writing=True)
        else:
            last = meaning_of(reason, self._where)
        if in_doubt and not isinstance(last, CommitInDoubtError):
            return CommitInDoubtError(
                f"{self._where}: a try of the commit was not answered, and the last failed ({reason})"
            )
        return last

    def _reason(self, error: TransactWriteError, actions: Sequence[Action]) -> str | None:
        """Return the code that says why a transaction failed; raise `RefusedError` if that is a condition."""
        reasons = error.cancellation_reasons
        if not reasons:
            return code_of(error)
        refused = {
            action.key: reason.raw_item and self._item(reason.raw_item)
            for action, reason in zip(actions, reasons, strict=False)
            if reason is not None and reason.code == CONDITION_FAILED
        }
        if refused:
            raise RefusedError(refused)
        return next(reason.code for reason in reasons if reason is not None)

    def remove(self, keys: Iterable[Key]) -> None:
        """Remove items whose keys nobody else has, not all at once: 25 with each request."""
        for some in in_batches(keys, _WRITTEN_AT_ONCE):
            waits = delays(_TRIES)
            left: list[dict[str, Any]] = [dict(zip(self.models.keys, key, strict=True)) for key in some]
            while left:
                response = self._read(
                    lambda left=left: self.models.connection.batch_write_item(delete_items=left),  # type: ignore[misc]
                    lambda response: "UnprocessedItems" in response,
                )
                undone = [
                    request["DeleteRequest"]["Key"] for request in response["UnprocessedItems"].get(self.name, ())
                ]
                if len(undone) == len(left):
                    self._wait_or_fail(waits, "removals")
                left = [{name: next(iter(value.values())) for name, value in key.items()} for key in undone]

    def _wait_or_fail(self, waits: Iterator[float], what: str) -> None:
        if (wait := next(waits, None)) is None or remaining(inf) <= wait:
            raise StoreUnavailableError(
                f"{self._where}: the table, or the account, is at its throughput: {what} left undone"
            )
        time.sleep(wait)

    def translated(self, error: Exception, *, writing: bool = False) -> Exception:
        """Return the error of ours for one of the driver's."""
        if isinstance(cause_of(error), NoCredentialsError):
            self._clients.renew()
        return translate(error, self._where, writing=writing, sent_once=self._sent_once) or error


def _checked(response: dict[str, Any], answers: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return a response that answers the request: one without what it must have says nothing of what is stored."""
    try:
        is_answer = answers(response)
    except (KeyError, TypeError, AttributeError):
        is_answer = False
    if not is_answer:
        raise BadAnswerError(what="what was asked for is not in it")
    return response


def in_batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the things, so many at a time."""
    iterator = iter(things)
    while some := list(islice(iterator, size)):
        yield some


def in_transactions(actions: Iterable[Action]) -> Iterator[list[Action]]:
    """Yield the actions in their order, so many at a time as fit a transaction with one more."""
    batch: list[Action] = []
    size = 0
    for action in actions:
        if batch and (len(batch) == MOST_ACTIONS - 1 or size + action.size > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(action)
        size += action.size
    if batch:
        yield batch


def _size(value: object) -> int:
    return size_of(value) if isinstance(value, str) else len(cast(bytes, value))
