"""Looking at what a repository sends to DynamoDB, and interfering with it, by botocore's own events before the real server."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3

from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.adapters.dynamodb.models import Kept
from memory.adapters.dynamodb.satellites import satellites_of

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
        size += len(content) // 2 + 2 if kind == "N" else len(content.encode() if kind == "S" else content)
    return size


@contextmanager
def before_each(client: Any, operation: str, do: Callable[[int], Reply | None]) -> Iterator[None]:
    """Do something before each request of an operation, told its number from 0; a reply stands for the server's."""
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
        "Error": {"Code": code, "Message": "told so by a test"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    if reasons:
        parsed["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return SimpleNamespace(status_code=status), parsed


def items_of(repository: DynamoDbRepository, namespace: str) -> dict[keys.Key, Any]:
    """Return every item that belongs to a namespace, receipts left out."""
    table = repository._table
    found = {}
    for page in repository.client.get_paginator("scan").paginate(TableName=table.name, ConsistentRead=True):
        for raw in page["Items"]:
            item = table._item(raw)
            if namespace.encode() in item.pk and not item.pk.startswith(b"k"):
                found[item.pk, item.sk] = item
    return found


def check_tidy(repository: DynamoDbRepository, namespace: str) -> None:
    """Assert that in a namespace there is nothing but what the heads say there is, and all of that."""
    items = items_of(repository, namespace)
    shards, reader, models = repository._shards, repository._reader, repository._table.models
    expected: set[keys.Key] = set()
    for key, item in items.items():
        if key[1] != keys.HEAD or not isinstance(item, models.Head):
            continue
        held = models.held(item)
        assert held.stage is None, f"the head of {item.id!r} is still locked"
        assert held.kept is not None
        kept: Kept = reader.with_texts(namespace, {item.id: held.kept})[item.id]
        satellites = satellites_of(namespace, kept, shards)
        for place, satellite in satellites.items():
            assert place in items, f"a satellite of {item.id!r} is missing"
            wanted = models.raw(satellite.item(models, place))
            assert models.raw(items[place]) == wanted, f"a satellite of {item.id!r} says something else"
        metadata = {(key[0], keys.metadata_part(kept.metadata_set, n + 1)) for n in range(kept.parts)}
        runs = {place for place in items if place[0] == key[0] and place[1].startswith(keys.RUNS)}
        alive = {place for place in runs if _is_alive(place, kept, items)}
        assert sum(not keys.part_of(sk) for _, sk in alive) == kept.record.run_count
        expected |= {key, *satellites, *metadata, *alive}
    assert sorted(items.keys() - expected) == []


def _is_alive(place: keys.Key, kept: Kept, items: dict[keys.Key, Any]) -> bool:
    pk, sk = place
    position = keys.position_of(sk)
    if keys.set_of(sk) != kept.run_set or not kept.first <= position <= kept.record.last_position:
        return False
    run = items.get((pk, keys.run(kept.run_set, position)))
    return run is not None and keys.part_of(sk) <= (run.parts or 0)
