"""A process that uses a memory: ``python -m tests.bridges.appending URL PREFIX COUNT [MAX_RUNS]`` adds so many runs."""

import sys

from griptape.memory.structure import ConversationMemory

import memory
from memory.bridges.griptape import RepositoryConversationMemoryDriver
from tests.bridges.talking import said


def main() -> None:
    url, prefix, count, *max_runs = sys.argv[1:]
    with memory.connect(url) as store:
        driver = RepositoryConversationMemoryDriver(store=store, conversation_id="c")
        runs = ConversationMemory(conversation_memory_driver=driver, max_runs=int(max_runs[0]) if max_runs else None)
        sys.stdout.write("loaded\n")
        sys.stdout.flush()
        sys.stdin.readline()  # until all have loaded
        for number in range(int(count)):
            runs.meta[prefix] = number
            runs.add_run(said(f"{prefix}{number}"))
            sys.stdout.write(f"r{prefix}{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
