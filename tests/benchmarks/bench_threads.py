"""What a store does for many threads: ``python -m tests.benchmarks.bench_threads URL [seconds]``.

Sixty-four threads read the last runs and get conversations while sixteen append, for twenty seconds; before that, one thread does
each alone. An error in any thread ends the benchmark with status 1. FOLDER in the URL stands for a new folder. In the place of a
URL, ``postgres``, ``redis``, ``dynamodb`` or ``cloud`` starts the server that the tests use.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier, Thread

import memory
from memory import Run, Store
from tests.benchmarks.measuring import CLOUD_KEY, TEXT, cloud_server, fill
from tests.servers import dynamodb, postgres, redis

READERS, WRITERS, CONVERSATIONS = 64, 16, 32
_SERVERS = {"postgres": postgres.start_own, "redis": redis.start_own, "dynamodb": dynamodb.start}


def read(store: Store, pick: random.Random) -> None:
    with store.begin() as uow:
        conversation = uow.conversations.get(f"c{pick.randrange(CONVERSATIONS)}")
        uow.runs.last(conversation.id, 20)


def write(store: Store, pick: random.Random) -> None:
    with store.begin() as uow:
        uow.runs.append(f"c{pick.randrange(CONVERSATIONS)}", Run(TEXT, TEXT))


def run(store: Store, seconds: float, *works: Callable[[Store, random.Random], None]) -> tuple[list[int], list[str]]:
    """Do each work in a thread of its own for so long; return how often each was done, and the errors."""
    done, errors = [0] * len(works), list[str]()
    begin = Barrier(len(works))

    def work_on(number: int) -> None:
        pick = random.Random(number)
        begin.wait()
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                works[number](store, pick)
                done[number] += 1
        except Exception as error:  # noqa: BLE001  # that there is none is what this is to show
            errors.append(f"{type(error).__name__}: {error}"[:300])

    threads = [Thread(target=work_on, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done, errors


@contextmanager
def opened(name: str) -> Iterator[str]:
    """Yield the URL of a server that runs during the block, or the given URL."""
    if name == "cloud":
        os.environ["GT_CLOUD_API_KEY"] = CLOUD_KEY
        with cloud_server() as host:
            yield f"griptape+{host}"
    elif name in _SERVERS:
        server = _SERVERS[name]()
        try:
            yield f"dynamodb://threads?endpoint={server.url}" if name == "dynamodb" else server.url
        finally:
            server.stop()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield name.replace("FOLDER", folder)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    seconds = float(sys.argv[2]) if sys.argv[2:] else 20
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "test")
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
    with opened(sys.argv[1]) as url, memory.connect(url) as connected:
        connected.migrate()
        store = connected.namespace(f"threads-{time.time_ns()}")
        for number in range(CONVERSATIONS):
            fill(store, f"c{number}", 20)
        alone = [run(store, seconds / 4, work) for work in (read, write)]
        done, errors = run(store, seconds, *[read] * READERS, *[write] * WRITERS)
        for what, (alone_done, alone_errors), many in (
            ("reads", alone[0], done[:READERS]),
            ("writes", alone[1], done[READERS:]),
        ):
            errors += alone_errors
            print(
                f"{what:7} one thread: {4 * alone_done[0] / seconds:8.0f} a second   "
                f"{len(many)} threads, beside the others: {sum(many) / seconds:8.0f} a second, each at least {min(many)}"
            )
        with store.begin() as uow:
            stored = sum(uow.conversations.get(f"c{number}").run_count for number in range(CONVERSATIONS))
        lost = CONVERSATIONS * 20 + alone[1][0][0] + sum(done[READERS:]) - stored
        print(f"{len(errors)} errors, {lost} of the appended runs are missing", *errors[:5], sep="\n")
    sys.exit(bool(errors or lost))


if __name__ == "__main__":
    main()
