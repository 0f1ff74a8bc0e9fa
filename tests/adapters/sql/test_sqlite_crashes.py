"""SIGKILL at any moment: what was acknowledged is there, what was not is there completely or not at all."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import memory
from memory import Conversation
from memory.adapters.sql import SqlRepository
from tests.adapters.sql.checking import assert_consistent
from tests.adapters.sql.children import Child, started

# Forks a worker for each line it reads, so that the imports are paid for once; the worker opens the store itself.
_WORKERS = """
import os, sys, memory, alembic.command, memory.adapters.sql
from memory import Conversation, Run
def work(url):
    store = memory.connect(url)
    while True:
        with store.begin() as uow:
            metadata = uow.conversations.get("shared").metadata
            metadata["n"] += 1
            metadata[f"key{metadata['n'] % 7}"] = metadata["n"]
            uow.runs.append("shared", Run(metadata["n"], "x" * 3000))
            uow.conversations.add(Conversation(f"c{metadata['n']}", metadata={"n": metadata["n"]}))
            receipt = uow.commit()
        os.write(1, b"%d\\n" % receipt.written["shared"].last_position)
def make(url):
    os.write(1, b"0\\n")
    store = memory.connect(url)
    with store.begin() as uow:
        uow.conversations.add(Conversation("shared", metadata={"n": 0}))
    os.write(1, b"1\\n")
    os.read(0, 1)
print("ready", flush=True)
while line := sys.stdin.readline():
    job, url = line.split()
    if (worker := os.fork()) == 0:
        {"work": work, "make": make}[job](url)
    os.write(1, b"%d\\n" % worker)
    os.waitpid(worker, 0)
    os.write(1, b"dead\\n")
"""


def killed(child: Child, job: str, is_time: Callable[[int], bool]) -> int:
    """Have a worker do its job until it is time; return the last number it acknowledged, 0 if none."""
    assert child.process.stdin is not None
    child.process.stdin.write(job + "\n")
    child.process.stdin.flush()
    # The worker may speak before its parent has told its id, which is larger than any acknowledgement here.
    said: list[int] = []
    worker = 0
    while not (worker and is_time(len(said))):
        number = int(child.output.readline())
        if not worker and number > 0 and _is_child_of(number, child.process.pid):
            worker = number
        else:
            said.append(number)
    os.kill(worker, signal.SIGKILL)
    while (line := child.output.readline()) != "dead\n":
        said.append(int(line))
    return max(said, default=0)


def _is_child_of(process: int, parent: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and int(status.read_text().rpartition(")")[2].split()[1]) == parent


def test_what_was_acknowledged_survives_being_killed(sqlite_url: str) -> None:
    store = memory.connect(sqlite_url)
    assert isinstance(store.repository, SqlRepository)
    with store.begin() as uow:
        uow.conversations.add(Conversation("shared", metadata={"n": 0}))
    chance = random.Random(0)
    acknowledged = 0
    with started(_WORKERS, []) as (child,):
        for _ in range(25):
            wanted = chance.randint(1, 12)
            acknowledged = max(acknowledged, killed(child, f"work {sqlite_url}", wanted.__le__))
            with store.begin() as uow:
                runs = uow.runs.list("shared")
                shared = uow.conversations.get("shared")
                there = uow.conversations.count()
            assert [run.position for run in runs] == list(range(1, len(runs) + 1))
            assert acknowledged <= len(runs) <= acknowledged + 1
            # all of a unit of work, or nothing
            assert shared.metadata["n"] == len(runs)
            assert there == len(runs) + 1
            assert_consistent(store.repository.engine)
            acknowledged = len(runs)
    assert acknowledged > 25
    store.close()


def test_a_file_whose_maker_is_killed_is_whole_or_new(tmp_path: Path) -> None:
    """Killed at any moment of the first use, the next one makes what is missing."""
    chance = random.Random(1)
    with started(_WORKERS, []) as (child,):
        for n in range(12):
            url = f"sqlite:///{tmp_path}/new{n}.db"
            spins = chance.randint(0, 40_000)

            def soon(said: int, spins: int = spins) -> bool:
                if said:
                    for _ in range(spins):  # a moment: anywhere between its first word and its last
                        pass
                return said > 0

            acknowledged = killed(child, f"make {url}", soon)
            with memory.connect(url) as store:
                with store.begin() as uow:
                    there = uow.conversations.count()
                    assert there == 1 if acknowledged else there in (0, 1)
                    uow.conversations.add(Conversation("after"))
                assert isinstance(store.repository, SqlRepository)
                assert_consistent(store.repository.engine)
