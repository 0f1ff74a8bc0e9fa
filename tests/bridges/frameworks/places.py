"""Where the tests of the bridges keep their conversations."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KINDS = ("memory", "sqlite")


def url_of(kind: str, folder: Path) -> str:
    return "memory://" if kind == "memory" else f"sqlite:///{folder / 'conversations.db'}"


def at_once(work: Callable[[int], object], times: int) -> list[object]:
    """Return what the work returns for 0, 1, 2, ... when several threads do it."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(work, range(times)))
