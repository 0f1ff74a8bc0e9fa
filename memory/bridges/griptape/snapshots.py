"""What Griptape's memories were given and gave, and what a new snapshot of one of them changes.

Griptape hands over the whole conversation each time. A run is known again by being the same object; one that was made anew
(a memory read from its own JSON, say) by its id and content. Nothing here speaks to a store.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, is_
from typing import Any, Final, NamedTuple, TypeAlias
from weakref import ref

from griptape.memory.structure import Run as GriptapeRun

from memory.changes import ALL_RUNS
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


class Held(NamedTuple):
    """A run that a memory has, or had and may put back: where it is stored, under which id, and what it held then.

    ``identity`` is 0, and nothing is kept of what it held, where the object is no more.
    """

    identity: int
    position: int
    key: str
    content: Content | None

    def differs(self, run: GriptapeRun, digest: Digest) -> bool:
        """Tell whether the run is not as it was stored."""
        if self.content is None or any(
            get(run) is not was for get, was in zip(_FIELDS, self.content.fields, strict=True)
        ):
            return True
        return self.content.digest is not None and digest(run) != self.content.digest

    def id_and_digest(self, digest: Digest) -> tuple[str, bytes] | None:
        """Return what it is recognised by in the store: its id, and what stands for what it held."""
        if self.content is None:
            return None
        run_id, meta, given, answer = self.content.fields
        if self.content.digest is not None:
            return run_id, self.content.digest
        return run_id, digest(GriptapeRun(id=run_id, meta=meta, input=given, output=answer))


class View:
    """What one memory of Griptape's was given, or gave last.

    Attributes:
        positions: where each of its runs is stored.
        keys: under which id.
        meta: the conversation's metadata, as that memory has it.
        complete: whether nothing was shown to others, before its first run, that it was not given.
        incarnation: of which conversation: another one may be made under the same id.
        let_go: runs that it had, and that are stored still: by position. They may be put back.
        shown: the position from which others load, as the last mark says that it has seen or written; 0: from the first.
        marked_at: where the mark is that it has written last; 0: nowhere.
        memory: the identity of the list it was taken from last.
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
        "let_go",
        "marked_at",
        "memory",
        "meta",
        "positions",
        "shown",
    )

    def __init__(self, meta: dict[str, Json], *, complete: bool, incarnation: str | None, shown: int = 0) -> None:
        self.meta = meta
        self.complete = complete
        self.incarnation = incarnation
        self.let_go: list[Held] = []
        self.shown = shown
        self.marked_at = 0
        self.memory = 0
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

    def drop_front(self, count: int) -> list[Held]:
        """Hold the first runs no more; return them."""
        dropped = self.held(count)
        del self.ids[:count], self.positions[:count], self.keys[:count]
        for column in self._columns:
            del column[:count]
        return dropped

    def held(self, count: int | None = None) -> list[Held]:
        """Return the runs that it has, or so many of the first."""
        columns = zip(*[column[:count] for column in self._columns], strict=True)
        rows = zip(self.ids[:count], self.positions[:count], self.keys[:count], columns, strict=True)
        return [Held(each, at, key, Content(fields, self._digests.get(each))) for each, at, key, fields in rows]

    def remember(self, let_go: Sequence[Held]) -> None:
        """Remember runs that were let go, those only that can be put back or stand behind one that can."""
        first = min([each.position for each in let_go if each.identity and each.position != GONE], default=ALL_RUNS)
        worth = [
            each if each.identity else each._replace(content=None)
            for each in let_go
            if each.identity or each.position > first
        ]
        self.let_go = sorted(worth, key=attrgetter("position"))

    def moved(self, places: Mapping[int, tuple[int, str]]) -> None:
        """Take notice that runs are stored elsewhere by now: by the position they had, where, and under which id."""
        self.keys = [places.get(at, (at, key))[1] for at, key in zip(self.positions, self.keys, strict=True)]
        self.positions = [places.get(at, (at, ""))[0] for at in self.positions]
        self.remember(
            [
                each._replace(position=at, key=key)
                for each in self.let_go
                for at, key in [places.get(each.position, (each.position, each.key))]
            ]
        )

    @property
    def others_moved(self) -> bool:
        """Whether the runs are stored in another order than the one they have here."""
        stored = [at for at in self.positions if at != GONE]
        return stored != sorted(stored)

    def follow(self, incarnation: str | None) -> None:
        """Belong to another conversation from now on, or to none: what was removed with the one before stays removed."""
        if self.incarnation != incarnation:
            self.moved({each.position: (GONE, "") for each in (*self.held(), *self.let_go)})
            self.incarnation, self.shown, self.marked_at = incarnation, 0, 0

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
            self.remember([each._replace(identity=0) if each.identity in dead else each for each in self.let_go])

    def has_changed(self, runs: Sequence[GriptapeRun], first: int, digest: Digest) -> bool:
        """Tell whether any of these runs, held from ``first`` on in this order, differs from what was stored."""
        for column, get in zip(self._columns, _FIELDS, strict=True):
            if not all(map(is_, map(get, runs), column[first:] if first else column)):
                return True
        last = runs[-LOOKED_INTO:]
        return any((stored := self._digests.get(id(run))) is not None and digest(run) != stored for run in last)


