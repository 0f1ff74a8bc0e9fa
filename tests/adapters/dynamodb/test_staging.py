"""Commits beyond one transaction: nobody sees a part of one, wherever it breaks off, and nothing is left of it."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository
from memory.core.unit_of_work import UnitOfWork
from memory.domain.values import new_id, now, to_datetime
from memory.errors import ConflictError, NotFoundError, StoreUnavailableError
from memory.testing.base import Snapshot, put, read_runs, run, snapshot, walk
from tests.adapters.dynamodb.watching import after_each, before_each, check_tidy, items_of, watched
from tests.servers import Server


class Killed(BaseException):
    """Stands for the end of the process: nothing of the library runs after it."""


@dataclass(frozen=True)
class Case:
    """What is there, and what is done to it in one unit of work."""

    name: str
    before: Callable[[UnitOfWork], object]
    work: Callable[[UnitOfWork], object]


def _put_some(uow: UnitOfWork) -> None:
    for name in "abc":
        uow.conversations.add(Conversation(name, {"old": name, "same": 1, "tags": ["x", name]}))
        uow.runs.append(name, *(run(n) for n in range(1, 6)))


def _create_many(uow: UnitOfWork) -> None:
    for n in range(40):
        uow.conversations.add(Conversation(f"new-{n}", {"n": n, "all": True}))
        uow.runs.append(f"new-{n}", run(n))


def _append_many(uow: UnitOfWork) -> None:
    uow.runs.append("a", *(run(n) for n in range(6, 220)))


def _everything(uow: UnitOfWork) -> None:
    uow.conversations.get("a").metadata = {"new": "a", "same": 1, "many": list(range(120))}
    uow.runs.replace("a", replace(run("edited"), position=2))
    uow.runs.remove("a", 3)
    uow.runs.append("a", *(run(n) for n in range(6, 60)))
    uow.conversations.remove("b")
    uow.conversations.add(Conversation("b", {"anew": True}))
    uow.conversations.remove("c")
    uow.conversations.add(Conversation("d", {"large": "x" * 100_000}, to_datetime(4_000_000_000_000_000)))
    uow.runs.append("d", Run("y" * 900_000, ""))


def _put_long(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("a", {"n": 1}))
    uow.runs.append("a", *(run(n) for n in range(1, 151)))


def _edit_many_runs(uow: UnitOfWork) -> None:
    uow.runs.remove("a", before=11)
    uow.runs.remove("a", *range(11, 61))
    for position in range(61, 121):
        uow.runs.replace("a", replace(run("edited"), position=position))
    uow.runs.append("a", run(151))


def _put_large(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("a", {"large": "x" * 400_000, "many": list(range(150))}))


def _replace_large(uow: UnitOfWork) -> None:
    uow.conversations.get("a").metadata = {"large": "y" * 800_000, "many": list(range(100, 250))}


def _remove_large(uow: UnitOfWork) -> None:
    uow.conversations.remove("a")


CASES = (
    Case("create many", _put_some, _create_many),
    Case("append many", _put_some, _append_many),
    Case("everything", _put_some, _everything),
    Case("edit many runs", _put_long, _edit_many_runs),
    Case("replace large metadata", _put_large, _replace_large),
    Case("remove many entries", _put_large, _remove_large),
)


@pytest.fixture
def third(table_name: str, dynamodb_server: Server) -> Iterator[DynamoDbRepository]:
    """One more process, which only looks."""
    with closing(DynamoDbRepository(table_name, endpoint=dynamodb_server.url)) as repository:
        yield repository


def seen_by(repository: DynamoDbRepository, namespace: str) -> Snapshot:
    store = Store(repository, namespace)
    seen = snapshot(store)
    by_query = walk(store, where("same").exists() | ~where("same").exists())
    assert [one.id for one in by_query] == [record.id for record in seen.conversations]
    assert store.begin().conversations.count() == len(seen.conversations)
    orders = [[one.id for one in walk(store, order=order)] for order in ("updated_at", "created_at")]
    assert [sorted(order) for order in orders] == [[record.id for record in seen.conversations]] * 2
    return seen


def without_times(seen: Snapshot) -> object:
    runs = {id: [(run.position, run.input, run.output) for run in of] for id, of in seen.runs.items()}
    return [record._replace(updated_at=0, created_at=0) for record in seen.conversations], runs


def transactions_of(repository: DynamoDbRepository, case: Case, namespace: str) -> tuple[int, object, object]:
    """Do it undisturbed; return how many transactions it took, and what is seen before and after it."""
    store = Store(repository, namespace)
    with store.begin() as uow:
        case.before(uow)
    before = without_times(seen_by(repository, namespace))
    with watched(repository.client) as calls, store.begin() as uow:
        case.work(uow)
    check_tidy(repository, namespace)
    return calls.counted()["TransactWriteItems"], before, without_times(seen_by(repository, namespace))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("interfere", [before_each, after_each], ids=["before it is sent", "after it arrived"])
def test_killed_at_any_instant(
    case: Case,
    interfere: Any,
    repository: DynamoDbRepository,
    other: DynamoDbRepository,
    third: DynamoDbRepository,
) -> None:
    transactions, before, after = transactions_of(repository, case, new_id())
    assert before != after
    assert transactions > 3  # it is staged
    outcomes = []
    other.abandoned_after = 0
    for at in range(transactions):
        namespace = new_id()
        store = Store(repository, namespace)
        with store.begin() as uow:
            case.before(uow)
        uow = store.begin()
        case.work(uow)

        def kill(number: int, at: int = at) -> None:
            if number >= at:
                raise Killed

        with interfere(repository.client, "TransactWriteItems", kill), pytest.raises(Killed):
            uow.commit()
        seen = without_times(seen_by(third, namespace))
        assert seen in (before, after), f"killed at transaction {at}"
        outcomes.append(seen == after)
        again = Store(other, namespace)
        if at % 2:  # the next writer cleans up, or purging does
            conversations = [one for one in again.begin().conversations.find(order="id") if one.id == "a"]
            with again.begin() as next_uow:
                if conversations:
                    next_uow.runs.append("a", run("next"))
                else:
                    next_uow.conversations.add(Conversation("a"))
            with again.begin() as next_uow:
                next_uow.conversations.remove("a")
        assert again.purge_expired() == 0
        if not at % 2:
            assert without_times(seen_by(third, namespace)) == seen
        check_tidy(third, namespace)
    assert outcomes == sorted(outcomes)  # from some transaction on it is written
    assert outcomes[0] is False
    assert outcomes[-1] is True


def test_it_becomes_visible_at_once(
    repository: DynamoDbRepository, third: DynamoDbRepository, store: Store, namespace: str
) -> None:
    with store.begin() as uow:
        _put_some(uow)
    views: list[object] = []

    def look(_: int) -> None:
        views.append(without_times(seen_by(third, namespace)))

    uow = store.begin()
    _everything(uow)
    with before_each(repository.client, "TransactWriteItems", look):
        uow.commit()
    look(0)
    different = [view for view, last in zip(views, [None, *views], strict=False) if view != last]
    assert len(different) == 2


def test_a_writer_whose_stage_was_ended_begins_anew(
    repository: DynamoDbRepository, other: DynamoDbRepository, store: Store, other_store: Store, namespace: str
) -> None:
    """It was slow, another took its stage for abandoned, undid it and wrote: both are there in the end."""
    put(store, "a", {"n": 1}, run(1))
    other.abandoned_after = 0

    def overtake(number: int) -> None:
        if number == 2:
            with other_store.begin() as uow:
                uow.runs.append("a", run("other"))

    with before_each(repository.client, "TransactWriteItems", overtake), store.begin() as uow:
        uow.runs.append("a", *(run(n) for n in range(250)))
    assert [one.input for one in read_runs(store, "a")] == [1, "other", *range(250)]
    assert [one.position for one in read_runs(store, "a")] == list(range(1, 253))
    check_tidy(repository, namespace)


def test_a_stage_at_work_is_left_alone(repository: DynamoDbRepository, other_store: Store, store: Store) -> None:
    put(store, "a", {"n": 1}, run(1))
    other_store.repository.timeout = 0.3
    errors: list[str] = []

    def intrude(number: int) -> None:
        if number == 2:
            uow = other_store.begin()
            uow.runs.append("a", run("other"))
            with pytest.raises(StoreUnavailableError) as caught:
                uow.commit()
            errors.append(str(caught.value))
            other_store.purge_expired()

    with before_each(repository.client, "TransactWriteItems", intrude), store.begin() as uow:
        uow.runs.append("a", *(run(n) for n in range(250)))
    assert len(errors) == 1
    assert len(read_runs(store, "a")) == 251


DAY = 24 * 3600 * 1_000_000


def die_with_a_clock_ahead(repository: DynamoDbRepository, store: Store, patch: pytest.MonkeyPatch) -> None:
    """Lock a conversation, by a writer whose clock is a day ahead, and end."""

    def kill(number: int) -> None:
        if number == 2:
            raise Killed

    uow = store.begin()
    _append_many(uow)
    with patch.context() as ahead:
        ahead.setattr("memory.adapters.dynamodb.staging.now", lambda: now() + DAY)
        with before_each(repository.client, "TransactWriteItems", kill), pytest.raises(Killed):
            uow.commit()


def test_a_stage_of_a_writer_whose_clock_was_ahead_is_ended_by_the_next_writer(
    repository: DynamoDbRepository,
    other: DynamoDbRepository,
    store: Store,
    other_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(store, "a", {"n": 1}, run(1))
    die_with_a_clock_ahead(repository, store, monkeypatch)
    other.abandoned_after = 1  # for so long it is looked at whether the stage goes on
    with other_store.begin() as uow:
        uow.runs.append("a", run("other"))
    assert [one.input for one in read_runs(store, "a")] == [1, "other"]
    check_tidy(repository, store.namespace_name)


def test_a_stage_of_a_writer_whose_clock_was_ahead_is_purged(
    repository: DynamoDbRepository,
    store: Store,
    other_store: Store,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(store, "a", {"n": 1}, run(1))
    die_with_a_clock_ahead(repository, store, monkeypatch)
    assert other_store.purge_expired() == 0
    check_tidy(repository, namespace)


def test_a_writer_at_work_whose_clock_is_ahead_is_left_alone(
    repository: DynamoDbRepository, other_store: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", {"n": 1}, run(1))
    other_store.repository.timeout = 0.3
    refused: list[int] = []

    def intrude(number: int) -> None:
        if number == 2:
            uow = other_store.begin()
            uow.runs.append("a", run("other"))
            with monkeypatch.context() as behind:
                behind.setattr("memory.adapters.dynamodb.staging.now", lambda: now() - DAY)
                with pytest.raises(StoreUnavailableError):
                    uow.commit()
            refused.append(number)

    uow = store.begin()
    _append_many(uow)
    with before_each(repository.client, "TransactWriteItems", intrude), watched(repository.client) as calls:
        uow.commit()
    assert refused
    assert calls.counted()["TransactWriteItems"] == 7  # it did not begin anew
    assert len(read_runs(store, "a")) == 215


def test_purging_what_somebody_else_closes_meanwhile(
    repository: DynamoDbRepository, third: DynamoDbRepository, store: Store, other_store: Store, namespace: str
) -> None:
    """The other is faster, and has swept out the old metadata by which this one would know what else to remove."""
    put(store, "a", {"large": "x" * 400_000, "many": list(range(150))})
    uow = store.begin()
    uow.conversations.get("a").metadata = {"large": "y" * 400_000, "many": list(range(100, 250))}

    def kill(_: int) -> None:
        if any(getattr(item, "state", None) == "committed" for item in items_of(third, namespace).values()):
            raise Killed

    with after_each(repository.client, "TransactWriteItems", kill), pytest.raises(Killed):
        uow.commit()
    faster: list[int] = []

    def close(number: int) -> None:
        if number == 0:
            faster.append(other_store.purge_expired())

    with before_each(third.client, "BatchGetItem", close):
        assert Store(third, namespace).purge_expired() == 0
    assert faster == [0]
    check_tidy(repository, namespace)


def test_what_does_not_fit_is_refused_whole(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    put(store, "a", {"n": 1}, run(1))
    stale = store.begin()
    stale.conversations.get("a").metadata["n"] = 2
    _create_many(stale)
    with store.begin() as uow:
        uow.conversations.get("a").metadata["n"] = 3
    before = items_of(repository, namespace).keys()
    with pytest.raises(ConflictError, match="'a'"):
        stale.commit()
    uow = store.begin()
    _create_many(uow)
    uow.runs.append("missing", run())
    with pytest.raises(NotFoundError, match="'missing'"):
        uow.commit()
    assert items_of(repository, namespace).keys() == before


def test_a_replay_of_a_staged_commit(repository: DynamoDbRepository, other_store: Store, store: Store) -> None:
    told: list[Any] = []
    store.subscribe(told.append)
    with store.begin() as uow:
        _create_many(uow)
    seen = snapshot(store)
    for each in (store, other_store):
        with watched(repository.client) as calls:
            assert each.commit(told[0].changes) == told[0].receipt
        assert len(calls.names) <= 4
    assert snapshot(store) == seen


def test_receipts_of_any_size(
    store: Store, other_store: Store, namespace: str, other: DynamoDbRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so many conversations that what is said of them is in parts: the receipt, and the stage's ids."""
    monkeypatch.setattr("memory.adapters.dynamodb.models.PART", 10_000)
    told: list[Any] = []
    store.subscribe(told.append)
    with store.begin() as uow:
        for n in range(100):
            uow.conversations.add(Conversation(f"{n:03}" + "😀" * 252))
    assert other_store.commit(told[0].changes) == told[0].receipt
    check_tidy(other, namespace)


def test_two_large_commits_of_the_same_conversations(store: Store, other_store: Store) -> None:
    put(store, "a", None)
    put(store, "b", None)

    from threading import Thread

    def write(mine: Store) -> None:
        with mine.begin() as uow:
            for name in "ab":
                uow.runs.append(name, *(run(n) for n in range(80)))

    threads = [Thread(target=write, args=[each]) for each in (store, other_store)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "ab":
        assert [one.position for one in read_runs(store, name)] == list(range(1, 161))
    with suppress(NotFoundError):
        store.begin().runs.get("a", 161)
