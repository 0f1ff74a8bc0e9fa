"""What users of PynamoDB read by our public models: the same as the store."""

import json
from datetime import timedelta

import pytest

from memory import PENDING, Conversation, Run, Store
from memory.adapters.dynamodb import DynamoDbRepository
from memory.adapters.dynamodb.models import STATE, ConversationItem, RunItem, conversation_key
from memory.domain.values import key_of
from memory.testing.base import put, read, read_runs, run
from tests.adapters.dynamodb.watching import items_of
from tests.servers import Server


def test_conversations_and_runs_are_read_by_models(
    repository: DynamoDbRepository, store: Store, namespace: str, dynamodb_server: Server
) -> None:
    class Conversations(ConversationItem):
        class Meta:
            table_name = repository._table.name
            host = dynamodb_server.url
            region = "eu-central-1"

    class Runs(RunItem):
        class Meta(Conversations.Meta):
            pass

    with store.begin() as uow:
        uow.conversations.add(Conversation("a#1", {"customer": "ada"}, expires_after=timedelta(days=1)))
        uow.runs.append("a#1", *(Run(f"in {n}", [n], {"n": n}, is_open=n == 7) for n in range(1, 9)))
    with store.begin() as uow:
        uow.runs.remove("a#1", before=4)
        uow.runs.remove("a#1", 6)
    stored, partition = read(store, "a#1"), conversation_key(namespace, "a#1")
    item = Conversations.get(partition, STATE, consistent_read=True)
    assert (item.id, json.loads(item.metadata or "")) == (stored.id, stored.metadata)
    assert stored.record is not None
    for name in stored.record._fields:
        assert name == "metadata" or getattr(item, name) == getattr(stored.record, name)
    assert [item.first_position, item.first_open, item.unswept] == [4, 7, True]
    runs = list(Runs.query(partition, Runs.sk.between(*item.run_keys()), consistent_read=True))
    expected = read_runs(store, "a#1")
    assert [(one.position, one.id, json.loads(one.input or "")) for one in runs] == [
        (one.position, one.id, one.input) for one in expected
    ]
    assert [json.loads(one.metadata or "") for one in runs] == [one.metadata for one in expected]
    assert [one.is_open for one in runs] == [one.is_open for one in expected] == [False, False, True, False]
    last = Runs.query(partition, Runs.sk.between(*item.run_keys()), scan_index_forward=False, limit=2)
    assert [one.position for one in last] == [8, 7]


def test_the_models_have_every_attribute_that_is_written(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    put(store, "a", {"_large": "x" * 400_000}, run(1), Run("x" * 400_000, PENDING))
    with store.begin() as uow:
        uow.runs.remove("a", 1)
        uow.conversations.get("a").expires_after = timedelta(days=1)
        uow.conversations.get("a").metadata = {"_large": "y" * 400_000}
    found: set[str] = set()
    for key, item in items_of(repository, namespace).items():
        if not key[0].startswith("conversation#") or key[1].startswith("part#"):
            continue
        model = ConversationItem if key[1] == STATE else RunItem
        names = {attribute.attr_name for attribute in model.get_attributes().values()}
        assert item.values.keys() <= names
        model.from_raw_data(item.values)
        found |= item.values.keys()
    assert {"parts", "part_count", "sizes", "unswept", "first_position", "first_open", "open_shard"} <= found
    assert {"last_run_at", "expires_after"} <= found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("default", "support-42"), "conversation#default#support-42"),
        (("tenant#1", "50%"), "conversation#tenant%231#50%25"),
        (("default", "x" * 2_048), f"conversation#default#{key_of('x' * 2_048)}".replace("\t", "%09")),
        (("default", "größe 😀"), "conversation#default#größe 😀"),
    ],
)
def test_keys_can_be_read_by_people(names: tuple[str, str], expected: str) -> None:
    assert conversation_key(*names) == expected