class _Watched(ref[GriptapeRun]):
    """A run that is known; it does not live longer for that."""

    __slots__ = ("key", "views")

    key: int
    views: list[View]  # that have it, or have let it go; the last one to take it at the end


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
        self,
        view: View,
        items: Sequence[Item],
        contents: Contents,
        runs: list[GriptapeRun] | None = None,
        let_go: Sequence[Held] = (),
    ) -> None:
        """Know these runs as all there are in a view, and what it has let go; ``runs`` is the list of its memory."""
        before = {*view.ids, *[each.identity for each in view.let_go]}
        view.set(items, contents)
        view.remember([each if each.identity in self._watched else each._replace(identity=0) for each in let_go])
        self._watch(view, items, before)
        self._belongs(view, runs)

    def hold_more(
        self,
        view: View,
        items: Sequence[Item],
        contents: Contents,
        dropped: int,
        runs: list[GriptapeRun],
        *,
        deleted: bool,
    ) -> None:
        """Know these runs too, at the end of a view; those dropped at its front are let go, or were deleted."""
        let_go = view.drop_front(dropped)
        before = {each.identity for each in let_go}
        view.extend(items, contents)
        if let_go:
            view.remember([*view.let_go, *[each for each in let_go if not deleted or each.position == GONE]])
        self._watch(view, items, before)
        self._belongs(view, runs)

    def _belongs(self, view: View, runs: list[GriptapeRun] | None) -> None:
        if runs is not None:
            self._last, view.memory = (runs, view), id(runs)

    def _watch(self, view: View, items: Sequence[Item], before: set[int]) -> None:
        """Watch what a view has and has let go; of what it had before, nothing else."""
        for item in items:
            watched = self._watched.get(id(item.run))
            if watched is None or watched() is not item.run:
                watched = _Watched(item.run, self._forget)
                watched.key, watched.views = id(item.run), []
                self._watched[watched.key] = watched
            watched.views = [*[each for each in watched.views if each is not view], view]
        let_go = {each.identity for each in view.let_go}
        for each in let_go:
            if (watched := self._watched.get(each)) is not None and view not in watched.views:
                watched.views = [view, *watched.views]
        if before - {0}:
            self._ignore(view, before - let_go - set(view.ids))

    def _ignore(self, view: View, identities: set[int]) -> None:
        """Watch these no more for a view."""
        for each in identities:
            if (watched := self._watched.get(each)) is not None:
                watched.views = [other for other in watched.views if other is not view]
                if not watched.views:
                    del self._watched[each]

    def merged(self, views: Iterable[View], runs: list[GriptapeRun]) -> None:
        """Forget views that have become part of another one, of the same list."""
        for view in views:
            if view.memory == id(runs):
                self._ignore(view, {*view.ids, *[each.identity for each in view.let_go]})

    def _forget(self, gone: ref[GriptapeRun]) -> None:
        watched = gone if isinstance(gone, _Watched) else None
        if watched is not None and self._watched.get(watched.key) is watched:
            del self._watched[watched.key]
            for view in watched.views:
                view.died(watched.key)

    def view_of(self, run: GriptapeRun, runs: list[GriptapeRun]) -> View | None:
        """Return the view that has a run, or has let it go: that of this list, or the last one that took it."""
        watched = self._watched.get(id(run))
        if watched is None:
            return None
        return next((view for view in watched.views if view.memory == id(runs)), watched.views[-1])

    def views_of(self, runs: list[GriptapeRun], snapshot: Sequence[GriptapeRun]) -> list[View]:
        """Return the views that a snapshot continues: those that have runs of it.

        A view that has only let them go, if it is of the same list; else that of the same list, if it was held last. A run that
        several have is that of the view of the same list, if there is one.
        """
        found: dict[int, View] = {}
        had: dict[int, set[int]] = {}
        for run in snapshot:
            watched = self._watched.get(id(run))
            for view in _of_this_list_first(watched.views[::-1], runs) if watched else ():
                if id(view) not in had:
                    had[id(view)] = set(view.ids)
                if view.memory == id(runs) or id(run) in had[id(view)]:
                    found[id(view)] = view
                    break
        if not found and self._last is not None and self._last[0] is runs:
            found[0] = self._last[1]
        views = _of_this_list_first(found.values(), runs)
        for view in views:
            view.without_dead()
        return views


def _of_this_list_first(views: Iterable[View], runs: list[GriptapeRun]) -> list[View]:
    return sorted(views, key=lambda view: view.memory != id(runs))
