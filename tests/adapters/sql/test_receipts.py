"""Receipts: a change set that is committed again is answered from them; a day later they are forgotten. And purging."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

import memory
from memory import Conversation, NotFoundError, Run, Store
from memory.adapters.sql import SqlRepository, repository
from memory.adapters.sql.tables import commits, entries, runs
from memory.domain.records import ConversationRecord
from memory.domain.values import now
from memory.port.changes import Change, ChangeSet
from tests.adapters.sql.checking import assert_consistent

_DAY = 24 * 3600 * 1_000_000


class Clock:
    """A clock of the store's that a test sets forward."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return now() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(store: Store, clock: Clock) -> Store:
    store.repository.clock = clock
    return store


def rows(store: Store, table: object = commits) -> int:
    assert isinstance(store.repository, SqlRepository)
    with store.repository.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()  # type: ignore[arg-type]  # a Table


def creation(id: str = "c") -> ChangeSet:
    return ChangeSet.of([Change(id, create=ConversationRecord(id, "{}", 1, "", 0, 0, 5, 5, None))], now())


def test_a_change_set_committed_again_is_answered_with_its_first_receipt(store: Store) -> None:
    changes = creation()
    first = store.commit(changes)
    with store.begin() as uow:
        uow.runs.append("c", Run("meanwhile", None))
    assert store.commit(changes) == first
    appended = ChangeSet.of([Change("c", append=(Run("once", None).to_record(),))], now())
    assert store.commit(appended) == store.commit(appended)
    with store.begin() as uow:
        assert [run.input for run in uow.runs.list("c")] == ["meanwhile", "once"]


def test_a_token_of_one_namespace_says_nothing_in_another(store: Store) -> None:
    changes = creation()
    store.commit(changes)
    store.namespace("other").commit(changes)
    with store.namespace("other").begin() as uow:
        assert uow.conversations.count() == 1


def test_a_removal_committed_again_is_answered(store: Store) -> None:
    store.commit(creation())
    removal = ChangeSet.of([Change("c", remove=True)], now())
    assert store.commit(removal) == store.commit(removal)
    assert store.commit(removal).written == {"c": None}


def test_receipts_are_kept_for_a_day_and_then_forgotten_by_purging(store: Store, clock: Clock) -> None:
    store.commit(creation())
    clock.ahead = _DAY - 60_000_000
    store.purge_expired()
    assert rows(store) == 1
    clock.ahead = _DAY + 60_000_000
    store.purge_expired()
    assert rows(store) == 0


def test_receipts_are_forgotten_on_the_way_too(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody purging, every so many commits."""
    monkeypatch.setattr(repository, "_FORGET_EVERY", 3)
    store.commit(creation())
    clock.ahead = 2 * _DAY
    for n in range(6):
        store.commit(creation(f"c{n}"))
    assert rows(store) < 7


def test_purging_removes_runs_and_entries_too(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.adapters.sql.operations._PURGED_AT_ONCE", 2)
    soon = datetime.now(UTC) + timedelta(hours=1)
    with store.begin() as uow:
        for n in range(5):
            uow.conversations.add(Conversation(f"e{n}", metadata={"n": n, "deep": {"n": n}}, expires_at=soon))
            uow.runs.append(f"e{n}", Run("q", "a"), Run("q", "a"))
        uow.conversations.add(Conversation("stays", metadata={"n": 9}))
        uow.runs.append("stays", Run("q", "a"))
    clock.ahead = _DAY
    assert store.namespace("other").purge_expired() == 0
    assert store.purge_expired() == 5
    assert store.purge_expired() == 0
    assert rows(store, runs) == 1
    assert rows(store, entries) == 1
    assert isinstance(store.repository, SqlRepository)
    assert_consistent(store.repository.engine)


def test_an_expired_conversation_makes_way_and_leaves_nothing_behind(store: Store, clock: Clock) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    with store.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"old": True}, expires_at=soon))
        uow.runs.append("c", Run("old", None))
    clock.ahead = _DAY
    with pytest.raises(NotFoundError), store.begin() as uow:
        uow.runs.append("c", Run("too late", None))
    with store.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"new": True}))
        uow.runs.append("c", Run("new", None))
    with store.begin() as uow:
        assert [(run.position, run.input) for run in uow.runs.list("c")] == [(1, "new")]
        assert uow.conversations.count(memory.where("old") == True) == 0  # noqa: E712
    assert isinstance(store.repository, SqlRepository)
    assert_consistent(store.repository.engine)


@pytest.mark.parametrize("offset", [timedelta(), timedelta(microseconds=1)])
def test_expiry_is_to_the_microsecond(store: Store, offset: timedelta) -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    microseconds = int(moment.timestamp()) * 1_000_000
    with store.begin() as uow:
        uow.conversations.add(Conversation("c", expires_at=moment + offset))
    store.repository.clock = lambda: microseconds
    with store.begin() as uow:
        assert uow.conversations.count() == (1 if offset else 0)
