"""Expired conversations, and what DynamoDB deletes by itself: receipts."""

from datetime import UTC, datetime, timedelta

import pytest

from memory import Conversation, Store
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.domain.values import now
from memory.testing.base import Clock, committed, put, read, run, walk
from tests.adapters.dynamodb.watching import check_tidy, items_of, watched

SOON = datetime.now(UTC) + timedelta(seconds=3600)
DAY = 24 * 3600


def put_expiring(store: Store, name: str = "a", runs: int = 5) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(name, {"n": 1, "tags": ["x"]}, SOON))
        uow.runs.append(name, *(run(n) for n in range(runs)))


@pytest.fixture
def later(repository: DynamoDbRepository, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock of the repository by which what expires soon has expired."""
    clock = Clock()
    clock.time = int(SOON.timestamp() * 1_000_000) + 1
    monkeypatch.setattr(repository, "clock", clock)
    return clock


def test_only_receipts_have_a_time_to_live(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    put_expiring(store)
    assert not [item for item in items_of(repository, namespace).values() if "ttl" in item.values]
    done = committed(store, lambda uow: uow.runs.append("a", run("new")))
    item = repository._table.get((keys.partition("receipt", namespace, done.changes.token), "receipt"))
    assert item is not None
    assert abs(int(item.values["ttl"]["N"]) - now() // 1_000_000 - DAY) < 60
    description = repository.client.describe_time_to_live(TableName=repository._table.name)["TimeToLiveDescription"]
    assert (description.get("TimeToLiveStatus"), description.get("AttributeName")) == ("ENABLED", "ttl")


def test_an_expiry_that_moves_on_rewrites_no_entries(repository: DynamoDbRepository, store: Store) -> None:
    """The head, its copy, the receipt, and the old and the new place in the lists by time of change and by expiry."""
    with store.begin() as uow:
        uow.conversations.add(conversation := Conversation("a", {f"k{n}": n for n in range(30)}, SOON))
        uow.commit()
        conversation.expires_at = SOON + timedelta(days=6)
        with watched(repository.client) as calls:
            uow.commit()
    assert calls.counted() == {"TransactWriteItems": 1}
    assert calls.write_units <= 14


def test_made_anew_in_the_place_of_an_expired_one(
    repository: DynamoDbRepository, store: Store, namespace: str, later: Clock
) -> None:
    """The old runs are still there, and no window shows them."""
    put_expiring(store, runs=30)
    assert "a" not in store.begin().conversations
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"new": 1}))
        uow.runs.append("a", run("new"), run("newer"))
    uow = store.begin()
    for found in (
        uow.runs.last("a", 5),
        uow.runs.list("a"),
        uow.runs.first("a", 5),
        uow.runs.list("a", after=0, before=9),
    ):
        assert [one.input for one in found] == ["new", "newer"]
    assert store.purge_expired() == 0
    check_tidy(repository, namespace)
    assert read(store, "a").run_count == 2
    assert later.time == repository.clock()


@pytest.mark.usefixtures("later")
def test_purging_many(repository: DynamoDbRepository, store: Store, other: DynamoDbRepository, namespace: str) -> None:
    put(store, "lasting", {"n": 1})
    for n in range(30):
        with store.begin() as uow:
            uow.conversations.add(Conversation(f"c{n}", {"tags": list(range(n * 5))}, SOON))
            uow.runs.append(f"c{n}", run(n))
    assert store.begin().conversations.count() == 1
    assert Store(other, namespace).purge_expired() == 0  # by its clock they have not expired
    assert store.purge_expired() == 30
    assert [one.id for one in walk(store)] == ["lasting"]
    check_tidy(repository, namespace)
    assert namespace in store.namespaces()
