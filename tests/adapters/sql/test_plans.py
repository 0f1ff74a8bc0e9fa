"""How the databases go about it: by which index, and without sorting what they could read in order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event

import memory
from memory import Conversation, Run, Store, UnitOfWork, where
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.searching import SqlSearch
from memory.domain.records import ConversationRecord, encode_metadata
from memory.port import index
from memory.port.changes import Change, ChangeSet

SIZE = 2000
Work = Callable[[UnitOfWork], object]


def engine_of(store: Store) -> Engine:
    assert isinstance(store.repository, SqlRepository)
    return store.repository.engine


@pytest.fixture(scope="module")
def store(shared: Store) -> Store:
    """Enough rows for an index to be worth its while, and statistics that say so."""
    creations = []
    for n in range(SIZE):
        metadata = {"n": n, "tier": "gold" if n % 3 else "basic", "rare": n % 1000 == 0}
        record = ConversationRecord(f"c{n:03}", encode_metadata(metadata), 1, "", 0, 0, n, SIZE - n, None)
        creations.append(Change(record.id, create=record))
    shared.commit(ChangeSet.of(creations, SIZE))
    with shared.begin() as uow:
        uow.runs.append("c007", *[Run(n, "x" * 100) for n in range(3000)])
        uow.runs.append("c008", *[Run(n, "x" * 100) for n in range(3000)])
    with engine_of(shared).connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    return shared


@contextmanager
def explained(store: Store) -> Iterator[list[str]]:
    """Gather the plan of everything that is read."""
    explain = "EXPLAIN QUERY PLAN " if engine_of(store).dialect.name == "sqlite" else "EXPLAIN "
    plans: list[str] = []

    def before(_: object, cursor: Any, sql: str, parameters: Any, *__: object) -> None:
        if sql.lstrip().startswith(("SELECT", "WITH", "UPDATE memory_runs")) and "memory_" in sql:
            beside = cursor.connection.cursor()
            beside.execute(explain + sql, parameters)
            plans.append("\n".join(str(row[-1]) for row in beside.fetchall()))
            beside.close()

    event.listen(engine_of(store), "before_cursor_execute", before)
    yield plans
    event.remove(engine_of(store), "before_cursor_execute", before)


def plans_of(store: Store, work: Work) -> list[str]:
    with explained(store) as plans, store.begin() as uow:
        work(uow)
    assert plans
    return plans


@pytest.mark.parametrize("window", ["last", "first"])
def test_runs_are_read_along_their_primary_key(store: Store, window: str) -> None:
    (plan,) = plans_of(store, lambda uow: getattr(uow.runs, window)("c007", 20))
    if engine_of(store).dialect.name == "sqlite":
        assert "SEARCH memory_runs USING PRIMARY KEY (conversation_key=? AND position>? AND position<?)" in plan
        assert "TEMP B-TREE" not in plan
        assert "SCAN memory" not in plan
    else:
        assert f"Index Scan{' Backward' if window == 'last' else ''} using pk_memory_runs" in plan
        assert "Sort" not in plan
        assert "Seq Scan on memory_runs" not in plan


@pytest.mark.parametrize(
    "order", ["-last_run_at", "last_run_at", "-updated_at", "updated_at", "-created_at", "id", "-id"]
)
def test_a_page_of_all_is_read_in_its_order(store: Store, order: str) -> None:
    def next_page(uow: UnitOfWork) -> None:
        cursor = uow.conversations.find(order=order, limit=20).cursor
        assert cursor is not None
        uow.conversations.find(order=order, limit=20, after=cursor)

    column = order.removeprefix("-")
    index = f"ix_memory_conversations_namespace_{'' if column == 'id' else column + '_'}id"
    for plan in plans_of(store, next_page):
        assert index in plan
        assert "TEMP B-TREE" not in plan
        assert "Sort" not in plan


@pytest.mark.parametrize("order", ["metadata.n", "-metadata.n"])
def test_a_page_by_metadata_is_read_along_the_index_of_entries(store: Store, order: str) -> None:
    """From the place of the cursor on; only ties are sorted."""

    def next_page(uow: UnitOfWork) -> None:
        cursor = uow.conversations.find(order=order, limit=20).cursor
        assert cursor is not None
        uow.conversations.find(order=order, limit=20, after=cursor)

    for number, plan in enumerate(plans_of(store, next_page)):
        assert "ix_memory_metadata_namespace_path_value_conversation_key" in plan
        if engine_of(store).dialect.name == "sqlite":
            sign = ("", ">" if order == "metadata.n" else "<")[number]
            assert f"(namespace=? AND path=?{sign and f' AND value{sign}?'})" in plan
            assert plan.count("USE TEMP B-TREE FOR") == plan.count("USE TEMP B-TREE FOR RIGHT PART OF ORDER BY") == 1
        else:
            assert "Incremental Sort" in plan
            assert "Presorted Key: placed.value" in plan


def test_a_few_matches_are_found_through_the_index_of_entries(store: Store) -> None:
    _, plan = plans_of(store, lambda uow: uow.conversations.find(where("n") == 7))
    assert "ix_memory_metadata_namespace_path_value_conversation_key" in plan
    if engine_of(store).dialect.name == "sqlite":
        assert "SEARCH memory_conversations USING INTEGER PRIMARY KEY (rowid=?)" in plan
        assert "SCAN memory" not in plan
    else:
        assert "Seq Scan on memory_metadata" not in plan


def test_many_matches_are_walked_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probing each conversation's own entries, by the primary key of those."""
    monkeypatch.setattr(SqlSearch, "drive_limit", 10)
    *_, plan = plans_of(store, lambda uow: uow.conversations.find(where("tier") == "gold", limit=20))
    assert "ix_memory_conversations_namespace_last_run_at_id" in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan
    assert "Sort" not in plan
    if engine_of(store).dialect.name == "sqlite":
        assert "SEARCH memory_metadata USING PRIMARY KEY (conversation_key=? AND path=? AND value=?)" in plan


