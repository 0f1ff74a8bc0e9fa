"""The upgrade from version 0002 of the layout: heads without ``last_run_at``, listed only by ``updated_at``."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.domain.values import to_microseconds
from memory.errors import PersistenceError, SchemaError
from memory.port.changes import Change, ChangeSet
from memory.testing.base import read, walk
from tests.adapters.dynamodb.watching import before_each, check_tidy, failure, items_of, watched
from tests.servers import Server

START = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = 12


def fill(store: Store) -> None:
    """Create conversations whose last runs are a day apart, in the opposite order of their ids."""
    for n in range(COUNT):
        ages = [START - timedelta(days=n + 400), START - timedelta(days=n)]
        with store.begin() as uow:
            uow.conversations.add(Conversation(f"c{n:02}", {"n": n}, created_at=START - timedelta(days=500)))
            uow.runs.append(f"c{n:02}", *[Run("in", "out", created_at=age) for age in ages])
    with store.begin() as uow:
        uow.conversations.get("c00").metadata = {"_text": "x" * 2_000}
    with store.begin() as uow:
        uow.conversations.add(Conversation("empty"))
        uow.conversations.add(Conversation("expired", expires_at=START))


def make_old(repository: DynamoDbRepository, namespace: str) -> None:
    """Turn the items of a table into those that version 0002 wrote."""
    client, table = repository.client, repository._table.name
    for key, item in items_of(repository, namespace).items():
        values = {name: value for name, value in item.values.items() if name != "last_run_at"}
        if key[0].startswith(("list#last_run_at", "list#updated_at")):
            client.delete_item(TableName=table, Key={name: item.values[name] for name in ("pk", "sk")})
            updated_at = keys.listed(item.number("updated_at"), item.text("id"))
            values |= {"pk": {"S": keys.partition("list", "updated_at", namespace, 0)}, "sk": {"S": updated_at}}
        client.put_item(TableName=table, Item=values)
    set_version(repository, "0002")


def set_version(repository: DynamoDbRepository, version: str) -> None:
    repository.client.update_item(
        TableName=repository._table.name,
        Key={"pk": {"S": keys.SCHEMA[0]}, "sk": {"S": keys.SCHEMA[1]}},
        UpdateExpression="SET version = :v",
        ExpressionAttributeValues={":v": {"S": version}},
    )


def check(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    """Assert that every list has every conversation once."""
    for order in ("last_run_at", "updated_at", "created_at", "id"):
        assert len(walk(store, order=order, limit=5)) == COUNT + 1
    assert store.purge_expired() == 1
    check_tidy(repository, namespace)


@pytest.fixture
def upgrader(repository: DynamoDbRepository, store: Store, namespace: str, dynamodb_server: Server) -> Any:
    """A repository of a new process, which finds the table as version 0002 left it."""
    fill(store)
    make_old(repository, namespace)
    repository._seen.clear()
    with closing(DynamoDbRepository(repository._table.name, endpoint=dynamodb_server.url)) as upgrader:
        yield upgrader


def test_an_upgrade(upgrader: DynamoDbRepository, namespace: str) -> None:
    store = Store(upgrader, namespace)
    with pytest.raises(SchemaError, match=r"has schema 0002.*needs 0003"):
        store.begin()
    assert [step.split()[:4] for step in upgrader.migration_steps()] == [["list", "the", "conversations", "by"]]
    with watched(upgrader.client) as calls:
        assert upgrader.migrate().is_current
    assert calls.write_units == (COUNT + 2) * 6 + 2  # and the version
    assert calls.read_units <= (COUNT + 2) * 2 + 10
    assert upgrader.migration_steps() == []
    found = [one.id for one in walk(store, order="last_run_at") if one.id != "empty"]
    assert found == [f"c{n:02}" for n in reversed(range(COUNT))]
    assert read(store, "c03").last_run_at == START - timedelta(days=3)
    assert [one.id for one in store.conversations.find(where.last_run_at < START - timedelta(days=10))] == ["c11"]
    check(upgrader, store, namespace)


@pytest.mark.usefixtures("no_waiting")
def test_an_interrupted_upgrade_is_resumed(upgrader: DynamoDbRepository, namespace: str) -> None:
    for reached in (0, 3, 5):
        with (
            before_each(
                upgrader.client,
                "TransactWriteItems",
                lambda number, reached=reached: (
                    failure("InternalServerError", status=500) if number >= reached else None
                ),  # type: ignore[misc]
            ),
            pytest.raises(PersistenceError),
        ):
            upgrader.migrate()
        assert upgrader.schema_status().current == "0002"
    assert upgrader.migrate().is_current
    check(upgrader, Store(upgrader, namespace), namespace)


def test_others_write_and_upgrade_at_the_same_time(
    upgrader: DynamoDbRepository, repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    """Each conversation is written by someone else just before it is upgraded, and another migration is finished meanwhile."""
    at = to_microseconds(START, "now")

    def interfere(number: int) -> None:
        if number < COUNT:  # a write upgrades the conversation too, so each is refused once, and then is done
            run = Run("in", "out", created_at=START - timedelta(days=number)).to_record()
            repository.commit(namespace, ChangeSet((Change(f"c{number:02}", append=(run,)),), at=at))
        elif number == COUNT:
            assert repository.migrate().is_current

    with before_each(upgrader.client, "TransactWriteItems", interfere):
        assert upgrader.migrate().is_current
    assert {one.run_count for one in walk(store)} == {3, 0}
    check(upgrader, store, namespace)


def test_shards_are_kept(upgrader: DynamoDbRepository, dynamodb_server: Server) -> None:
    """An upgrade does not change the number of shards; a larger one that was asked for follows."""
    table = upgrader._table.name
    with closing(DynamoDbRepository(table, endpoint=dynamodb_server.url, shards=3)) as grown:
        assert [step.split()[0] for step in grown.migration_steps()] == ["list", "spread"]
        assert grown.migrate().is_current
        item = grown._table.get(keys.SCHEMA)
    assert item is not None
    assert (item.number("shards"), item.number("shards_before")) == (3, 1)
