"""Many at once: first uses, migrations, appends, and units of work that touch the same conversations."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import Engine

import memory
from memory import ConflictError, Conversation, Run, Store, UnitOfWork
from memory.adapters.sql import SqlRepository, schema
from tests.adapters.sql.checking import assert_consistent
from tests.adapters.sql.children import APPENDS, MIGRATES, started
from tests.servers import postgres, wait_until


def at_once(*jobs: Callable[[], object]) -> None:
    """Run each in a thread of its own, all beginning together; raise the first's error."""
    barrier = Barrier(len(jobs))

    def begin(job: Callable[[], object]) -> object:
        barrier.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(begin, job) for job in jobs]:
            future.result(timeout=60)


def engine_of(store: Store) -> Engine:
    assert isinstance(store.repository, SqlRepository)
    return store.repository.engine


def append(store: Store, name: str, times: int) -> None:
    for n in range(times):
        with store.begin() as uow:
            uow.runs.append("shared", Run(f"{name}-{n}", n))


def add_shared(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("shared", metadata={"tier": "gold"}))


def assert_all_there(store: Store, expected: int) -> None:
    with store.begin() as uow:
        runs = uow.runs.list("shared")
        assert uow.conversations.get("shared").run_count == expected
    assert [run.position for run in runs] == list(range(1, expected + 1))
    assert len({run.input for run in runs}) == expected
    assert_consistent(engine_of(store))


def test_eight_threads_use_a_new_file_at_once(sqlite_url: str) -> None:
    """Each with a store of its own: the schema is made once."""

    def use(name: str) -> None:
        with memory.connect(sqlite_url) as store, store.begin() as uow:
            uow.conversations.add(Conversation(name))

    at_once(*[lambda name=f"c{n}": use(name) for n in range(8)])
    with memory.connect(sqlite_url) as store, store.begin() as uow:
        assert uow.conversations.count() == 8


def test_eight_threads_each_use_a_new_file_of_their_own_at_once(tmp_path: Path) -> None:
    """What runs the migrations is one for the whole process."""

    def use(n: int) -> None:
        with memory.connect(f"sqlite:///{tmp_path}/{n}.db") as store, store.begin() as uow:
            uow.conversations.add(Conversation("c"))

    for round in range(3):
        at_once(*[lambda n=round * 8 + n: use(n) for n in range(8)])


def test_eight_threads_migrate_at_once(url: str) -> None:
    def migrate() -> None:
        with memory.connect(url) as store:
            assert store.migrate().is_current

    at_once(*[migrate] * 8)


def test_three_processes_migrate_at_once(url: str) -> None:
    """On sqlite by their first use, on PostgreSQL by `migrate`."""
    with started(MIGRATES, *[[url]] * 3) as children:
        for child in children:
            child.go()
        for child in children:
            child.finish()


@pytest.mark.needs("postgres")
def test_on_postgresql_one_migration_waits_for_the_other(postgres_url: str) -> None:
    """Two that begin together would make the same tables; here the other holds the lock for as long as the test likes."""

    def check_one_waits() -> None:
        waiting = other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone()
        assert waiting == (1,)

    with memory.connect(postgres_url) as store, postgres.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [schema._IN_POSTGRESQL])
        migration = Thread(target=store.migrate)
        migration.start()
        wait_until(check_one_waits, still_possible=lambda: None)
        other.execute("SELECT pg_advisory_unlock_all()")
        migration.join(30)
        assert store.schema_status().is_current


def test_four_processes_append_at_once(store: Store, url: str) -> None:
    add_shared(store)
    with started(APPENDS, *[[url, "50", f"child{n}"] for n in range(4)]) as children:
        for child in children:
            child.go()
        for child in children:
            child.finish()
    assert_all_there(store, 200)


def test_eight_threads_append_at_once(store: Store) -> None:
    add_shared(store)
    at_once(*[lambda name=f"thread{n}": append(store, name, 20) for n in range(8)])
    assert_all_there(store, 160)


