"""A process that forks while its threads commit: ``python -m tests.attacks.forker URL CHILDREN``.

Each process appends to a conversation of its own, through the store that was opened before the fork, and reads it back. It
writes one line of JSON for each turn: the name of the conversation and the turn, once the commit has returned; or what is wrong.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import memory
from memory import Run, Store

TURNS = 12


def say(*words: object) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())  # one write, so that lines of several processes do not mix


def use(store: Store, name: str) -> None:
    """Append and read, as any application does after a fork."""
    for turn in range(TURNS):
        with store.begin() as uow:
            uow.runs.append(name, Run(name, turn))
        say(name, turn)
        uow = store.begin()
        conversation, runs = uow.conversations.get(name), uow.runs.list(name)
        if conversation.metadata != {"name": name} or {run.input for run in runs} - {name}:
            say("another's", name, repr(conversation), repr(runs))


def in_child(work: Callable[[], object]) -> int:
    if process := os.fork():
        return process
    try:
        work()
    except BaseException as error:  # noqa: BLE001  # whatever it is, the parent's code must not go on here
        say("failed", repr(error))
    os._exit(0)


def main(url: str, children: int) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads: that is what is tried
    store = memory.connect(url)
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(use, store, f"thread-{n}") for n in range(2)]
        use(store, "parent-0")
        processes = [in_child(partial(use, store, f"child-{n}")) for n in range(children)]
        use(store, "parent-1")
        for process in processes:
            os.waitpid(process, 0)
        for future in busy:
            future.result()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
