"""What a snapshot of Griptape's changes: which runs are new, gone, changed or moved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from griptape.memory.structure import Run as GriptapeRun

from memory.bridges.griptape.snapshots import GONE, Held, Item, Known, View

Recognise: TypeAlias = Callable[[list[GriptapeRun], bool], tuple[dict[int, tuple[int, str]], int]]
"""Finds runs in the store that are the same as these, by id and content: by index, where each is and under which id.

Among the last runs of the conversation, or (True) among all. Also tells from which position on the conversation is loaded.
"""


@dataclass(slots=True)
class Plan:
    """What a snapshot changes.

    Attributes:
        append: the new runs.
        replace: what is to stand at a position; and where that run stood before, None for a new one. Without an item, a hidden
            run is moved.
        remove: positions of runs that were taken out from between others, or from the end, with the ids they have there.
        trimmed: likewise, of those at the front.
        items: all runs of the snapshot, the new ones last; None where the view just loses ``dropped`` runs at its front.
        first_kept: the position of the first run that stays, if it is needed; None if none does.
        views: what the snapshot continues.
        keys: under which id a run is known to be stored at a position that is touched.
        let_go: what the view remembers from now on of runs that it had, those that were ``trimmed`` among them.
        shown: the position from which others load so far.
    """

    append: list[GriptapeRun] = field(default_factory=list)
    replace: dict[int, tuple[Item | None, int | None]] = field(default_factory=dict)
    remove: dict[int, str] = field(default_factory=dict)
    trimmed: dict[int, str] = field(default_factory=dict)
    items: list[Item] | None = None
    dropped: int = 0
    first_kept: int | None = None
    views: list[View] = field(default_factory=list)
    keys: dict[int, str] = field(default_factory=dict)
    let_go: list[Held] = field(default_factory=list)
    shown: int = 0

    @property
    def touched(self) -> list[int]:
        """The positions that have to be read before they are written."""
        moved = [before for _, before in self.replace.values() if before is not None]
        return sorted({*self.replace, *moved, *self.remove})


def compare(
    known: Known, runs: list[GriptapeRun], snapshot: Sequence[GriptapeRun], recognise: Recognise
) -> tuple[View | None, Plan]:
    """Return the view that a snapshot continues, and what it changes.

    Args:
        known: what was given and taken before.
        runs: the memory's own list.
        snapshot: what is in it.
        recognise: asked only where the objects do not tell.
    """
    if snapshot and (view := known.view_of(snapshot[0], runs)) is not None:
        view.without_dead()
        if (plan := _appended(known, view, runs, snapshot)) is not None:
            return view, plan
    views = known.views_of(runs, snapshot)
    had = [each for view in views for each in view.held()]
    let_go = [each for view in views for each in view.let_go]
    moved = len(views) == 1 and views[0].others_moved
    items = _found(known, [*had, *let_go], snapshot)
    unsure = [index for index, item in enumerate(items) if item.position is None]
    last_known = max((index for index, item in enumerate(items) if item.position), default=-1)
    shown = max((view.shown for view in views), default=0)
    if unsure and (last_known < 0 or unsure[0] < last_known):
        again, shown_now = recognise([items[index].run for index in unsure], last_known >= 0)
        items = _with_recognised(items, {unsure[at]: place for at, place in again.items()})
        shown = shown if views else shown_now
    plan = _Arranging(items, had, let_go, shown).plan(others_moved=moved)
    plan.views = views
    return (views[0] if views else None), plan


def _appended(known: Known, view: View, runs: list[GriptapeRun], snapshot: Sequence[GriptapeRun]) -> Plan | None:
    """Return the plan of the usual case: the runs are those of the view, without some at the front, with new ones at the end."""
    ids = list(map(id, snapshot))
    if ids[0] not in view.ids:  # it was let go, and is put back
        return None
    first = view.ids.index(ids[0])
    kept = len(view.ids) - first
    if ids[:kept] != (view.ids[first:] if first else view.ids):
        return None
    new = list(snapshot[kept:])
    if any(known.view_of(run, runs) is not None for run in new) or len(set(ids[kept:])) != len(new):
        return None
    if view.has_changed(snapshot[:kept], first, known.digest):
        return None
    trimmed = dict(zip(view.positions[:first], view.keys[:first], strict=True))
    trimmed.pop(GONE, None)
    kept_at = view.positions[first:] if first or view.shown else ()
    first_kept = min([position for position in kept_at if position != GONE], default=None)
    return Plan(append=new, trimmed=trimmed, dropped=first, first_kept=first_kept, views=[view], shown=view.shown)


def _found(known: Known, held: list[Held], snapshot: Sequence[GriptapeRun]) -> list[Item]:
    """Return the runs of a snapshot with their positions; one that was loaded twice counts once."""
    places: dict[int, list[Held]] = {}
    for each in held:
        places.setdefault(each.identity, []).append(each)
    taken: dict[int, int] = {}
    items: list[Item] = []
    for run in snapshot:
        item = Item(run, None, "")
        for each in places.get(id(run), ()):
            if each.position == GONE or taken.get(each.position) is None:
                item = Item(run, each.position, each.key, each.differs(run, known.digest))
                taken[each.position] = id(run)
                break
            if taken[each.position] != id(run):
                break  # another object stands for the same stored run already
        else:
            items.append(item)
            continue
        if item.position is not None:
            items.append(item)
    return items


def _with_recognised(items: list[Item], places: dict[int, tuple[int, str]]) -> list[Item]:
    """Return the items with places for those that were recognised; one that is there again, later, counts once."""
    held = {item.position: index for index, item in enumerate(items) if item.position}
    dropped: set[int] = set()
    again = list(items)
    for index, (position, key) in places.items():
        if (other := held.get(position)) is None or other > index:
            again[index] = Item(items[index].run, position, key)
            dropped |= set() if other is None else {other}
    return [item for index, item in enumerate(again) if index not in dropped]


class _Arranging:
    """Brings the runs of a snapshot and the stored ones together, in the order of the snapshot."""

    def __init__(self, items: list[Item], had: list[Held], let_go: list[Held], shown: int) -> None:
        self._items = items
        self._positions = {item.position for item in items if item.position}
        self._stored = {each.position: each.key for each in had if each.position != GONE}
        self._missing = [(at, self._stored[at]) for at in sorted(self._stored.keys() - self._positions)]
        self._keys = {
            **{each.position: each.key for each in let_go},
            **self._stored,
            **{item.position: item.key for item in items if item.position},
        }
        again = {id(item.run) for item in items if item.position == GONE}
        self._held = [
            each
            for each in (*let_go, *had)
            if (each.identity not in again if each.position == GONE else each.position not in self._positions)
        ]
        # A load begins with the first run that is put back: the hidden ones behind it, which are not, go before it.
        first = min(self._positions, default=shown)
        left = {each.position for each in let_go} - self._stored.keys() - self._positions
        self._hidden = sorted([at for at in left if first < at < shown])
        self._moved: dict[int, int] = {}
        self._plan = Plan(shown=shown)
        self._placed: list[Item] = []

    def plan(self, *, others_moved: bool) -> Plan:
        kept = [item.position for item in self._items if item.position]
        rising = not any(before >= after for before, after in pairwise(kept))
        if self._hidden or not (self._fill_gaps() if rising else others_moved and self._leave_in_order()):
            self._plan, self._placed = Plan(shown=self._plan.shown), []
            self._rewrite()
        plan = self._plan
        plan.items = self._placed
        plan.append = [item.run for item in self._placed if item.position is None]
        plan.first_kept = min([item.position for item in self._placed if item.position], default=None)
        plan.keys = self._keys
        gone = self._stored.keys() - plan.trimmed.keys()
        plan.let_go = [
            each._replace(position=self._moved.get(each.position, each.position))
            for each in self._held
            if each.position not in gone
        ]
        return plan

    def _fill_gaps(self) -> bool:
        """Put new runs where others are missing between those that stay; tell whether each has found a place."""
        missing, pending = list(self._missing), list[Item]()
        any_kept = False
        for item in self._items:
            if item.position is None:
                pending.append(item)
                continue
            if item.position != GONE:
                gap = [each for each in missing if each[0] < item.position]
                missing = missing[len(gap) :]
                if len(pending) > len(gap):
                    return False
                self._fill(pending, gap, trimming=not any_kept and not pending)
                pending, any_kept = [], True
                if item.changed:
                    self._plan.replace[item.position] = item, item.position
            self._placed.append(item)
        while pending and missing and pending[0].run.id in [key for _, key in missing]:  # the same one, edited
            at = [key for _, key in missing].index(pending[0].run.id)
            self._fill(pending[:1], [missing[at], *missing[:at]], trimming=not any_kept)
            pending, missing, any_kept = pending[1:], missing[at + 1 :], True
        self._fill([], missing, trimming=not any_kept)
        self._placed += pending
        return True

    def _leave_in_order(self) -> bool:
        """Leave runs where others have moved them, if this memory has not moved them too; tell whether it has not."""
        ranks = {at: rank for rank, at in enumerate(self._stored)}
        kept = [ranks.get(item.position, -1) for item in self._items if item.position]
        is_new = [item.position is None for item in self._items]
        if any(before >= after for before, after in pairwise([-1, *kept])) or is_new != sorted(is_new):
            return False
        for position, key in self._missing:
            (self._plan.trimmed if ranks[position] < kept[0] else self._plan.remove)[position] = key
        self._plan.replace = {
            item.position: (item, item.position) for item in self._items if item.position and item.changed
        }
        self._placed = list(self._items)
        return True

    def _fill(self, new: list[Item], gap: list[tuple[int, str]], *, trimming: bool) -> None:
        for item, (position, key) in zip(new, gap, strict=False):
            self._replace(item, position, key)
        (self._plan.trimmed if trimming else self._plan.remove).update(gap[len(new) :])

    def _rewrite(self) -> None:
        """Write the runs one after the other over those that are stored: any order, any insertion."""
        slots = sorted({*self._stored, *self._positions, *self._hidden})
        for at in self._hidden:
            self._moved[at] = slot = slots.pop(0)
            if slot != at:
                self._plan.replace[slot] = None, at
        for item in self._items:
            if item.position == GONE:
                self._placed.append(item)
            elif not slots:
                self._placed.append(Item(item.run, None, ""))
            elif (slot := slots.pop(0)) != item.position or item.changed:
                self._replace(item, slot, self._keys[slot])
            else:
                self._placed.append(item)
        self._plan.remove.update({slot: self._keys[slot] for slot in slots})

    def _replace(self, item: Item, position: int, key: str) -> None:
        self._plan.replace[position] = item, item.position
        self._placed.append(Item(item.run, position, key))
