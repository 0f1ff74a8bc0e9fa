"""What is written together: as much as one commit takes on every store, and no more than fits into memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

MOST_CHARACTERS: Final = 4_000_000
MOST_RUNS: Final = 5_000
MOST_CONVERSATIONS: Final = 1_000


class Cost(NamedTuple):
    """What an item puts on a commit: characters, runs, and the conversation that it changes, if no other may in that commit."""

    characters: int
    runs: int = 1
    conversation: str | None = None


def batches(items: Iterable[T], load_of: Callable[[T], Cost], *, together: bool = True) -> Iterator[list[T]]:
    """Yield the items in their order, in groups that one commit can take: not too much, and no conversation twice.

    An item that is too much by itself comes alone; so does each, if they are not to be written ``together``: as where a commit is
    not atomic. Who is done with a group should clear it, before the next one is gathered.

    >>> list(batches([3_000_000, 900_000, 900_000], Cost))
    [[3000000, 900000], [900000]]
    """
    group: list[T] = []
    conversations: set[str] = set()
    characters = runs = 0
    for item in items:
        load = load_of(item)
        characters += load.characters
        runs += load.runs
        is_full = characters > MOST_CHARACTERS or runs > MOST_RUNS or len(group) == MOST_CONVERSATIONS
        if group and (is_full or not together or load.conversation in conversations):
            yield group
            group, conversations, characters, runs = [], set(), load.characters, load.runs
        group.append(item)
        if load.conversation is not None:
            conversations.add(load.conversation)
    if group:
        yield group
