"""What a mirror costs: ``python tests/benchmarks/bench_mirror.py``. All on sqlite files, in turns, each figure beside its floor.

The floor of an append to a mirrored store is the same append to one that is not; the floor of a relay is the same commits, made
to the replica directly.
"""

import sys
import tempfile
import time
from pathlib import Path

import memory
from memory import Store
from memory.testing.base import put
from tests.benchmarks.bench_sql import append_by_us
from tests.benchmarks.measuring import in_turns, report

ROUNDS = 2_000


def bench_appends(folder: Path, synchronous: str) -> None:
    urls = [f"sqlite:///{folder}/{name}-{synchronous}.db?synchronous={synchronous}" for name in "abcd"]
    plain = memory.connect(urls[0])
    one, two = memory.mirror(urls[1], a="memory://"), memory.mirror(urls[2], a="memory://", b=urls[3])
    stores: list[Store] = [plain, one, two]
    for store in stores:
        store.migrate()
        put(store, "a")
    floor, *spent = in_turns(ROUNDS, *[append_by_us(store, "a") for store in stores])
    for replicas, seconds in enumerate(spent, 1):
        report(f"append, {replicas} replicas, synchronous={synchronous}", seconds, floor)
    for store in stores:
        store.close()


def bench_relay(folder: Path) -> None:
    replica, direct = (memory.connect(f"sqlite:///{folder}/{name}.db") for name in ("replica", "direct"))
    store = memory.mirror(f"sqlite:///{folder}/primary.db", search=replica)
    store.migrate()
    for each in (store, direct):
        put(each, "a")
    store.relay()
    for _ in range(ROUNDS):
        append_by_us(store, "a")()
    begin = time.perf_counter()
    (done,) = store.relay()
    spent = (time.perf_counter() - begin) / done.delivered
    begin = time.perf_counter()
    for _ in range(ROUNDS):
        append_by_us(direct, "a")()
    report("relay one append, synchronous=full", spent, (time.perf_counter() - begin) / ROUNDS)
    for each in (store, replica, direct):
        each.close()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        for synchronous in ("full", "normal"):
            bench_appends(Path(folder), synchronous)
        bench_relay(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
