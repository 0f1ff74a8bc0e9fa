"""The state of a driver: the runs that it loaded or stored last, and the positions where they are stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from memory.domain.records import ConversationRecord
from memory.domain.values import Json
from memory.port.changes import ALL_RUNS

GONE: Final = 0
"""As a position: someone else removed the run. It is not stored again."""

NEW: Final = -1
"""As a position: the run is about to be appended."""

_MOST_DETACHED: Final = 1_000  # runs that can be restored after an edit; older ones are found in the store if unchanged


class KnownRun(NamedTuple):
    """A run that a driver loaded or stored: its position, its id in Griptape, and the digest of its JSON at that time."""

    position: int
    id: str
    digest: int


@dataclass(frozen=True, slots=True)
class MemoryState:
    """State of one memory at its driver's last load or store.

    Attributes:
        runs: the runs, in the order of the memory.
        detached: runs that are still stored but no longer in the memory, which may restore them.
        metadata: the conversation's metadata.
        incarnation: identifies the conversation; None if no conversation is known to exist.
        created_at: when the conversation was created, in microseconds since 1970.
        last_position: the highest position that this driver loaded or wrote.
        shown_from: the position from which runs are loaded; 0 for all.
        unseen: the lowest position at which there may be a visible run that this driver does not know.
        is_window: whether ``last=`` left out older runs.
        is_current: whether the conversation was looked up; if not, the next `store` does so first.
    """

    runs: Sequence[KnownRun] = ()
    detached: Sequence[KnownRun] = ()
    metadata: dict[str, Json] = field(default_factory=dict)
    incarnation: str | None = None
    created_at: int = 0
    last_position: int = 0
    shown_from: int = 0
    unseen: int = 1
    is_window: bool = False
    is_current: bool = False

    def looked_up(self, record: ConversationRecord | None) -> "MemoryState":
        """Return the state after reading the conversation. If another conversation replaced it, all known runs are gone."""
        created_at = record.created_at if record else 0
        if self.incarnation == (record.incarnation if record else None):
            return replace(self, created_at=created_at, is_current=True)
        runs = [known._replace(position=GONE) for known in self.runs]
        state = MemoryState(runs, metadata=self.metadata, created_at=created_at, is_current=True)
        return replace(state, incarnation=record.incarnation, last_position=record.last_position) if record else state

    def relocated(self, stored: Iterable[KnownRun]) -> "MemoryState":
        """Return the state with each run's position in ``stored``; runs that others removed or replaced are `GONE`."""
        at = {known.position: known for known in stored}
        known = {*self.runs, *self.detached}
        places = {each: each.position for each in known if each.position in at and at[each.position].id == each.id}
        taken = set(places.values())
        free: dict[int, list[int]] = {}
        for each in sorted(at.values(), reverse=True):
            if each.position not in taken:
                free.setdefault(each.digest, []).append(each.position)
        for each in sorted(known - places.keys()):
            places[each] = free[each.digest].pop() if free.get(each.digest) else GONE
        unknown = at.keys() - set(places.values())
        runs, detached = [
            [each._replace(position=places[each]) for each in part] for part in (self.runs, self.detached)
        ]
        unseen = min([position for position in unknown if position >= self.shown_from], default=ALL_RUNS)
        return replace(self, runs=runs, detached=detached, unseen=unseen)

    def appended(self, positions: Sequence[int]) -> "MemoryState":
        """Return the state with these positions for its new runs. A gap between them means that others appended runs."""
        places = iter(positions)
        runs = [known._replace(position=next(places)) if known.position == NEW else known for known in self.runs]
        gap = next((n for n, at in enumerate(positions, self.last_position + 1) if at != n), ALL_RUNS)
        return replace(
            self,
            runs=runs,
            detached=self.detached[-_MOST_DETACHED:],
            last_position=max([self.last_position, *positions]),
            unseen=min(self.unseen, gap),
        )
