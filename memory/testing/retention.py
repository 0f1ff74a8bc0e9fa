"""Retention, erasure, rewinding and sliding expiry, beside others who write."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from memory.core.retention import Retention
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import where
from memory.domain.entities import PENDING, Conversation, Run
from memory.domain.values import to_datetime
from memory.errors import ConflictError, NotFoundError
from memory.port.changes import ChangeSet
from memory.port.repository import Repository
from memory.testing.base import (
    Action,
    Clock,
    Contract,
    committed,
    do,
    put,
    read,
    read_runs,
    requires,
    run,
    sibling,
    snapshot,
    unchanged,
    walk,
)
from memory.testing.conflicts import ROUNDS, THREADS, in_threads

DAY = 24 * 3600 * 1_000_000
HOUR = timedelta(hours=1)
IDLE = Retention(idle=timedelta(days=90))
OF_ADA = where("customer") == "ada"


@contextmanager
def after_each_find(repository: Repository, *actions: Action) -> Iterator[None]:
    """Let somebody else act after the first searches: between what is found and the commit of what is done to it."""
    left, find = list(actions), repository.find

    def found(*arguments: Any) -> Any:
        page = find(*arguments)
        if left and page.items:
            left.pop(0)()
        return page

    vars(repository)["find"] = found
    try:
        yield
    finally:
        del vars(repository)["find"]
    assert not left, "nothing was found"


def _others(store: Store, repository: Repository) -> Store:
    """Return a synchronous store for those who act: the only thread of an asynchronous one may be that of the search."""
    return Store(repository, store.namespace_name)


class Retaining(Contract):
    """What is old is removed, and nothing else."""

    def test_idle_conversations_are_removed(self, store: Store, clock: Clock) -> None:
        """A conversation is idle if its last run is too old: an edit does not count, and a conversation may have no run."""
        for name in ("edited", "exact", "new", "old", "silent"):
            _put_at(store, clock, name, runs=0 if name == "silent" else 2)
        clock.advance()
        _append_at(store, clock, "exact")
        clock.advance(90 * DAY)
        do(store, lambda uow: uow.conversations.get("edited").metadata.update(edited=True))
        _append_at(store, clock, "new")
        other = sibling(store)
        _put_at(other, clock, "old", created_at=0)
        with unchanged(store, other):
            dry = store.retain(IDLE, dry_run=True)
        retained = store.retain(IDLE)
        assert (retained.removed, retained.runs, retained.skipped, retained.trimmed) == (3, 4, 0, 0)
        assert replace(dry, dry_run=False) == retained
        assert [(one.id, one.run_count) for one in walk(store)] == [("exact", 3), ("new", 3)]
        assert read_runs(store, "old") == []
        assert read(other, "old").run_count == 2

    def test_retention_of_a_criterion(self, store: Store, clock: Clock) -> None:
        """Only conversations that match are removed or trimmed."""
        for name in ("ada", "bob"):
            _put_at(store, clock, name, {"customer": name}, runs=3)
        store.retain(Retention(keep_last=1, where=OF_ADA))
        assert [read(store, name).run_count for name in ("ada", "bob")] == [1, 3]
        clock.advance(91 * DAY)
        store.retain(replace(IDLE, where=~OF_ADA))
        assert [one.id for one in walk(store)] == ["ada"]

    def test_writers_save_idle_conversations(self, store: Store, repository: Repository, clock: Clock) -> None:
        """A conversation that somebody appends to, edits, or creates again after it was found is skipped; others are removed."""
        for name in ("appended", "edited", "new", "old", "removed"):
            _put_at(store, clock, name)
        clock.advance(91 * DAY)

        others = _others(store, repository)

        def others_write() -> None:
            _append_at(others, clock, "appended")
            do(others, lambda uow: uow.conversations.get("edited").metadata.update(edited=True))
            do(others, lambda uow: uow.conversations.remove("new"))
            _put_at(others, clock, "new")
            do(others, lambda uow: uow.conversations.remove("removed"))

        with after_each_find(repository, others_write):
            retained = store.retain(IDLE)
        assert (retained.removed, retained.skipped) == (1, 4)
        assert [(one.id, one.run_count) for one in walk(store)] == [("appended", 3), ("edited", 2), ("new", 2)]

    def test_trimming(self, store: Store) -> None:
        """Trimming keeps the last runs at their positions, whatever gaps are between them, as one edit."""
        put(store, "dense", None, *map(run, range(6)))
        put(store, "gaps", None, *map(run, range(8)))
        do(store, lambda uow: uow.runs.remove("gaps", 1, 4, 6, 8))
        put(store, "short", None, run(), run(), run())
        version = read(store, "gaps").version
        with unchanged(store):
            dry = store.retain(Retention(keep_last=3), dry_run=True)
        retained = store.retain(Retention(keep_last=3))
        assert (retained.trimmed, retained.runs, retained.removed) == (2, 4, 0)
        assert (dry.trimmed, dry.runs) == (2, 4)
        positions = {name: [one.position for one in read_runs(store, name)] for name in ("dense", "gaps", "short")}
        assert positions == {"dense": [4, 5, 6], "gaps": [3, 5, 7], "short": [1, 2, 3]}
        assert (read(store, "gaps").version, read(store, "gaps").run_count) == (version + 1, 3)
        do(store, lambda uow: uow.runs.append("gaps", run("next")))
        assert read_runs(store, "gaps")[-1].position == 9
        assert store.retain(Retention(keep_last=4)).trimmed == 0

    def test_trimming_beside_writers(self, store: Store, repository: Repository) -> None:
        """A run appended meanwhile is kept beside the others; where others removed runs, nothing is trimmed."""
        for name in ("appended", "rewound"):
            put(store, name, None, *map(run, range(5)))

        others = _others(store, repository)

        def others_write() -> None:
            do(others, lambda uow: uow.runs.append("appended", run("new")))
            do(others, lambda uow: uow.runs.remove("rewound", after=4))

        with after_each_find(repository, others_write):
            retained = store.retain(Retention(keep_last=2))
        assert (retained.trimmed, retained.runs, retained.skipped) == (1, 3, 1)
        assert [one.position for one in read_runs(store, "appended")] == [4, 5, 6]
        assert [one.position for one in read_runs(store, "rewound")] == [1, 2, 3, 4]

    def test_retaining_purges(self, store: Store, clock: Clock) -> None:
        """A retention also purges what has expired, so that afterwards nothing of it is stored."""
        put(store, "lasting")
        do(store, lambda uow: uow.conversations.add(Conversation("a", expires_at=to_datetime(clock.time + 1))))
        clock.advance()
        assert store.retain(Retention(keep_last=1)).expired == 1
        clock.time -= 1_000_000
        assert [one.id for one in walk(store)] == ["lasting"]

    def test_erasing(self, store: Store, clock: Clock) -> None:
        """Everything that matches is erased, with its runs, and what has expired; everything else stays as it is."""
        soon = to_datetime(clock.time + 1)
        for n in range(5):
            put(store, f"ada {n}", {"customer": "ada", "n": n}, *map(run, range(n)))
        put(store, "bob", {"customer": "bob"}, run())
        do(store, lambda uow: uow.conversations.add(Conversation("expired", {"customer": "ada"}, soon)))
        other = sibling(store)
        put(other, "ada 1", {"customer": "ada"}, run())
        clock.advance()
        kept = snapshot(store)
        with unchanged(other):
            report = store.erase(OF_ADA, verify=True)
        assert (report.conversations, report.runs, report.expired, report.checked, report.left) == (5, 10, 1, 1, 0)
        assert (report.is_complete, report.namespaces, report.found_in) == (True, 1, {store.namespace_name: 5})
        bob = tuple([one for one in kept.conversations if one.id == "bob"])
        assert snapshot(store) == (bob, {"bob": kept.runs["bob"]})
        assert [read_runs(store, f"ada {n}") for n in range(5)] == [[]] * 5
        clock.time -= 1_000_000
        assert [one.id for one in walk(store)] == ["bob"]
        assert store.erase(OF_ADA).conversations == 0

    def test_erasing_beside_writers(self, store: Store, repository: Repository) -> None:
        """What others add or append meanwhile is erased too; what does not match any more after an edit is kept."""
        for name in ("appended", "given away", "old"):
            put(store, name, {"customer": "ada"}, run())

        others = _others(store, repository)

        def others_write() -> None:
            put(others, "added", {"customer": "ada"}, run())
            do(others, lambda uow: uow.runs.append("appended", run()))
            do(others, lambda uow: uow.conversations.get("given away").metadata.update(customer="bob"))

        with after_each_find(repository, others_write, lambda: put(others, "late", {"customer": "ada"})):
            report = store.erase(OF_ADA, verify=True)
        assert (report.conversations, report.left, report.passes) == (4, 0, 4)
        assert [one.id for one in walk(store)] == ["given away"]

    def test_erasing_forgets_receipts(self, store: Store, repository: Repository) -> None:
        """The receipts of an erased conversation are deleted, or the report says until when the store has them."""
        if not repository.capabilities.idempotency_keys:
            return  # a store without receipts
        keyed = ChangeSet.keyed("request")
        changes = committed(store, lambda uow: uow.conversations.add(Conversation("a", {"customer": "ada"}))).changes
        do(store, lambda uow: uow.conversations.remove("a"))
        again = replace(changes, token=keyed)
        assert [store.commit(again).repeated for _ in range(2)] == [False, True]
        report = store.erase(OF_ADA)
        assert report.receipts or report.receipts_until is not None
        assert store.commit(again).repeated == (report.receipts_until is not None)

    @requires("detects_conflicts", by_chance=True)
    def test_threads_write_while_one_trims(self, store: Store) -> None:
        """Threads append while one trims: the last runs are there in the end, and no append fails."""
        put(store, "a", None, run(), run(), run())

        def work(thread: int) -> None:
            for _ in range(ROUNDS):
                if thread == 0:
                    store.retain(Retention(keep_last=2))
                else:
                    do(store, lambda uow: uow.runs.append("a", run()))

        in_threads(work)
        last = 3 + (THREADS - 1) * ROUNDS
        positions = [one.position for one in read_runs(store, "a")]
        assert positions == list(range(last - len(positions) + 1, last + 1))
        assert len(positions) >= 2

    def test_threads_write_while_one_erases(self, store: Store) -> None:
        """Threads create conversations and append to them while one erases: in the end nothing is left of them."""

        def write(uow: UnitOfWork) -> None:
            uow.conversations.get_or_create("a", {"customer": "ada"})
            uow.runs.append("a", run())

        def work(thread: int) -> None:
            for _ in range(ROUNDS):
                if thread == 0:
                    store.erase(OF_ADA)
                else:
                    with suppress(NotFoundError):  # erased between reading and appending
                        store.run(write, retries=1_000, sleep=lambda _: None)

        in_threads(work)
        assert store.erase(OF_ADA, verify=True).is_complete
        assert (snapshot(store), read_runs(store, "a")) == (((), {}), [])

    def test_forced_removal(self, store: Store) -> None:
        """A removal with ``force`` does not conflict with what others wrote since; the conversation must exist."""
        put(store, "a", {"n": 1}, run())
        early, forced, late = store.begin(), store.begin(), store.begin()
        for uow, force in ((early, False), (forced, True)):
            uow.conversations.remove(uow.conversations.get("a"), force=force)
        late.conversations.get("a").metadata["n"] = 2
        late.runs.append("a", run())
        late.commit()
        with unchanged(store), pytest.raises(ConflictError):
            early.commit()
        forced.commit()
        assert snapshot(store) == ((), {})
        with pytest.raises(NotFoundError, match="'a'"):
            do(store, lambda uow: uow.conversations.remove("a", force=True))


class Rewinding(Contract):
    """The last runs are removed, and the conversation continues from an earlier one."""

    def test_rewinding(self, store: Store) -> None:
        """Runs after a position are removed as one edit, and an append continues after the last position ever assigned."""
        for after, left in ((3, [1, 2, 3]), (0, []), (9, [1, 2, 3, 4, 5])):
            other = sibling(store)
            put(other, "a", None, *map(run, range(5)))
            do(other, lambda uow, after=after: uow.runs.remove("a", after=after))  # type: ignore[misc]
            stored = read(other, "a")
            assert (stored.version, stored.run_count, stored.last_position) == (2, len(left), 5)
            assert [one.position for one in read_runs(other, "a")] == left
            do(other, lambda uow: uow.runs.append("a", run("again")))
            assert [one.position for one in read_runs(other, "a")] == [*left, 6]

    def test_rewinding_and_appending_in_one_commit(self, store: Store) -> None:
        """A message is edited and the conversation continues from it, in one commit, which can cut both ends."""
        put(store, "a", None, *map(run, range(5)))
        do(
            store,
            lambda uow: uow.runs.remove("a", before=2, after=3),
            lambda uow: uow.runs.replace("a", replace(run("edited"), position=3)),
            lambda uow: uow.runs.append("a", run("answer")),
        )
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(2, 1), (3, "edited"), (6, "answer")]

    def test_rewinding_conflicts_with_a_concurrent_append(self, store: Store) -> None:
        """A run that was appended since the conversation was read is not cut off; without reading it is."""
        put(store, "a", None, *map(run, range(3)))
        uow = store.begin()
        uow.runs.last("a", 1)
        uow.runs.remove("a", after=1)
        do(store, lambda uow: uow.runs.append("a", run("new")))
        with unchanged(store), pytest.raises(ConflictError):
            uow.commit()
        do(store, lambda uow: uow.runs.remove("a", after=1))
        assert [one.position for one in read_runs(store, "a")] == [1]


class SlidingExpiry(Contract):
    """Conversations with an ``expires_after``."""

    def test_appends_move_a_sliding_expiry(self, store: Store, clock: Clock) -> None:
        """Each append moves the expiry, without a new version; when nothing is appended, the conversation expires."""
        _put_sliding(store)
        begun = clock.time
        for minutes in (0, 30, 59):
            clock.time = begun + minutes * 60_000_000
            do(store, lambda uow: uow.runs.append("a", run()))
            stored = read(store, "a")
            assert (stored.expires_at, stored.expires_after) == (to_datetime(clock.time) + HOUR, HOUR)
            assert stored.version == 1
        clock.advance(3_600_000_000 - 1)
        assert read(store, "a").run_count == 3
        clock.advance(1)
        with pytest.raises(NotFoundError):
            do(store, lambda uow: uow.runs.append("a", run()))
        assert (walk(store), read_runs(store, "a"), store.purge_expired()) == ([], [], 1)
        clock.time = begun
        assert (walk(store), store.purge_expired()) == ([], 0)

    def test_completing_moves_a_sliding_expiry(self, store: Store, clock: Clock) -> None:
        """The output of an open run moves the expiry, as an append does; an edit does not."""
        _put_sliding(store)
        do(store, lambda uow: uow.runs.append("a", Run("?", PENDING, id="prompt")))
        clock.advance()
        do(store, lambda uow: uow.conversations.get("a").metadata.update(edited=True))
        assert read(store, "a").expires_at == to_datetime(clock.time - 1_000_000) + HOUR
        do(store, lambda uow: uow.runs.complete("a", "prompt", output="!"))
        assert read(store, "a").expires_at == to_datetime(clock.time) + HOUR

    def test_a_sliding_expiry_never_goes_back(self, store: Store, clock: Clock) -> None:
        """A writer with a clock that is behind, and a later ``expires_at`` of the application's, do not shorten the time."""
        _put_sliding(store)
        clock.advance()
        do(store, lambda uow: uow.runs.append("a", run()))
        latest = to_datetime(clock.time) + HOUR
        clock.time -= 1_000_000
        do(store, lambda uow: uow.runs.append("a", run()))
        assert read(store, "a").expires_at == latest
        far = to_datetime(clock.time) + 2 * HOUR
        do(store, lambda uow: setattr(uow.conversations.get("a"), "expires_at", far))
        do(store, lambda uow: uow.runs.append("a", run()))
        assert (read(store, "a").expires_at, read(store, "a").version) == (far, 2)

    def test_a_moved_expiry_conflicts_with_nothing(self, store: Store, clock: Clock) -> None:
        """A conversation read before an append moved its expiry can be edited; the edit keeps the moved expiry."""
        _put_sliding(store)
        early, late = store.begin(), store.begin()
        for uow in (early, late):
            uow.conversations.get("a")
        early.conversations.get("a").metadata["n"] = 2
        late.runs.append("a", run())
        clock.advance()
        late.commit()
        early.commit()
        stored = read(store, "a")
        assert (stored.metadata, stored.version) == ({"n": 2}, 2)
        assert stored.expires_at == to_datetime(clock.time) + HOUR

    def test_lifetime_can_be_set_and_cleared(self, store: Store, clock: Clock) -> None:
        """Setting ``expires_after`` is an edit that begins to count at once; without it, appends do not move the expiry."""
        put(store, "a", None, run())
        do(store, lambda uow: setattr(uow.conversations.get("a"), "expires_after", HOUR))
        expires_at = to_datetime(clock.time) + HOUR
        assert (read(store, "a").expires_at, read(store, "a").version) == (expires_at, 2)
        do(store, lambda uow: setattr(uow.conversations.get("a"), "expires_after", None))
        clock.advance()
        do(store, lambda uow: uow.runs.append("a", run()))
        stored = read(store, "a")
        assert (stored.expires_at, stored.expires_after, stored.version) == (expires_at, None, 3)

    def test_threads_append_with_a_sliding_expiry(self, store: Store, clock: Clock) -> None:
        """Threads that read and append to a conversation with a sliding expiry never conflict, and no run is lost."""
        _put_sliding(store)

        def append(thread: int) -> None:
            for round in range(ROUNDS):
                clock.advance()
                with store.begin() as uow:
                    uow.conversations.get("a")
                    uow.runs.append("a", run([thread, round]))

        in_threads(append)
        stored = read(store, "a")
        assert (stored.run_count, stored.version) == (THREADS * ROUNDS, 1)
        assert stored.expires_at is not None
        assert stored.expires_at <= to_datetime(clock.time) + HOUR


def _put_sliding(store: Store) -> None:
    do(store, lambda uow: uow.conversations.add(Conversation("a", expires_after=HOUR)))


def _put_at(
    store: Store,
    clock: Clock,
    name: str,
    metadata: dict[str, Any] | None = None,
    *,
    runs: int = 2,
    created_at: int | None = None,
) -> None:
    """Commit a conversation whose runs were created now, by the clock."""
    at = to_datetime(clock.time if created_at is None else created_at)
    put_at = Conversation(name, metadata, created_at=at)
    made = [Run("in", "out", created_at=at) for _ in range(runs)]
    do(store, lambda uow: uow.conversations.add(put_at), lambda uow: uow.runs.append(name, *made))


def _append_at(store: Store, clock: Clock, name: str) -> None:
    do(store, lambda uow: uow.runs.append(name, Run("in", "out", created_at=to_datetime(clock.time))))
