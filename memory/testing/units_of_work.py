"""Promises of a commit: it is atomic, and returns what it has written."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import where
from memory.domain.entities import Conversation
from memory.domain.values import to_datetime
from memory.errors import AlreadyExistsError, ConflictError, NotFoundError, PersistenceError
from memory.testing.base import (
    BLIND_WRITES,
    Action,
    Clock,
    Contract,
    Work,
    do,
    outcome_of,
    put,
    read,
    read_runs,
    requires,
    run,
    run_states,
    states,
    unchanged,
    walk,
)


class UnitsOfWork(Contract):
    """What units of work write."""

    # all or nothing

    @requires("many_conversations")
    def test_commit_is_atomic(self, store: Store) -> None:
        """If one conversation of a unit of work cannot be written, none is, whether it is the first or the last."""
        for name in "abcd":
            put(store, name, {"n": 1}, run(1))
        faults: tuple[tuple[type[PersistenceError], Work], ...] = (
            (NotFoundError, lambda uow: uow.runs.append("missing", run())),
            (NotFoundError, lambda uow: uow.conversations.remove("missing")),
            (NotFoundError, lambda uow: uow.runs.remove("c", 2)),
            (NotFoundError, lambda uow: uow.runs.replace("c", replace(run(), position=2))),
            (NotFoundError, lambda uow: uow.runs.clear("missing")),
            (AlreadyExistsError, lambda uow: uow.conversations.add(Conversation("c"))),
            (ConflictError, lambda uow: uow.runs.append("c", run(), after=0)),
        )
        for error, fault in faults:
            for works in ((_change_the_others, fault), (fault, _change_the_others)):
                with unchanged(store), pytest.raises(error, match=r"missing|'c'"):
                    do(store, *works)

    @requires("many_conversations")
    def test_failed_commit_can_be_repeated(self, store: Store) -> None:
        """After a failed commit the changes are still pending, and can be committed once the cause is removed."""
        uow = store.begin()
        uow.runs.append("a", run(1))
        uow.conversations.add(Conversation("b"))
        with pytest.raises(NotFoundError):
            uow.commit()
        put(store, "a")
        assert outcome_of(uow.commit()) == {"a": (1, 1, 1), "b": (1, 0, 0)}
        assert [one.id for one in walk(store)] == ["a", "b"]

    # visibility

    def test_commit_updates_the_conversation(self, store: Store, clock: Clock) -> None:
        """After a commit, a conversation has the stored version, run count and timestamps, as does the receipt."""
        uow = store.begin()
        uow.conversations.add(conversation := Conversation("a", {"n": 1}))
        assert (conversation.version, conversation.created_at) == (0, None)
        steps: tuple[tuple[Action, tuple[int, int, int]], ...] = (
            (lambda: uow.runs.append("a", run(), run()), (1, 2, 2)),
            (lambda: uow.runs.append("a", run()), (1, 3, 3)),
            (lambda: conversation.metadata.update(n=2), (2, 3, 3)),
            (lambda: uow.runs.remove("a", 3), (3, 2, 3)),
            (lambda: setattr(conversation, "expires_at", to_datetime(clock.time + 10**9)), (4, 2, 3)),
            (lambda: uow.runs.replace("a", replace(run("new"), position=1)), (5, 2, 3)),
            (lambda: uow.runs.clear("a"), (6, 0, 3)),
        )
        for work, outcome in steps:
            clock.advance()
            work()
            assert outcome_of(uow.commit()) == {"a": outcome}
            assert conversation == read(store, "a")
            assert (conversation.version, conversation.run_count, conversation.last_position) == outcome

    # conversations

    def test_existing_id(self, store: Store) -> None:
        """Committing a new conversation under an existing id raises AlreadyExistsError."""
        put(store, "a", {"n": 1}, run())
        with unchanged(store), pytest.raises(AlreadyExistsError, match="'a'"), store.begin() as uow:
            uow.conversations.add(Conversation("a"))

    def test_missing_conversation(self, store: Store) -> None:
        """Getting a missing conversation raises NotFoundError at once; writing to one raises it at the commit."""
        uow = store.begin()
        with pytest.raises(NotFoundError, match="'a'"):
            uow.conversations.get("a")
        assert "a" not in uow.conversations
        for write in BLIND_WRITES:
            with unchanged(store), pytest.raises(NotFoundError, match="'a'"), store.begin() as uow:
                write(uow)

    def test_remove_and_add_again(self, store: Store) -> None:
        """One unit of work can remove a conversation and add another under its id, which inherits nothing."""
        put(store, "a", {"old": 1}, run("old"), run("old"))
        with store.begin() as uow:
            uow.conversations.remove(uow.conversations.get("a"))
            uow.conversations.add(added := Conversation("a", {"new": 1}))
            uow.runs.append("a", run("new"))
            assert uow.conversations.get("a") is added
            assert [one.input for one in uow.runs.list("a")] == ["new"]
        stored = read(store, "a")
        assert (stored.metadata, stored.version, stored.run_count) == ({"new": 1}, 1, 1)
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(1, "new")]
        assert [one.id for one in walk(store, where("old").exists())] == []

    def test_metadata_and_expiry_can_be_cleared(self, store: Store) -> None:
        """A removed key, cleared metadata and a cleared expiry are gone, from queries too."""
        moment = datetime(2200, 1, 1, tzinfo=UTC)
        do(store, lambda uow: uow.conversations.add(Conversation("a", {"n": 1, "list": [1], "dict": {"k": 1}}, moment)))
        with store.begin() as uow:
            conversation = uow.conversations.get("a")
            del conversation.metadata["n"]
            conversation.expires_at = None
        assert (read(store, "a").metadata, read(store, "a").expires_at) == ({"list": [1], "dict": {"k": 1}}, None)
        do(store, lambda uow: uow.conversations.get("a").metadata.clear())
        assert read(store, "a").metadata == {}
        for criterion in (where("n").exists(), where("list").contains(1), where("dict.k") == 1):
            assert (walk(store, criterion), store.begin().conversations.count(criterion)) == ([], 0)

    # runs

    def test_replace_run(self, store: Store) -> None:
        """Replacing a run keeps its position, and takes everything else from the new run."""
        put(store, "a", {"n": 1}, run(1), run(2), run(3))
        before = read_runs(store, "a")
        new = replace(run({"new": [1]}, 2.0), metadata={"k": None}, id="new", position=2)
        do(store, lambda uow: uow.runs.replace("a", new))
        assert run_states(read_runs(store, "a")) == run_states([before[0], new, before[2]])
        assert states([read(store, "a")])[0][2:6] == (2, "", 3, 3)

    def test_remove_runs(self, store: Store) -> None:
        """Runs can be removed one by one, several at once and before a position; the others do not change."""
        put(store, "a", None, *(run(n) for n in range(1, 9)))
        before = {one.position: one for one in read_runs(store, "a")}
        steps: tuple[tuple[Work, list[int]], ...] = (
            (lambda uow: uow.runs.remove("a", 8), [1, 2, 3, 4, 5, 6, 7]),
            (lambda uow: uow.runs.remove("a", 6, 2), [1, 3, 4, 5, 7]),
            (lambda uow: uow.runs.remove("a", before=4), [4, 5, 7]),
            (lambda uow: uow.runs.remove("a", 7, before=5), [5]),
        )
        for version, (remove, left) in enumerate(steps, 2):
            with store.begin() as uow:
                remove(uow)
                assert [one.position for one in uow.runs.list("a")] == left
            assert run_states(read_runs(store, "a")) == run_states([before[position] for position in left])
            assert states([read(store, "a")])[0][2:6] == (version, "", len(left), 8)


def _change_the_others(uow: UnitOfWork) -> None:
    uow.conversations.get("a").metadata["n"] = 2
    uow.runs.append("b", run(2))
    uow.runs.replace("d", replace(run(3), position=1))
    uow.conversations.add(Conversation("e", {"n": 1}))
    uow.runs.append("e", run(1))
