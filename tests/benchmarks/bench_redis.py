"""How fast the Redis store is, each figure beside a floor of the same run: ``python -m tests.benchmarks.bench_redis [URL]``.

Absolute times are this machine's; the ratios are what to compare. A floor is redis-py with nothing of ours: a hand-written script
that does the same writes, a pipeline that reads the same hashes. Both sides take turns, so that a slow moment hits both.
"""

import itertools
import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis

import memory
from memory import Conversation, Run, Store, where
from memory.adapters.redis import RedisRepository
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import entry_token
from memory.domain.criteria import Criterion
from memory.domain.records import ConversationRecord, RunRecord, encode_metadata
from memory.domain.values import to_datetime
from memory.port.changes import Change, ChangeSet
from tests.benchmarks.measuring import TEXT, fill, fill_for_queries, in_turns, report, timed
from tests.servers import redis as server

CONVERSATIONS = 200_000
BEGIN = time.time_ns() // 1_000 - CONVERSATIONS * 1_000_000  # one a second, until now
METADATA = {"customer": "ada", "priority": 3, "domain": "Restaurants", "open": True}
APPEND = """
local position = redis.call('HGET', KEYS[1], 'last_position') + 1
redis.call('ZADD', KEYS[2], position, position .. '\\n' .. ARGV[1])
redis.call('HSET', KEYS[1], 'run_count', position, 'last_position', position, 'updated_at', ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[3])
redis.call('SET', KEYS[4], position, 'PX', 90000000)
return position
"""


def used(client: Any) -> int:
    return int(client.info("memory")["used_memory"])


