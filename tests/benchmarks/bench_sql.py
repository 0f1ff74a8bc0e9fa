"""How fast the SQL store is, each figure beside a floor measured in the same run: ``python tests/benchmarks/bench_sql.py [URL]``.

Absolute times are this machine's; the ratios are what to compare. The floor of an append is hand-written `sqlite3` doing the same
UPDATE and INSERT with the same durability, and that of reading is the bare rows. Both sides take turns: a slow moment hits both.
With the URL of an empty PostgreSQL database, the same is measured there, the floor being hand-written `psycopg`.
"""

import itertools
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import create_engine

import memory
from memory import Run, Store, where
from memory.adapters.sql import SqlRepository
from memory.domain.criteria import Criterion
from tests.benchmarks.measuring import TEXT, fill, fill_for_queries, in_turns, report, timed

CONVERSATIONS = 100_000
UPDATE = (
    "UPDATE memory_conversations SET run_count = run_count + 1, last_position = last_position + 1, updated_at = ?1, "
    "last_run_at = ?1 WHERE namespace = 'default' AND id = ?2 RETURNING key, last_position"
)
UPDATE_BY_PSYCOPG = UPDATE.replace("?1", "%(at)s").replace("?2", "%(id)s")
ROWS = (
    "SELECT position, id, input, output, metadata, created_at FROM memory_runs WHERE conversation_key = {0} "
    "ORDER BY position DESC LIMIT {0}"
)
INSERT = "INSERT INTO memory_runs VALUES (?, ?, ?, ?, ?, '{}', ?, false)"


