"""Several threads that write at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def at_once(work: Callable[[int], object], times: int) -> list[object]:
    """Return what the work returns for 0, 1, 2, ... when several threads do it."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(work, range(times)))