def bench_appends(store: Store, client: Any, keys: Keys) -> None:
    for name, runs in (("ours", 10), ("floor", 10), ("long", 100_000)):
        fill(store, name, runs, metadata=METADATA)
    script = client.script_load(APPEND)
    names = [
        keys.conversation("default", "floor"),
        keys.runs("default", "floor"),
        keys.order("default", "updated_at"),
    ]
    numbers = itertools.count(1_800_000_000_000_000)

    def by_hand() -> None:
        number = next(numbers)
        run = f'{number}\n{number:032x}\n{{}}\n"{TEXT}"\n"{TEXT}"'
        client.evalsha(script, 4, *names, keys.receipt("default", f"{number:032x}"), run, number, "floor")

    def append(conversation_id: str) -> Callable[[], None]:
        def appending() -> None:
            with store.begin() as uow:
                uow.runs.append(conversation_id, Run(TEXT, TEXT))

        return appending

    def commit_only() -> None:
        record = RunRecord(0, "x" * 32, f'"{TEXT}"', f'"{TEXT}"', "{}", 0)
        store.repository.commit("default", ChangeSet.of([Change("ours", append=(record,))], time.time_ns() // 1000))

    spent, least = in_turns(3000, append("ours"), by_hand)
    report("append one run, with a unit of work", spent, least)
    spent, least = in_turns(3000, commit_only, by_hand)
    report("append one run, the commit alone", spent, least)
    report("  at 100,000 runs (floor: at 3,000)", *in_turns(2000, append("long"), append("ours")))


def bench_reads(store: Store, client: Any, keys: Keys) -> None:
    name = keys.runs("default", "long")

    def by_hand() -> None:
        client.zrange(name, 0, 19, desc=True)

    def decoded_by_hand() -> None:
        for member in client.zrange(name, 0, 19, desc=True):
            position, created_at, id_, *texts = member.decode().split("\n")
            metadata, given, output = map(json.loads, texts)
            Run(given, output, metadata, id_, to_datetime(int(created_at)), int(position))

    def last(conversation_id: str) -> Callable[[], None]:
        def reading() -> None:
            with store.begin() as uow:
                uow.runs.last(conversation_id, 20)

        return reading

    def get() -> None:
        with store.begin() as uow:
            uow.conversations.get("long")

    report("last 20 of 100,000 runs", *in_turns(2000, last("long"), decoded_by_hand))
    report("  (floor: the command alone, nothing decoded)", *in_turns(1000, last("long"), by_hand))
    report("  (floor: of the short one)", *in_turns(1000, last("long"), last("ours")))
    name = keys.conversation("default", "long")
    report("get a conversation (floor: HGETALL)", *in_turns(2000, get, lambda: client.hgetall(name)))


def first_page(store: Store, criterion: Criterion | None = None, order: str = "-updated_at") -> Callable[[], object]:
    return lambda: store.begin().conversations.find(criterion, order=order, limit=50)


def report_server(client: Any, call: Callable[[], object]) -> None:
    """Print the server's own time for a call, the least of five: of its longest command, and of all. A script is one command."""
    times = min((server_times(client, call) for _ in range(5)), key=sum)
    print(f"    server: {len(times)} commands, the longest {max(times):.2f} ms, all {sum(times):.2f} ms", flush=True)


def server_times(client: Any, call: Callable[[], object]) -> list[float]:
    client.config_set("slowlog-max-len", 10_000)
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    call()
    client.config_set("slowlog-log-slower-than", -1)
    logged = [one for one in client.slowlog_get(10_000) if not one["command"].startswith((b"CONFIG", b"SLOWLOG"))]
    outer = [one for one in logged if re.match(rb"EVAL|ZRANGE .*WITHSCORES|FT\.", one["command"])] or logged
    return [one["duration"] / 1000 for one in outer]


def all_of(store: Store, order: str) -> int:
    return sum(1 for _ in store.begin().conversations.iterate(order=order))


def bench_queries(store: Store, client: Any) -> None:
    rare, third = where("customer") == "customer-77", where("domain") == "Hotels"
    low = CONVERSATIONS // 2
    queries: dict[str, Criterion] = {
        "ten match": rare,
        "a third match": third,
        "ten of a third match": third & where("customer").in_([f"customer-{n}" for n in range(77, 80)]),
        "a third that are the oldest": where("tier") == "gold",
        "a range of 1 %": where("amount").between(low, low + CONVERSATIONS // 100 - 1),
        "half, by a range": where("amount") >= low,
        "a third, without some": third & ~(where("multi") == True),  # noqa: E712
        "all": where("domain").exists(),
        "startswith, a tenth": where("customer").startswith("customer-7"),
        "strings in a range": where("customer") >= "customer-99",
    }
    for name, criterion in queries.items():
        (spent,) = in_turns(30, first_page(store, criterion))
        report(f"find, {name}: the first page of 50", spent)
        report_server(client, first_page(store, criterion))
        counting = partial(store.begin().conversations.count, criterion)
        (spent,) = in_turns(3, counting)
        report(f"  count: {counting():,}", spent)
        report_server(client, counting)
    for order in ("-updated_at", "created_at", "id", "-id"):
        (spent,) = in_turns(100, first_page(store, order=order))
        report(f"no criterion, by {order}: the first page of 50", spent)
        report_server(client, first_page(store, order=order))
    (spent,) = in_turns(100, store.begin().conversations.count)
    report("no criterion: count", spent)
    by_amount = first_page(store, rare, order="metadata.amount")
    report("by metadata.amount, ten match: the first page", *in_turns(30, by_amount))
    report_server(client, by_amount)
    for order in ("-updated_at", "id"):
        walked = timed(partial(all_of, store, order))
        report(f"all {CONVERSATIONS:,}, by {order}: each", walked / CONVERSATIONS)


def bench_equality(store: Store, client: Any, keys: Keys) -> None:
    for name, criterion, path, value in (
        ("ten match", where("customer") == "customer-77", "customer", "customer-77"),
        ("a third", where("domain") == "Hotels", "domain", "Hotels"),
    ):
        text = f"@entries:{{{entry_token('default', path, value)}}}"

        def by_hand(text: str = text) -> list[dict[bytes, bytes]]:
            order = ("SORTBY", "updated_at", "DESC", "LIMIT", 0, 50)
            found = client.execute_command("FT.SEARCH", keys.index, text, "NOCONTENT", *order, "DIALECT", 2)
            with client.pipeline(transaction=False) as pipeline:
                for result in found[b"results"]:
                    pipeline.hgetall(result[b"id"])
                answers: list[dict[bytes, bytes]] = pipeline.execute()
            return answers

        def decoded_by_hand(by_hand: Callable[[], list[dict[bytes, bytes]]] = by_hand) -> None:
            for found in by_hand():
                Conversation(found[b"id"].decode(), json.loads(found[b"metadata"]))
                for name in (b"version", b"run_count", b"last_position"):
                    int(found[name])
                for name in (b"created_at", b"updated_at"):
                    to_datetime(int(found[name]))

        spent, least = in_turns(100, first_page(store, criterion), by_hand)
        report(f"equality, {name}: the first page of 50", spent, least)
        report("  (floor: decoded)", *in_turns(100, first_page(store, criterion), decoded_by_hand))


def bench_import(store: Store, client: Any, prefix: str) -> None:
    """Make 4,000 conversations of 20 runs, a hundred in a commit."""
    runs = tuple(RunRecord(0, "x" * 32, f'"{TEXT}"', f'"{TEXT}"', "{}", 1) for _ in range(20))
    metadata = encode_metadata(dict(METADATA))
    before = used(client)

    def ours() -> None:
        for begin in range(0, 4000, 100):
            records = (
                ConversationRecord(f"i{n}", metadata, 1, "", 0, 0, n, n, None) for n in range(begin, begin + 100)
            )
            store.commit(ChangeSet.of([Change(record.id, create=record, append=runs) for record in records], 1))

    def by_hand() -> None:
        mapping = runs[0]._asdict()
        for begin in range(0, 4000, 100):
            with client.pipeline(transaction=False) as pipeline:
                for n in range(begin, begin + 100):
                    pipeline.hset(f"{prefix}-floor:c:{n}", mapping={"metadata": metadata, "id": f"i{n}"})
                    for position in range(20):
                        pipeline.hset(f"{prefix}-floor:r:{n}:{position}", mapping=mapping)
                pipeline.execute()

    spent = timed(ours)
    kept = used(client) - before
    least = timed(by_hand)
    print(
        f"import: {80_000 / spent:,.0f} runs/s, raw pipelined HSETs {80_000 / least:,.0f}/s, ratio {spent / least:.2f}"
    )
    print(f"  memory: {kept / 80_000:,.0f} bytes a run, its conversation's share included (800 of them its text)")


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else None
    running = None if given else server.from_packages(["--save", "", "--appendonly", "no"])
    url = given or (running.url if running else "")
    prefix = f"b{time.time_ns() % 1_000_000}"  # about as long as the default: it is in every key
    try:
        with redis.Redis.from_url(url) as client, memory.connect(f"{url}?prefix={prefix}&timeout=60") as store:
            assert isinstance(store.repository, RedisRepository)
            store.migrate()
            keys = Keys(prefix)
            bench_appends(store, client, keys)
            bench_reads(store, client, keys)
            bench_import(store, client, prefix)
            many, keys = memory.connect(f"{url}?prefix={prefix}m&timeout=60"), Keys(f"{prefix}m")
            with many:
                many.migrate()
                before = used(client)
                spent = timed(lambda: fill_for_queries(many, CONVERSATIONS, BEGIN, 1_000_000))
                size = (used(client) - before) / CONVERSATIONS
                print(
                    f"{CONVERSATIONS:,} conversations made in {spent:.1f} s, of {size:,.0f} bytes (99 of them text)",
                    end="",
                )
                info: Any = client.execute_command("FT.INFO", keys.index)
                indexed = float(info[b"total_index_memory_sz_mb"]) * 2**20 / CONVERSATIONS
                print(f", {indexed:,.0f} of them the index's own")
                bench_queries(many, client)
                bench_equality(many, client, keys)
    finally:
        if running:
            running.stop()


if __name__ == "__main__":
    main()
