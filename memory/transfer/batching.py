"""Batches: as many conversations or runs as one commit takes on every store, and as fit into memory."""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

MOST_CHARACTERS: Final = 4_000_000
MOST_RUNS: Final = 5_000
MOST_CONVERSATIONS: Final = 1_000
# Writes of a conversation beside its runs, with some metadata, in a store that limits the writes of a commit.
_WRITES: Final = 12


class Cost(NamedTuple):
    """What an item adds to a commit, which writes to one namespace, and at most once to a ``conversation``."""

    characters: int
    runs: int = 1
    conversation: str | None = None
    namespace: str | None = None


def batches(
    items: Iterable[T], cost_of: Callable[[T], Cost], *, together: bool = True, largest_commit: int | None = None
) -> Iterator[list[T]]:
    """Yield the items in order, in batches that fit into one commit.

    An oversized item forms its own batch. With ``together=False`` every item does: for stores whose commits are not atomic.
    Callers should clear a batch after use, so that its memory is free before the next one is read. With a ``largest_commit``
    (`Capabilities.largest_commit`) batches are about as large: a commit that is refused as too large is divided by the caller.

    >>> list(batches([3_000_000, 900_000, 900_000], Cost))
    [[3000000, 900000], [900000]]
    >>> [len(batch) for batch in batches([10] * 20, Cost, largest_commit=100)]
    [7, 7, 6]
    """
    most_writes = inf if largest_commit is None else largest_commit
    batch: list[T] = []
    conversations: set[str] = set()
    namespace = None
    characters = runs = 0
    for item in items:
        cost = cost_of(item)
        characters += cost.characters
        runs += cost.runs
        is_full = characters > MOST_CHARACTERS or runs > MOST_RUNS or len(batch) == MOST_CONVERSATIONS
        is_full = is_full or (len(batch) + 1) * _WRITES + runs > most_writes
        is_apart = cost.conversation in conversations or cost.namespace != namespace
        if batch and (is_full or is_apart or not together):
            yield batch
            batch, conversations, characters, runs = [], set(), cost.characters, cost.runs
        batch.append(item)
        namespace = cost.namespace
        if cost.conversation is not None:
            conversations.add(cost.conversation)
    if batch:
        yield batch
