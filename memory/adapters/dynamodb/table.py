"""`Table`: sends the adapter's requests to DynamoDB, retries them if that is safe, and translates errors.

All reads are strongly consistent.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from memory.adapters.dynamodb.clients import Clients
from memory.adapters.dynamodb.errors import Failure, code_of, delays, failure_by, failure_of
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.records import Item, Values, size_of_item
from memory.domain.values import new_id
from memory.errors import StoreUnavailableError
from memory.port.deadlines import remaining
from memory.port.repository import Repository

T = TypeVar("T")
Condition: TypeAlias = dict[str, Any]

MOST_ACTIONS: Final = 100
"""The maximum number of actions in a transaction: DynamoDB's limit."""

MOST_BYTES: Final = 3_900_000
"""The maximum size of a transaction. DynamoDB's limit is 4 MB, but it computes sizes slightly differently."""

_TRIES: Final = 7  # in about two seconds
_TRIES_TO_WRITE: Final = 12  # in about five seconds: conflicts with other transactions last longer only under overload
_RETURN_ITEM: Final = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}

IS_ABSENT: Final[Condition] = {"ConditionExpression": "attribute_not_exists(pk)", **_RETURN_ITEM}
"""The condition that the item does not exist."""

_QUERIED_AT_MOST: Final = 10_000
_READ_AT_ONCE: Final = 100  # DynamoDB's limit for a batch


class Action(NamedTuple):
    """One action of a transaction: the key of the item, the request, and the estimated size in bytes."""

    key: Key
    request: dict[str, Any]
    size: int


class RefusedError(Exception):
    """A condition of a transaction failed, so nothing was written. ``found`` has the items (None: the item does not exist)."""

    def __init__(self, found: dict[Key, Item | None]) -> None:
        super().__init__(found)
        self.found = found


