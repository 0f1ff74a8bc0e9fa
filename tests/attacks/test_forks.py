"""A store that is open when the process forks, as under ``gunicorn --preload``: nobody reads another's, nothing is lost."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from memory import Conversation, Store
from tests.attacks.forker import TURNS
from tests.rounds import rounds

CHILDREN = 3
NAMES = ("thread-0", "thread-1", "parent-0", "parent-1", *(f"child-{n}" for n in range(CHILDREN)))


def test_every_process_goes_on(store: Store, url: str) -> None:
    for _ in range(rounds(1)):
        for name in NAMES:
            with store.begin() as uow:
                if name in uow.conversations:
                    uow.conversations.remove(name)
                uow.conversations.add(Conversation(name, {"name": name}))
        done = subprocess.run(
            [sys.executable, "-m", "tests.attacks.forker", url, str(CHILDREN)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        said = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line for line in said if line[0] not in NAMES] == []
        assert Counter(name for name, _ in said) == dict.fromkeys(NAMES, TURNS)
        with store.begin() as uow:
            assert {name: [run.output for run in uow.runs.list(name)] for name in NAMES} == {
                name: list(range(TURNS)) for name in NAMES
            }