def test_threads_that_edit_lose_no_update(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("counter", metadata={"n": 0}))

    def increase(uow: UnitOfWork) -> None:
        metadata = uow.conversations.get("counter").metadata
        metadata["n"] += 1

    def work() -> None:
        for _ in range(10):
            store.run(increase, retries=200)

    at_once(*[work] * 4)
    with store.begin() as uow:
        assert uow.conversations.get("counter").metadata == {"n": 40}
        assert uow.conversations.get("counter").version == 41
    assert_consistent(engine_of(store))


def test_units_of_work_that_meet_in_opposite_order_all_end(store: Store) -> None:
    """Two conversations, touched in one order by half of the threads and in the other by the rest."""
    with store.begin() as uow:
        for name in ("a", "b"):
            uow.conversations.add(Conversation(name, metadata={"n": 0}))

    def work(order: str) -> None:
        def touch(uow: UnitOfWork) -> None:
            for name in order:
                metadata = uow.conversations.get(name).metadata
                metadata["n"] += 1
                uow.runs.append(name, Run(order, None))

        for _ in range(10):
            store.run(touch, retries=500)

    at_once(*[lambda order=order: work(order) for order in ("ab", "ba") * 2])
    with store.begin() as uow:
        for name in ("a", "b"):
            assert uow.conversations.get(name).metadata == {"n": 40}
            assert Counter(run.input for run in uow.runs.list(name)) == {"ab": 20, "ba": 20}
    assert_consistent(engine_of(store))


def test_of_many_who_add_one_id_one_wins(store: Store) -> None:
    won: list[int] = []

    def add(n: int) -> None:
        try:
            with store.begin() as uow:
                uow.conversations.add(Conversation("wanted", metadata={"by": n}))
        except memory.AlreadyExistsError:
            return
        won.append(n)

    at_once(*[lambda n=n: add(n) for n in range(8)])
    with store.begin() as uow:
        assert [uow.conversations.get("wanted").metadata["by"]] == won
    assert_consistent(engine_of(store))


def test_of_many_who_append_after_the_same_run_one_wins(store: Store) -> None:
    add_shared(store)
    won: list[int] = []

    def answer(n: int) -> None:
        try:
            with store.begin() as uow:
                uow.runs.append("shared", Run(n, None), after=0)
        except ConflictError:
            return
        won.append(n)

    at_once(*[lambda n=n: answer(n) for n in range(8)])
    with store.begin() as uow:
        assert [run.input for run in uow.runs.list("shared")] == won


@pytest.mark.parametrize("removes", [False, True])
def test_an_append_and_a_removal_meet(store: Store, *, removes: bool) -> None:
    """Whoever comes first, no run is left behind without its conversation, and none is lost from one that is there."""
    lost: list[int] = []

    def end(n: int) -> None:
        with store.begin() as uow:
            uow.conversations.remove(f"c{n}")
            if not removes:
                uow.conversations.add(Conversation(f"c{n}"))

    def append(n: int) -> None:
        try:
            with store.begin() as uow:
                uow.runs.append(f"c{n}", Run("late", None))
        except memory.NotFoundError:
            lost.append(n)

    for n in range(20):
        with store.begin() as uow:
            uow.conversations.add(Conversation(f"c{n}"))
        at_once(lambda n=n: end(n), lambda n=n: append(n))  # type: ignore[misc]
    assert_consistent(engine_of(store))
    if not removes:
        assert not lost


def test_many_who_create_and_remove_at_once_are_counted(store: Store) -> None:
    """Also in commits of several conversations: nobody waits for another in a circle, and none is lost from the count."""

    def work(name: int) -> None:
        for n in range(6):
            ids = [f"c{name}-{n}-{m}" for m in range(5)]
            with store.begin() as uow:
                for id in ids:
                    uow.conversations.add(Conversation(id))
            with store.begin() as uow:
                for id in ids[n % 3 :]:
                    uow.conversations.remove(id)

    at_once(*[lambda name=name: work(name) for name in range(8)])
    with store.begin() as uow:
        assert uow.conversations.count() == 8 * 2 * (0 + 1 + 2) == len(list(uow.conversations.iterate()))
    assert_consistent(engine_of(store))
