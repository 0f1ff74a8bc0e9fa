"""`Table`: the few requests to DynamoDB that the adapter makes, repeated where that is safe, their errors translated.

All reads are strongly consistent. PynamoDB's `Connection` makes the requests. Its own loops over what is left unprocessed do not
wait, so these loops are here.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from pynamodb.connection import Connection
from pynamodb.connection.base import MetaTable
from pynamodb.exceptions import PynamoDBException, TransactWriteError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path

from memory.adapters.dynamodb.clients import BadAnswerError, Clients
from memory.adapters.dynamodb.errors import Failure, cause_of, delays, failure_by, failure_of
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.records import Item, size_of_item
from memory.domain.values import new_id
from memory.errors import StoreUnavailableError
from memory.port.deadlines import remaining
from memory.port.repository import Repository

T = TypeVar("T")
Kind: TypeAlias = Literal["check", "delete", "put", "update"]

MOST_ACTIONS: Final = 100
"""Of one transaction."""

MOST_BYTES: Final = 3_900_000
"""Of one transaction: DynamoDB's limit is 4 MB, and it counts slightly differently."""

_TRIES: Final = 7  # over about two seconds
_TRIES_TO_WRITE: Final = 12  # over about five: other transactions of the same items last that long only in a jam
_QUERIED_AT_MOST: Final = 10_000
_UNCOUNTED: Final = "NONE"  # PynamoDB asks for the capacity consumed, if nothing is said
_READ_AT_ONCE: Final = 100  # DynamoDB's limit of a batch


class Action(NamedTuple):
    """One action of a transaction."""

    kind: Kind
    key: Key
    request: dict[str, Any]
    size: int


class RefusedError(Exception):
    """A transaction whose conditions did not all hold: nothing of it was written.

    Attributes:
        found: the items whose condition failed (None: there is no item).
    """

    def __init__(self, found: dict[Key, Item | None]) -> None:
        super().__init__(found)
        self.found = found


class _Connection(Connection):
    """PynamoDB's connection, on our clients: its own would replace a client without credentials by one that checks no answers."""

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._clients = clients

    @property
    def client(self) -> Any:
        return self._clients.get()