def append_by_hand(path: Path, synchronous: str) -> Callable[[], None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    numbers = itertools.count()

    def append() -> None:
        number = next(numbers)
        connection.execute("BEGIN IMMEDIATE")
        key, position = connection.execute(UPDATE, (number, "floor")).fetchone()
        connection.execute(INSERT, (key, position, f"run-{number}", f'"{TEXT}"', f'"{TEXT}"', number))
        connection.execute("COMMIT")

    return append


def append_by_us(store: Store, conversation_id: str) -> Callable[[], None]:
    def append() -> None:
        with store.begin() as uow:
            uow.runs.append(conversation_id, Run(input=TEXT, output=TEXT))

    return append


def last_runs(store: Store, conversation_id: str, limit: int = 20) -> Callable[[], None]:
    def read() -> None:
        with store.begin() as uow:
            uow.runs.last(conversation_id, limit)

    return read


def bench_appends(folder: Path) -> None:
    for synchronous in ("full", "normal"):
        # A file for each side: with one, each would read again what the other has written to the log.
        ours = memory.connect(f"sqlite:///{folder}/ours-{synchronous}.db?synchronous={synchronous}")
        floor = memory.connect(f"sqlite:///{folder}/floor-{synchronous}.db?synchronous={synchronous}")
        fill(floor, "floor", 10)
        floor.close()
        fill(ours, "short", 10)
        by_hand = append_by_hand(folder / f"floor-{synchronous}.db", synchronous)
        spent, least = in_turns(3000, append_by_us(ours, "short"), by_hand)
        report(f"append one run, synchronous={synchronous}", spent, least, {"full": 1.45, "normal": 3}[synchronous])
        fill(ours, "ten", 10)
        fill(ours, "long", 100_000)
        long, ten = in_turns(3000, append_by_us(ours, "long"), append_by_us(ours, "ten"))
        report(f"  at 100,000 runs (floor: at 10), synchronous={synchronous}", long, ten)
        long, ten = in_turns(1000, last_runs(ours, "long"), last_runs(ours, "ten"))
        report("  last 20 of 100,000 runs (floor: of the short one)", long, ten)
        ours.close()


def bench_joined(url: str) -> None:
    """An append that joins the application's transaction, beside a plain one on the same engine, by CPU time of this thread."""
    engine = create_engine(url)
    store = Store(SqlRepository(engine))
    store.migrate()
    fill(store, "joined", 10)
    fill(store, "plain", 10)

    def joined() -> None:
        with engine.begin() as connection, store.begin(connection=connection) as uow:
            uow.runs.append("joined", Run(input=TEXT, output=TEXT))

    spent, floor = in_turns(2000, joined, append_by_us(store, "plain"), clock=time.thread_time)
    report("append one run, joined (floor: plain), CPU", spent, floor, 1.5)
    engine.dispose()


def bench_reads(folder: Path) -> None:
    with memory.connect(f"sqlite:///{folder}/reads.db") as store:
        fill(store, "c", 1000)
        raw = sqlite3.connect(folder / "reads.db", isolation_level=None)
        for limit, rounds, most in ((20, 3000, 3), (1000, 200, 4)):

            def rows(limit: int = limit) -> None:
                raw.execute(ROWS.format("?"), (1, limit)).fetchall()

            spent, floor = in_turns(rounds, last_runs(store, "c", limit), rows)
            report(f"last {limit} runs of 1,000", spent, floor, most)


def bench_postgresql(url: str) -> None:
    import psycopg

    numbers = itertools.count()
    with memory.connect(url) as store, psycopg.connect(url.replace("+psycopg", "")) as raw:
        store.migrate()
        fill(store, "ours", 1000)
        fill(store, "floor", 1000)
        ((key,),) = raw.execute("SELECT key FROM memory_conversations WHERE id = 'floor'").fetchall()
        raw.commit()

        def append() -> None:
            number = next(numbers)
            ((key, position),) = raw.execute(UPDATE_BY_PSYCOPG, {"at": number, "id": "floor"}).fetchall()
            run = (key, position, f"run-{number}", f'"{TEXT}"', f'"{TEXT}"', number)
            raw.execute(INSERT.replace("?", "%s"), run)
            raw.commit()

        spent, floor = in_turns(2000, append_by_us(store, "ours"), append)
        report("append one run", spent, floor, 1.4)
        raw.autocommit = True

        def rows() -> None:
            raw.execute(ROWS.format("%s"), (key, 20)).fetchall()

        report("last 20 runs of 1,000", *in_turns(2000, last_runs(store, "ours"), rows))
    bench_joined(url)


def bench_queries(store: Store) -> None:
    rare, third = where("customer") == "customer-77", where("domain") == "Hotels"
    low = CONVERSATIONS // 2
    queries: dict[str, Criterion] = {
        "ten match": rare,
        "a third match": third,
        "ten of a third match": third & where("customer").in_([f"customer-{n}" for n in range(77, 80)]),
        "a third that are the oldest": where("tier") == "gold",
        "a range of 1 %": where("amount").between(low, low + CONVERSATIONS // 100 - 1),
        "a third, without some": third & ~(where("multi") == True),  # noqa: E712
        "all": where("domain").exists(),
    }
    for name, criterion in queries.items():

        def first_page(criterion: Criterion = criterion) -> None:
            with store.begin() as uow:
                uow.conversations.find(criterion, limit=50)

        (spent,) = in_turns(50, first_page)
        report(f"find, {name}: the first page of 50", spent)
        with store.begin() as uow:
            begin = time.perf_counter()
            count = uow.conversations.count(criterion)
            report(f"  count: {count:,}", time.perf_counter() - begin)
    with store.begin() as uow:
        cursors: list[str | None] = [None]
        for _ in range(99):
            cursors.append(uow.conversations.find(third, limit=50, after=cursors[-1]).cursor)
        last, first = in_turns(
            50,
            lambda: uow.conversations.find(third, limit=50, after=cursors[-1]),
            lambda: uow.conversations.find(third, limit=50),
        )
    report("page 100 of a third (floor: page 1)", last, first)


def main() -> None:
    if urls := [argument for argument in sys.argv[1:] if "://" in argument]:
        bench_postgresql(urls[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        if "--queries" not in sys.argv:
            bench_reads(Path(folder))
            bench_appends(Path(folder))
            bench_joined(f"sqlite:///{folder}/joined.db")
        with memory.connect(f"sqlite:///{folder}/queries.db") as store:
            spent = timed(lambda: fill_for_queries(store, CONVERSATIONS))
            print(f"{CONVERSATIONS:,} conversations made in {spent:.1f} s")
            bench_queries(store)


if __name__ == "__main__":
    main()
