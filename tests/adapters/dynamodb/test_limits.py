"""What is larger than an item or a transaction of DynamoDB, to the byte at the edges."""

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository
from memory.adapters.dynamodb.preparing import MOST_ENTRIES
from memory.adapters.dynamodb.records import INLINE_METADATA, PART
from memory.core.unit_of_work import UnitOfWork
from memory.errors import CommitTooLargeError
from memory.testing.base import Work, put, read, read_runs, run, run_states, walk
from tests.adapters.dynamodb.watching import check_tidy, items_of, watched


def texts(size: int) -> Run:
    """Return a run whose texts have so many bytes together: quotes, and the braces of its metadata."""
    return Run("x" * (size - 6), "", id="😀" * 255)


def purge_and_check(repository: DynamoDbRepository, namespace: str) -> None:
    repository.purge_expired(namespace)
    check_tidy(repository, namespace)


@pytest.mark.parametrize(
    ("size", "items"),
    [(PART - 1, 1), (PART, 1), (PART + 1, 3), (2 * PART, 3), (2 * PART + 1, 4), (9_000_000, 25)],
)
def test_a_run_of_any_size(repository: DynamoDbRepository, store: Store, namespace: str, size: int, items: int) -> None:
    put(store, "a", None, run(1))
    before = len(items_of(repository, namespace))
    with store.begin() as uow:
        uow.runs.append("a", texts(size), run(3))
    assert len(items_of(repository, namespace)) == before + items + 1 + (size > 3_900_000)
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
    purge_and_check(repository, namespace)


def test_large_runs_are_replaced_and_removed(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    put(store, "a", None, *(texts(3 * PART + n) for n in range(4)))
    for size in (10, 5 * PART, 2 * PART, 10):
        with store.begin() as uow:
            uow.runs.replace("a", Run("y" * size, "", position=2))
        assert len(str(read_runs(store, "a")[1].input)) == size
        purge_and_check(repository, namespace)
    with store.begin() as uow:
        uow.runs.remove("a", 3)
    assert [one.position for one in read_runs(store, "a")] == [1, 2, 4]
    purge_and_check(repository, namespace)
    with store.begin() as uow:
        uow.runs.clear("a")
    purge_and_check(repository, namespace)
    with store.begin() as uow:
        uow.conversations.remove("a")
    purge_and_check(repository, namespace)
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
    purge_and_check(repository, namespace)
    with store.begin() as uow:
        uow.conversations.get("a").metadata = {"n": 3}
    assert [one.metadata for one in walk(store, where("n") == 3)] == [{"n": 3}]
    purge_and_check(repository, namespace)


def test_metadata_with_too_many_entries_are_refused(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    """As many as are allowed can be replaced by others bit by bit, and removed at once."""
    put(store, "a", {f"k{n}": n for n in range(MOST_ENTRIES)}, run(1))
    before = items_of(repository, namespace)
    refused: tuple[Work, ...] = (
        lambda uow: uow.conversations.get("a").metadata.update(one_more=1),
        lambda uow: uow.conversations.get("a").metadata.update({f"k{n}": -n for n in range(MOST_ENTRIES)}),
        lambda uow: uow.conversations.add(Conversation("b", {f"k{n}": n for n in range(MOST_ENTRIES + 1)})),
    )
    for work in refused:
        with pytest.raises(CommitTooLargeError) as caught, store.begin() as uow:
            work(uow)
        assert caught.value.limit == store.repository.capabilities.largest_commit == 100
        assert caught.value.size > 100
    assert items_of(repository, namespace) == before
    with store.begin() as uow:
        uow.conversations.get("a").metadata |= {f"k{n}": -n for n in range(1, 41)} | {"_large": list(range(1_000))}
    assert [one.id for one in walk(store, where("k40") == -40)] == ["a"]
    purge_and_check(repository, namespace)
    with store.begin() as uow:
        uow.conversations.remove("a")
    purge_and_check(repository, namespace)


@pytest.mark.usefixtures("one_minute")
@pytest.mark.parametrize("count", [90, 95, 96, 97, 100, 250])
def test_an_append_of_any_size(repository: DynamoDbRepository, store: Store, namespace: str, count: int) -> None:
    """Up to 96 runs are one transaction; more are staged by several."""
    put(store, "a", None)
    with watched(repository.client) as calls, store.begin() as uow:
        uow.runs.append("a", *(run(n) for n in range(count)))
    expected = {"TransactWriteItems": 1} if count <= 96 else {"GetItem": 1, "TransactWriteItems": 2 + -(-count // 99)}
    assert calls.counted() == expected
    assert [one.position for one in read_runs(store, "a")] == list(range(1, count + 1))
    purge_and_check(repository, namespace)


def add_many(uow: UnitOfWork) -> None:
    for n in range(40):
        uow.conversations.add(Conversation(f"c{n}"))


@pytest.mark.usefixtures("one_minute")
def test_what_is_larger_than_a_transaction_is_refused_before_it_is_written(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    put(store, "a", None, *(run(n) for n in range(120)))
    put(store, "b", None, *(Run("x" * 350_000, "") for _ in range(12)))
    before = items_of(repository, namespace)
    refused: tuple[tuple[int, Work], ...] = (
        (123, lambda uow: uow.runs.remove("a", *range(1, 121))),
        (102, lambda uow: uow.runs.remove("a", after=21)),
        (177, add_many),
        (4_200_000, lambda uow: uow.runs.remove("b", *range(1, 13))),
    )
    for size, work in refused:
        with pytest.raises(CommitTooLargeError, match="nothing was written") as caught, store.begin() as uow:
            work(uow)
        assert size <= caught.value.size <= size + 20_000 * (size > 1_000)
    assert items_of(repository, namespace) == before
    with store.begin() as uow:
        uow.runs.remove("a", *range(1, 90))
    assert [one.position for one in read_runs(store, "a")] == list(range(90, 121))
    purge_and_check(repository, namespace)


@pytest.mark.parametrize("size", [390_000, 400_000, 500_000])
def test_around_four_megabytes(repository: DynamoDbRepository, store: Store, namespace: str, size: int) -> None:
    put(store, "a", None)
    with store.begin() as uow:
        uow.runs.append("a", *(Run("x" * size, "y") for _ in range(10)))
    assert [len(str(one.input)) for one in read_runs(store, "a")] == [size] * 10
    purge_and_check(repository, namespace)


def test_namespaces_are_listed_by_their_counters(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    first, last = store.namespace(f"{namespace}-a"), store.namespace(f"{namespace}#%")
    for each in (first, store, last):
        put(each, "a", {}, *(Run("x" * 300_000, "") for _ in range(10)))
    with watched(repository.client) as calls:
        listed = store.namespaces()
    assert calls.counted() == {"Query": 1}
    mine = sorted([namespace, first.namespace_name, last.namespace_name])
    assert [name for name in listed if name.startswith(namespace)] == mine
    with last.begin() as uow:
        uow.conversations.remove("a")
    assert [name for name in store.namespaces() if name.startswith(namespace)] == [namespace, first.namespace_name]


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
        found = [one.id for one in walk(widest, order=order, limit=1)]
        # At equal times, ids beyond 900 bytes sort by their beginning, and then by a digest.
        assert (found if order == "id" else sorted(found)) == [other.id, name]
    with widest.begin() as uow:
        uow.conversations.remove(name)
        uow.conversations.remove(other.id)
    assert repository.purge_expired(widest._namespace) == 0
