"""Commits whose runs or texts do not fit one transaction: nobody sees a part of one, wherever it breaks off."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository
from memory.core.unit_of_work import UnitOfWork
from memory.domain.values import new_id, now
from memory.errors import ConflictError
from memory.port.changes import Change, ChangeSet
from memory.testing.base import Snapshot, put, read_runs, run, snapshot, walk
from tests.adapters.dynamodb.watching import after_each, before_each, check_tidy, items_of, watched

COMMIT = "TransactWriteItems"


class Killed(BaseException):
    """Stands for the end of the process: nothing of the library runs after it."""


@dataclass(frozen=True)
class Case:
    """A unit of work that is staged."""

    name: str
    work: Callable[[UnitOfWork], object]


def append_many(uow: UnitOfWork) -> None:
    uow.runs.append("a", *(run(n) for n in range(6, 220)))


def _create_long(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("d", {"new": 1}))
    uow.runs.append("d", *(run(n) for n in range(150)))


def _make_anew(uow: UnitOfWork) -> None:
    uow.conversations.remove("a")
    uow.conversations.add(Conversation("a", {"anew": 1}))
    uow.runs.append("a", *(run(n) for n in range(150)))


def _large_texts(uow: UnitOfWork) -> None:
    uow.conversations.get("a").metadata = {"_large": "x" * 4_500_000}
    uow.runs.append("a", Run("y" * 900_000, ""))
    uow.runs.append("b", Run("y" * 900_000, ""), run(7))
    uow.conversations.remove("c")


CASES = (
    Case("append many", append_many),
    Case("create a long one", _create_long),
    Case("make anew", _make_anew),
    Case("large texts", _large_texts),
)


def put_some(store: Store) -> None:
    with store.begin() as uow:
        for name in "abc":
            uow.conversations.add(Conversation(name, {"old": name, "same": 1}))
            uow.runs.append(name, *(run(n) for n in range(1, 6)))


def seen_by(repository: DynamoDbRepository, namespace: str) -> object:
    """Return what another process sees, by every way to look; without times."""
    store = Store(repository, namespace)
    seen: Snapshot = snapshot(store)
    found = [record.id for record in seen.conversations]
    assert [one.id for one in walk(store, where("same").exists() | ~where("same").exists())] == found
    assert store.begin().conversations.count() == len(found)
    for order in ("last_run_at", "updated_at", "created_at"):
        assert sorted(one.id for one in walk(store, order=order)) == found
    runs = {id: [(one.position, one.input) for one in of] for id, of in seen.runs.items()}
    for id, of in runs.items():
        assert [one.position for one in store.begin().runs.last(id, 3)] == [position for position, _ in of][-3:]
    return [record._replace(updated_at=0, created_at=0, last_run_at=0) for record in seen.conversations], runs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("interfere", [before_each, after_each], ids=["before it is sent", "after it arrived"])
def test_killed_at_any_instant(
    case: Case, interfere: Any, repository: DynamoDbRepository, other: DynamoDbRepository
) -> None:
    """All is as it was, or as it was to be; the next writer is not hindered, and a purge leaves nothing."""
    store = Store(repository, new_id())
    put_some(store)
    before = seen_by(other, store.namespace_name)
    with watched(repository.client) as calls, store.begin() as uow:
        case.work(uow)
    after = seen_by(other, store.namespace_name)
    count = calls.counted()[COMMIT]
    assert count > 2  # it is staged
    outcomes = []
    for at in range(count):
        store = Store(repository, new_id())
        put_some(store)
        uow = store.begin()
        case.work(uow)

        def kill(number: int, at: int = at) -> None:
            if number >= at:
                raise Killed

        with interfere(repository.client, COMMIT, kill), pytest.raises(Killed):
            uow.commit()
        seen = seen_by(other, store.namespace_name)
        assert seen in (before, after), f"killed at transaction {at}"
        outcomes.append(seen == after)
        again = Store(other, store.namespace_name)
        if at % 2:
            with again.begin() as uow:
                uow.runs.append("a", run("next"))
            assert read_runs(again, "a")[-1].input == "next"
            seen = seen_by(other, store.namespace_name)
        again.purge_expired()
        assert seen_by(other, store.namespace_name) == seen
        check_tidy(other, store.namespace_name)
    assert outcomes == sorted(outcomes)  # from some transaction on it is written
    assert (outcomes[0], outcomes[-1]) == (False, interfere is after_each)


def test_it_becomes_visible_at_once(
    repository: DynamoDbRepository, other: DynamoDbRepository, store: Store, namespace: str
) -> None:
    put_some(store)
    views: list[object] = []
    with (
        before_each(repository.client, COMMIT, lambda _: views.append(seen_by(other, namespace))),
        store.begin() as uow,
    ):
        _large_texts(uow)
    views.append(seen_by(other, namespace))
    assert len(views) > 3
    assert all(view == views[0] for view in views[:-1])
    assert views[-1] != views[0]


def test_a_writer_that_is_overtaken_begins_again(
    repository: DynamoDbRepository, store: Store, other_store: Store, namespace: str
) -> None:
    """Another writer does not wait for it, and both are written whole."""
    for turn in range(1, 4):
        put(store, f"a{turn}", {"n": 1}, run(1))

        def overtake(number: int, turn: int = turn) -> None:
            if number == turn:
                with watched(other_store.repository.client) as calls, other_store.begin() as uow:  # type: ignore[attr-defined]
                    uow.runs.append(f"a{turn}", run("other"))
                assert calls.counted()[COMMIT] == 1

        with before_each(repository.client, COMMIT, overtake), store.begin() as uow:
            uow.runs.append(f"a{turn}", *(run(n) for n in range(250)))
        assert [(one.position, one.input) for one in read_runs(store, f"a{turn}")] == list(
            enumerate([1, "other", *range(250)], 1)
        )
    store.purge_expired()
    check_tidy(repository, namespace)


def test_what_was_read_and_changed_meanwhile_is_a_conflict(
    repository: DynamoDbRepository, store: Store, other_store: Store
) -> None:
    put(store, "a", {"n": 1})

    def overtake(number: int) -> None:
        if number == 1:
            with other_store.begin() as uow:
                uow.conversations.get("a").metadata["n"] = 2

    uow = store.begin()
    uow.conversations.get("a").metadata["n"] = 3
    uow.runs.append("a", *(run(n) for n in range(150)))
    with before_each(repository.client, COMMIT, overtake), pytest.raises(ConflictError):
        uow.commit()
    assert read_runs(other_store, "a") == []


def test_large_appends_of_several_writers_do_not_mix(store: Store, other_store: Store, namespace: str) -> None:
    for name in "ab":
        put(store, name, None)

    def write(mine: Store, writer: int) -> None:
        for _ in range(3):
            with mine.begin() as uow:
                for name in "ab":
                    uow.runs.append(name, *(run([writer, n]) for n in range(120)))

    threads = [Thread(target=write, args=each) for each in ((store, 1), (other_store, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        runs = read_runs(store, name)
        assert [one.position for one in runs] == list(range(1, 721))
        for begin in range(0, 720, 120):
            writer = runs[begin].input[0]
            assert [one.input for one in runs[begin : begin + 120]] == [[writer, n] for n in range(120)]
    store.purge_expired()
    check_tidy(store.repository, namespace)  # type: ignore[arg-type]


def test_a_purge_while_a_commit_is_staged(
    repository: DynamoDbRepository, store: Store, other_store: Store, namespace: str
) -> None:
    """The commit begins again, and is right all the same."""
    put(store, "a", {"n": 1}, run(1))

    def purge(number: int) -> None:
        if number == 2:
            other_store.purge_expired()

    with before_each(repository.client, COMMIT, purge), watched(repository.client) as calls, store.begin() as uow:
        uow.runs.append("a", *(run(n) for n in range(250)))
    assert calls.counted()[COMMIT] == 8
    assert [one.input for one in read_runs(store, "a")] == [1, *range(250)]
    store.purge_expired()
    check_tidy(repository, namespace)


@pytest.mark.parametrize("at", range(3))
def test_a_purge_while_the_conversation_is_created_and_removed_again(
    repository: DynamoDbRepository, store: Store, other_store: Store, namespace: str, at: int
) -> None:
    """What the second removal leaves is not forgotten, though there is no conversation before it nor after it."""

    def put_and_remove(mine: Store) -> None:
        put(mine, "a", {"n": 1}, run(1), run(2))
        with mine.begin() as uow:
            uow.conversations.remove("a")

    def again(number: int) -> None:
        if number == at:
            put_and_remove(other_store)

    put_and_remove(store)
    with before_each(repository.client, COMMIT, again), watched(repository.client) as calls:
        store.purge_expired()
    assert calls.counted()[COMMIT] > at
    store.purge_expired()
    assert items_of(repository, namespace) == {}


def die(repository: DynamoDbRepository, store: Store, at: int = 3) -> None:
    """Stage the append of many runs, and end."""

    def kill(number: int) -> None:
        if number == at:
            raise Killed

    uow = store.begin()
    append_many(uow)
    with before_each(repository.client, COMMIT, kill), pytest.raises(Killed):
        uow.commit()


def test_what_a_dead_writer_has_staged_is_never_seen(
    repository: DynamoDbRepository, store: Store, other_store: Store, namespace: str
) -> None:
    """Not by those who append a few runs over it, nor by those whose runs have positions of their own with gaps between."""
    put_some(store)
    die(repository, store)
    assert len(items_of(repository, namespace)) > 200
    expected: list[tuple[int, object]] = [(n, n) for n in range(1, 6)]
    with other_store.begin() as uow:
        uow.runs.append("a", run("six"), run("seven"))
    expected += [(6, "six"), (7, "seven")]
    assert [(one.position, one.input) for one in read_runs(store, "a")] == expected
    runs = tuple(run(n).to_record(n) for n in (20, 30))
    changes = ChangeSet.of([Change("a", append=runs)], now())
    receipts = [other_store.commit(changes) for _ in range(2)]
    assert receipts[0] == receipts[1]
    expected += [(20, 20), (30, 30)]
    assert [(one.position, one.input) for one in read_runs(store, "a")] == expected
    assert [one.position for one in store.begin().runs.last("a", 4)] == [6, 7, 20, 30]
    assert store.purge_expired() == 0
    assert [(one.position, one.input) for one in read_runs(store, "a")] == expected
    check_tidy(repository, namespace)


def test_a_replay_of_a_large_commit(store: Store, other_store: Store) -> None:
    told: list[Any] = []
    store.subscribe(told.append)
    with store.begin() as uow:
        _create_long(uow)
    seen = snapshot(store)
    for each in (store, other_store):
        with watched(each.repository.client) as calls:  # type: ignore[attr-defined]
            assert each.commit(told[0].changes) == told[0].receipt
        assert calls.counted() == ({"GetItem": 2} if each is store else {"GetItem": 1})
    assert snapshot(store) == seen
