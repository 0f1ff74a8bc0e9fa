"""How benchmarks take times, and how they show them beside a floor of the same run."""

import statistics
import time
from collections.abc import Callable


def timed(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_turns(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Return the median time of each call, all of them called in turn; the first tenth of the rounds warms up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, spent in zip(calls, times, strict=True):
            spent.append(timed(call))
    return [statistics.median(spent[rounds // 10 :]) for spent in times]


def report(what: str, seconds: float, floor: float | None = None, most: float | None = None) -> None:
    """Print a time; its ratio to the floor, if there is one; and what that is to be at most, if that is laid down."""
    ratio = "" if floor is None else f"   floor {floor * 1e6:9.1f} us   ratio {seconds / floor:5.2f}"
    limit = "" if most is None else f"   (to be {most} at most)"
    print(f"{what:58} {seconds * 1e6:9.1f} us{ratio}{limit}", flush=True)
