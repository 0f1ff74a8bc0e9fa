"""Reading runs by several requests while others write: what is returned was there at some moment, all of it."""

from collections.abc import Callable

import pytest

from memory import Run, Store
from memory.adapters.dynamodb import DynamoDbRepository
from memory.errors import StoreUnavailableError
from memory.port.repository import Window
from memory.testing.base import put, run
from tests.adapters.dynamodb.watching import before_each, watched

SMALL, LARGE = "x", "x" * 40_000  # of the large ones, 25 fit a request
COUNT = 120


def clear(store: Store) -> None:
    with store.begin() as uow:
        uow.runs.clear("a")
    store.purge_expired()


def make_anew(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.remove("a")
    put(store, "a", None, *(run("anew") for _ in range(3)))
    store.purge_expired()


def remove(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.remove("a")
    store.purge_expired()


WINDOWS = (
    (Window(), LARGE, 2),
    (Window(limit=COUNT, from_end=True), LARGE, 2),
    (Window(after=20), SMALL, 0),
    (Window(before=110, limit=50, from_end=True), SMALL, 0),
    (Window(after=10, limit=100), LARGE, 1),
)


@pytest.mark.parametrize("removed", [(), (60,)], ids=["all are there", "one was removed"])
@pytest.mark.parametrize("change", [clear, make_anew, remove])
@pytest.mark.parametrize("case", WINDOWS)
def test_runs_that_are_removed_between_two_requests(
    repository: DynamoDbRepository,
    other_store: Store,
    *,
    case: tuple[Window, str, int],
    change: Callable[[Store], None],
    removed: tuple[int, ...],
) -> None:
    (window, text, at), namespace = case, other_store.namespace_name
    put(other_store, "a", None, *(Run(text, "old") for _ in range(COUNT)))
    with other_store.begin() as uow:
        uow.runs.remove("a", *removed)
    before = repository.runs(namespace, "a", window)

    def interfere(number: int) -> None:
        if number == at:
            change(other_store)

    with before_each(repository.client, "Query", interfere):
        seen = repository.runs(namespace, "a", window)
    assert seen in (before, repository.runs(namespace, "a", window))


def test_runs_that_are_removed_at_every_try(
    repository: DynamoDbRepository, store: Store, other_store: Store, namespace: str
) -> None:
    put(store, "a", None, *(run(n) for n in range(100)))

    def trim(number: int) -> None:
        with other_store.begin() as uow:
            uow.runs.remove("a", before=10 * number + 10)
        other_store.purge_expired()

    with before_each(repository.client, "Query", trim), pytest.raises(StoreUnavailableError, match="'a'"):
        repository.runs(namespace, "a", Window(after=1, limit=1_000))
    assert repository.runs(namespace, "a", Window(after=1, limit=1_000)).runs


def test_the_head_is_read_again_only_where_something_is_missing(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    put(store, "a", None, *(Run(LARGE, "") for _ in range(COUNT)))
    for window, queries, heads in ((Window(), 5, 0), (Window(after=20, limit=9), 1, 1), (Window(after=20), 4, 1)):
        expected = {"Query": queries, "GetItem": heads} if heads else {"Query": queries}
        with watched(repository.client) as calls:
            repository.runs(namespace, "a", window)
        assert calls.counted() == expected
    with store.begin() as uow:
        uow.runs.remove("a", 60)
    with watched(repository.client) as calls:
        assert len(repository.runs(namespace, "a", Window()).runs) == COUNT - 1
    assert calls.counted() == {"Query": 5, "GetItem": 1}
