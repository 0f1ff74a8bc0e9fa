"""Writers that meet: no update is lost, no append stands in the way, and nothing is written twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Barrier
from typing import TypeVar, cast

import pytest

from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.entities import Conversation
from memory.domain.values import new_id, to_datetime
from memory.errors import ConflictError, NotFoundError
from memory.testing.base import (
    Clock,
    Contract,
    Work,
    beside,
    committed,
    do,
    new_store,
    outcome_of,
    put,
    read,
    read_runs,
    requires,
    run,
    snapshot,
    unchanged,
)

T = TypeVar("T")
THREADS, ROUNDS = 4, 5
A_MOMENT = 0.0001  # s, between two looks: a reader without pauses keeps the interpreter, and sqlite://, from the writer
LATER = to_datetime(4_000_000_000_000_000)


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


def _make_anew(uow: UnitOfWork) -> None:
    uow.conversations.remove("a")
    uow.conversations.add(Conversation("a"))
    uow.runs.append("a", run(1), run(2))


def _append(uow: UnitOfWork) -> None:
    uow.runs.append("a", run("appended"))


def _create(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("new", {"n": 1}))
    uow.runs.append("new", run(1))


EDITS: tuple[Work, ...] = (_edit, _expire, _edit_runs, _remove_run, _clear_runs, _remove)


def _remove_found(uow: UnitOfWork) -> None:
    for conversation in uow.conversations.find():
        uow.conversations.remove(conversation)


def _remove_with_runs_read(uow: UnitOfWork) -> None:
    uow.runs.last("a", 1)
    uow.conversations.remove("a")


def _remove_after(uow: UnitOfWork) -> None:
    uow.runs.append("a", after=2)
    uow.conversations.remove("a")


def _clear_after(uow: UnitOfWork) -> None:
    uow.runs.append("a", after=2)
    uow.runs.clear("a")


def _clear_what_was_got(uow: UnitOfWork) -> None:
    uow.conversations.get("a")
    uow.runs.clear("a")


def _replace_what_was_got(uow: UnitOfWork) -> None:
    uow.conversations.remove(uow.conversations.get("a"))
    uow.conversations.add(Conversation("a"))


REMOVALS: tuple[Work, ...] = (
    _remove,
    _remove_found,
    _remove_with_runs_read,
    _remove_after,
    _clear_runs,
    _clear_after,
    _clear_what_was_got,
    _replace_what_was_got,
)


class Conflicts(Contract):
    """What one unit of work has read, another changes before it commits."""

    def test_a_lost_update_is_a_conflict(self, store: Store) -> None:
        """Whatever of a conversation was read and is changed, another's edit meanwhile makes it a ConflictError."""
        for theirs in (*EDITS, _make_anew):
            for mine in EDITS:
                _put_anew(store)
                uow = store.begin()
                mine(uow)
                with store.begin() as other:
                    theirs(other)
                with unchanged(store), pytest.raises(ConflictError, match="'a'"):
                    uow.commit()

    def test_a_value_read_early_is_held_against_the_last_write(self, store: Store) -> None:
        """What was read first counts, though the conversation is found or iterated over again after another's edit."""
        looks: tuple[Work, ...] = (
            lambda uow: uow.conversations.find(),
            lambda uow: list(uow.conversations.iterate()),
            lambda uow: uow.conversations.get("a"),
            lambda uow: uow.runs.list("a"),
        )
        for look in looks:
            _put_anew(store)
            uow = store.begin()
            first = uow.runs.get("a", 1)
            look(uow)
            with store.begin() as other:
                _edit_runs(other)
            look(uow)
            uow.runs.replace("a", replace(first, output="mine"))
            with unchanged(store), pytest.raises(ConflictError, match="'a'"):
                uow.commit()

    def test_an_append_is_no_conflict(self, store: Store) -> None:
        """Appends conflict neither with edits nor with appends, on either side."""
        for edit in EDITS[:-2]:
            for first, second in ((edit, _append), (_append, edit)):
                _put_anew(store)
                uow, other = store.begin(), store.begin()
                first(uow)
                second(other)
                other.commit()
                uow.commit()
                assert read_runs(store, "a")[-1].input == "appended"
                assert (read(store, "a").version, read(store, "a").last_position) == (2, 3)

    def test_a_run_appended_meanwhile_is_not_removed(self, store: Store) -> None:
        """Removing a conversation that was read, or clearing its runs, conflicts with an append since it was read."""
        for remove in REMOVALS:
            _put_anew(store)
            uow = store.begin()
            remove(uow)
            with store.begin() as other:
                _append(other)
            with unchanged(store), pytest.raises(ConflictError, match="'a'"):
                uow.commit()
            _put_anew(store)
            with store.begin() as uow:
                remove(uow)
            with store.begin() as uow:
                assert "a" not in uow.conversations or not uow.runs.list("a")

    def test_own_appends_are_removed(self, store: Store) -> None:
        """A unit of work removes what it has appended and committed itself, but not what came between."""
        for between, works in ((False, True), (True, False)):
            _put_anew(store)
            uow = store.begin()
            conversation = uow.conversations.get("a")
            if between:
                with store.begin() as other:
                    _append(other)
            uow.runs.append("a", run("mine"))
            uow.commit()
            uow.conversations.remove(conversation)
            if works:
                uow.commit()
            else:
                with unchanged(store), pytest.raises(ConflictError):
                    uow.commit()

    def test_writing_blindly_is_no_conflict(self, store: Store) -> None:
        """A unit of work that has read nothing of a conversation writes over what is there."""
        writes: tuple[Work, ...] = (
            lambda uow: uow.runs.replace("a", replace(run(), position=2)),
            lambda uow: uow.runs.remove("a", 2),
            lambda uow: uow.runs.clear("a"),
            lambda uow: uow.conversations.remove("a"),
        )
        for write in writes:
            _put_anew(store)
            uow = store.begin()
            write(uow)
            with store.begin() as other:
                _edit(other)
            uow.commit()

    def test_own_commits_are_no_conflict(self, store: Store) -> None:
        """A unit of work goes on after its own commits, but another's edit between them is a conflict."""
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
        with unchanged(store), pytest.raises(ConflictError):
            uow.commit()

    def test_a_conditional_append(self, store: Store) -> None:
        """An append with after= goes through only if no run came after that position, wherever the runs are now."""
        put(store, "a")
        for after, works in ((1, False), (0, True), (0, False), (1, True), (3, False)):
            uow = store.begin()
            uow.runs.append("a", run(after), after=after)
            if works:
                uow.commit()
            else:
                with unchanged(store), pytest.raises(ConflictError, match="'a'"):
                    uow.commit()
        assert [one.input for one in read_runs(store, "a")] == [0, 1]
        with store.begin() as uow:
            uow.runs.clear("a")
        for after, works in ((0, False), (1, False), (2, True)):
            uow = store.begin()
            uow.runs.append("a", run(after), after=after)
            if works:
                uow.commit()
            else:
                with unchanged(store), pytest.raises(ConflictError):
                    uow.commit()
        with store.begin() as uow:
            uow.conversations.add(Conversation("b"))
            uow.runs.append("b", run(), after=0)
        assert read(store, "b").run_count == 1

    def test_work_is_run_again(self, store: Store) -> None:
        """Store.run repeats the work after a conflict, as often as it may, and returns what it returned."""
        put(store, "a", {"n": 0})
        tries: list[int] = []

        def work(uow: UnitOfWork) -> str:
            conversation = uow.conversations.get("a")
            tries.append(cast(int, conversation.metadata["n"]))
            conversation.metadata["n"] = tries[-1] + 1
            if len(tries) < 3:
                with store.begin() as other:
                    other.conversations.get("a").metadata["n"] = 10 * len(tries)
            return f"try {len(tries)}"

        assert store.run(work, sleep=lambda _: None) == "try 3"
        assert (tries, read(store, "a").metadata) == ([0, 10, 20], {"n": 21})
        tries.clear()
        with pytest.raises(ConflictError):
            store.run(work, retries=1, sleep=lambda _: None)
        with pytest.raises(NotFoundError):
            store.run(lambda uow: uow.conversations.get("missing"), sleep=lambda _: None)

    def test_threads_append(self, store: Store) -> None:
        """Runs appended by several threads at once are all there, at the positions 1 to n without a gap."""
        put(store, "a")

        def append(thread: int) -> None:
            for n in range(ROUNDS):
                with store.begin() as uow:
                    uow.runs.append("a", run([thread, n, 0]), run([thread, n, 1]))

        _in_threads(append)
        stored = read_runs(store, "a")
        expected = [[thread, n, m] for thread in range(THREADS) for n in range(ROUNDS) for m in (0, 1)]
        assert [one.position for one in stored] == list(range(1, len(expected) + 1))
        by_thread = sorted([cast("list[int]", one.input) for one in stored], key=lambda each: each[0])
        assert by_thread == expected

    @requires("detects_conflicts", by_chance=True)
    def test_threads_count(self, store: Store) -> None:
        """A counter in the metadata that several threads increase through Store.run counts every one of them."""
        put(store, "a", {"n": 0})

        def increase(uow: UnitOfWork) -> None:
            metadata = uow.conversations.get("a").metadata
            metadata["n"] = cast(int, metadata["n"]) + 1

        def work(_: int) -> None:
            for _ in range(ROUNDS):
                store.run(increase, retries=1_000, sleep=lambda _: None)

        _in_threads(work)
        stored = read(store, "a")
        assert (stored.metadata, stored.version) == ({"n": THREADS * ROUNDS}, 1 + THREADS * ROUNDS)

    @requires("atomic")
    def test_nobody_sees_half_of_a_commit(self, store: Store) -> None:
        """What a commit appends to several conversations, a reader finds in the first and the last of them, or in neither."""
        names = "abcdefgh"
        with store.begin() as uow:
            for name in names:
                uow.conversations.add(Conversation(name))

        def append(uow: UnitOfWork) -> None:
            for name in names:
                uow.runs.append(name, run())

        def is_half() -> bool:
            """Read the first and the last, either way round: what is read second may be ahead, never behind."""
            pairs = (names[0], names[-1]), (names[-1], names[0])
            return any(read(store, first).run_count > read(store, second).run_count for first, second in pairs)

        with ThreadPoolExecutor(1) as pool:
            for _ in range(2 * ROUNDS):
                writing, looks = pool.submit(do, store, append), list[bool]()
                while wait([writing], timeout=A_MOMENT).not_done:
                    looks.append(is_half())
                writing.result()
                assert not any(looks)

    def test_threads_create(self, store: Store) -> None:
        """Of several threads that add a conversation under one id exactly one does, and the others are told."""

        def create(thread: int) -> str:
            try:
                put(store, "a", {"by": thread}, run(thread))
            except Exception as error:  # noqa: BLE001  # any other than the one promised fails the test
                return type(error).__name__
            return "created"

        assert sorted(_in_threads(create)) == ["AlreadyExistsError"] * (THREADS - 1) + ["created"]
        assert read(store, "a").metadata == {"by": read_runs(store, "a")[0].input}