class Table:
    """One table, accessed with the client of the current process. Errors name the repository ``where``."""

    def __init__(self, name: str, where: Repository, clients: Clients) -> None:
        self.name = name
        self.clients = clients
        self._where = where

    def ask(self, operation: str, *, unless: str = "", **arguments: object) -> Any:
        """Send a request that may be repeated, and return the response, or None if it fails with the error code ``unless``."""
        waits = delays(_TRIES)
        while True:
            self._check_time()
            try:
                return getattr(self.clients.get(), operation)(**arguments)
            except (BotoCoreError, ClientError) as error:
                if unless and code_of(error) == unless:
                    return None
                failure = self.failure_of(error)
                if not (failure.is_temporary and back_off(waits)):
                    raise failure.error(self._where) from error

    def _check_time(self) -> None:
        """Raise `StoreUnavailableError` if the operation's deadline has expired."""
        if remaining(inf) == 0:
            raise StoreUnavailableError(
                f"{self._where}: the operation took longer than {self._where.timeout:g} s; nothing was written"
            )

    # reading

    def get(self, key: Key) -> Item | None:
        """Return an item, or None if it does not exist."""
        answer = self.ask("get_item", TableName=self.name, Key=_place(key), ConsistentRead=True)
        return Item(key, answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Iterable[Key]) -> dict[Key, Item]:
        """Return the items that exist, reading up to a hundred per request."""
        found: dict[Key, Item] = {}
        wanted, waits = [_place(key) for key in dict.fromkeys(keys)], delays(_TRIES)
        while wanted:
            batch, wanted = wanted[:_READ_AT_ONCE], wanted[_READ_AT_ONCE:]
            asked = {self.name: {"Keys": batch, "ConsistentRead": True}}
            answer = self.ask("batch_get_item", RequestItems=asked)
            items = [_item(each) for each in answer["Responses"].get(self.name, ())]
            unread = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            found |= {item.key: item for item in items}
            wanted += unread
            if unread and not items and not back_off(waits):
                raise failure_by("ThrottlingException", "no item of a batch was read").error(self._where)
        return found

    def query(
        self, partition: str, low: str, high: str, *, backwards: bool = False, limit: int | None = None
    ) -> Iterator[Item]:
        """Yield the items of a partition with ``low <= sort key <= high``, in order; for the arguments see `pages`."""
        for items, _ in self.pages(partition, low, high, backwards=backwards, limit=limit):
            yield from items

    def pages(
        self, partition: str, low: str, high: str, *, backwards: bool = False, limit: int | None = None
    ) -> Iterator[tuple[list[Item], bool]]:
        """Yield the items that each request of `query` returns, and whether it was the last request.

        ``limit`` is the maximum number of items of the first request. Every other request returns up to a megabyte.
        """
        asked: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": "pk = :partition AND sk BETWEEN :low AND :high",
            "ExpressionAttributeValues": {":partition": {"S": partition}, ":low": {"S": low}, ":high": {"S": high}},
            "ScanIndexForward": not backwards,
            "ConsistentRead": True,
        }
        if limit is not None and limit <= _QUERIED_AT_MOST:
            asked["Limit"] = limit
        while True:
            answer = self.ask("query", **asked)
            start = answer.get("LastEvaluatedKey")
            yield [_item(each) for each in answer["Items"]], start is None
            if start is None:
                return
            asked.pop("Limit", None)
            asked["ExclusiveStartKey"] = start

    # writing

    def put(self, item: Item, condition: Condition | None = None) -> Action:
        """Return the action that stores an item."""
        return self._action("Put", item.key, condition, size_of_item(item), Item=_place(item.key) | item.values)

    def delete(self, key: Key, condition: Condition | None = None, *, size: int = 0) -> Action:
        """Return the action that deletes the item at a key."""
        return self._action("Delete", key, condition, size, Key=_place(key))

    def check(self, key: Key, condition: Condition) -> Action:
        """Return the action that checks a condition."""
        return self._action("ConditionCheck", key, condition, Key=_place(key))

    def count(self, key: Key, added: int, namespace: str) -> Action:
        """Return the action that increments a counter."""
        update: dict[str, Any] = {
            "UpdateExpression": "ADD #count :added SET #namespace = :namespace",
            "ExpressionAttributeNames": {"#count": "count", "#namespace": "namespace"},
            "ExpressionAttributeValues": {":added": {"N": str(added)}, ":namespace": {"S": namespace}},
        }
        return self._action("Update", key, update, Key=_place(key))

    def _action(self, kind: str, key: Key, more: Condition | None, size: int = 0, **request: Values) -> Action:
        return Action(key, {kind: {"TableName": self.name, **request, **(more or {})}}, size)

    def write(self, actions: Sequence[Action]) -> None:
        """Write the actions in one transaction; retry temporary failures.

        All attempts use the same ``ClientRequestToken``, so DynamoDB responds to each with the outcome of the first.

        Raises:
            RefusedError: a condition failed.
            StoreUnavailableError: nothing was written.
            CommitInDoubtError: an attempt may have been written, and later ones failed.
        """
        waits, in_doubt = delays(_TRIES_TO_WRITE), False
        items: list[Any] = [action.request for action in actions]
        token = new_id()
        self._check_time()
        while True:
            try:
                self.clients.get().transact_write_items(TransactItems=items, ClientRequestToken=token)
            except (BotoCoreError, ClientError) as error:
                failure = self.failure_of(error, actions)
                in_doubt = in_doubt or failure.in_doubt
                if not (failure.is_temporary and back_off(waits)):
                    raise failure.error(self._where, in_doubt=in_doubt) from error
            else:
                return

    def failure_of(self, error: BotoCoreError | ClientError, actions: Sequence[Action] = ()) -> Failure:
        """Return the meaning of an error of a request, or of a transaction with these actions.

        Raises:
            RefusedError: the error reports that a condition of the transaction failed.
        """
        if isinstance(error, NoCredentialsError):
            self.clients.renew()
        reasons: list[Any] = error.response.get("CancellationReasons", []) if isinstance(error, ClientError) else []
        refused = {
            action.key: Item(action.key, reason["Item"]) if reason.get("Item") else None
            for action, reason in zip(actions, reasons, strict=False)
            if reason["Code"] == "ConditionalCheckFailed"
        }
        if refused:
            raise RefusedError(refused)
        for reason in reasons:
            if reason["Code"] != "None":
                return failure_by(reason["Code"], reason.get("Message"))._replace(in_doubt=False)
        return failure_of(error)


def has(name: str, value: dict[str, str]) -> Condition:
    """Return the condition that an attribute of the item has this value."""
    names, values = {"#name": name}, {":value": value}
    request = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    return {"ConditionExpression": "#name = :value", **request, **_RETURN_ITEM}


def has_stamp(stamp: str | None) -> Condition:
    """Return the condition that the item has this stamp or, for None, that it does not exist."""
    return IS_ABSENT if stamp is None else has("stamp", {"S": stamp})


def _place(key: Key) -> Values:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def _item(values: Values) -> Item:
    return Item((values["pk"]["S"], values["sk"]["S"]), values)


def back_off(waits: Iterator[float]) -> bool:
    """Sleep before the next attempt; return False if no attempt or no time is left."""
    if (wait := next(waits, None)) is None or remaining(inf) <= wait:
        return False
    time.sleep(wait)
    return True


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to ``size`` items, like `itertools.batched` of Python 3.12."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def in_transactions(actions: Iterable[Action]) -> Iterator[list[Action]]:
    """Yield the actions in order, in lists that fit into a transaction together with one more action."""
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
