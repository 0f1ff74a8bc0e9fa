"""Looking at what a repository sends to DynamoDB, and interfering with it, by botocore's own events before the real server."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3

from memory.adapters.dynamodb import DynamoDbRepository, keys, preparing
from memory.adapters.dynamodb.records import Item, Values, copy_values, parts_of, read_head
from memory.domain.criteria import EVERYTHING
from memory.domain.values import key_of

Reply = tuple[Any, dict[str, Any]]


@dataclass
class Calls:
    """The requests of a block: their names, and the capacity units that AWS would bill.

    Read units are what the server says. What DynamoDB Local says of transactions is not what AWS documents (it adds up all sizes
    before it rounds), so write units are counted here: for each action twice the kilobytes of the larger of the item before and
    after.
    """

    names: list[str] = field(default_factory=list)
    read_units: float = 0
    write_units: float = 0

    def counted(self) -> dict[str, int]:
        return dict(Counter(self.names))


_READS = ("GetItem", "BatchGetItem", "Query", "TransactGetItems")


@contextmanager
def watched(client: Any) -> Iterator[Calls]:
    """Count the requests of a block."""
    calls = Calls()

    bystander = boto3.client("dynamodb", endpoint_url=client.meta.endpoint_url)

    def ask(params: dict[str, Any], model: Any, **_: object) -> None:
        if model.name in _READS:
            params["ReturnConsumedCapacity"] = "TOTAL"
        elif model.name == "TransactWriteItems":
            calls.write_units += sum(
                2 * _units(bystander, action) for each in params["TransactItems"] for action in each.values()
            )
        elif model.name == "BatchWriteItem":
            for table, requests in params["RequestItems"].items():
                for request in requests:
                    (action,) = request.values()
                    calls.write_units += _units(bystander, {"TableName": table, **action})

    def note(parsed: dict[str, Any], model: Any, **_: object) -> None:
        calls.names.append(model.name)
        if model.name not in _READS:
            return
        consumed = parsed.get("ConsumedCapacity", [])
        for each in consumed if isinstance(consumed, list) else [consumed]:
            calls.read_units += each["CapacityUnits"]

    with (
        closing(bystander),
        _handling(client, "provide-client-params.dynamodb.*", ask),
        _handling(client, "after-call.dynamodb.*", note),
    ):
        yield calls


def _units(client: Any, action: dict[str, Any]) -> int:
    """Return the kilobytes that an action is billed for."""
    new = action.get("Item", {})
    key = action.get("Key") or {name: new[name] for name in ("pk", "sk")}
    old = client.get_item(TableName=action["TableName"], Key=key, ConsistentRead=True).get("Item", {})
    return max(1, *(-(-_size(item) // 1024) for item in (old, new)))


def _size(item: dict[str, Any]) -> int:
    size = 0
    for name, value in item.items():
        ((kind, content),) = value.items()
        size += len(name)
        size += {"N": len(str(content)) // 2 + 2, "S": len(str(content).encode()), "BOOL": 1}[kind]
    return size


@contextmanager
def before_each(client: Any, operation: str, do: Callable[[int], Reply | None]) -> Iterator[None]:
    """Do something before each request of an operation, with its number from 0; a reply replaces the server's."""
    numbers = iter(range(10**9))
    with _handling(client, f"before-call.dynamodb.{operation}", lambda **_: do(next(numbers))):
        yield


@contextmanager
def after_each(client: Any, operation: str, do: Callable[[int], None]) -> Iterator[None]:
    """Do something after the server has answered each request of an operation; raise, and the answer is lost."""
    numbers = iter(range(10**9))
    with _handling(client, f"after-call.dynamodb.{operation}", lambda **_: do(next(numbers))):
        yield


@contextmanager
def _handling(client: Any, event: str, handler: Callable[..., object]) -> Iterator[None]:
    client.meta.events.register(event, handler)
    try:
        yield
    finally:
        client.meta.events.unregister(event, handler)


def failure(code: str, *reasons: str, status: int = 400) -> Reply:
    """Return a reply that is an error of AWS; with the reasons why a transaction was cancelled."""
    parsed: dict[str, Any] = {
        "Error": {"Code": code, "Message": "a test says so"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    if reasons:
        parsed["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return SimpleNamespace(status_code=status), parsed


def items_of(repository: DynamoDbRepository, namespace: str) -> dict[keys.Key, Item]:
    """Return every item that belongs to a namespace, receipts and counters left out."""
    table = repository._table
    found = {}
    for page in repository.client.get_paginator("scan").paginate(TableName=table.name, ConsistentRead=True):
        raw: Any
        for raw in page["Items"]:
            item = Item((raw["pk"]["S"], raw["sk"]["S"]), raw)
            if namespace in item.key[0] and not item.key[0].startswith("receipt#"):
                found[item.key] = item
    return found


def check_tidy(repository: DynamoDbRepository, namespace: str) -> None:
    """Assert that in a namespace there is nothing but what the heads say there is, and all of that."""
    items, space = items_of(repository, namespace), repository._space(namespace)
    expected: dict[keys.Key, Values] = {}
    heads = [read_head(item) for key, item in items.items() if key[1] == keys.STATE]
    for head in heads:
        assert head.record is not None, "a commit that broke off has left a head"
        assert not head.unswept
        (whole,) = space.with_metadata({head.record.id: head}).values()
        pointers = preparing.pointers(space, head) | preparing.index_places(space, whole)
        expected |= {key: {"id": {"S": key_of(head.record.id)}} for key in pointers}
        expected |= dict.fromkeys(preparing.copy_places(space, head), copy_values(head))
        partition, state = keys.partition("conversation", namespace, key_of(head.record.id)), keys.STATE
        alive = [item for key, item in items.items() if key[0] == partition and head.has(item)]
        assert len(alive) == head.record.run_count
        opened = {place: item for item in alive if (place := space.open_place(head.record.id, item))}
        assert all(head.first_open is not None and head.first_open <= item.position for item in opened.values())
        expected |= {place: {"run": {"S": item.key[1]}} for place, item in opened.items()}
        texts = [parts for item in alive if (parts := parts_of(item))] + ([head.parts] if head.parts else [])
        places = [place for parts in texts for place in parts.places(partition)]
        expected |= {key: {} for key in [(partition, state), *places, *(item.key for item in alive)]}
    assert not (extra := sorted(items.keys() - expected.keys())), extra
    assert not (missing := sorted(expected.keys() - items.keys())), missing
    for key, values in expected.items():
        assert values.items() <= items[key].values.items()
    with repository.searching(namespace, EVERYTHING) as search:
        assert search.total() == sum(head.visible(repository.clock()) is not None for head in heads)
