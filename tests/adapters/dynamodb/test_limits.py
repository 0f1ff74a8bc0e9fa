"""What is larger than an item or a transaction of DynamoDB, to the byte at the edges."""

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository
from memory.adapters.dynamodb.models import INLINE_METADATA, PART
from memory.testing.base import put, read, read_runs, run, run_states, walk
from tests.adapters.dynamodb.watching import check_tidy, items_of, watched


def texts(size: int) -> Run:
    """Return a run whose texts have so many bytes together: quotes, and the braces of its metadata."""
    return Run("x" * (size - 6), "", id="😀" * 255)


@pytest.mark.parametrize(
    ("size", "items"),
    [(PART - 1, 1), (PART, 1), (PART + 1, 3), (2 * PART, 3), (2 * PART + 1, 4), (9_000_000, 25)],
)
def test_a_run_of_any_size(repository: DynamoDbRepository, store: Store, namespace: str, size: int, items: int) -> None:
    put(store, "a", None, run(1))
    before = len(items_of(repository, namespace))
    with store.begin() as uow:
        uow.runs.append("a", texts(size), run(3))
    assert len(items_of(repository, namespace)) == before + items + 1
    uow = store.begin()
    for found in (
        uow.runs.list("a"),
        uow.runs.last("a", 3),
        uow.runs.first("a", 3),
        list(uow.runs.iterate("a")),
        [uow.runs.get("a", n) for n in (1, 2, 3)],
    ):
        assert [(one.position, len(str(one.input))) for one in found] == [(1, 1), (2, size - 6), (3, 1)]
    assert [one.position for one in uow.runs.last("a", 2)] == [2, 3]
    assert [one.position for one in uow.runs.list("a", after=1, limit=1)] == [2]
    assert run_states(uow.runs.last("a", 2)[:1])[0][1:5] == ("😀" * 255, f'"{"x" * (size - 6)}"', '""', "{}")
    check_tidy(repository, namespace)


def test_large_runs_are_replaced_and_removed(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    put(store, "a", None, *(texts(3 * PART + n) for n in range(4)))
    for size in (10, 5 * PART, 2 * PART, 10):
        with store.begin() as uow:
            uow.runs.replace("a", Run("y" * size, "", position=2))
        assert len(str(read_runs(store, "a")[1].input)) == size
        check_tidy(repository, namespace)
    with store.begin() as uow:
        uow.runs.remove("a", 3)
    assert [one.position for one in read_runs(store, "a")] == [1, 2, 4]
    check_tidy(repository, namespace)
    with store.begin() as uow:
        uow.runs.clear("a")
    check_tidy(repository, namespace)
    with store.begin() as uow:
        uow.conversations.remove("a")
    assert items_of(repository, namespace) == {}


@pytest.mark.parametrize("size", [INLINE_METADATA, INLINE_METADATA + 1, PART, PART + 1, 5_000_000])
def test_metadata_of_any_size(repository: DynamoDbRepository, store: Store, namespace: str, size: int) -> None:
    text = "x" * (size - len('{"n":1,"t":""}'))
    metadata = {"n": 1, "t": text}
    put(store, "a", {"n": 1, "t": text}, run(1))
    assert read(store, "a").metadata == metadata
    assert [one.metadata for one in walk(store)] == [metadata]
    assert [one.metadata for one in walk(store, (where("n") == 1) & where("t").startswith("xx"))] == [metadata]
    with store.begin() as uow:
        uow.runs.append("a", run(2))
    with store.begin() as uow:
        uow.conversations.get("a").metadata["n"] = 2
    check_tidy(repository, namespace)
    with store.begin() as uow:
        uow.conversations.get("a").metadata = {"n": 3}
    assert [one.metadata for one in walk(store, where("n") == 3)] == [{"n": 3}]
    check_tidy(repository, namespace)


def test_more_entries_than_a_transaction_has_actions(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    put(store, "a", {"tags": [f"tag-{n}" for n in range(1_000)]})
    assert [one.id for one in walk(store, where("tags").contains("tag-999"))] == ["a"]
    with watched(repository.client) as calls, store.begin() as uow:
        uow.runs.append("a", run())
    assert calls.counted() == {"TransactWriteItems": 1}
    with store.begin() as uow:
        uow.conversations.get("a").metadata["tags"] = [f"tag-{n}" for n in range(900, 1_900)]
    assert [walk(store, where("tags").contains(f"tag-{n}")) == [] for n in (0, 950, 1_899)] == [True, False, False]
    check_tidy(repository, namespace)


@pytest.mark.parametrize("count", [90, 96, 97, 100, 101, 250])
def test_around_a_hundred_actions(repository: DynamoDbRepository, store: Store, namespace: str, count: int) -> None:
    put(store, "a", None)
    with store.begin() as uow:
        uow.runs.append("a", *(run(n) for n in range(count)))
    assert [one.position for one in read_runs(store, "a")] == list(range(1, count + 1))
    with store.begin() as uow:
        uow.runs.remove("a", *range(1, count))
    assert [one.position for one in read_runs(store, "a")] == [count]
    check_tidy(repository, namespace)


@pytest.mark.parametrize("size", [390_000, 400_000, 500_000])
def test_around_four_megabytes(repository: DynamoDbRepository, store: Store, namespace: str, size: int) -> None:
    put(store, "a", None)
    with store.begin() as uow:
        uow.runs.append("a", *(Run("x" * size, "y") for _ in range(10)))
    assert [len(str(one.input)) for one in read_runs(store, "a")] == [size] * 10
    check_tidy(repository, namespace)


def test_namespaces_of_a_table_beyond_one_answer(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    first, last = store.namespace(f"{namespace}-a"), store.namespace(f"{namespace}-b")
    for each in (first, store, last):
        put(each, "a", {}, *(Run("x" * 300_000, "") for _ in range(10)))
    with watched(repository.client) as calls:
        listed = store.namespaces()
    assert [name for name in listed if name.startswith(namespace)] == [
        namespace,
        first.namespace_name,
        last.namespace_name,
    ]
    assert set(calls.names) == {"Scan"}
    assert len(calls.names) > 3


def test_the_longest_keys(repository: DynamoDbRepository, store: Store) -> None:
    name = "\U0010ffff" * 255
    widest = store.namespace("\U0010fffe" * 255)
    metadata = {"\U0010ffff" * 128: "\x00" * 300, "numbers": [10**4000, -(10**4000), -(2**14000) + 1], "k" * 5_000: 1}
    with widest.begin() as uow:
        if name in uow.conversations:
            uow.conversations.remove(name)
        uow.conversations.add(Conversation(name, metadata))
        uow.conversations.add(other := Conversation("\U0010ffff" * 254, metadata))
        uow.runs.append(name, run(1))
    for criterion in (
        where("\U0010ffff" * 128) == "\x00" * 300,
        where("numbers").contains(-(10**4000)),
        where("k" * 5_000) == 1,
    ):
        assert [one.id for one in walk(widest, criterion)] == [other.id, name]
    for order in ("id", "created_at", "updated_at"):
        assert [one.id for one in walk(widest, order=order, limit=1)] == [other.id, name]
    with widest.begin() as uow:
        uow.conversations.remove(name)
        uow.conversations.remove(other.id)
    assert repository.purge_expired(widest._namespace) == 0
