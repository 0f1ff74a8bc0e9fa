"""How fast conversations are imported into a sqlite file, against the plainest way to write the same rows.

    python tests/benchmarks/bench_import.py [FILE.jsonl.gz]

Without a file (here, or in MEMORY_BENCH_DATA) conversations are made up. The floor is `sqlite3.executemany` of the rows that the
import made, held in memory: the same tables, indexes, transactions and pragmas, and no reading, checking or indexing of JSON.
Memory is the peak of a process of its own, for the file and for one four times as long.
"""

import gc
import gzip
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import memory
from memory.transfer import Totals, read_lines, restore, uncompressed

_MEASURE_MEMORY = "--peak-of"
_TABLES = ("memory_conversations", "memory_runs", "memory_metadata", "memory_commits")
_RUNS_A_COMMIT = 5_000
_REPEATS = 3


def main() -> None:
    gc.set_threshold(200_000)  # as the command does
    if sys.argv[1:2] == [_MEASURE_MEMORY]:
        print(_peak(Path(sys.argv[2])))
        return
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MEMORY_BENCH_DATA")
    with TemporaryDirectory() as name:
        folder = Path(name)
        file = Path(named) if named else made_up(folder / "made-up.jsonl.gz")
        _compare_speed(file, folder)
        _compare_memory(file, folder)


def _compare_speed(file: Path, folder: Path) -> None:
    ours: list[float] = []
    floors: list[float] = []
    reading: list[float] = []
    totals = Totals()
    for turn in range(_REPEATS):  # by turns: whatever else the machine does falls on all alike
        database = folder / f"ours-{turn}.db"
        seconds, totals = _import(file, f"sqlite:///{database}")
        ours.append(seconds)
        reading.append(_read_only(file))
        floors.append(_floor(database, folder / f"floor-{turn}.db"))
    taken, floor = min(ours), min(floors)
    print(f"{totals.conversations:,} conversations, {totals.runs:,} runs")
    print(
        f"import     {taken:6.2f} s  {totals.conversations / taken:9,.0f} conversations/s  {totals.runs / taken:9,.0f} runs/s"
    )
    print(f"  reading  {min(reading):6.2f} s  (of that: decompressing, parsing and checking the lines)")
    print(
        f"floor      {floor:6.2f} s  {totals.conversations / floor:9,.0f} conversations/s  {totals.runs / floor:9,.0f} runs/s"
    )
    print(f"ratio      {taken / floor:6.2f}    (to be 2 at most)")


def _import(file: Path, url: str) -> tuple[float, Totals]:
    with memory.connect(url) as store, file.open("rb") as stream:
        store.migrate()
        begin = time.perf_counter()
        totals = restore(store, read_lines(uncompressed(stream)))
        return time.perf_counter() - begin, totals


def _read_only(file: Path) -> float:
    begin = time.perf_counter()
    with file.open("rb") as stream:
        for _ in read_lines(uncompressed(stream)):
            pass
    return time.perf_counter() - begin


def _floor(source: Path, target: Path) -> float:
    """Write the rows of one database to another by `executemany`, in the same transactions."""
    with closing(sqlite3.connect(source)) as connection:
        schema = [
            sql
            for (sql,) in connection.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            )
        ]
        rows = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in _TABLES}
    batches = list(_batches(rows))
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        for sql in schema:
            connection.execute(sql)
        begin = time.perf_counter()
        for batch in batches:
            connection.execute("BEGIN IMMEDIATE")
            for table, some in batch.items():
                if not some:
                    continue
                places = ", ".join("?" * len(some[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({places})", some)
            connection.execute("COMMIT")
        return time.perf_counter() - begin


def _batches(rows: dict[str, list[tuple[Any, ...]]]) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """Divide the rows as the import does: some thousand runs a commit, whole conversations, a receipt with each."""
    parts = {
        table: {key: list(some) for key, some in groupby(rows[table], lambda row: row[0])}
        for table in ("memory_runs", "memory_metadata")
    }
    receipts = iter(rows["memory_commits"])
    batch: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows["memory_conversations"]:
        batch.setdefault("memory_conversations", []).append(row)
        for table, some in parts.items():
            if row[0] in some:
                batch.setdefault(table, []).extend(some[row[0]])
        if len(batch.get("memory_runs", ())) >= _RUNS_A_COMMIT:
            yield batch | {"memory_commits": list(islice(receipts, 1))}
            batch = {}
    yield batch | {"memory_commits": list(receipts)}


def _compare_memory(file: Path, folder: Path) -> None:
    longer = folder / "longer.jsonl.gz"
    with gzip.open(longer, "wt", compresslevel=1) as target:
        for turn in range(4):
            with gzip.open(file, "rt") as source:
                for line in source:
                    target.write(line.replace('"id":"', f'"id":"{turn}-', 1).replace('"id": "', f'"id": "{turn}-', 1))
    peaks = [
        int(subprocess.run([sys.executable, __file__, _MEASURE_MEMORY, one], check=True, capture_output=True).stdout)
        for one in (file, longer)
    ]
    print(f"peak       {peaks[0] / 1024:6.1f} MiB, of a file four times as long {peaks[1] / 1024:.1f} MiB")


def _peak(file: Path) -> int:
    """Import the file and return the most memory this process had, in KiB."""
    with TemporaryDirectory() as folder:
        _import(file, f"sqlite:///{folder}/peak.db")
    # Not getrusage: its figure is never less than that of the process this one was forked from.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def made_up(file: Path, conversations: int = 5_000) -> Path:
    """Write conversations such as a booking service has."""
    chosen = random.Random(1)
    words = ["table", "tonight", "please", "for", "four", "near", "the", "station", "garden", "thanks", "yes", "booked"]
    with gzip.open(file, "wt", compresslevel=1) as stream:
        for number in range(conversations):
            runs = [
                {
                    "input": " ".join(chosen.choices(words, k=12)),
                    "output": " ".join(chosen.choices(words, k=18)),
                    "metadata": {"acts": chosen.sample(["inform", "request", "confirm"], 2), "service": "Restaurants"},
                }
                for _ in range(chosen.randint(4, 14))
            ]
            metadata = {
                "domain": chosen.choice(["Restaurants", "Hotels", "Flights"]),
                "services": chosen.sample(["Restaurants_1", "Hotels_2", "Flights_3"], 2),
                "turns": len(runs),
                "slots": {"city": chosen.choice(words), "party_size": str(chosen.randint(1, 8)), "time": "19:30"},
                "party_size": chosen.randint(1, 8),
                "closed": chosen.random() < 0.5,
            }
            stream.write(json.dumps({"id": f"made-up-{number}", "metadata": metadata, "runs": runs}) + "\n")
    return file


if __name__ == "__main__":
    main()
