"""`Table`: the few requests to DynamoDB that the adapter makes, repeated where that is safe, their errors translated.

All reads are strongly consistent. PynamoDB's `Connection` makes the requests. Its own loops over what is left unprocessed do not
wait, so these loops are here.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from pynamodb.connection import Connection
from pynamodb.connection.base import MetaTable
from pynamodb.exceptions import PynamoDBException, TransactWriteError
from pynamodb.expressions.condition import Condition
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
from memory.adapters.dynamodb.records import Item, size_of_item
from memory.domain.values import new_id
from memory.errors import CommitInDoubtError, StoreUnavailableError
from memory.port.deadlines import remaining
from memory.port.repository import Repository

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
        self, name: str, key_names: tuple[str, str], where: Repository, clients: Clients, *, sent_once: bool
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

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Item]:
        """Return those of the items that exist, a hundred with each request."""
        found: dict[Key, Item] = {}
        for some in in_batches(dict.fromkeys(keys), _READ_AT_ONCE):
            wanted, waits = some, delays(_TRIES)
            while wanted:
                items, wanted = self._get_batch(wanted)
                found |= {item.key: item for item in items}
                if wanted and not items and not _waited(waits):
                    raise meaning_of("ThrottlingException", self._where, "nothing of a batch was read")
        return found

    def _get_batch(self, wanted: list[Key]) -> tuple[list[Item], list[Key]]:
        """Return the items of one request, and the keys that it left unprocessed."""
        asked: list[Any] = [dict(zip(self.key_names, key, strict=True)) for key in wanted]
        response = self._read(
            lambda: self._connection.batch_get_item(self.name, asked, consistent_read=True),
            lambda response: {*map(self._key, response["Responses"].get(self.name, ()))} <= set(wanted),
        )
        items = list(map(self._item, response["Responses"].get(self.name, ())))
        unread = response.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", ())
        return items, list(map(self._key, unread))

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
            requests: counts the requests.
        """
        for response in self._pages(partition, low, high, limit, then, backwards=backwards):
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
        select: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        within = Path([self.key_names[1]]).between(low, high)
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
        """Return the answer to a request that may be sent again; ``answers`` checks that it belongs to the request."""
        waits = delays(_TRIES)
        while True:
            self._check_time()
            try:
                response = call()
                with suppress(KeyError, TypeError, AttributeError):
                    if answers(response):
                        return response
                raise BadAnswerError(what="what was asked for is not in it")
            except DRIVER_ERRORS as error:
                if not ((is_passing(code_of(error)) or is_lost(error)) and _waited(waits)):
                    raise self.translated(error) from error

    def _check_time(self) -> None:
        """Refuse to begin a request when the operation has taken too long."""
        if remaining(inf) == 0:
            raise StoreUnavailableError(
                f"{self._where}: took longer than {self._where.timeout:g} s; nothing was written"
            )

    # writing

    def put(self, item: Item, condition: Condition | None = None) -> Action:
        """Return the action that stores an item."""
        return self._action("put", item.key, condition, size_of_item(item), key="Item", attributes=item.values)

    def delete(self, key: Key, condition: Condition | None = None, *, size: int = 0) -> Action:
        """Return the action that deletes the item at a key."""
        return self._action("delete", key, condition, size)

    def check(self, key: Key, condition: Condition) -> Action:
        """Return the action that checks a condition."""
        return self._action("check", key, condition)

    def add(self, key: Key, name: str, value: int, beside: dict[str, str]) -> Action:
        """Return the action that adds to a number, and sets the other attributes of the item."""
        sets = [Path([other]).set(text) for other, text in beside.items()]
        return self._action("update", key, actions=[Path([name]).add(value), *sets])

    def _action(
        self, kind: Kind, place: Key, condition: Condition | None = None, size: int = 0, **options: Any
    ) -> Action:
        """Return an action; with a condition, it asks for the item that is found if that does not hold."""
        found = None if condition is None else "ALL_OLD"
        request = self._connection.get_operation_kwargs(
            self.name, *place, condition=condition, return_values_on_condition_failure=found, **options
        )
        return Action(kind, place, request, size)

    def is_absent(self) -> Condition:
        """Return the condition that there is no item."""
        return Path([self.key_names[0]]).does_not_exist()

    def has_stamp(self, stamp: str | None) -> Condition:
        """Return the condition that an item has this stamp; for None, that there is no item."""
        return self.is_absent() if stamp is None else Path("stamp") == stamp

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
                if not ((is_in_doubt or is_passing(reason)) and _waited(waits)):
                    raise self._given_up(error, reason, in_doubt=in_doubt) from error
            else:
                return

    def _given_up(self, error: TransactWriteError, reason: str | None, *, in_doubt: bool) -> Exception:
        """Return the error that ends a transaction's tries; in doubt, if one of them may have been written."""
        is_whole = reason is None or reason == code_of(error)
        last = self.translated(error, writing=True) if is_whole else meaning_of(str(reason), self._where)
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


def _waited(waits: Iterator[float]) -> bool:
    """Wait before another try; return False if there is none, or no time for it."""
    if (wait := next(waits, None)) is None or remaining(inf) <= wait:
        return False
    time.sleep(wait)
    return True


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
