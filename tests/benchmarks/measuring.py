"""What benchmarks have in common: what they measure on, how they take times, and how they show them beside a floor."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from memory import Conversation, Run, Store
from memory.domain.records import ConversationRecord, encode_metadata
from memory.port.changes import Change, ChangeSet

TEXT: Final = "x" * 400
"""Input and output: a run of 800 bytes."""


CLOUD_KEY: Final = "key-of-org-a"
"""A key of the test server for Griptape Cloud."""


@contextmanager
def cloud_server() -> Iterator[str]:
    """Yield the address of a test server for Griptape Cloud, which runs in a process of its own during the block."""
    command = [sys.executable, "-m", "tests.cloud_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def timed(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how many seconds a call takes."""
    begin = clock()
    call()
    return clock() - begin


def in_turns(rounds: int, *calls: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Return the median time of each call, all of them called in turn; the first tenth of the rounds warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, spent in zip(calls, times, strict=True):
            spent.append(timed(call, clock))
    return [statistics.median(spent[rounds // 10 :]) for spent in times]


def report(what: str, seconds: float, floor: float | None = None, most: float | None = None) -> None:
    """Print a time; its ratio to the floor, if there is one; and what that is to be at most, if that is laid down."""
    ratio = "" if floor is None else f"   floor {floor * 1e6:9.1f} us   ratio {seconds / floor:5.2f}"
    limit = "" if most is None else f"   (to be {most} at most)"
    print(f"{what:58} {seconds * 1e6:9.1f} us{ratio}{limit}", flush=True)


def fill(
    store: Store, conversation_id: str, runs: int, *, metadata: dict[str, Any] | None = None, at_once: int = 1000
) -> None:
    """Make a conversation with so many runs of 800 bytes."""
    with store.begin() as uow:
        uow.conversations.add(Conversation(conversation_id, dict(metadata or {})))
    for begin in range(0, runs, at_once):
        with store.begin() as uow:
            uow.runs.append(conversation_id, *[Run(TEXT, TEXT) for _ in range(min(at_once, runs - begin))])


def fill_for_queries(store: Store, conversations: int, begin: int = 0, step: int = 1) -> None:
    """Make conversations to be queried, one each ``step`` microseconds from ``begin`` on."""
    changes = []
    for number in range(conversations):
        metadata = {
            "customer": f"customer-{number % (conversations // 10)}",
            "domain": ("Restaurants", "Hotels", "Flights")[number % 3],
            "amount": number * 7919 % conversations,
            "multi": number % 2 == 0,
            "tier": "gold" if number < conversations // 3 else "basic",  # those of gold are all the oldest
        }
        at = begin + step * number
        record = ConversationRecord(f"conversation-{number}", encode_metadata(metadata), 1, "", 0, 0, at, at, None)
        changes.append(Change(record.id, create=record))
        if len(changes) == 2000:
            store.commit(ChangeSet.of(changes, 0))
            changes.clear()