def test_a_lookup_counts_no_more_matches_than_it_must(store: Store) -> None:
    """The count that chooses a way is of the index alone."""
    count, _ = plans_of(store, lambda uow: uow.conversations.find(where("n") < 20))
    assert "ix_memory_metadata_namespace_path_value_conversation_key" in count or "Seq Scan" not in count
    if engine_of(store).dialect.name == "sqlite":
        assert "COVERING INDEX" in count


def test_the_last_runs_of_many_are_read_along_their_primary_key(store: Store) -> None:
    """From the place of the n-th last run on, which is looked up along the key too."""
    (plan,) = plans_of(store, lambda uow: uow.runs.last_of([f"c{n:03}" for n in range(20)], 5))
    if engine_of(store).dialect.name == "sqlite":
        assert "SEARCH memory_runs USING PRIMARY KEY (conversation_key=? AND position>?)" in plan
        assert "(namespace=? AND id=?)" in plan
        assert "SCAN memory" not in plan
        assert "TEMP B-TREE" not in plan
    else:
        assert "Index Scan Backward using pk_memory_runs" in plan
        assert "Sort" not in plan
        assert "Seq Scan on memory" not in plan


def test_many_conversations_are_looked_up_one_by_one(store: Store) -> None:
    (plan,) = plans_of(store, lambda uow: uow.conversations.get_many([f"c{n:03}" for n in range(20)]))
    assert "ix_memory_conversations_namespace_id" in plan
    assert "SCAN memory" not in plan
    assert "Seq Scan on memory" not in plan


def test_open_runs_are_found_through_their_own_indexes(store: Store) -> None:
    """Whatever the number of runs and conversations: to list them, and to complete one of a long conversation."""
    with store.begin() as uow:
        uow.runs.append("c009", Run("q", "", id="open", is_open=True))
    (listed,) = plans_of(store, lambda uow: uow._session.repository.open_runs("default", None, 10))
    completed = plans_of(store, lambda uow: uow.runs.complete("c009", "open", output="", is_final=False))[-1]
    assert "ix_memory_runs_created_at" in listed
    assert "ix_memory_runs_" in completed  # PostgreSQL may take either, if there are few
    for plan in (listed, completed):
        assert "SCAN memory_conversations" not in plan
        assert "Seq Scan on memory_runs" not in plan
        assert "Seq Scan on memory_conversations" not in plan


