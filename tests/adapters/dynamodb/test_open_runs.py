"""Open runs: the list that names them, and what completing one costs."""

from dataclasses import replace

import pytest

from memory import PENDING, NotFoundError, Run, Store
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.testing.base import do, put, read_runs, run
from tests.adapters.dynamodb.watching import after_each, before_each, check_tidy, items_of, watched

TEXT = "x" * 200
PROMPT = Run("Where?", PENDING, id="prompt")


pytestmark = pytest.mark.usefixtures("one_minute")


def pointers(repository: DynamoDbRepository, namespace: str) -> int:
    return sum(key[0].startswith("list#open#") for key in items_of(repository, namespace))


def test_only_open_runs_are_listed(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    put(store, "a", {"n": 1}, run(), PROMPT, run())
    put(store, "b" * 2_048, {"n": 1}, PROMPT)
    check_tidy(repository, namespace)
    assert pointers(repository, namespace) == 2
    assert [(id, one.position) for id, one in store.runs.open()] == [("a", 2), ("b" * 2_048, 1)]
    do(store, lambda uow: uow.runs.complete("a", "prompt", output=1))
    assert pointers(repository, namespace) == 1
    check_tidy(repository, namespace)


def test_what_a_prompt_and_its_completion_cost(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", {"n": 1}, *[run(TEXT) for _ in range(300)])
    with watched(repository.client) as calls:
        do(store, lambda uow: uow.runs.append("a", Run("Where?", PENDING, id="prompt")))
    assert (calls.counted(), calls.write_units) == ({"TransactWriteItems": 1}, 12)
    with watched(repository.client) as calls:
        do(store, lambda uow: uow.runs.complete("a", "prompt", output=TEXT, is_final=False))
    assert (calls.counted(), calls.write_units) == ({"Query": 1, "TransactWriteItems": 1}, 8)
    with watched(repository.client) as calls:
        do(store, lambda uow: uow.runs.complete("a", "prompt", output=TEXT))
    assert (calls.counted(), calls.write_units) == ({"Query": 1, "TransactWriteItems": 1}, 10)
    assert calls.read_units <= 1
    with watched(repository.client) as calls, pytest.raises(NotFoundError):
        do(store, lambda uow: uow.runs.complete("a", "prompt", output=TEXT))
    assert "Query" not in calls.names  # the head says that no run is open


def test_an_abandoned_run_does_not_make_completions_slow(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", {"n": 1}, replace(PROMPT, id="abandoned"), *[run(TEXT) for _ in range(300)])
    do(store, lambda uow: uow.runs.append("a", PROMPT))
    with watched(repository.client) as calls:
        do(store, lambda uow: uow.runs.complete("a", "prompt", output=TEXT))
    assert calls.counted() == {"Query": 1, "TransactWriteItems": 1}
    assert calls.read_units <= 4
    do(store, lambda uow: uow.runs.complete("a", "abandoned", output=1))
    assert list(store.runs.open()) == []


def test_several_in_one_commit(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    """Completions, replacements and removals in one commit, with outputs that are stored in parts."""
    large = "x" * 400_000
    put(store, "a", None, *[replace(PROMPT, id=id, input=large) for id in "abcde"])
    with store.begin() as uow:
        uow.runs.complete("a", "b", output=large)
        uow.runs.complete("a", "e", output=large, is_final=False)
        uow.runs.remove("a", 3)
        uow.runs.replace("a", replace(PROMPT, id="again", position=4))
        uow.runs.append("a", replace(PROMPT, id="new"))
    assert [(one.id, one.is_open) for one in read_runs(store, "a")] == [
        ("a", True),
        ("b", False),
        ("again", True),
        ("e", True),
        ("new", True),
    ]
    assert sorted(one.id for _, one in store.runs.open()) == ["a", "again", "e", "new"]
    store.purge_expired()
    check_tidy(repository, namespace)


def test_a_removal_leaves_the_list_to_a_purge(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    """However many runs are open, a removal is one transaction; what it leaves in the list is never returned."""
    for name in "abc":
        put(store, name, {"n": 1}, *[PROMPT] * 120)
    with watched(repository.client) as calls:
        do(store, lambda uow: uow.conversations.remove("a"))
    assert calls.counted() == {"TransactWriteItems": 1}
    do(store, lambda uow: uow.runs.remove("b", before=120))
    do(store, lambda uow: uow.runs.clear("c"))
    put(store, "a", None, PROMPT)
    assert [(id, one.position) for id, one in store.runs.open()] == [("a", 1), ("b", 120)]
    store.purge_expired()
    assert pointers(repository, namespace) == 2
    check_tidy(repository, namespace)


def test_a_completion_is_computed_again_after_a_concurrent_write(
    repository: DynamoDbRepository, store: Store, other_store: Store, namespace: str
) -> None:
    """Someone else completes the run between the read and the write of a completion."""
    put(store, "a", None, PROMPT, PROMPT)

    def interfere(number: int) -> None:
        if number == 0:
            do(other_store, lambda uow: uow.runs.complete("a", "prompt", output="theirs"))

    with before_each(repository.client, "TransactWriteItems", interfere):
        do(store, lambda uow: uow.runs.complete("a", "prompt", output="mine"))
    assert [one.output for one in read_runs(store, "a")] == ["mine", "theirs"]
    check_tidy(repository, namespace)


@pytest.mark.parametrize(("is_final", "expected"), [(True, []), (False, ["changed"])], ids=["completed", "still open"])
def test_a_large_run_that_is_changed_while_it_is_read(
    repository: DynamoDbRepository, store: Store, other_store: Store, *, is_final: bool, expected: list[str]
) -> None:
    """Its parts are replaced, and purged, between the read of its item and that of its parts: it is read again."""
    put(store, "a", None, replace(PROMPT, input="x" * 400_000))

    def interfere(number: int) -> None:
        if number == 0:
            do(other_store, lambda uow: uow.runs.complete("a", "prompt", output="changed", is_final=is_final))
            other_store.purge_expired()

    with after_each(repository.client, "BatchGetItem", interfere):
        found = [one.output for _, one in store.runs.open()]
    assert found == expected


def test_removing_the_last_runs_deletes_them(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    put(store, "a", {"n": 1}, *[run(TEXT) for _ in range(30)], PROMPT)
    with watched(repository.client) as calls:
        do(store, lambda uow: uow.runs.remove("a", after=28))
    assert (calls.counted(), calls.write_units) == ({"Query": 1, "TransactWriteItems": 1}, 6 + 2 * 3 + 2)
    do(store, lambda uow: uow.runs.append("a", run()))
    assert [one.position for one in store.runs.last("a", 2)] == [28, 32]
    check_tidy(repository, namespace)
    do(store, lambda uow: uow.runs.remove("a", after=0))
    assert read_runs(store, "a") == []
    store.purge_expired()
    check_tidy(repository, namespace)


def test_runs_in_the_list_sort_by_time_id_and_position() -> None:
    key = keys.opened(1_000_001, "a#1", keys.run("0" * 32, 7))
    assert key == f"1970-01-01T00:00:01.000001Z#a#1\t{'0' * 32}#{7:016}"
    longest = keys.opened(1_000_001, "😀" * 2_048, keys.run("0" * 32, 7))
    assert len(longest.encode()) <= 1_024
    assert longest.endswith(f"\t{'0' * 32}#{7:016}")