class Replays(Contract):
    """The same change set, committed again because its answer was lost."""

    def test_a_replay_writes_nothing(self, store: Store) -> None:
        """A change set committed again writes nothing and gives the same receipt, whatever it did."""
        for work in (*EDITS, _make_anew, _append, _create):
            other = beside(store)
            _put_anew(other)
            first = committed(other, work)
            with unchanged(other):
                assert other.commit(first.changes) == first.receipt

    def test_a_replay_after_others(self, store: Store) -> None:
        """So it is when other commits came between, to the same conversation too; positions go on without a gap."""
        for work in (*EDITS[:-1], _append, _create):
            other = beside(store)
            _put_anew(other)
            first = committed(other, work)
            then = [committed(other, _append), committed(other, _edit), committed(other, _append)]
            with unchanged(other):
                for each in (first, *then):
                    assert other.commit(each.changes) == each.receipt
            last = read(other, "a").last_position
            with other.begin() as uow:
                uow.runs.append("a", run())
            assert read_runs(other, "a")[-1].position == last + 1

    def test_a_replay_after_a_removal(self, store: Store) -> None:
        """A creation or append replayed after the conversation was removed does not bring it back."""
        created = committed(store, _create)
        appended = committed(store, lambda uow: uow.runs.append("new", run(2)))
        with store.begin() as uow:
            uow.conversations.remove("new")
        for each in (created, appended):
            assert store.commit(each.changes) == each.receipt
        assert snapshot(store) == ((), {})

    def test_a_refused_change_set_was_not_written(self, store: Store) -> None:
        """A change set that was refused can be committed again, and is written when it fits."""
        put(store, "a")
        appended = committed(store, _append).changes
        other = beside(store)
        with pytest.raises(NotFoundError):
            other.commit(appended)
        put(other, "a")
        assert outcome_of(other.commit(appended)) == {"a": (1, 1, 1)}

    def test_a_token_belongs_to_its_namespace(self, store: Store) -> None:
        """A change set that is written in one namespace is written in another as well: that is how one is copied."""
        changes = committed(store, _create).changes
        other = beside(store)
        assert outcome_of(other.commit(changes)) == {"new": (1, 1, 1)}
        assert snapshot(other) == snapshot(store)

    def test_a_replay_by_another_store(self, store: Store, clock: Clock) -> None:
        """The token is known by whoever commits it, in another unit of work and later too."""
        namespace = new_id()
        mine, theirs = store.namespace(namespace), new_store(store.repository).namespace(namespace)
        _put_anew(mine)
        appended = committed(mine, _append)
        clock.advance(3_600_000_000)
        with unchanged(mine):
            assert theirs.commit(appended.changes) == appended.receipt


def _put_anew(store: Store) -> None:
    """Make the conversation a, with two runs, instead of the one that may be there."""
    with store.begin() as uow:
        if "a" in uow.conversations:
            uow.conversations.remove("a")
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", run(1), run(2))


def _in_threads(work: Callable[[int], T]) -> list[T]:
    """Do the work in several threads that begin at the same moment; return what each of them returned."""
    barrier = Barrier(THREADS)

    def begin(thread: int) -> T:
        barrier.wait()
        return work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))
