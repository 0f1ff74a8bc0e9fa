"""Receipts: a change set that is committed again is answered from them; a day later they are forgotten. And purging."""

import itertools
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zlib import crc32

import pytest
from sqlalchemy import Engine, func, select, update

import memory
from memory import Conversation, NotFoundError, Run, Store, UnitOfWork
from memory.adapters.sql import SqlRepository, committing, statements
from memory.adapters.sql.tables import commits, entries, runs
from memory.domain.records import ConversationRecord
from memory.domain.values import now
from memory.port.changes import Change, ChangeSet
from tests.adapters.sql.checking import assert_consistent

_DAY = 24 * 3600 * 1_000_000
Work = Callable[[UnitOfWork], object]


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


def engine_of(store: Store) -> Engine:
    assert isinstance(store.repository, SqlRepository)
    return store.repository.engine


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


def age_receipts(store: Store, microseconds: int) -> None:
    """Let time pass for all receipts: by whichever clock they age."""
    with engine_of(store).begin() as connection:
        connection.execute(update(commits).values(at=commits.c.at - microseconds))


def token(n: int, *, forgets: bool) -> str:
    """Return a token of which the commit forgets old receipts, or does not."""
    tries = (f"{n}-{salt}" for salt in itertools.count())
    return next(one for one in tries if (crc32(one.encode()) % committing._FORGET_EVERY == 0) == forgets)


def test_receipts_are_kept_for_a_day_and_then_forgotten_by_purging(store: Store) -> None:
    store.commit(creation())
    age_receipts(store, _DAY - 60_000_000)
    store.purge_expired()
    assert rows(store) == 1
    age_receipts(store, 120_000_000)
    store.purge_expired()
    assert rows(store) == 0


def test_receipts_with_a_key_are_kept_for_thirty_days(store: Store) -> None:
    """Of both ways to append, and of an edit."""
    store.commit(creation())
    works: tuple[Work, ...] = (
        lambda uow: uow.runs.append("c", Run("q", "a")),
        lambda uow: uow.runs.append("c", Run("q", "a"), Run("q", "a")),
        lambda uow: uow.conversations.get("c").metadata.update(n=1),
    )
    for number, work in enumerate(works):
        with store.begin(idempotency_key=str(number)) as uow:
            work(uow)
    for days, left in ((1.1, 3), (28.8, 3), (0.2, 0)):
        age_receipts(store, int(days * _DAY))
        store.purge_expired()
        assert rows(store) == left


def test_receipts_of_all_namespaces_are_forgotten_on_the_way(store: Store) -> None:
    """600 processes of one commit each, in 300 namespaces, over three days: those of the last day are left (S6)."""
    for day in range(3):
        age_receipts(store, _DAY)
        for n in range(200):
            process = Store(copy(store.repository))  # without a memory of what the others committed
            changes = replace(creation(f"c{day}-{n}"), token=token(200 * day + n, forgets=(day, n) == (2, 100)))
            process.namespace(f"tenant-{n % 150}-{day % 2}").commit(changes)
    assert rows(store) == 200


def test_a_commit_forgets_no_more_receipts_than_so_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "_FORGOTTEN_AT_ONCE", 3)
    fewer = {name: statements._forget_receipts(now) for name, now in statements._CLOCKS.items()}
    monkeypatch.setattr(statements, "FORGET_RECEIPTS", fewer)
    other = Store(SqlRepository(engine_of(store)))
    for n in range(5):
        other.commit(replace(creation(f"c{n}"), token=token(n, forgets=False)))
    age_receipts(store, 2 * _DAY)
    other.commit(replace(creation("last"), token=token(9, forgets=True)))
    assert rows(store) == 3


@pytest.mark.needs("postgres")
def test_receipts_age_by_the_clock_of_the_server(postgres_url: str) -> None:
    """A client whose clock is days ahead forgets nothing."""
    with memory.connect(postgres_url) as store:
        store.migrate()
        store.commit(creation())
        store.repository.clock = lambda: now() + 3 * _DAY
        store.purge_expired()
        assert rows(store) == 1


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
