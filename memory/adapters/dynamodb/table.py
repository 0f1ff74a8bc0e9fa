"""`Table`: the few requests to DynamoDB that the adapter makes, repeated where that is safe, their errors translated.

All reads are strongly consistent. PynamoDB's `Connection` makes the requests. Its own loops over what is left unprocessed do not
wait, so these loops are here.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, get_args

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from pynamodb.connection import Connection
from pynamodb.connection.base import MetaTable
from pynamodb.exceptions import PynamoDBException, TransactWriteError
from pynamodb.expressions.operand import Path

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
from memory.adapters.dynamodb.records import Item, Values, number, size_of_item, text
from memory.domain.values import new_id
from memory.errors import CommitInDoubtError, StoreUnavailableError
from memory.port.deadlines import remaining

T = TypeVar("T")
Kind: TypeAlias = Literal["check", "delete", "put", "update"]

DRIVER_ERRORS: Final = (PynamoDBException, BotoCoreError, ClientError)

MOST_ACTIONS: Final = 100
"""Of one transaction."""

MOST_BYTES: Final = 3_900_000
"""Of one transaction: DynamoDB's limit is 4 MB, and it counts slightly differently."""

_TRIES: Final = 7  # over about two seconds
_TRIES_TO_WRITE: Final = 12  # over about five: other transactions of the same items last that long only in a jam
_QUERIED_AT_MOST: Final = 10_000
_UNCOUNTED: Final = "NONE"  # PynamoDB asks for the capacity consumed, if nothing is said
_READ_AT_ONCE: Final = 100  # DynamoDB's limit of a batch


class Condition(NamedTuple):
    """The condition of an action, with the names and values that its expression refers to."""

    expression: str
    names: dict[str, str]
    values: Values


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
        found: the items whose condition failed (None: there is no item).
    """

    found: dict[Key, Item | None] = field(default_factory=dict)


class Timed(Protocol):
    """The repository, which errors name."""

    timeout: float


class _Connection(Connection):
    """PynamoDB's connection, on our clients: its own would replace a client without credentials by one that checks no answers."""

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._clients = clients

    @property
    def client(self) -> Any:
        return self._clients.get()


