"""Expiry: an expired conversation is hidden, and purging deletes it."""

from datetime import UTC, datetime, timedelta

import pytest

from memory.core.store import Store
from memory.domain.criteria import where
from memory.domain.entities import Conversation
from memory.domain.values import to_datetime
from memory.errors import ConflictError, NotFoundError
from memory.testing.base import BLIND_WRITES, Clock, Contract, put, read, read_runs, run, snapshot, unchanged, walk


class Expiry(Contract):
    """Conversations with an ``expires_at``."""

    def test_expired_conversation_is_hidden(self, store: Store, clock: Clock) -> None:
        """From its expiry on, to the microsecond, get, find, count and the runs no longer return the conversation."""
        _put_expiring(store, clock, 10)
        put(store, "lasting", {"n": 1})
        everything = where("n") == 1
        clock.advance(9)
        assert read(store, "a").expires_at == to_datetime(clock.time + 1)
        assert [one.input for one in read_runs(store, "a")] == [1, 2]
        assert [one.id for one in walk(store)] == [one.id for one in walk(store, everything)] == ["a", "lasting"]
        assert store.begin().conversations.count() == store.begin().conversations.count(everything) == 2
        clock.advance(1)
        uow = store.begin()
        assert "a" not in uow.conversations
        assert (uow.runs.list("a"), uow.runs.last("a", 1), list(uow.runs.iterate("a"))) == ([], [], [])
        assert [one.id for one in walk(store)] == [one.id for one in walk(store, everything)] == ["lasting"]
        assert [one.id for one in walk(store, ~(where("n") == 2), order="-updated_at", limit=1)] == ["lasting"]
        assert (uow.conversations.count(), uow.conversations.count(everything)) == (1, 1)

    def test_expired_conversation_rejects_writes(self, store: Store, clock: Clock) -> None:
        """Writing to an expired conversation raises NotFoundError."""
        _put_expiring(store, clock, 10)
        clock.advance(10)
        for write in BLIND_WRITES:
            with pytest.raises(NotFoundError, match="'a'"), store.begin() as uow:
                write(uow)

    def test_expiry_between_reading_and_writing_is_a_conflict(self, store: Store, clock: Clock) -> None:
        """Changing a conversation that expired since it was read raises ConflictError, as if it had been removed."""
        _put_expiring(store, clock, 10)
        uow, other = store.begin(), store.begin()
        uow.conversations.get("a").metadata["n"] = 2
        other.conversations.remove(other.conversations.get("a"))
        clock.advance(10)
        for each in (uow, other):
            with pytest.raises(ConflictError, match="'a'"):
                each.commit()

    def test_id_of_an_expired_conversation_can_be_reused(self, store: Store, clock: Clock) -> None:
        """The id of an expired conversation can be reused; the new one inherits nothing, and its positions start at 1."""
        _put_expiring(store, clock, 10)
        early = store.begin()
        early.conversations.get("a").metadata["n"] = 2
        clock.advance(10)
        put(store, "a", {"new": 1}, run("new"))
        with unchanged(store), pytest.raises(ConflictError):
            early.commit()
        stored = read(store, "a")
        assert (stored.metadata, stored.version, stored.run_count, stored.expires_at) == ({"new": 1}, 1, 1, None)
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(1, "new")]
        assert (walk(store, where("n").exists()), store.purge_expired()) == ([], 0)
        assert [one.id for one in walk(store, where("new") == 1)] == ["a"]

    def test_purging(self, store: Store, clock: Clock) -> None:
        """Purging deletes the expired conversations and their runs, returns their number, and changes no others."""
        for name, microseconds in (("a", 1), ("b", 2), ("c", 3)):
            _put_expiring(store, clock, microseconds, name)
        put(store, "lasting", {"n": 1}, run())
        assert store.purge_expired() == 0
        clock.advance(2)
        with unchanged(store):
            assert (store.purge_expired(), store.purge_expired()) == (2, 0)
        assert [one.id for one in walk(store)] == ["c", "lasting"]
        put(store, "a", {"n": 2})
        assert read_runs(store, "a") == []
        clock.time -= 2  # purged conversations do not reappear when the clock goes back
        assert [one.id for one in walk(store)] == ["a", "c", "lasting"]

    def test_expiry_can_be_set_moved_and_cleared(self, store: Store, clock: Clock) -> None:
        """An expiry can be set, moved and cleared later, each as a new version; a cleared one no longer applies."""
        put(store, "a", None, run())
        soon, later = to_datetime(clock.time + 10), to_datetime(clock.time + 20)
        for expires_at in (soon, later, None, later):
            with store.begin() as uow:
                uow.conversations.get("a").expires_at = expires_at
            assert read(store, "a").expires_at == expires_at
        assert read(store, "a").version == 5
        clock.advance(10)
        assert read(store, "a").run_count == 1
        with store.begin() as uow:
            uow.conversations.get("a").expires_at = None
        clock.advance(10**15)
        assert (read(store, "a").run_count, store.purge_expired()) == (1, 0)

    def test_expiry_in_the_past(self, store: Store, clock: Clock) -> None:
        """A conversation written with an expiry in the past, even before 1970, is hidden at once."""
        for moment in (to_datetime(clock.time), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)):
            with store.begin() as uow:
                uow.conversations.add(Conversation("new", expires_at=moment))
            put(store, "old", None, run())
            with store.begin() as uow:
                uow.conversations.get("old").expires_at = moment - timedelta(microseconds=1)
            assert snapshot(store) == ((), {})
            assert store.purge_expired() == 2


def _put_expiring(store: Store, clock: Clock, microseconds: int, name: str = "a") -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(name, {"n": 1}, to_datetime(clock.time + microseconds)))
        uow.runs.append(name, run(1), run(2))
