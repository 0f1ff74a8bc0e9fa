"""Positions without a run, as ranges: how the place of a message in its thread becomes the position of a run, and back.

A service counts its messages; we count positions, which are never given twice. What lies between are the positions whose
runs were removed, or that another store had given: the gaps. A message's rank is its place among all that are there, from 1.
"""

from collections.abc import Iterable
from typing import TypeAlias

Gaps: TypeAlias = tuple[tuple[int, int], ...]
"""First and last position of each gap, rising."""


def size(gaps: Gaps) -> int:
    """Return how many positions have no run."""
    return sum(last - first + 1 for first, last in gaps)


def position_of(rank: int, gaps: Gaps) -> int:
    """Return the position of the message of a rank.

    >>> [position_of(rank, ((2, 3), (5, 5))) for rank in (1, 2, 3)]
    [1, 4, 6]
    """
    position = rank
    for first, last in gaps:
        if position < first:
            break
        position += last - first + 1
    return position


def rank_of(position: int, gaps: Gaps) -> int:
    """Return how many positions up to this one have a run, if as many runs were given as that.

    >>> [rank_of(position, ((2, 3), (5, 5))) for position in (0, 1, 2, 3, 4, 5, 6)]
    [0, 1, 1, 1, 2, 2, 3]
    """
    return position - sum(min(last, position) - first + 1 for first, last in gaps if first <= position)


def between(kept: Iterable[int], last_position: int) -> Gaps:
    """Return the gaps that these positions leave, up to the one given last.

    >>> between([1, 4, 6], 8)
    ((2, 3), (5, 5), (7, 8))
    """
    gaps, begin = [], 1
    for position in kept:
        if position > begin:
            gaps.append((begin, position - 1))
        begin = position + 1
    if last_position >= begin:
        gaps.append((begin, last_position))
    return tuple(gaps)
