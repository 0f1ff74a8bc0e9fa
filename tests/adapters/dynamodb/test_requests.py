"""What each operation costs: requests, and the capacity units that AWS would bill."""

from datetime import timedelta
from typing import Any

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.adapters.dynamodb.records import Head, copy_values
from memory.domain.criteria import EVERYTHING
from memory.domain.records import ConversationRecord
from memory.domain.values import Json, new_id, now
from memory.port.paging import Query
from memory.port.repository import Window
from memory.testing.base import put, put_all
from tests.adapters.dynamodb.watching import check_tidy, watched

TEXT = "x" * 200


pytestmark = pytest.mark.usefixtures("one_minute")


def append(store: Store, conversation_id: str = "a") -> None:
    with store.begin() as uow:
        uow.runs.append(conversation_id, Run(TEXT, TEXT))


def runs(count: int) -> list[Run]:
    return [Run(TEXT, TEXT) for _ in range(count)]


def test_an_append_by_the_last_writer_is_one_request(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", {"n": 1})
    for _ in range(3):
        with watched(repository.client) as calls:
            append(store)
        assert calls.counted() == {"TransactWriteItems": 1}
        assert calls.write_units == 10


def test_an_append_after_another_writer_is_two(
    repository: DynamoDbRepository, other: DynamoDbRepository, store: Store, other_store: Store
) -> None:
    put(store, "a", {"n": 1})
    append(store)
    with watched(other.client) as calls:
        append(other_store)
    assert calls.counted() == {"GetItem": 1, "TransactWriteItems": 1}  # it has never seen the head
    for client, mine in ((repository.client, store), (other.client, other_store)):
        with watched(client) as calls:
            append(mine)
        assert calls.counted() == {"TransactWriteItems": 2}  # the first brings what the head says
    assert [run.position for run in store.begin().runs.list("a")] == [1, 2, 3, 4]


def test_an_append_costs_the_same_however_long_the_conversation_is(
    repository: DynamoDbRepository, store: Store
) -> None:
    costs = []
    for name, count in (("short", 10), ("long", 600)):
        put(store, name, {"n": 1}, *runs(count))
        with watched(repository.client) as calls:
            append(store, name)
        costs.append((calls.counted(), calls.write_units, calls.read_units))
    assert costs[0] == costs[1] == ({"TransactWriteItems": 1}, 10, 0)


def test_an_append_does_not_pay_for_large_metadata(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", {"large": "x" * 100_000})
    with watched(repository.client) as calls:
        append(store)
    assert (calls.counted(), calls.write_units) == ({"TransactWriteItems": 1}, 10)


def test_making_a_conversation_is_one_request(repository: DynamoDbRepository, store: Store) -> None:
    with watched(repository.client) as calls:
        put(store, "a", {"n": 1, "customer": "ada"}, *runs(2))
    assert (calls.counted(), calls.write_units) == ({"TransactWriteItems": 1}, 12 + 2 * 2 + 2 * 2)


def test_a_sliding_window_is_one_request_a_turn(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    """What leaves the window is deleted by a purge; only the first turn after one notes that there is something to delete."""
    put(store, "a", {"n": 1}, *runs(20))
    for turn in range(30):
        with watched(repository.client) as calls, store.begin() as uow:
            uow.runs.append("a", Run(TEXT, TEXT))
            uow.runs.remove("a", before=turn + 2)
        assert calls.counted() == {"TransactWriteItems": 1}
        assert calls.write_units == (12 if turn == 0 else 10)
    with watched(repository.client) as calls:
        assert [run.position for run in store.begin().runs.list("a")] == list(range(31, 51))
    assert calls.counted() == {"Query": 1}
    store.purge_expired()
    check_tidy(repository, namespace)
    with watched(repository.client) as calls:
        append(store)
    assert calls.counted() == {"TransactWriteItems": 1}


def test_removing_a_long_conversation_is_one_request(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    """Its runs are never seen again, also under the same id, and a purge deletes them."""
    put(store, "a", {"n": 1}, *runs(300))
    with watched(repository.client) as calls, store.begin() as uow:
        uow.conversations.remove("a")
    assert calls.counted() == {"TransactWriteItems": 1}
    put(store, "a", {"n": 2}, *runs(2))
    for window in (Window(), Window(limit=5), Window(limit=5, from_end=True)):
        assert [run.position for run in repository.runs(namespace, "a", window).runs] == [1, 2]
    store.purge_expired()
    assert [run.position for run in store.begin().runs.list("a")] == [1, 2]
    check_tidy(repository, namespace)


def test_counting_everything_is_two_requests(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    for n in range(5):
        put(store, f"c{n}")
    with watched(repository.client) as calls:
        assert repository.count(namespace, EVERYTHING) == 5
    assert (calls.counted(), calls.read_units) == ({"Query": 2}, 1.0)


def test_few_matches_at_the_end_of_a_long_list_are_driven(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    """300 matches that are the oldest of 12,000: what is read does not depend on how long the list is (D3)."""
    for n in range(0, 300, 10):
        put_all(store, {f"old{n:03}": {"city": "Bern", "n": n} for n in range(n, n + 10)})
    newer = ConversationRecord("", "{}", 1, new_id(), 0, 0, now(), 0, None)
    partition = keys.partition("list", "last_run_at", namespace, 0)
    for begin in range(0, 11_700, 25):
        records = [
            newer._replace(id=f"new{n}", updated_at=now() + n, last_run_at=now() + n) for n in range(begin, begin + 25)
        ]
        items = [(keys.listed(one.last_run_at, one.id), copy_values(Head("", one))) for one in records]
        raw: list[Any] = [{"pk": {"S": partition}, "sk": {"S": sk}, **item} for sk, item in items]
        requests: list[Any] = [{"PutRequest": {"Item": item}} for item in raw]
        repository.client.batch_write_item(RequestItems={repository._table.name: requests})
    assert len(list(repository._table.query(partition, keys.LOWEST, keys.HIGHEST))) == 12_000
    found = []
    for order in ("-last_run_at", "id", "created_at", "metadata.n"):
        with watched(repository.client) as calls:
            page = store.begin().conversations.find(where("city") == "Bern", limit=50, order=order)
        found.append(page.items[0].id)
        assert (len(page), page.cursor is None) == (50, False)
        assert calls.read_units <= 400
    assert found == ["old299", "old000", "old000", "old000"]
    explained = str(repository.explain(namespace, Query(where("city") == "Bern")))
    assert "look up city, one value: 300 read" in explained
    assert "walk" not in explained


def test_a_write_after_reading_is_one_more(repository: DynamoDbRepository, store: Store, other_store: Store) -> None:
    put(other_store, "a", {"n": 1}, *runs(2))
    with watched(repository.client) as calls, store.begin() as uow:
        uow.conversations.get("a").metadata["n"] = 2
    assert (calls.counted(), calls.read_units) == ({"GetItem": 1, "TransactWriteItems": 1}, 1)
    assert calls.write_units == 6 + 2 * 2
    append(other_store)
    with watched(repository.client) as calls, store.begin() as uow:
        uow.runs.last("a", 20)
        uow.runs.append("a", Run(TEXT, TEXT))
    assert calls.counted() == {"Query": 1, "TransactWriteItems": 1}


def test_a_sliding_expiry_costs_two_more_writes(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1}, expires_after=timedelta(days=1)))
    for _ in range(2):
        with watched(repository.client) as calls:
            append(store)
        assert (calls.counted(), calls.write_units) == ({"TransactWriteItems": 1}, 14)
    check_tidy(repository, namespace)


def test_many_conversations_and_their_last_runs_are_two_requests(repository: DynamoDbRepository, store: Store) -> None:
    ids = [f"c{n}" for n in range(20)]
    for id in ids:
        put(store, id, {"n": 1}, *runs(3))
    with watched(repository.client) as calls:
        assert len(store.conversations.get_many(ids)) == 20
    assert calls.counted() == {"BatchGetItem": 1}
    with watched(repository.client) as calls:
        assert {len(found) for found in store.runs.last_of(ids, 2).values()} == {2}
    assert calls.counted() == {"BatchGetItem": 2}
    with store.begin() as uow:
        uow.runs.remove("c0", 2)
    with watched(repository.client) as calls:
        found = store.runs.last_of(ids, 2)
    assert calls.counted() == {"BatchGetItem": 2, "Query": 1}  # one has a gap
    assert [one.position for one in found["c0"]] == [1, 3]
    with watched(repository.client) as calls:
        assert [len(each) for each in store.runs.last_of(ids[:2], 21).values()] == [2, 3]
    assert calls.counted() == {"Query": 2}


def test_getting_is_one_request_and_one_more_for_large_metadata(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "small", {"n": 1})
    put(store, "large", {"text": "x" * 1_000_000})
    for name, expected in (("small", {"GetItem": 1}), ("large", {"GetItem": 1, "BatchGetItem": 1})):
        with watched(repository.client) as calls:
            store.begin().conversations.get(name)
        assert calls.counted() == expected


@pytest.mark.parametrize("count", [20, 300])
def test_the_last_runs_are_one_query(repository: DynamoDbRepository, store: Store, count: int) -> None:
    put(store, "a", {"n": 1}, *runs(count))
    with watched(repository.client) as calls:
        assert len(store.begin().runs.last("a", 20)) == 20
    assert calls.counted() == {"Query": 1}
    assert calls.read_units <= 3.5  # 21 items of 0.6 KB


def test_all_runs_are_one_query_for_each_megabyte(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", None, *runs(500))
    with watched(repository.client) as calls:
        assert len(store.begin().runs.list("a")) == 500
    assert calls.counted() == {"Query": 1}


def test_a_page_of_everything_is_one_query(repository: DynamoDbRepository, store: Store) -> None:
    for n in range(60):
        put(store, f"c{n}", {"n": n})
    conversations = store.begin().conversations
    with watched(repository.client) as calls:
        page = conversations.find(limit=50)
    assert (len(page), calls.counted()) == (50, {"Query": 1})
    with watched(repository.client) as calls:
        assert len(conversations.find(limit=50, after=page.cursor)) == 10
    assert calls.counted() == {"Query": 1}
    for order in ("id", "created_at"):
        with watched(repository.client) as calls:
            assert len(conversations.find(limit=50, order=order)) == 50
        assert calls.counted() == {"Query": 1, "BatchGetItem": 1}


def _metadata(n: int) -> dict[str, Json]:
    return {"customer": f"c{n % 60}", "third": n % 3, "n": n, "tags": [n % 2, n % 700]}


def test_a_page_of_a_query_is_three_requests_at_most(repository: DynamoDbRepository, store: Store) -> None:
    for begin in range(0, 600, 6):
        some = range(begin, begin + 6)
        put_all(store, {f"{n:04}": _metadata(n) for n in some})
    conversations = store.begin().conversations
    for criterion, count in (
        (where("customer") == "c7", 10),
        (where("third") == 1, 50),
        (where("n").between(100, 119), 20),
        ((where("third") == 1) & (where("customer") == "c7"), 10),
        (where("third").exists() & where("tags").contains(3), 1),
        (where("n") < 150, 50),
        (where.id.in_(["0001", "0500", "none"]), 2),
        (where.id >= "0580", 20),
        (where.id.in_(["x" * 5_000, "0001"]), 1),
        (where("customer").startswith("c1"), 50),
    ):
        with watched(repository.client) as calls:
            assert len(conversations.find(criterion, limit=50).items) == count
        assert len(calls.names) <= 3, (criterion, calls.counted())
    check_tidy(repository, store.begin().conversations._session.namespace)
