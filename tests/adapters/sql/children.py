"""Other processes that use a store: each imports what it needs, says so, and begins when it is told to."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).resolve().parents[3]

APPENDS = """
import sys, memory
from memory import Run
store = memory.connect(sys.argv[1])
store.schema_status()
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[2])):
    with store.begin() as uow:
        uow.runs.append("shared", Run(f"{sys.argv[3]}-{n}", n))
        uow.conversations.get("shared")
    print(n, flush=True)
store.close()
"""
"""Appends to the conversation "shared"; says the number of each run once its commit has returned."""

MIGRATES = """
import sys, memory
import alembic.command, psycopg
print("ready", flush=True)
sys.stdin.readline()
with memory.connect(sys.argv[1]) as store:
    if sys.argv[1].startswith("postgresql"):
        store.migrate()
    store.begin()
    assert store.schema_status().is_current
"""


class Child:
    """A running Python program."""

    def __init__(self, code: str, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def wait_until_ready(self) -> None:
        line = self.output.readline()
        if line != "ready\n":
            raise AssertionError(f"{line}{self.process.communicate()[1]}")

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self, seconds: float = 60) -> str:
        """Wait for its end; return what else it said."""
        said, complaints = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, complaints
        return said


@contextmanager
def started(code: str, *arguments: Sequence[str]) -> Iterator[list[Child]]:
    """Start a child for each list of arguments, and yield when all are ready; none outlives the block."""
    children: list[Child] = []
    try:
        children += [Child(code, each) for each in arguments]
        for child in children:
            child.wait_until_ready()
        yield children
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
            for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
                if pipe is not None and not pipe.closed:
                    pipe.close()
