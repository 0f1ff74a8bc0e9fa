"""The outbox: what is in it is what was committed, in an order that holds, and in one hand at a time."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import NullPool, create_engine

import memory
from memory import Store, StoreUnavailableError
from memory.adapters.sql import SqlRepository
from memory.domain.records import ConversationRecord, RunRecord
from memory.port.changes import Change, ChangeSet, ExpectedVersion
from memory.port.outbox import dump, load
from memory.testing.base import put, run
from memory.transfer import mirroring
from memory.transfer.mirroring import MirroredStore, mirror
from tests.cli.conftest import ROOT

_texts = st.text(max_size=5)
_numbers = st.integers(0, 2**53)
_runs = st.lists(st.builds(RunRecord, _numbers, _texts, _texts, _texts, _texts, _numbers), max_size=2).map(tuple)
_records = st.builds(
    ConversationRecord, _texts, _texts, _numbers, _texts, _numbers, _numbers, _numbers, _numbers, st.none() | _numbers
)
_changes = st.builds(
    Change,
    _texts,
    st.none() | st.builds(ExpectedVersion, _texts, _numbers),
    st.none() | _numbers,
    st.booleans(),
    st.none() | _records,
    st.none() | _texts,
    st.none() | st.integers(-1, 2**53),
    _numbers,
    st.lists(_numbers, max_size=2).map(tuple),
    _runs,
    _runs,
)


@given(
    st.builds(
        ChangeSet, st.lists(_changes, max_size=3, unique_by=lambda change: change.id).map(tuple), _texts, _numbers
    )
)
def test_a_change_set_comes_back_from_its_text(changes: ChangeSet) -> None:
    text = dump(changes)
    assert "\n" not in text
    assert load(text) == changes


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.needs("postgres")),
        pytest.param("pgbouncer", marks=pytest.mark.needs("postgres", "pgbouncer")),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/primary.db"
    return cast(str, request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def store(url: str) -> Iterator[MirroredStore]:
    with mirror(url, search="memory://") as store:
        store.migrate()
        yield store


NAME = "search"


def test_it_is_in_one_hand_at_a_time(store: Store, url: str) -> None:
    with mirror(url, search="memory://") as other:
        with store.repository.relaying(NAME) as mine:
            assert mine is not None
            with other.repository.relaying(NAME) as theirs, other.repository.relaying("another replica") as beside:
                assert theirs is None
                assert beside is not None
        with other.repository.relaying(NAME) as theirs:
            assert theirs is not None


HOLDER = """
import sys
from memory.transfer import mirroring
from memory.transfer.mirroring import MirroredStore, mirror
with mirror(sys.argv[1], search="memory://") as store, store.repository.relaying("search") as outbox:
    print("held" if outbox else "busy", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_is_killed_lets_go(store: Store, url: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with store.repository.relaying(NAME) as mine:
        assert mine is None
    holder.kill()
    holder.communicate()
    while True:  # the server may take a moment to notice
        with store.repository.relaying(NAME) as mine:
            if mine is not None:
                return


def test_what_is_delivered_is_forgotten_and_nothing_else(store: Store) -> None:
    for name in "abc":
        put(store, name, None, run())
    with store.repository.relaying(NAME) as outbox:
        assert outbox is not None
        first, second = outbox.first(2)
        assert [first.namespace, first.changes.changes[0].id, second.changes.changes[0].id] == ["default", "a", "b"]
        outbox.remove([second])
        assert [entry.changes.changes[0].id for entry in outbox.first(5)] == ["a", "c"]


def test_a_commit_that_was_overtaken_is_not_passed_over(postgres_url: str) -> None:
    """On PostgreSQL a number that was given earlier can be committed later: it is delivered then."""
    engine = create_engine(postgres_url)
    plain = Store(SqlRepository(engine))
    plain.migrate()
    for name in "ab":
        put(plain, name)
    replica = memory.connect("memory://")
    store = mirror(plain, search=replica)
    with engine.connect() as connection:
        with store.begin(connection=connection) as uow:  # it has its number, and is not committed
            uow.conversations.remove("a")
        with store.begin() as uow:
            uow.runs.append("b", run())
        assert [done.delivered for done in store.relay()] == [1]
        connection.commit()
    assert [done.delivered for done in store.relay()] == [1]
    assert store.lag()[NAME].change_sets == 0
    assert [one.id for one in replica.begin().conversations.find().items] == ["b"]
    engine.dispose()


def test_a_relay_whose_connection_is_cut_tells_so_and_the_next_goes_on(postgres_url: str) -> None:
    replica = memory.connect("memory://")
    beside = create_engine(postgres_url, poolclass=NullPool)

    def cut(_: object) -> None:
        unsubscribe()
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with beside.connect() as connection:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {others}")

    unsubscribe = replica.subscribe(cut)
    with memory.connect(postgres_url) as plain:
        plain.migrate()
        store = mirror(plain, search=replica)
        put(store, "a")
        with pytest.raises(StoreUnavailableError, match="the connection"):
            store.relay()
        assert [done.delivered for done in store.relay()] == [1]  # again, to no effect
    assert [one.id for one in replica.begin().conversations.find().items] == ["a"]


def test_a_slow_delivery_is_removed_in_parts(store: MirroredStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL each part is a transaction, for which migrations and vacuum wait."""
    monkeypatch.setattr(mirroring, "_ROUND", 0)
    for name in "abc":
        put(store, name)
    left: list[int] = []
    store.replicas[NAME].subscribe(lambda _: left.append(store.lag()[NAME].change_sets))
    assert [(done.delivered, done.busy) for done in store.relay()] == [(3, False)]
    assert left == [3, 2, 1]
    assert store.lag()[NAME].change_sets == 0