def test_expired_conversations_are_found_through_their_own_index(store: Store) -> None:
    with explained(store) as plans:
        store.purge_expired()
    assert "ix_memory_conversations_namespace_expires_at" in plans[0]


def test_all_conversations_are_counted_without_reading_them(store: Store) -> None:
    """Only those that have expired, and are not purged, are counted one by one."""
    (plan,) = plans_of(store, lambda uow: uow.conversations.count())
    assert "memory_counts" in plan
    assert "ix_memory_conversations_namespace_expires_at" in plan
    assert "Seq Scan on memory_conversations" not in plan
    assert "SCAN memory_conversations" not in plan


def test_namespaces_are_read_from_one_to_the_next(store: Store) -> None:
    (plan,) = plans_of(store, lambda _: store.namespaces())
    assert "memory_conversations USING COVERING INDEX" in plan or "Index Only Scan" in plan
    assert "SCAN memory" not in plan
    assert "Seq Scan on memory" not in plan


@pytest.mark.parametrize(("driven", "walked"), [(0, 1), (0, 10**6), (10**6, 1)])
@pytest.mark.parametrize(
    "order", ["-last_run_at", "-updated_at", "created_at", "id", "-id", "metadata.n", "-metadata.tier"]
)
def test_every_way_gives_the_same_pages(
    store: Store, monkeypatch: pytest.MonkeyPatch, driven: int, walked: int, order: str
) -> None:
    """Walked to the end, walked until it gives up, or driven: in one order, each match once."""
    monkeypatch.setattr(SqlSearch, "drive_limit", driven)
    monkeypatch.setattr(SqlSearch, "walk_limit", walked)
    criterion = ((where("tier") == "gold") & (where("n") < 50)) | (where("rare") == True)  # noqa: E712
    with store.begin() as uow:
        everything = uow.conversations.find(order=order, limit=SIZE).items
    for asked in (criterion, where("tier") == "basic", (where("tier") == "gold") & ~(where("n") < SIZE - 50)):
        with store.begin() as uow:
            pages, cursor = [], None
            while True:
                page = uow.conversations.find(asked, order=order, limit=17, after=cursor)
                pages += [found.id for found in page]
                if (cursor := page.cursor) is None:
                    break
            assert pages == [found.id for found in everything if asked.matches(found)]
            assert uow.conversations.count(asked) == len(pages)


@pytest.mark.needs("postgres")
def test_a_negated_count_ends_when_its_matches_do_not_fit_into_memory(postgres_url: str) -> None:
    """What is negated is probed for each conversation, or joined: a list of all that it finds would be searched for each (S3)."""
    engine = create_engine(
        postgres_url, connect_args={"options": "-c work_mem=64kB -c hash_mem_multiplier=1 -c statement_timeout=60s"}
    )
    store = Store(SqlRepository(engine))
    store.migrate()
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO memory_conversations "
            "(namespace, id, metadata, version, run_count, last_position, created_at, updated_at) "
            "SELECT 'default', n, '{}', 1, 0, 0, n, n FROM generate_series(1, 100000) AS n"
        )
        connection.exec_driver_sql(
            "INSERT INTO memory_metadata (conversation_key, path, value, namespace) "
            "SELECT key, 'status', %s, 'default' FROM memory_conversations WHERE key %% 3 > 0",
            (index.key("open"),),
        )
        connection.exec_driver_sql("ANALYZE")
    (plan,) = plans_of(store, lambda uow: uow.conversations.count(where("status") != "open"))
    assert "Anti Join" in plan
    assert "SubPlan" not in plan
    with store.begin() as uow:
        assert uow.conversations.count(where("status") != "open") == 33333
        assert uow.conversations.count((where("status") != "open") | (where("n") == 1)) == 33333
    engine.dispose()


def test_the_statistics_are_not_needed_for_the_last_runs(url: str) -> None:
    """In a database that was never analysed, as a new one is."""
    with memory.connect(url) as store:
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("c007"))
            uow.runs.append("c007", *[Run(n, "x" * 100) for n in range(3000)])
        (plan,) = plans_of(store, lambda uow: uow.runs.last("c007", 20))
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
