"""What a turn and a load of Griptape's memory cost, with our driver on a sqlite file and with Griptape's own local one.

    python tests/benchmarks/bench_griptape.py [RUNS ...]

Runs of 1 kB of text; a turn is one more run and the `store` after it. Both are measured in the same process, by turns. Griptape's
is measured once where it takes long: it builds a marshmallow schema for each artifact of each run.
"""

import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from griptape.artifacts import TextArtifact  # type: ignore[import-untyped]
from griptape.drivers.memory.conversation import BaseConversationMemoryDriver  # type: ignore[import-untyped]
from griptape.drivers.memory.conversation.local import LocalConversationMemoryDriver  # type: ignore[import-untyped]
from griptape.memory.structure import Run  # type: ignore[import-untyped]

from memory.bridges.griptape import RepositoryConversationMemoryDriver

_SIZES = (10, 100, 1_000, 5_000)
_TURNS = 15
_LONG = 1.0  # seconds: one measurement is enough then


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or _SIZES
    print(f"{'runs':>6}  {'turn: ours':>12} {'local':>12} {'ratio':>8}  {'load: ours':>12} {'local':>12} {'ratio':>8}")
    turns: list[float] = []
    for size in sizes:
        with TemporaryDirectory() as folder:
            ours = RepositoryConversationMemoryDriver(store=f"sqlite:///{folder}/ours.db", conversation_id="c")
            theirs = LocalConversationMemoryDriver(persist_file=str(Path(folder) / "theirs.json"))
            with closing(ours):
                our_turn, their_turn = (_turn(driver, size) for driver in (ours, theirs))
                our_load, their_load = (_fastest(driver.load) for driver in (ours, theirs))
        print(
            f"{size:>6,}  {_ms(our_turn)} {_ms(their_turn)} {their_turn / our_turn:>7,.0f}x"
            f"  {_ms(our_load)} {_ms(their_load)} {their_load / our_load:>7,.0f}x"
        )
        turns.append(our_turn)
    print(f"\na turn of ours, longest conversation / shortest: {turns[-1] / turns[0]:.1f}")


def _turn(driver: BaseConversationMemoryDriver, size: int) -> float:
    runs = [_run(number) for number in range(size)]
    driver.store(runs, {})

    def turn() -> None:
        runs.append(_run(len(runs)))
        driver.store(runs, {})

    return _fastest(turn)


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of several times: what the machine does besides is not of interest."""
    taken: list[float] = []
    while len(taken) < _TURNS and (not taken or min(taken) < _LONG):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _run(number: int) -> Run:
    return Run(input=TextArtifact(f"{number} " + "q" * 500), output=TextArtifact("a" * 500))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:>9,.2f} ms"


if __name__ == "__main__":
    main()