class Table:
    """One table. Safe to use from several threads."""

    def __init__(
        self, name: str, key_names: tuple[str, str], where: Timed, clients: Clients, *, sent_once: bool
    ) -> None:
        self.name = name
        self.key_names = key_names
        self._where = where
        self._clients = clients
        self._sent_once = sent_once
        self._connection = _Connection(clients)
        self._connection.add_meta_table(MetaTable({"TableName": name, **key_schema(key_names)}))

    # reading

    def get(self, key: Key) -> Item | None:
        """Return an item, None if there is none."""
        response = self._read(
            lambda: self._connection.get_item(self.name, key[0], key[1], consistent_read=True),
            lambda response: "Item" not in response or self._key(response["Item"]) == key,
        )
        return self._item(response["Item"]) if "Item" in response else None

    def get_many(self, keys: Iterable[Key], *, attributes: Sequence[str] | None = None) -> dict[Key, Item]:
        """Return those of the items that exist, a hundred with each request."""
        found: dict[Key, Item] = {}
        for some in in_batches(dict.fromkeys(keys), _READ_AT_ONCE):
            for raw in self._get_batch(some, attributes):
                item = self._item(raw)
                found[item.key] = item
        return found

    def _get_batch(self, wanted: list[Key], attributes: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        names = None if attributes is None else [*self.key_names, *attributes]
        waits = delays(_TRIES)
        while wanted:
            asked: list[Any] = [dict(zip(self.key_names, key, strict=True)) for key in wanted]
            response = self._read(
                lambda asked=asked: self._connection.batch_get_item(  # type: ignore[misc]
                    self.name, asked, consistent_read=True, attributes_to_get=names
                ),
                lambda response, wanted=wanted: self._is_of(response["Responses"].get(self.name, ()), wanted),  # type: ignore[misc]
            )
            read = response["Responses"].get(self.name, ())
            yield from read
            unread = response.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", ())
            wanted = list(map(self._key, unread))
            if wanted and not read:
                self._wait_or_fail(waits)

    def _is_of(self, items: Sequence[dict[str, Any]], wanted: Collection[Key]) -> bool:
        """Return whether items are among those that were asked for."""
        return {self._key(raw) for raw in items} <= set(wanted)

    def _key(self, raw: dict[str, Any]) -> Key:
        """Return the key of an item as DynamoDB's answer has it."""
        partition, sort = self.key_names
        return raw[partition]["S"], raw[sort]["S"]

    def _item(self, raw: dict[str, Any]) -> Item:
        return Item(self._key(raw), raw)

    def query(
        self,
        partition: str,
        low: str,
        high: str,
        *,
        backwards: bool = False,
        limit: int | None = None,
        then: int | None = None,
        attributes: Sequence[str] | None = None,
        requests: Requests | None = None,
    ) -> Iterator[Item]:
        """Yield the items of a partition with ``low <= sort key <= high``, in order; each request is made when it is needed.

        Args:
            partition: the partition key.
            low: the lowest sort key.
            high: the highest sort key.
            backwards: from the highest to the lowest.
            limit: how many items the first request asks for; if None, or too many, all that fit a megabyte.
            then: how many items each further request asks for.
            attributes: read only these, beside the keys; the cost is the same.
            requests: counts the requests.
        """
        for response in self._pages(partition, low, high, limit, then, backwards=backwards, attributes=attributes):
            if requests is not None:
                requests.count += 1
            yield from map(self._item, response["Items"])

    def count(self, partition: str, low: str, high: str) -> int:
        """Return how many items `query` would yield."""
        return sum(response["Count"] for response in self._pages(partition, low, high, select="COUNT"))

    def _pages(
        self,
        partition: str,
        low: str,
        high: str,
        limit: int | None = None,
        then: int | None = None,
        *,
        backwards: bool = False,
        attributes: Sequence[str] | None = None,
        select: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        within = Path([self.key_names[1]]).between(low, high)
        names = None if attributes is None else [*self.key_names, *attributes]
        start: dict[str, Any] | None = None
        while True:
            response = self._read(
                lambda start=start, limit=limit: self._connection.query(  # type: ignore[misc]
                    self.name,
                    partition,
                    within,
                    consistent_read=True,
                    exclusive_start_key=start,
                    limit=limit if limit and limit <= _QUERIED_AT_MOST else None,
                    scan_index_forward=not backwards,
                    attributes_to_get=names,
                    select=select,
                    return_consumed_capacity=_UNCOUNTED,
                ),
                lambda response: (
                    type(response["Count"]) is int
                    if select
                    else all(key[0] == partition and low <= key[1] <= high for key in map(self._key, response["Items"]))
                ),
            )
            yield response
            if (start := response.get("LastEvaluatedKey")) is None:
                return
            limit = then

    def _read(self, call: Callable[[], dict[str, Any]], answers: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the answer to a request that may be sent again; ``answers`` checks that it is one."""
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

    def _wait_or_fail(self, waits: Iterator[float]) -> None:
        if (wait := next(waits, None)) is None or remaining(inf) <= wait:
            raise StoreUnavailableError(f"{self._where}: the table, or the account, is at its throughput; read again")
        time.sleep(wait)

    # writing

    def put(self, item: Item, condition: Condition | None = None) -> Action:
        """Return the action that stores an item; if the condition does not hold, DynamoDB returns the item found."""
        raw = {**item.values, **self._raw_key(item.key)}
        return Action("put", item.key, self._request({"Item": raw}, condition), size_of_item(item))

    def delete(self, key: Key, condition: Condition | None = None, *, size: int = 0) -> Action:
        """Return the action that deletes the item at a key."""
        return Action("delete", key, self._request({"Key": self._raw_key(key)}, condition), size)

    def check(self, key: Key, condition: Condition) -> Action:
        """Return the action that checks a condition."""
        return Action("check", key, self._request({"Key": self._raw_key(key)}, condition))

    def add(self, key: Key, name: str, value: int, beside: Values) -> Action:
        """Return the action that adds to a number, and sets the other attributes of the item."""
        names = {"#0": name} | {f"#{n}": other for n, other in enumerate(beside, 1)}
        values = {":0": number(value)} | {f":{n}": other for n, other in enumerate(beside.values(), 1)}
        sets = ", ".join(f"#{n} = :{n}" for n in range(1, len(names)))
        request = {
            "TableName": self.name,
            "Key": self._raw_key(key),
            "UpdateExpression": f"ADD #0 :0 SET {sets}",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
        return Action("update", key, request)

    def is_absent(self) -> Condition:
        """Return the condition that there is no item."""
        return Condition("attribute_not_exists(#key)", {"#key": self.key_names[0]}, {})

    def has_stamp(self, stamp: str | None) -> Condition:
        """Return the condition that an item has this stamp; for None, that there is no item."""
        if stamp is None:
            return self.is_absent()
        return Condition("#stamp = :stamp", {"#stamp": "stamp"}, {":stamp": text(stamp)})

    def _raw_key(self, key: Key) -> Values:
        return {self.key_names[0]: text(key[0]), self.key_names[1]: text(key[1])}

    def _request(self, request: dict[str, Any], condition: Condition | None) -> dict[str, Any]:
        """Return the request of an action; with a condition, it asks for the item that is found if that does not hold."""
        request["TableName"] = self.name
        if condition is not None:
            request["ConditionExpression"] = condition.expression
            request["ExpressionAttributeNames"] = condition.names
            if condition.values:
                request["ExpressionAttributeValues"] = condition.values
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return request

    def write(self, actions: Sequence[Action]) -> None:
        """Write all of it in one transaction, or nothing; try again while other transactions are in the way.

        Every try has the same ``ClientRequestToken``: if the answer to one was lost, DynamoDB answers the next one with what
        became of the first, for ten minutes.

        Raises:
            RefusedError: a condition does not hold.
            StoreUnavailableError: nothing was written.
            CommitInDoubtError: a try may have been written, and no later one was answered.
        """
        ordered = sorted(actions, key=attrgetter("kind"))  # as PynamoDB sends them: reasons come in this order
        checks, deletes, puts, updates = (
            [action.request for action in ordered if action.kind == kind] for kind in get_args(Kind)
        )
        waits, in_doubt, token = delays(_TRIES_TO_WRITE), False, new_id()
        self._check_time()
        while True:
            try:
                self._connection.transact_write_items(checks, deletes, puts, updates, token, _UNCOUNTED)
            except TransactWriteError as error:
                reason = self._reason(error, ordered)
                is_in_doubt = is_lost(error)
                in_doubt = in_doubt or is_in_doubt or leaves_doubt(error)
                wait = next(waits, None)
                if wait is None or not (is_in_doubt or is_passing(reason)) or remaining(inf) <= wait:
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
            action.key: self._item(reason.raw_item) if reason.raw_item else None
            for action, reason in zip(actions, reasons, strict=False)
            if reason is not None and reason.code == CONDITION_FAILED
        }
        if refused:
            raise RefusedError(refused)
        return next(reason.code for reason in reasons if reason is not None)

    def translated(self, error: Exception, *, writing: bool = False) -> Exception:
        """Return the error of ours for one of the driver's."""
        if isinstance(cause_of(error), NoCredentialsError):
            self._clients.renew()
        return translate(error, self._where, writing=writing, sent_once=self._sent_once) or error


def key_schema(key_names: tuple[str, str]) -> dict[str, Any]:
    """Return how the table's keys are defined, as ``CreateTable`` has it."""
    return {
        "KeySchema": [
            {"AttributeName": name, "KeyType": kind} for name, kind in zip(key_names, ("HASH", "RANGE"), strict=True)
        ],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in key_names],
    }


def _checked(response: dict[str, Any], answers: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return a response that answers the request: one without what it must have says nothing about what is stored."""
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
