"""A process that writes until it is killed: ``python -m tests.attacks.writer URL NAME``.

It writes its name and the number of each turn once the commit has returned. A turn appends to one conversation and counts it
in the metadata of another, in one unit of work; where a commit may change one conversation only, it just appends.
"""

import sys
from itertools import count

import memory
from memory import Run, UnitOfWork


def write(url: str, name: str) -> None:
    store = memory.connect(url)
    for turn in count(1):

        def work(uow: UnitOfWork, turn: int = turn) -> None:
            uow.runs.append("appended", Run([name, turn], "x" * 1_000))
            if store.repository.capabilities.many_conversations:
                uow.conversations.get(name).metadata["turns"] = turn

        store.run(work, retries=100)
        sys.stdout.write(f"{name} {turn}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    write(*sys.argv[1:])