class Table:
    """One table. Safe to use from several threads.

    Args:
        name: its name.
        key_names: the names of its partition key and its sort key.
        where: the repository, which errors name.
        clients: the client that each process uses.
        repeats: the client repeats requests by itself.
    """

    def __init__(
        self, name: str, key_names: tuple[str, str], where: Repository, clients: Clients, *, repeats: bool
    ) -> None:
        self.name = name
        self.key_names = key_names
        self._where = where
        self._clients = clients
        self._repeats = repeats
        self._connection = _Connection(clients)
        self._connection.add_meta_table(MetaTable({"TableName": name, **key_schema(key_names)}))

    # reading

    def get(self, key: Key) -> Item | None:
        """Return an item, None if there is none."""
        items = self._read(
            lambda: self._connection.get_item(self.name, *key, consistent_read=True),
            lambda answer: self._items([answer["Item"]] if "Item" in answer else [], key.__eq__),
        )
        return items[0] if items else None

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Item]:
        """Return those of the items that exist, a hundred with each request."""
        found: dict[Key, Item] = {}
        for some in in_batches(dict.fromkeys(keys), _READ_AT_ONCE):
            wanted, waits = some, delays(_TRIES)
            while wanted:
                items, wanted = self._get_batch(wanted)
                found |= {item.key: item for item in items}
                if wanted and not items and not waited(waits):
                    raise failure_by("ThrottlingException", "nothing of a batch was read").error(self._where)
        return found

    def _get_batch(self, wanted: list[Key]) -> tuple[list[Item], list[Key]]:
        """Return the items of one request, and the keys that it left unprocessed."""
        asked: list[Any] = [self._place(key) for key in wanted]

        def parse(answer: dict[str, Any]) -> tuple[list[Item], list[Key]]:
            unread = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", ())
            items = self._items(answer["Responses"].get(self.name, ()), set(wanted).__contains__)
            return items, [item.key for item in self._items(unread, set(wanted).__contains__)]

        def call() -> dict[str, Any]:
            return self._connection.batch_get_item(self.name, asked, consistent_read=True)

        return self._read(call, parse)

    def query(
        self, partition: str, low: str, high: str, *, backwards: bool = False, limit: int | None = None
    ) -> Iterator[Item]:
        """Yield the items of a partition with ``low <= sort key <= high``, in order; arguments as `pages`."""
        for items, _ in self.pages(partition, low, high, backwards=backwards, limit=limit):
            yield from items

    def pages(
        self, partition: str, low: str, high: str, *, backwards: bool = False, limit: int | None = None
    ) -> Iterator[tuple[list[Item], bool]]:
        """Yield what `query` yields as the lists that the requests bring, and whether that was the last request.

        Args:
            partition: the partition key.
            low: the lowest sort key.
            high: the highest sort key.
            backwards: from the highest to the lowest.
            limit: how many items each request asks for; if None, or too many, all that fit a megabyte.
        """
        within = Path([self.key_names[1]]).between(low, high)
        start: dict[str, Any] | None = None

        def call() -> dict[str, Any]:
            return self._connection.query(
                self.name,
                partition,
                within,
                consistent_read=True,
                exclusive_start_key=start,
                limit=limit if limit and limit <= _QUERIED_AT_MOST else None,
                scan_index_forward=not backwards,
                return_consumed_capacity=_UNCOUNTED,
            )

        def parse(answer: dict[str, Any]) -> tuple[list[Item], dict[str, Any] | None]:
            items = self._items(answer["Items"], lambda key: key[0] == partition and low <= key[1] <= high)
            return items, answer.get("LastEvaluatedKey")

        while True:
            items, start = self._read(call, parse)
            yield items, start is None
            if start is None:
                return

    def _place(self, key: Key) -> dict[str, Any]:
        partition, sort = self.key_names
        return {partition: {"S": key[0]}, sort: {"S": key[1]}}

    def _items(self, raw: Iterable[dict[str, Any]], are_asked_for: Callable[[Key], bool]) -> list[Item]:
        """Return the items of an answer; raise `LookupError` if it is not an answer to the request."""
        partition, sort = self.key_names
        items = [Item((each[partition]["S"], each[sort]["S"]), each) for each in raw]
        if not all(are_asked_for(item.key) for item in items):
            raise LookupError
        return items

    def _read(self, call: Callable[[], dict[str, Any]], parse: Callable[[dict[str, Any]], T]) -> T:
        """Return what ``parse`` makes of the answer to a request; it is sent again if that fails, or seems temporary."""
        waits = delays(_TRIES)
        while True:
            self._check_time()
            try:
                return self._parsed(call(), parse)
            except (PynamoDBException, BotoCoreError, ClientError) as error:
                failure = failure_of(error)
                if not (failure and failure.passes and waited(waits)):
                    raise self.translated(error) from error

    def _parsed(self, answer: dict[str, Any], parse: Callable[[dict[str, Any]], T]) -> T:
        try:
            return parse(answer)
        except (LookupError, TypeError, AttributeError) as error:
            raise BadAnswerError(what="what was asked for is not in it") from error

    def _check_time(self) -> None:
        """Refuse to begin a request when the operation has taken too long."""
        if remaining(inf) == 0:
            raise StoreUnavailableError(
                f"{self._where}: took longer than {self._where.timeout:g} s; nothing was written"
            )

    # writing

    def put(self, item: Item, condition: Condition | None = None) -> Action:
        """Return the action that stores an item."""
        request = {"TableName": self.name, "Item": self._place(item.key) | item.values}
        return Action("put", item.key, _on(condition, request), size_of_item(item))

    def delete(self, key: Key, condition: Condition | None = None, *, size: int = 0) -> Action:
        """Return the action that deletes the item at a key."""
        return Action("delete", key, _on(condition, {"TableName": self.name, "Key": self._place(key)}), size)

    def check(self, key: Key, condition: Condition) -> Action:
        """Return the action that checks a condition."""
        return self.delete(key, condition)._replace(kind="check")

    def add(self, key: Key, name: str, value: int, beside: dict[str, str]) -> Action:
        """Return the action that adds to a number, and sets the other attributes of the item."""
        actions = [Path([name]).add(value), *(Path([other]).set(text) for other, text in beside.items())]
        return Action("update", key, self._connection.get_operation_kwargs(self.name, *key, actions=actions), 0)

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
        checks, deletes, puts, updates = (
            [action.request for action in actions if action.kind == kind] for kind in get_args(Kind)
        )
        waits, in_doubt, token = delays(_TRIES_TO_WRITE), False, new_id()
        self._check_time()
        while True:
            try:
                self._connection.transact_write_items(checks, deletes, puts, updates, token, _UNCOUNTED)
            except TransactWriteError as error:
                failure = self._failure_of(error, actions)
                in_doubt = in_doubt or failure.in_doubt
                if not (failure.passes and waited(waits)):
                    raise failure.error(self._where, in_doubt=in_doubt) from error
            else:
                return

    def _failure_of(self, error: TransactWriteError, actions: Sequence[Action]) -> Failure:
        """Return what made a transaction fail; raise `RefusedError` if that is a condition."""
        in_order = sorted(actions, key=attrgetter("kind"))  # as PynamoDB sends them
        reasons = [
            (action.key, reason)
            for action, reason in zip(in_order, error.cancellation_reasons, strict=False)
            if reason is not None
        ]
        refused = [(key, reason.raw_item) for key, reason in reasons if reason.code == "ConditionalCheckFailed"]
        if refused:
            raise RefusedError({key: Item(key, raw) if raw else None for key, raw in refused})
        if reasons:
            return failure_by(reasons[0][1].code, reasons[0][1].message)
        failure = failure_of(error, repeats=self._repeats)
        if failure is None:
            raise error
        return failure

    def translated(self, error: Exception) -> Exception:
        """Return the error of ours for one of the driver's, at a request that writes nothing."""
        if isinstance(cause_of(error), NoCredentialsError):
            self._clients.renew()
        failure = failure_of(error)
        return error if failure is None else failure.error(self._where)


def _on(condition: Condition | None, request: dict[str, Any]) -> dict[str, Any]:
    """Return a request with its condition; it asks for the item that is found if that does not hold."""
    if condition is not None:
        names: dict[str, str] = {}
        values: dict[str, Any] = {}
        request["ConditionExpression"] = condition.serialize(names, values)
        request["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in names.items()}
        request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        if values:
            request["ExpressionAttributeValues"] = values
    return request


def key_schema(key_names: tuple[str, str]) -> dict[str, Any]:
    """Return how the table's keys are defined, as ``CreateTable`` has it."""
    return {
        "KeySchema": [
            {"AttributeName": name, "KeyType": kind} for name, kind in zip(key_names, ("HASH", "RANGE"), strict=True)
        ],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in key_names],
    }


def waited(waits: Iterator[float]) -> bool:
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
