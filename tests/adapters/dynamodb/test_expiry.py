"""Expired conversations, and what DynamoDB's own clean-up does to them: it may take any of its items, in any order."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from memory import Conversation, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.adapters.dynamodb.models import ttl_of
from memory.testing.base import put, read, read_runs, run, walk
from tests.adapters.dynamodb.watching import check_tidy, items_of, watched

SOON = datetime.now(UTC) + timedelta(seconds=3600)
WEEK = 7 * 24 * 3600


def put_expiring(store: Store, name: str = "a", runs: int = 5) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(name, {"n": 1, "tags": ["x"]}, SOON))
        uow.runs.append(name, *(run(n) for n in range(runs)))


def test_only_what_follows_from_the_head_has_a_time_to_live(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    put_expiring(store)
    put(store, "lasting", {"n": 1})
    items = items_of(repository, namespace)
    assert all(item.ttl is None for item in items.values() if getattr(item, "id", None) == "lasting")
    of_a = {key: item.ttl for key, item in items.items() if getattr(item, "id", None) != "lasting"}
    without = {key for key, ttl in of_a.items() if ttl is None}
    assert all(sk.startswith(keys.RUNS) or pk.startswith(keys.BY_EXPIRY) for pk, sk in without)
    assert len(without) == 6
    assert {ttl for ttl in of_a.values() if ttl} == {ttl_of(int(SOON.timestamp() * 1_000_000))}
    description = repository.client.describe_time_to_live(TableName=repository._table.name)["TimeToLiveDescription"]
    assert (description.get("TimeToLiveStatus"), description.get("AttributeName")) == ("ENABLED", "ttl")


def test_a_time_to_live_lies_one_to_two_weeks_after_the_expiry() -> None:
    start = int(time.time()) + 1_000
    seconds = range(start, start + 3 * WEEK, 3_607)
    found = [ttl_of(second * 1_000_000) for second in seconds]
    assert all(
        ttl is not None and second + WEEK <= ttl <= second + 2 * WEEK
        for second, ttl in zip(seconds, found, strict=True)
    )
    assert sum(left != right for left, right in pairwise(found)) == 3
    assert (ttl_of(None), ttl_of(1_700_000_000_000_000)) == (None, None)  # the past is left to `purge_expired`


def test_an_expiry_that_moves_on_rewrites_no_entries(repository: DynamoDbRepository, store: Store) -> None:
    """Within a week of the grid; the version's condition, the head, its copy, the token, and the place in the list by expiry."""
    start = datetime.fromtimestamp((int(time.time()) // WEEK + 1) * WEEK, UTC)
    with store.begin() as uow:
        uow.conversations.add(conversation := Conversation("a", {f"k{n}": n for n in range(30)}, start))
        uow.commit()
        conversation.expires_at = start + timedelta(days=6)
        with watched(repository.client) as calls:
            uow.commit()
    assert calls.counted() == {"TransactWriteItems": 1}
    assert calls.write_units <= 16


@pytest.fixture
def later(repository: DynamoDbRepository, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let what expires soon be expired."""
    return lambda: monkeypatch.setattr(repository, "clock", lambda: int(SOON.timestamp() * 1_000_000) + 1)


@pytest.mark.parametrize("first", range(7))
def test_whatever_dynamodb_removes_first(
    repository: DynamoDbRepository, store: Store, namespace: str, first: int, later: Callable[[], None]
) -> None:
    """Of an expired conversation any item may be gone: the others hide with it, and purging takes the runs away."""
    put_expiring(store)
    with_ttl = [key for key, item in items_of(repository, namespace).items() if item.ttl is not None]
    assert len(with_ttl) == 7
    _remove(repository, [with_ttl[first]])
    later()
    assert walk(store) == walk(store, where("n") == 1) == walk(store, order="updated_at") == read_runs(store, "a") == []
    assert store.purge_expired() == 1
    left = items_of(repository, namespace)
    assert left.keys() <= set(with_ttl)  # these follow, where the head went first
    assert not left or with_ttl[first][1] == keys.HEAD


def test_all_that_dynamodb_removes(
    repository: DynamoDbRepository, store: Store, namespace: str, later: Callable[[], None]
) -> None:
    put_expiring(store)
    _remove(repository, [key for key, item in items_of(repository, namespace).items() if item.ttl is not None])
    later()
    assert "a" not in store.begin().conversations
    assert namespace in store.namespaces()  # who purges all of them finds the runs
    assert (store.purge_expired(), store.purge_expired()) == (1, 0)
    assert items_of(repository, namespace) == {}
    assert namespace not in store.namespaces()


def test_made_anew_where_dynamodb_removed_the_head(
    repository: DynamoDbRepository, other_store: Store, store: Store, namespace: str, later: Callable[[], None]
) -> None:
    """The old runs are still there, and none of the new conversation's: not for any window on them."""
    put_expiring(store, runs=30)
    _remove(repository, [key for key, item in items_of(repository, namespace).items() if item.ttl is not None])
    with other_store.begin() as uow:
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
    later()
    assert store.purge_expired() == 0
    check_tidy(repository, namespace)
    assert read(store, "a").run_count == 2


def test_purging_many(
    repository: DynamoDbRepository, store: Store, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.begin() as uow:
        for n in range(30):
            uow.conversations.add(Conversation(f"c{n}", {"tags": list(range(n * 5))}, SOON))
            uow.runs.append(f"c{n}", run(n))
        uow.conversations.add(Conversation("lasting", {"n": 1}))
    monkeypatch.setattr(repository, "clock", lambda: int(SOON.timestamp() * 1_000_000) + 1)
    assert store.purge_expired() == 30
    assert [one.id for one in walk(store)] == ["lasting"]
    check_tidy(repository, namespace)


def _raw(key: keys.Key) -> dict[str, dict[str, bytes]]:
    return {"pk": {"B": key[0]}, "sk": {"B": key[1]}}


def _remove(repository: DynamoDbRepository, gone: list[keys.Key]) -> None:
    for key in gone:
        repository.client.delete_item(TableName=repository._table.name, Key=_raw(key))
