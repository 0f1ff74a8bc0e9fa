"""Writers that are killed at any instant: what they were told is written is there once, and nothing is there by half."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from memory import Conversation, Store
from tests.rounds import rounds

NAMES = ("left", "right")
ROOT = Path(__file__).parents[2]


def kill_two(url: str, turns: int) -> Counter[str]:
    """Kill two writers when together they have said so many turns; return how many each was told are written."""
    read, write = os.pipe()  # one for both: a store may let one of them wait for long
    with os.fdopen(read) as said:
        writers = [
            subprocess.Popen([sys.executable, "-m", "tests.attacks.writer", url, name], stdout=write, cwd=ROOT)
            for name in NAMES
        ]
        os.close(write)
        lines = [said.readline() for _ in range(turns)]
        for writer in writers:
            writer.kill()
            writer.wait()
        lines += said
    assert "" not in lines, "a writer ended by itself"
    return Counter(line.split()[0] for line in lines)


def test_what_was_acknowledged_is_there_once(store: Store, url: str) -> None:
    chance = random.Random(7)
    for _ in range(rounds(2)):
        for name in ("appended", *NAMES):
            with store.begin() as uow:
                if name in uow.conversations:
                    uow.conversations.remove(name)
                uow.conversations.add(Conversation(name, {"turns": 0}))
        acknowledged = kill_two(url, chance.randint(2, 60))
        with store.begin() as uow:
            runs = uow.runs.list("appended")
            counted = {name: uow.conversations.get(name).metadata["turns"] for name in NAMES}
        assert len({run.position for run in runs}) == len(runs)
        for name in NAMES:
            turns = [run.input[1] for run in runs if run.input[0] == name]
            # In order, once each, with at most the one that was under way.
            assert turns == list(range(1, len(turns) + 1))
            assert acknowledged[name] <= len(turns) <= acknowledged[name] + 1
            if store.repository.capabilities.atomic:
                assert counted[name] == len(turns)
