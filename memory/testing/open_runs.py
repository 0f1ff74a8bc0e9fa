"""Open runs: prompts that are stored before their answers, and completed by the run's own id."""

from dataclasses import replace
from datetime import timedelta

import pytest

from memory.core.store import Store
from memory.domain.entities import PENDING, Conversation, Run
from memory.domain.values import to_datetime
from memory.errors import NotFoundError
from memory.testing.base import (
    Clock,
    Contract,
    Work,
    committed,
    do,
    put,
    read,
    read_runs,
    run,
    run_states,
    sibling,
    unchanged,
)

PROMPT = Run("Where is my refund?", PENDING, {"model": "m"}, id="prompt")


class OpenRuns(Contract):
    """Runs without a final output."""

    def test_open_run_round_trip(self, store: Store) -> None:
        """A run without an output, and one with an output that is not final, are read as they were written."""
        streaming = Run("Where?", "It left on", is_open=True)
        put(store, "a", None, PROMPT, run(), streaming)
        stored = read_runs(store, "a")
        expected = [replace(one, position=n) for n, one in ((1, PROMPT), (3, streaming))]
        assert run_states([stored[0], stored[2]]) == run_states(expected)
        assert [one.is_open for one in stored] == [True, False, True]
        assert stored[0].output is PENDING

    def test_completing_is_no_edit(self, store: Store, clock: Clock) -> None:
        """Completing sets output and metadata, keeps everything else, and does not change the conversation's version."""
        put(store, "a", {"n": 1}, run(1), PROMPT, run(3))
        before = read(store, "a")
        clock.advance()
        do(store, lambda uow: uow.runs.complete("a", "prompt", output={"text": "It left."}, metadata={"tokens": 7}))
        stored = read_runs(store, "a")[1]
        final = replace(PROMPT, position=2, output={"text": "It left."}, metadata={"tokens": 7}, is_open=False)
        assert run_states([stored]) == run_states([final])
        after = read(store, "a")
        assert (after.version, after.run_count, after.last_position) == (before.version, 3, 3)
        assert (after.updated_at, after.last_run_at) == (to_datetime(clock.time), before.last_run_at)
        assert after.etag != before.etag

    def test_a_completion_by_a_clock_that_is_behind_changes_the_etag(self, store: Store, clock: Clock) -> None:
        """It changes nothing of the conversation but `updated_at`, which is then later than the stored time."""
        put(store, "a", None, PROMPT)
        etags = [read(store, "a").etag]
        clock.time -= 5_000_000
        for text in ("It left", "It left on"):
            with store.begin() as uow:
                uow.runs.complete("a", "prompt", output=text, is_final=False)
            etags.append(read(store, "a").etag)
        assert len(set(etags)) == 3

    def test_a_stream_completes_as_often_as_it_wants(self, store: Store) -> None:
        """An output that is not final can be set again, keeping the metadata; a final one cannot."""
        put(store, "a", None, PROMPT)
        for text in ("It", "It left", "It left on Monday."):
            do(store, lambda uow, text=text: uow.runs.complete("a", "prompt", output=text, is_final=False))  # type: ignore[misc]
            (stored,) = read_runs(store, "a")
            assert (stored.output, stored.is_open, stored.metadata) == (text, True, {"model": "m"})
        do(store, lambda uow: uow.runs.complete("a", "prompt", output="Done."))
        with unchanged(store), pytest.raises(NotFoundError, match="prompt"):
            do(store, lambda uow: uow.runs.complete("a", "prompt", output="Again."))

    def test_completing_never_conflicts(self, store: Store) -> None:
        """A completion conflicts neither with edits and appends of others, nor they with it."""
        writes: tuple[Work, ...] = (
            lambda uow: uow.conversations.get("a").metadata.update(n=2),
            lambda uow: uow.runs.append("a", run("new")),
            lambda uow: uow.runs.replace("a", replace(uow.runs.get("a", 2), output="edited")),
        )
        for write in writes:
            other = sibling(store)
            put(other, "a", {"n": 1}, PROMPT, run())
            early, late = other.begin(), other.begin()
            write(late)
            early.conversations.get("a")
            early.runs.complete("a", "prompt", output="first", is_final=False)
            do(other, write)
            early.commit()
            do(other, lambda uow: uow.runs.complete("a", "prompt", output="second"))
            assert read_runs(other, "a")[0].output == "second"

    def test_open_runs_are_listed_by_age(self, store: Store, clock: Clock) -> None:
        """`open` returns the open runs of all conversations, the oldest first, and of expired or removed ones none."""
        start = to_datetime(clock.time)
        for n, name in enumerate(("c", "a", "b", "removed")):
            created_at = start + timedelta(seconds=n)
            put(store, name, None, run(), replace(PROMPT, id=f"of {name}", created_at=created_at), run())
        with store.begin() as uow:
            uow.conversations.add(Conversation("expired", expires_at=start + timedelta(seconds=10)))
            uow.runs.append("expired", replace(PROMPT, created_at=start))
        do(store, lambda uow: uow.conversations.remove("removed"))
        do(store, lambda uow: uow.runs.append("a", replace(PROMPT, id="last", created_at=start + timedelta(seconds=9))))
        clock.advance(10_000_000)
        expected = [("c", "of c", 2), ("a", "of a", 2), ("b", "of b", 2), ("a", "last", 4)]
        assert _open(store) == expected
        assert _open(store, limit=2) == expected[:2]
        assert _open(store, before=start + timedelta(seconds=2)) == expected[:2]
        do(store, lambda uow: uow.runs.complete("c", "of c", output="It left."))
        do(store, lambda uow: uow.runs.complete("a", "of a", output="It", is_final=False))
        do(store, lambda uow: uow.runs.remove("b", 2))
        assert _open(store) == [("a", "of a", 2), ("a", "last", 4)]
        do(store, lambda uow: uow.runs.remove("a", after=3))
        assert _open(store) == [("a", "of a", 2)]
        do(store, lambda uow: uow.runs.replace("a", Run("in", "out", position=2)))
        assert _open(store) == []

    def test_each_unit_of_work_sees_its_completions(self, store: Store) -> None:
        """A unit of work reads what it has completed, of stored and of pending runs."""
        put(store, "a", None, PROMPT)
        with store.begin() as uow:
            uow.runs.append("a", replace(PROMPT, id="pending"))
            uow.runs.complete("a", "prompt", output=1)
            uow.runs.complete("a", "pending", output=2)
            assert [(one.output, one.is_open) for one in uow.runs.list("a")] == [(1, False), (2, False)]
        assert [(one.output, one.is_open) for one in read_runs(store, "a")] == [(1, False), (2, False)]

    def test_completing_what_is_not_open_is_rejected(self, store: Store) -> None:
        """Without an open run of this id, the commit raises NotFoundError, and writes nothing."""
        put(store, "a", None, run(), replace(PROMPT, id="other"))
        for name in ("a", "missing"):
            with unchanged(store), pytest.raises(NotFoundError, match=name):
                do(
                    store,
                    lambda uow, name=name: uow.runs.complete(name, "prompt", output=1),  # type: ignore[misc]
                )

    def test_last_of_several_open_runs_with_an_id_is_completed(self, store: Store) -> None:
        """If several open runs have the same id, the last of them is completed."""
        put(store, "a", None, PROMPT, PROMPT)
        for output, expected in ((2, [PENDING, 2]), (1, [1, 2])):
            do(store, lambda uow, output=output: uow.runs.complete("a", "prompt", output=output))  # type: ignore[misc]
            assert [one.output for one in read_runs(store, "a")] == expected

    def test_replayed_completion_writes_nothing(self, store: Store) -> None:
        """Committing a completion again writes nothing and returns the same receipt."""
        put(store, "a", None, PROMPT)
        first = committed(store, lambda uow: uow.runs.complete("a", "prompt", output=1))
        with unchanged(store):
            assert store.commit(first.changes) == first.receipt


def _open(store: Store, **arguments: object) -> list[tuple[str, str, int | None]]:
    found = store.runs.open(**arguments)  # type: ignore[arg-type]
    return [(conversation_id, one.id, one.position) for conversation_id, one in found]
