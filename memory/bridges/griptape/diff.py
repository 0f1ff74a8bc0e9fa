"""Compare the runs of a memory with those its driver knows: which are new, edited, moved, removed or restored."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from griptape.memory.structure import Run as GriptapeRun

from memory.bridges.griptape.state import GONE, NEW, KnownRun, MemoryState


class Write(NamedTuple):
    """A run that overwrites a stored one: its previous position (None if it is new), and whether it was edited."""

    run: GriptapeRun
    before: int | None
    is_edited: bool


@dataclass(slots=True)
class Diff:
    """The changes in a snapshot of a memory; `NEW` is the position of the runs to append, ``write`` are overwritten runs.

    ``trimmed`` are the runs missing at the snapshot's beginning, ``remove`` those missing elsewhere; ``detached`` the detached
    runs that were not restored. ``unsure`` are digests of new runs that precede a known run, or of all new runs if none is
    known: they may already be stored.
    """

    runs: list[KnownRun] = field(default_factory=list)
    append: list[GriptapeRun] = field(default_factory=list)
    write: dict[int, Write] = field(default_factory=dict)
    remove: list[KnownRun] = field(default_factory=list)
    trimmed: list[KnownRun] = field(default_factory=list)
    detached: list[KnownRun] = field(default_factory=list)
    unsure: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Item:
    """A run of the snapshot, and its index among the known runs; None if it is new."""

    run: GriptapeRun
    digest: int
    index: int | None = None


def compare(state: MemoryState, snapshot: Sequence[GriptapeRun], digests: Sequence[int]) -> Diff:
    """Return the changes in a snapshot, with the digests of its runs, since the driver's last load or store."""
    return _Comparison(state, _items(snapshot, digests, state)).diff


def _items(snapshot: Sequence[GriptapeRun], digests: Sequence[int], state: MemoryState) -> list[_Item]:
    """Find each run of the snapshot among the known ones.

    If a run occurs twice, as two objects, but is known only once, it was loaded twice, as Griptape's ``load_runs`` does. It is
    counted once.
    """
    known, first = [*state.detached, *state.runs], len(state.detached)
    free: dict[int, list[int]] = {}
    for index in (*range(first - 1, -1, -1), *range(len(known) - 1, first - 1, -1)):  # detached ones are taken last
        free.setdefault(known[index].digest, []).append(index)
    found: dict[int, GriptapeRun] = {}
    items: list[_Item] = []
    for run, digest in zip(snapshot, digests, strict=True):
        if places := free.get(digest):
            found[digest] = run
            items.append(_Item(run, digest, places.pop()))
        elif found.get(digest, run) is run:
            items.append(_Item(run, digest))
    unused = {index for places in free.values() for index in places}
    if unused and any(item.index is None for item in items):
        _find_edited(items, known, unused, first)
    return items


def _find_edited(items: list[_Item], known: Sequence[KnownRun], unused: set[int], following: int) -> None:
    """Find edited runs by their ids. A repeated id counts only if the run follows in the order of the known runs."""
    counts = Counter(each.id for each in known)
    unique = {known[index].id: index for index in unused if counts[known[index].id] == 1}
    for item in items:
        if item.index is None:
            if following in unused and known[following].id == item.run.id:
                item.index = following
            else:
                item.index = unique.pop(item.run.id, None)
                item.index = item.index if item.index in unused else None
            unused.discard(-1 if item.index is None else item.index)
        if item.index is not None:
            following = item.index + 1


class _Comparison:
    def __init__(self, state: MemoryState, items: list[_Item]) -> None:
        self._known = [*state.detached, *state.runs]
        self._first = len(state.detached)
        self._items = items
        self._used = {item.index for item in items if item.index is not None}
        self.diff = diff = Diff()
        diff.detached = [known for index, known in enumerate(state.detached) if index not in self._used]
        missing = [index for index in range(self._first, len(self._known)) if index not in self._used]
        front = self._front()
        diff.trimmed = [self._known[index] for index in missing if index < front]
        missing = [index for index in missing if index >= front]
        last_known = max((at for at, item in enumerate(items) if item.index is not None), default=len(items))
        diff.unsure = [item.digest for item in items[:last_known] if item.index is None]
        if self._is_in_order():
            self._keep_positions()
            diff.remove = [self._known[index] for index in missing]
        else:
            self._rewrite(missing)
        diff.append = [item.run for item, known in zip(items, diff.runs, strict=True) if known.position == NEW]

    def _front(self) -> int:
        """Return the index of the first known run that is kept. Those before it were trimmed, unless new runs replace them."""
        kept = min((index for index in self._used if index >= self._first), default=len(self._known))
        return 0 if kept < len(self._known) and self._items[0].index is None else kept

    def _is_in_order(self) -> bool:
        """Return whether the known runs are in their stored order, followed by all new ones."""
        indexes = [item.index for item in self._items]
        known = [index for index in indexes if index is not None]
        if indexes[: len(known)] != known:
            return False
        # Others may have moved our runs, so a restored run precedes them only if its position does.
        is_restored = any(index < self._first for index in known)
        order = [self._known[index].position for index in known] if is_restored else known
        order = [each for each in order if not is_restored or each != GONE]
        return all(before < after for before, after in pairwise(order))

    def _keep_positions(self) -> None:
        for item in self._items:
            self._place(item, NEW if item.index is None else self._known[item.index].position)

    def _rewrite(self, missing: list[int]) -> None:
        """Overwrite the stored runs in sequence. This handles any reordering and any insertion."""
        slots = {known.position: known for known in (self._known[index] for index in {*self._used, *missing})}
        slots.pop(GONE, None)
        free = sorted(slots, reverse=True)
        for item in self._items:
            is_gone = item.index is not None and self._known[item.index].position == GONE
            self._place(item, GONE if is_gone else free.pop() if free else NEW)
        self.diff.remove = [slots[slot] for slot in sorted(free)]

    def _place(self, item: _Item, position: int) -> None:
        """Assign a position to a run of the snapshot. Write the run unless it is already stored there, unchanged and visible."""
        self.diff.runs.append(KnownRun(position, item.run.id, item.digest))
        if position <= 0:
            return
        before = None if item.index is None else self._known[item.index]
        is_edited = before is None or before.digest != item.digest
        if before is None or item.index is None or is_edited or before.position != position or item.index < self._first:
            self.diff.write[position] = Write(item.run, None if before is None else before.position, is_edited)
