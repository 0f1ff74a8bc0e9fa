"""Retention and erasure above every repository: batches, retries, interruptions, reports."""

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import anyio
import pytest

import memory
from memory import (
    CommitTooLargeError,
    Conversation,
    Erased,
    InvalidValueError,
    PersistenceError,
    Retention,
    Run,
    Store,
    StoreUnavailableError,
    aio,
    where,
)
from memory.adapters.in_memory import InMemoryRepository
from memory.core import retention
from memory.domain.values import now, to_datetime
from memory.port.changes import Change, ChangeSet, Receipt
from memory.port.outbox import ReplicaLag
from memory.port.repository import Capabilities, Forgotten, RunsRead, Window
from memory.testing.base import put, read, read_runs, run, walk

OF_ADA = where("customer") == "ada"
LONG_AGO = timedelta(microseconds=1)  # whatever exists is idle for longer


class Watched(InMemoryRepository):
    """The reference, which records the sizes of commits, limits them, and fails where a test wants."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    iterate_page: ClassVar[int] = 200

    def __init__(self, most: int = 1_000, failures: Collection[int] = ()) -> None:
        super().__init__()
        self.most, self.failures = most, failures
        self.calls = 0
        self.commits: list[int] = []
        self.forgotten: list[list[str]] = []
        self.windows: list[Window] = []
        self.before_commit: Callable[[ChangeSet], object] = lambda _: None

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        if any(change.create for change in changes.changes):
            return super().commit(namespace, changes)
        self.calls += 1
        if self.calls in self.failures:
            raise StoreUnavailableError("away")
        if len(changes.changes) > self.most:
            raise CommitTooLargeError("too large", limit=self.most, size=len(changes.changes))
        self.before_commit(changes)
        receipt = super().commit(namespace, changes)
        self.commits.append(len(changes.changes))
        return receipt

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        self.windows.append(window)
        return super().runs(namespace, conversation_id, window)

    def forget(self, namespace: str, conversation_ids: Collection[str]) -> Forgotten:
        self.forgotten.append(list(conversation_ids))
        return super().forget(namespace, conversation_ids)


class OneByOne(Watched):
    capabilities: ClassVar[Capabilities] = Capabilities(many_conversations=False)


class SmallPages(Watched):
    iterate_page: ClassVar[int] = 3


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.core.faces.time.sleep", lambda _: None)


def filled(repository: InMemoryRepository, conversations: int, runs: int = 1) -> Store:
    store = Store(repository)
    with store.begin() as uow:
        for n in range(conversations):
            uow.conversations.add(Conversation(f"{n:04}", {"customer": "ada"}))
            uow.runs.append(f"{n:04}", *[run(n) for n in range(runs)])
    return store


def test_removals_are_committed_in_batches() -> None:
    repository = Watched()
    assert filled(repository, 250).retain(Retention(idle=LONG_AGO)).removed == 250
    assert repository.commits == [100, 100, 50]


def test_a_batch_removes_a_bounded_number_of_runs() -> None:
    repository = Watched()
    assert filled(repository, 5, runs=2_000).erase(OF_ADA).runs == 10_000
    assert repository.commits == [2, 2, 1]


def test_a_batch_that_is_too_large_is_divided_and_the_next_are_as_small() -> None:
    repository = Watched(most=30)
    assert filled(repository, 100).erase(OF_ADA).conversations == 100
    assert repository.commits == [25, 25, 25, 25]
    assert repository.calls == 6


def test_a_conversation_too_large_for_any_commit_is_an_error() -> None:
    with pytest.raises(CommitTooLargeError):
        filled(Watched(most=0), 1).erase(OF_ADA)


def test_a_store_that_writes_one_conversation_at_a_time_gets_them_so() -> None:
    repository = OneByOne(most=1)
    filled_one_by_one = Store(repository)
    for name in ("a", "b", "c"):
        put(filled_one_by_one, name, {"customer": "ada"})
    assert filled_one_by_one.erase(OF_ADA).conversations == 3
    assert repository.commits == [1, 1, 1]


def test_conflicts_cost_the_others_of_their_batch_nothing() -> None:
    repository = Watched()
    store = filled(repository, 10)
    busy = {"0003", "0007"}

    def append_first(_: ChangeSet) -> None:
        repository.before_commit = lambda _: None
        for name in busy:
            store.commit(ChangeSet.of([Change(name, append=(run().to_record(),))], now()))

    repository.before_commit = append_first
    retained = store.retain(Retention(idle=LONG_AGO))
    assert (retained.removed, retained.skipped) == (8, 2)
    assert {one.id for one in walk(store)} == busy


def test_pages_are_walked_without_a_gap() -> None:
    repository = SmallPages()
    store = filled(repository, 10, runs=3)
    assert store.retain(Retention(keep_last=1)).trimmed == 10
    assert store.retain(Retention(idle=LONG_AGO)).removed == 10


@pytest.mark.parametrize("failures", [(1, 2), (1, 3, 4)])
def test_a_store_that_is_away_for_a_moment_is_asked_again(failures: tuple[int, ...]) -> None:
    store = filled(Watched(failures=failures), 250)
    assert store.erase(OF_ADA).conversations == 250


def test_an_interrupted_erasure_is_resumed_by_another_call() -> None:
    repository = Watched(failures=range(3, 100))
    store = filled(repository, 250)
    with pytest.raises(StoreUnavailableError):
        store.erase(OF_ADA)
    assert store.conversations.count() == 50
    repository.failures = ()
    report = store.erase(OF_ADA)
    assert (report.conversations, report.left) == (50, 0)


def test_an_erasure_that_never_ends_says_what_is_left() -> None:
    repository = Watched()
    store = filled(repository, 3)
    names = iter(range(1_000))
    repository.before_commit = lambda _: put(store, f"new {next(names)}", {"customer": "ada"})
    report = store.erase(OF_ADA)
    assert (report.passes, report.conversations, report.left, report.is_complete) == (10, 12, 1, False)
    with_check = store.erase(OF_ADA, verify=True)
    assert (with_check.left, with_check.checked) == (1, 1)


def test_appends_do_not_delay_an_erasure() -> None:
    repository = Watched()
    store = filled(repository, 1)
    repository.before_commit = lambda _: InMemoryRepository.commit(
        repository, "default", ChangeSet.of([Change("0000", append=(run().to_record(),))], now())
    )
    report = store.erase(OF_ADA)
    assert (report.conversations, report.passes, report.left) == (1, 2, 0)


def test_a_dry_run_counts_the_runs_of_idle_conversations_once() -> None:
    store = filled(Watched(), 4, runs=3)
    both = Retention(idle=LONG_AGO, keep_last=1)
    dry, done = store.retain(both, dry_run=True), store.retain(both)
    assert (dry.removed, dry.trimmed, dry.runs) == (done.removed, done.trimmed, done.runs) == (4, 0, 12)


def test_verifying_finds_what_the_index_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """`find` by a criterion finds nothing: an index that is damaged."""
    repository = Watched()
    store = filled(repository, 2)
    find = repository.find
    monkeypatch.setattr(
        repository,
        "find",
        lambda namespace, query: find(
            namespace, query if query.criterion != OF_ADA else replace(query, criterion=~OF_ADA)
        ),
    )
    assert store.erase(OF_ADA).left == 0
    assert (store.erase(OF_ADA, verify=True).left, store.erase(OF_ADA, verify=True).checked) == (2, 2)


def test_everything_that_is_removed_is_forgotten() -> None:
    repository = Watched(most=4)
    store = filled(repository, 6)
    report = store.erase(OF_ADA)
    assert sorted(id for ids in repository.forgotten for id in ids) == [f"{n:04}" for n in range(6)]
    assert report.receipts == 3  # of the commit that made all, and of two that removed some
    assert repository._receipts == {}


def test_all_namespaces_are_searched_also_those_that_begin_meanwhile() -> None:
    repository = Watched()
    store = Store(repository)
    for name in ("b", "c", "d"):
        put(store.namespace(name), "1", {"customer": "ada" if name != "c" else "bob"}, run())

    def begin_another(_: ChangeSet) -> None:
        repository.before_commit = lambda _: None
        put(store.namespace("a"), "1", {"customer": "ada"})

    repository.before_commit = begin_another
    report = store.erase(OF_ADA, all_namespaces=True, verify=True)
    assert report.found_in == {"a": 1, "b": 1, "d": 1}
    assert (report.namespaces, report.left, report.checked) == (4, 0, 1)
    assert store.namespaces() == ["c"]
    assert store.namespace("c").retain(Retention(idle=LONG_AGO)).removed == 1


def test_retaining_and_purging_all_namespaces() -> None:
    store = Store(Watched())
    for name in ("a", "b"):
        put(store.namespace(name), "1", None, run(), run())
        with store.namespace(name).begin() as uow:
            uow.conversations.add(Conversation("2", expires_after=LONG_AGO))
    assert store.purge_expired() == 0
    retained = store.retain(Retention(keep_last=1), all_namespaces=True, dry_run=True)
    assert (retained.trimmed, retained.expired) == (2, 0)
    assert store.purge_expired(all_namespaces=True) == 2
    assert store.retain(Retention(keep_last=1), all_namespaces=True).trimmed == 2
    assert read(store.namespace("b"), "1").run_count == 1


def test_what_is_kept_is_found_without_reading_it() -> None:
    repository = Watched()
    store = filled(repository, 1, runs=1_000)
    store.retain(Retention(keep_last=900))
    assert repository.windows == [Window(limit=1)]
    assert [one.position for one in read_runs(store, "0000")] == list(range(101, 1_001))


def test_what_is_kept_is_found_across_gaps_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_RUNS_READ", 3)
    repository = Watched()
    store = filled(repository, 1, runs=20)
    with store.begin() as uow:
        uow.runs.remove("0000", *range(1, 20, 2), 20)  # 2, 4, ... 18 are left
    for keep in (8, 7, 6, 3, 1):
        assert store.retain(Retention(keep_last=keep)).runs > 0
        assert [one.position for one in read_runs(store, "0000")] == list(range(18 - 2 * (keep - 1), 19, 2))
    assert max(window.limit or 0 for window in repository.windows) == 3


def test_subscribers_learn_what_was_removed() -> None:
    store = filled(Watched(), 3)
    removed: list[str] = []
    store.subscribe(lambda committed: removed.extend(event.conversation_id for event in committed.events))
    store.erase(OF_ADA)
    assert sorted(removed) == ["0000", "0001", "0002"]


def test_progress_is_reported() -> None:
    told: list[str] = []
    store = filled(SmallPages(), 5, runs=2)
    store.retain(Retention(keep_last=1), progress=lambda what, _: told.append(what))
    assert told == ["trimmed 3 conversations", "trimmed 5 conversations"]
    told.clear()
    store.erase(OF_ADA, progress=lambda what, _: told.append(what))
    assert told[:2] == ["erased 3 conversations", "erased 5 conversations"]


def test_a_report_can_be_filed(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Watched()
    store = filled(repository, 2)
    until = now()
    monkeypatch.setattr(repository, "forget", lambda *_: Forgotten(1, 2, until))
    monkeypatch.setattr(repository, "waiting", lambda: {"search": ReplicaLag(7, 1)})
    report = store.erase(OF_ADA, verify=True)
    filed = json.loads(json.dumps(report.to_dict()))
    assert set(filed) == {*Erased.__dataclass_fields__, "is_complete"}
    assert filed["criterion"] == repr(OF_ADA)
    assert (filed["receipts"], filed["outbox"], filed["waiting"]) == (1, 2, {"search": 7})
    assert filed["begun_at"] <= filed["ended_at"]
    assert filed["receipts_until"].startswith("20")
    assert (filed["is_complete"], filed["found_in"]) == (True, {"default": 2})
    assert "0000" not in json.dumps(filed)


def test_the_latest_time_of_receipts_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = SmallPages()
    store = filled(repository, 9)
    times: Iterator[int | None] = iter([None, 5, 3])
    monkeypatch.setattr(repository, "forget", lambda *_: Forgotten(until=next(times)))
    assert store.erase(OF_ADA).receipts_until == to_datetime(5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "needs idle, keep_last or both"),
        ({"idle": 90}, "idle must be a timedelta"),
        ({"idle": timedelta(0)}, "idle must be positive"),
        ({"keep_last": 0}, "keep_last must be an int from 1, not 0"),
        ({"keep_last": True}, "keep_last must be an int from 1, not True"),
        ({"keep_last": 1, "where": where("customer")}, "is not a criterion yet"),
    ],
)
def test_a_retention_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Retention(**wrong)


@pytest.mark.parametrize("wrong", [None, "ada", where("customer")])
def test_erasing_needs_a_criterion(wrong: Any) -> None:
    store = filled(Watched(), 1)
    with pytest.raises(InvalidValueError, match="criterion"):
        store.erase(wrong)
    assert store.conversations.count() == 1


def test_a_closed_store_erases_nothing() -> None:
    store = filled(Watched(), 1)
    store.close()
    for call in (lambda: store.erase(OF_ADA), lambda: store.retain(Retention(idle=LONG_AGO)), store.purge_expired):
        with pytest.raises(PersistenceError, match="closed"):
            call()


def test_open_and_imported_runs_count_by_their_own_times() -> None:
    store = Store(Watched())
    old = to_datetime(now()) - timedelta(days=100)
    with store.begin() as uow:
        uow.conversations.add(Conversation("imported", created_at=old))
        uow.runs.append("imported", Run("then", "then", created_at=old))
        uow.conversations.add(Conversation("open", created_at=old))
        uow.runs.append("open", Run("now", memory.PENDING))
    assert store.retain(Retention(idle=timedelta(days=90))).removed == 1
    assert [one.id for one in walk(store)] == ["open"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_asynchronous_face_does_the_same(backend: str) -> None:
    repository = SmallPages()
    filled(repository, 7, runs=3)

    async def work() -> None:
        async with aio.Store(repository) as store:
            assert (await store.retain(Retention(keep_last=1), all_namespaces=True)).trimmed == 7
            report = await store.erase(OF_ADA, verify=True)
            assert (report.conversations, report.runs, report.left) == (7, 7, 0)
            assert await store.purge_expired(all_namespaces=True) == 0

    anyio.run(work, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_asynchronous_erasure_is_cancelled_between_pages(backend: str) -> None:
    """A page is removed and forgotten before the cancellation is delivered, and nothing after it is removed."""
    repository = SmallPages()
    filled(repository, 10)

    async def work() -> None:
        with anyio.CancelScope() as scope:
            await aio.Store(repository).erase(OF_ADA, progress=lambda *_: scope.cancel())
        assert scope.cancelled_caught

    anyio.run(work, backend=backend)
    assert Store(repository).conversations.count() == 7
    assert repository.forgotten == [["0000", "0001", "0002"]]


def test_the_task_of_an_asynchronous_retention_can_be_cancelled() -> None:
    repository = SmallPages()
    filled(repository, 10)

    async def work() -> None:
        removed: list[str] = []

        def stop(what: str, _: float | None) -> None:
            removed.append(what)
            task.cancel()

        task = asyncio.ensure_future(aio.Store(repository).retain(Retention(idle=LONG_AGO), progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert removed == ["removed 3 conversations"]

    asyncio.run(work())
    assert Store(repository).conversations.count() == 7
