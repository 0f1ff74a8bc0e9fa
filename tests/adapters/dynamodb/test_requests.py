"""What each operation costs: requests, and the capacity units that AWS would bill."""

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository
from memory.testing.base import put
from tests.adapters.dynamodb.watching import check_tidy, watched

TEXT = "x" * 200


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
    assert (calls.counted(), calls.write_units) == ({"TransactWriteItems": 1}, 10 + 2 * 2 + 2 * 2)


def test_a_write_after_reading_is_one_more(repository: DynamoDbRepository, store: Store, other_store: Store) -> None:
    put(other_store, "a", {"n": 1}, *runs(2))
    with watched(repository.client) as calls, store.begin() as uow:
        uow.conversations.get("a").metadata["n"] = 2
    assert (calls.counted(), calls.read_units) == ({"GetItem": 1, "TransactWriteItems": 1}, 1)
    assert calls.write_units == 8 + 2 * 2
    append(other_store)
    with watched(repository.client) as calls, store.begin() as uow:
        uow.runs.last("a", 20)
        uow.runs.append("a", Run(TEXT, TEXT))
    assert calls.counted() == {"Query": 1, "TransactWriteItems": 1}


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


def test_walking_what_is_short_is_one_query(repository: DynamoDbRepository, store: Store, other_store: Store) -> None:
    put(store, "a", None, *runs(5))
    with watched(repository.client) as calls:
        uow = store.begin()
        assert len(list(uow.runs.iterate("a"))) == len(uow.runs.first("a", 9)) == 5
    assert calls.counted() == {"Query": 2}
    with other_store.begin() as uow:
        uow.runs.append("a", *runs(5))
    assert [run.position for run in store.begin().runs.first("a", 9)] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


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


def test_a_page_of_a_query_is_three_requests_at_most(repository: DynamoDbRepository, store: Store) -> None:
    with store.begin() as uow:
        for n in range(1_500):
            metadata = {"customer": f"c{n % 150}", "third": n % 3, "n": n, "tags": [n % 2, n % 700]}
            uow.conversations.add(Conversation(f"{n:04}", metadata))
    conversations = store.begin().conversations
    for criterion, count in (
        (where("customer") == "c7", 10),
        (where("third") == 1, 50),
        (where("n").between(100, 119), 20),
        ((where("third") == 1) & (where("customer") == "c7"), 10),
        (where("third").exists() & where("tags").contains(3), 3),
        (where("n") < 150, 50),
        (where.id.in_(["0001", "0700", "none"]), 2),
        (where.id >= "1480", 20),
        (where.id.in_(["x" * 5_000, "0001"]), 1),
        (where("customer").startswith("c14"), 50),
    ):
        with watched(repository.client) as calls:
            assert len(conversations.find(criterion, limit=50).items) == count
        assert len(calls.names) <= 3, (criterion, calls.counted())
    check_tidy(repository, store.begin().conversations._session.namespace)
