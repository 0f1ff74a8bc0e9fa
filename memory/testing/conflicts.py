"""Concurrent writers: no update is lost, appends never conflict, and nothing is written twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import product
from threading import Barrier
from typing import TypeVar, cast

import pytest

from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.entities import Conversation
from memory.domain.values import new_id, to_datetime
from memory.errors import ConflictError, NotFoundError
from memory.testing.base import (
    BLIND_WRITES,
    Clock,
    Contract,
    Work,
    committed,
    do,
    new_store,
    outcome_of,
    put,
    read,
    read_runs,
    requires,
    run,
    sibling,
    snapshot,
    unchanged,
)

T = TypeVar("T")
THREADS, ROUNDS = 4, 5
# Seconds between two reads: a reader without pauses would block the writer (the GIL, and sqlite://'s lock).
PAUSE = 0.0001
LATER = to_datetime(4_000_000_000_000_000)


READS: tuple[Work, ...] = (
    lambda uow: uow.conversations.get("a"),
    lambda uow: uow.conversations.find(),
    lambda uow: uow.runs.list("a"),
    lambda uow: uow.runs.last("a", 1),
)


def _edit(uow: UnitOfWork) -> None:
    metadata = uow.conversations.get("a").metadata
    metadata[f"edit {len(metadata)}"] = True


def _expire(uow: UnitOfWork) -> None:
    uow.conversations.get("a").expires_at = LATER


def _edit_runs(uow: UnitOfWork) -> None:
    uow.runs.replace("a", replace(uow.runs.get("a", 1), output="edited"))


def _remove_run(uow: UnitOfWork) -> None:
    uow.runs.get("a", 1)
    uow.runs.remove("a", 1)


def _clear_runs(uow: UnitOfWork) -> None:
    uow.runs.list("a")
    uow.runs.clear("a")


def _remove(uow: UnitOfWork) -> None:
    uow.conversations.remove(uow.conversations.get("a"))


def _recreate(uow: UnitOfWork) -> None:
    uow.conversations.remove("a")
    uow.conversations.add(Conversation("a"))
    uow.runs.append("a", run("new"), run("new"))


def _append(uow: UnitOfWork) -> None:
    uow.runs.append("a", run("appended"))


def _create(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("new", {"n": 1}))
    uow.runs.append("new", run(1))


EDITS: tuple[Work, ...] = (_edit, _expire, _edit_runs, _remove_run, _clear_runs, _remove)
REMOVALS: tuple[Work, ...] = (
    lambda uow: uow.conversations.remove("a"),
    lambda uow: uow.runs.clear("a"),
    _recreate,
)


class Conflicts(Contract):
    """Another unit of work changes what one has read, before that one commits."""

    def test_lost_update_is_a_conflict(self, store: Store) -> None:
        """A change of anything that was read raises ConflictError if another writer edited the conversation since."""
        for theirs in (*EDITS, _recreate):
            for mine in EDITS:
                _reset(store)
                uow = store.begin()
                mine(uow)
                do(store, theirs)
                _commit(store, uow, succeeds=False)

    def test_first_version_read_is_expected(self, store: Store) -> None:
        """The version that was read first is expected at the commit, even if the conversation is read again after an edit."""
        reads: tuple[Work, ...] = (*READS, lambda uow: list(uow.conversations.iterate()))
        for read_again in reads:
            _reset(store)
            uow = store.begin()
            first = uow.runs.get("a", 1)
            read_again(uow)
            do(store, _edit_runs)
            read_again(uow)
            uow.runs.replace("a", replace(first, output="mine"))
            _commit(store, uow, succeeds=False)

    def test_appends_never_conflict(self, store: Store) -> None:
        """An append conflicts neither with an edit nor with another append, whichever is committed first."""
        for edit in EDITS[:-2]:
            for first, second in ((edit, _append), (_append, edit)):
                _reset(store)
                uow, other = store.begin(), store.begin()
                first(uow)
                second(other)
                other.commit()
                uow.commit()
                assert read_runs(store, "a")[-1].input == "appended"
                assert (read(store, "a").version, read(store, "a").last_position) == (2, 3)

    def test_removal_conflicts_with_a_concurrent_append(self, store: Store) -> None:
        """Removing a conversation, or clearing its runs, raises ConflictError if a run was appended since it was read."""
        reads: tuple[Work, ...] = (*READS, lambda uow: uow.runs.append("a", after=2))
        for read_first, remove in product(reads, REMOVALS):
            _reset(store)
            uow = store.begin()
            read_first(uow)
            remove(uow)
            do(store, _append)
            _commit(store, uow, succeeds=False)
            _reset(store)
            do(store, read_first, remove)
            assert all(one.input == "new" for one in read_runs(store, "a"))

    def test_own_appends_can_be_removed(self, store: Store) -> None:
        """A unit of work may remove runs that it appended and committed itself, but not runs appended by others in between."""
        for others_append in (False, True):
            _reset(store)
            uow = store.begin()
            conversation = uow.conversations.get("a")
            if others_append:
                do(store, _append)
            uow.runs.append("a", run("mine"))
            uow.commit()
            uow.conversations.remove(conversation)
            _commit(store, uow, succeeds=not others_append)

    def test_blind_writes_never_conflict(self, store: Store) -> None:
        """A unit of work that has read nothing of a conversation overwrites it without a conflict."""
        for write in BLIND_WRITES:
            _reset(store)
            uow = store.begin()
            write(uow)
            do(store, _edit)
            uow.commit()

    def test_own_commits_never_conflict(self, store: Store) -> None:
        """A unit of work can be used after its own commits, but an edit by another writer between them is a conflict."""
        put(store, "a", {"n": 0})
        uow = store.begin()
        conversation = uow.conversations.get("a")
        for n in (1, 2):
            conversation.metadata["n"] = n
            uow.commit()
        with store.begin() as other:
            other.conversations.get("a").metadata["n"] = 10
        uow.runs.append("a", run())
        uow.commit()
        conversation.metadata["n"] = 3
        _commit(store, uow, succeeds=False)

    def test_conditional_append(self, store: Store) -> None:
        """An append with after= succeeds only if after is the last position assigned, even if runs were removed since."""
        put(store, "a")
        for after, succeeds in ((1, False), (0, True), (0, False), (1, True), (3, False)):
            _append_after(store, after, succeeds=succeeds)
        assert [one.input for one in read_runs(store, "a")] == [0, 1]
        do(store, lambda uow: uow.runs.clear("a"))
        for after, succeeds in ((0, False), (1, False), (2, True)):
            _append_after(store, after, succeeds=succeeds)
        with store.begin() as uow:
            uow.conversations.add(Conversation("b"))
            uow.runs.append("b", run(), after=0)
        assert read(store, "b").run_count == 1

    def test_threads_append(self, store: Store) -> None:
        """Concurrent appends from several threads are all stored, at positions 1 to n without gaps."""
        put(store, "a")

        def append(thread: int) -> None:
            for n in range(ROUNDS):
                with store.begin() as uow:
                    uow.runs.append("a", run([thread, n, 0]), run([thread, n, 1]))

        in_threads(append)
        stored = read_runs(store, "a")
        expected = [[thread, n, m] for thread in range(THREADS) for n in range(ROUNDS) for m in (0, 1)]
        assert [one.position for one in stored] == list(range(1, len(expected) + 1))
        by_thread = sorted([cast("list[int]", one.input) for one in stored], key=lambda each: each[0])
        assert by_thread == expected

    @requires("detects_conflicts", by_chance=True)
    def test_threads_count(self, store: Store) -> None:
        """A counter in the metadata that several threads increment through Store.run loses no increment."""
        put(store, "a", {"n": 0})

        def increase(uow: UnitOfWork) -> None:
            metadata = uow.conversations.get("a").metadata
            metadata["n"] = cast(int, metadata["n"]) + 1

        def work(_: int) -> None:
            for _ in range(ROUNDS):
                store.run(increase, retries=1_000, sleep=lambda _: None)

        in_threads(work)
        stored = read(store, "a")
        assert (stored.metadata, stored.version) == ({"n": THREADS * ROUNDS}, 1 + THREADS * ROUNDS)

    @requires("atomic")
    def test_no_reader_sees_half_of_a_commit(self, store: Store) -> None:
        """A reader sees the appends of one commit in both the first and the last conversation, or in neither."""
        names = "abcdefgh"
        with store.begin() as uow:
            for name in names:
                uow.conversations.add(Conversation(name))

        def append(uow: UnitOfWork) -> None:
            for name in names:
                uow.runs.append(name, run())

        def is_half() -> bool:
            """Read the first and the last, in both orders: the one that is read second may be ahead, never behind."""
            pairs = (names[0], names[-1]), (names[-1], names[0])
            return any(read(store, first).run_count > read(store, second).run_count for first, second in pairs)

        with ThreadPoolExecutor(1) as pool:
            for _ in range(2 * ROUNDS):
                writing, reads = pool.submit(do, store, append), list[bool]()
                while wait([writing], timeout=PAUSE).not_done:
                    reads.append(is_half())
                writing.result()
                assert not any(reads)

    def test_threads_create(self, store: Store) -> None:
        """If several threads add a conversation under one id, exactly one succeeds; the others get AlreadyExistsError."""

        def create(thread: int) -> str:
            try:
                put(store, "a", {"by": thread}, run(thread))
            except Exception as error:  # noqa: BLE001  # the assertion below rejects any other error
                return type(error).__name__
            return "created"

        assert sorted(in_threads(create)) == ["AlreadyExistsError"] * (THREADS - 1) + ["created"]
        assert read(store, "a").metadata == {"by": read_runs(store, "a")[0].input}


class Replays(Contract):
    """A change set that is committed again because its response was lost."""

    def test_replay_writes_nothing(self, store: Store) -> None:
        """Committing a change set again writes nothing and returns the same receipt, whatever it contains."""
        for work in (*EDITS, _recreate, _append, _create):
            other = sibling(store)
            _reset(other)
            first = committed(other, work)
            with unchanged(other):
                assert other.commit(first.changes) == first.receipt

    def test_replay_after_other_commits(self, store: Store) -> None:
        """A replay after other commits, also to the same conversation, writes nothing; positions continue without gaps."""
        for work in (*EDITS[:-1], _append, _create):
            other = sibling(store)
            _reset(other)
            first = committed(other, work)
            then = [committed(other, _append), committed(other, _edit), committed(other, _append)]
            with unchanged(other):
                for each in (first, *then):
                    assert other.commit(each.changes) == each.receipt
            last = read(other, "a").last_position
            do(other, lambda uow: uow.runs.append("a", run()))
            assert read_runs(other, "a")[-1].position == last + 1

    def test_replay_after_a_removal(self, store: Store) -> None:
        """Replaying a creation or an append after the conversation was removed does not recreate it."""
        created = committed(store, _create)
        appended = committed(store, lambda uow: uow.runs.append("new", run(2)))
        do(store, lambda uow: uow.conversations.remove("new"))
        for each in (created, appended):
            assert store.commit(each.changes) == each.receipt
        assert snapshot(store) == ((), {})

    def test_rejected_change_set_can_be_committed_again(self, store: Store) -> None:
        """A change set that was rejected can be committed again, and is written once its preconditions hold."""
        put(store, "a")
        appended = committed(store, _append).changes
        other = sibling(store)
        with pytest.raises(NotFoundError):
            other.commit(appended)
        put(other, "a")
        assert outcome_of(other.commit(appended)) == {"a": (1, 1, 1)}

    def test_token_is_scoped_to_its_namespace(self, store: Store) -> None:
        """A change set can be written once in each namespace; copying a namespace relies on it."""
        changes = committed(store, _create).changes
        other = sibling(store)
        assert outcome_of(other.commit(changes)) == {"new": (1, 1, 1)}
        assert snapshot(other) == snapshot(store)

    def test_replay_by_another_store(self, store: Store, clock: Clock) -> None:
        """A replay is recognised by its token, also from another store object and an hour later."""
        namespace = new_id()
        mine, theirs = store.namespace(namespace), new_store(store.repository).namespace(namespace)
        _reset(mine)
        appended = committed(mine, _append)
        clock.advance(3_600_000_000)
        with unchanged(mine):
            assert theirs.commit(appended.changes) == appended.receipt


def _reset(store: Store) -> None:
    """Create conversation a with two runs, and remove the previous one, if any."""
    with store.begin() as uow:
        if "a" in uow.conversations:
            uow.conversations.remove("a")
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", run(1), run(2))


def _commit(store: Store, uow: UnitOfWork, *, succeeds: bool) -> None:
    """Assert that the commit succeeds, or that it raises ConflictError and writes nothing."""
    if succeeds:
        uow.commit()
        return
    with unchanged(store), pytest.raises(ConflictError, match="'a'"):
        uow.commit()


def _append_after(store: Store, after: int, *, succeeds: bool) -> None:
    uow = store.begin()
    uow.runs.append("a", run(after), after=after)
    _commit(store, uow, succeeds=succeeds)


def in_threads(work: Callable[[int], T]) -> list[T]:
    """Run a function in several threads that start at the same time; return their results."""
    barrier = Barrier(THREADS)

    def begin(thread: int) -> T:
        barrier.wait()
        return work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))
