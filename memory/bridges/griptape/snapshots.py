"""What Griptape's memories were given and gave, and what a new snapshot of one of them changes.

Griptape hands over the whole conversation each time. A run is known again by being the same object; one that was made anew
(a memory read from its own JSON, say) by its id and content. Nothing here speaks to a store.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter, is_
from typing import Any, Final, NamedTuple, TypeAlias
from weakref import ref

from griptape.memory.structure import Run as GriptapeRun

from memory.values import Json

LOOKED_INTO: Final = 16
"""How many runs, counted from the last, are compared in all their parts. Of older ones it is noticed when they are replaced, or
get another id, meta, input or output: that costs no more than a look at each, whatever they hold."""

GONE: Final = 0
"""As a position: somebody else has removed the run. It is not written again."""

_FIELDS: Final = tuple(map(attrgetter, ("id", "meta", "input", "output")))
Digest: TypeAlias = Callable[[GriptapeRun], bytes]


class Item(NamedTuple):
    """A run of a snapshot: where it is stored (None: nowhere yet), the id it is stored under, and whether it has changed."""

    run: GriptapeRun
    position: int | None
    key: str
    changed: bool = False


class Content(NamedTuple):
    """What a run held when it was stored; of older ones, without a digest of all its parts."""

    fields: tuple[Any, ...]
    digest: bytes | None


Contents: TypeAlias = dict[int, Content]
"""By the identity of the run."""


class View:
    """What one memory of Griptape's was given, or gave last.

    Attributes:
        positions: where each of its runs is stored.
        keys: under which id.
        meta: the conversation's metadata, as that memory has it.
        complete: whether nothing was shown to others, before its first run, that it was not given.
        incarnation: of which conversation: another one may be made under the same id.
    """

    __slots__ = (
        "_columns",
        "_dead",
        "_digests",
        "_refs",
        "complete",
        "ids",
        "incarnation",
        "keys",
        "meta",
        "positions",
    )

    def __init__(self, meta: dict[str, Json], *, complete: bool, incarnation: str | None) -> None:
        self.meta = meta
        self.complete = complete
        self.incarnation = incarnation
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.keys: list[str] = []
        self._columns: list[list[Any]] = [[] for _ in _FIELDS]
        self._digests: dict[int, bytes] = {}
        self._dead: set[int] = set()

    def set(self, items: Sequence[Item], contents: Contents) -> None:
        """Hold these items from now on, with the contents that were stored."""
        self.ids, self.positions, self.keys = [], [], []
        self._columns = [[] for _ in _FIELDS]
        self._digests = {}
        self.extend(items, contents)

    def extend(self, items: Sequence[Item], contents: Contents) -> None:
        """Hold these items too, at the end."""
        ids = [id(item.run) for item in items]
        self.ids += ids
        self.positions += [item.position or GONE for item in items]
        self.keys += [item.key for item in items]
        for number, column in enumerate(self._columns):
            column += [contents[each].fields[number] for each in ids]
        known = self._digests
        self._digests = {}
        for each in self.ids[-LOOKED_INTO:]:
            digest = contents[each].digest if each in contents else known.get(each)
            if digest is not None:
                self._digests[each] = digest

    def drop_front(self, count: int) -> None:
        """Forget the first runs."""
        del self.ids[:count], self.positions[:count], self.keys[:count]
        for column in self._columns:
            del column[:count]

    def died(self, key: int) -> None:
        """Take notice that a run is no more: its identity may become another's."""
        self._dead.add(key)

    def without_dead(self) -> None:
        """Know no run by an identity that may be another's by now. Only while all that count are held by the caller."""
        dead: set[int] = set()
        while self._dead:  # one by one: another thread may add to it at any moment
            dead.add(self._dead.pop())
        if dead:
            self.ids = [0 if each in dead else each for each in self.ids]
            self._digests = {each: digest for each, digest in self._digests.items() if each not in dead}

    def has_changed(self, runs: Sequence[GriptapeRun], first: int, digest: Digest) -> bool:
        """Tell whether any of these runs, held from ``first`` on in this order, differs from what was stored."""
        for column, get in zip(self._columns, _FIELDS, strict=True):
            if not all(map(is_, map(get, runs), column[first:] if first else column)):
                return True
        last = runs[-LOOKED_INTO:]
        return any((stored := self._digests.get(id(run))) is not None and digest(run) != stored for run in last)

    def differs(self, at: int, run: GriptapeRun, digest: Digest) -> bool:
        """Tell whether the run held at this index differs from what was stored."""
        if any(get(run) is not column[at] for column, get in zip(self._columns, _FIELDS, strict=True)):
            return True
        stored = self._digests.get(id(run))
        return stored is not None and digest(run) != stored


class _Watched(ref[GriptapeRun]):
    """A run that is known; it does not live longer for that."""

    __slots__ = ("key", "view")

    key: int
    view: View


class Known:
    """The runs that are known, and what the memory they belong to was given: for as long as that memory lives."""

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self._watched: dict[int, _Watched] = {}
        self._last: tuple[list[GriptapeRun], View] | None = None

    def contents(self, runs: Sequence[GriptapeRun]) -> Contents:
        """Return what runs hold now: to be taken before they are stored, for they may change meanwhile."""
        looked_into = max(0, len(runs) - LOOKED_INTO)
        return {
            id(run): Content(tuple([get(run) for get in _FIELDS]), self.digest(run) if at >= looked_into else None)
            for at, run in enumerate(runs)
        }

    def hold(
        self, view: View, items: Sequence[Item], contents: Contents, runs: list[GriptapeRun] | None = None
    ) -> None:
        """Know these runs as all there are in a view; ``runs`` is the list of the memory it belongs to."""
        view.set(items, contents)
        self._watch(view, items)
        self._last = self._last if runs is None else (runs, view)

    def hold_more(
        self, view: View, items: Sequence[Item], contents: Contents, dropped: int, runs: list[GriptapeRun]
    ) -> None:
        """Know these runs too, at the end of a view; those dropped at its front no more."""
        view.drop_front(dropped)
        view.extend(items, contents)
        self._watch(view, items)
        self._last = (runs, view)

    def _watch(self, view: View, items: Sequence[Item]) -> None:
        for item in items:
            watched = _Watched(item.run, self._forget)
            watched.key, watched.view = id(item.run), view
            self._watched[watched.key] = watched

    def _forget(self, gone: ref[GriptapeRun]) -> None:
        watched = gone if isinstance(gone, _Watched) else None
        if watched is not None and self._watched.get(watched.key) is watched:
            del self._watched[watched.key]
            watched.view.died(watched.key)

    def view_of(self, run: GriptapeRun) -> View | None:
        """Return the view that holds a run."""
        watched = self._watched.get(id(run))
        return None if watched is None else watched.view

    def views_of(self, runs: list[GriptapeRun], snapshot: Sequence[GriptapeRun]) -> list[View]:
        """Return the views that hold runs of a snapshot; else that of the same list, if it was the last one that was held."""
        found: dict[int, View] = {}
        for run in snapshot:
            if (watched := self._watched.get(id(run))) is not None:
                found[id(watched.view)] = watched.view
        if not found and self._last is not None and self._last[0] is runs:
            found[0] = self._last[1]
        for view in found.values():
            view.without_dead()
        return list(found.values())
