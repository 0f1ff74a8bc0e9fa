"""What grows with what: each operation at several sizes of a namespace.

    python -m tests.benchmarks.bench_growth [--sizes 1000,100000] [URL ...]

Without a URL, a sqlite file, PostgreSQL, Redis and DynamoDB Local are measured, each on a server of this run. Times are medians
in milliseconds. Compare the columns of one line: the absolute times are this machine's.
"""

import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import memory
from memory import Conversation, Run, Store, where
from memory.domain.records import ConversationRecord, RunRecord, encode_metadata
from memory.port.changes import Change
from memory.transfer import restore
from memory.transfer.parsing import ParsedConversation
from tests.benchmarks.measuring import TEXT, in_turns
from tests.servers import dynamodb, postgres, redis

ROUNDS = 60
RARE, OLD = 10, 300  # conversations that an equality matches, and of those that are the oldest


def fill(store: Store, conversations: int) -> None:
    """Make conversations with five metadata leaves and two runs each; one of them has a hundred more runs."""
    restore(store, conversations_for(conversations))
    for _ in range(10):
        with store.begin() as uow:
            uow.runs.append(f"c-{conversations // 2}", *[Run(TEXT, TEXT) for _ in range(10)])


def conversations_for(conversations: int) -> Iterator[ParsedConversation]:
    for number in range(conversations):
        metadata = {
            "customer": f"customer-{number // RARE}",
            "domain": ("Restaurants", "Hotels", "Flights")[number % 3],
            "amount": number,
            "open": number % 2 == 0,
            "age": "old" if number < OLD else "new",
        }
        record = ConversationRecord(f"c-{number}", encode_metadata(metadata), 1, "", 0, 0, number, number, None)
        runs = [RunRecord(0, uuid.uuid4().hex, f'"{TEXT}"', f'"{TEXT}"', "{}", number) for _ in range(2)]
        yield ParsedConversation(number, Change(record.id, create=record, append=tuple(runs)), 4 * len(TEXT))


def operations(store: Store, conversations: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each operation with its name."""
    numbers, middle = count(), f"c-{conversations // 2}"

    def reading(read: Callable[[memory.UnitOfWork], object]) -> Callable[[], object]:
        return lambda: read(store.begin())

    def create() -> None:
        with store.begin() as uow:
            uow.conversations.add(Conversation(f"new-{next(numbers)}", {"customer": "new", "amount": -1}))

    def append() -> None:
        with store.begin() as uow:
            uow.runs.append(middle, Run(TEXT, TEXT))

    def edit() -> None:
        with store.begin() as uow:
            uow.conversations.get(middle).metadata["amount"] = -next(numbers)

    yield "get a conversation", reading(lambda uow: uow.conversations.get(middle))
    yield "its last 20 runs", reading(lambda uow: uow.runs.last(middle, 20))
    yield "append a run", append
    yield "create a conversation", create
    yield "edit its metadata", edit
    yield "the newest 50", reading(lambda uow: uow.conversations.find())
    yield "the first 50 by id", reading(lambda uow: uow.conversations.find(order="id"))
    rare = where("customer") == f"customer-{conversations // (2 * RARE)}"
    yield f"an equality with {RARE} matches", reading(lambda uow: uow.conversations.find(rare))
    yield "an equality that a third match", reading(lambda uow: uow.conversations.find(where("domain") == "Hotels"))
    yield f"{OLD} matches, the oldest", reading(lambda uow: uow.conversations.find(where("age") == "old"))
    yield "a range with 100 matches", reading(lambda uow: uow.conversations.find(where("amount").between(100, 199)))
    yield "count all", reading(lambda uow: uow.conversations.count())
    yield f"count {RARE} matches", reading(lambda uow: uow.conversations.count(rare))


def measure(url: str, sizes: list[int]) -> None:
    columns: list[list[float]] = []
    names: list[str] = []
    repository = memory.connect(url)
    with repository:
        repository.migrate()
        for size in sizes:
            store = repository.namespace(f"growth-{uuid.uuid4().hex}")
            fill(store, size)
            named = list(operations(store, size))
            names = [name for name, _ in named]
            columns.append([in_turns(ROUNDS, call)[0] for _, call in named])
    print(f"\n{url.partition('://')[0]}")
    print(f"{'milliseconds at so many conversations':40}" + "".join(f"{size:>12,}" for size in sizes))
    for name, *row in zip(names, *columns, strict=True):
        print(f"{name:40}" + "".join(f"{seconds * 1e3:12.2f}" for seconds in row), flush=True)


def main(arguments: list[str]) -> None:
    sizes = [1_000, 100_000]
    if arguments[:1] == ["--sizes"]:
        sizes, arguments = [int(size) for size in arguments[1].split(",")], arguments[2:]
    with ExitStack() as stack:
        if not arguments:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            servers = [start() for start in (postgres.start, redis.start, dynamodb.start)]
            for server in servers:
                stack.callback(server.stop)
            sql, hashes, table = (server.url for server in servers)
            os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
            table = f"dynamodb://growth?region=eu-central-1&endpoint={table}"
            arguments = [f"sqlite:///{folder}/growth.db", sql, hashes, table]
        for url in arguments:
            measure(url, sizes)


if __name__ == "__main__":
    main(sys.argv[1:])
