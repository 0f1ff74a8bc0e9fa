"""A conversation of Griptape's in a store: loaded as its memories are to see it, and written as they change it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any, Final, cast

from griptape.memory.structure import Run as GriptapeRun

from memory.bridges.griptape.artifacts import Codec
from memory.bridges.griptape.comparing import Plan, compare
from memory.bridges.griptape.places import Bring
from memory.bridges.griptape.snapshots import GONE, Contents, Held, Item, Known, View
from memory.bridges.griptape.writing import MisplacedError, Trimmed, Writing, metadata_of, shown_from
from memory.changes import UNKNOWN, Change, ChangeSet, Receipt, Seen, Written
from memory.domain import Conversation, ConversationRecord, Run
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConflictError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
)
from memory.formats.envelopes import metadata_json
from memory.repository import Window
from memory.store import Store
from memory.transfer.states import runs_in, steadily
from memory.unit_of_work import UnitOfWork
from memory.values import Json

_RETRIES: Final = 10
_TRIES: Final = 5  # with a conversation that is made and removed by others meanwhile
_FIRST_READ: Final = 256  # runs; more are read only where the mark is not among them
_PAGE: Final = 500
_BEHIND: Final = 16  # runs that others may have appended to what a memory brings along


@dataclass(slots=True)
class _Done:
    """What a snapshot came to: all that is remembered once it is written."""

    runs: list[GriptapeRun]
    contents: Contents
    view: View | None
    plan: Plan
    writing: Writing
    meta: dict[str, Json]


class Recorder:
    """One conversation, for all memories that share a driver. Safe to use from several threads.

    Args:
        store: where it is kept.
        conversation_id: its id.
        codec: makes runs of Griptape's.
        last: how many runs are loaded; all, when None.
        trimmed: what becomes of runs that ``max_runs`` takes out.
        bring: what it begins with.
    """

    def __init__(
        self, store: Store, conversation_id: str, codec: Codec, *, last: int | None, trimmed: Trimmed, bring: Bring
    ) -> None:
        self._store = store
        self._id = conversation_id
        self._codec = codec
        self._last = last
        self._trimmed: Trimmed = trimmed
        self._bring = bring
        self._lock = RLock()
        self._known = Known(codec.digest)
        self._asked = False  # whether it is known if there is such a conversation
        self._incarnation: str | None = None  # None: there is none, as far as is known
        self._last_position = 0
        self._created_at = 0
        self._shows_nothing = False  # all that is stored is hidden
        self._unsettled: tuple[ChangeSet, Callable[[Receipt], None]] | None = None

    # loading

    def load(self) -> tuple[list[GriptapeRun], dict[str, Json]]:
        """Return the runs that a memory is to see, and the conversation's metadata.

        Raises:
            PersistenceError: the store cannot be used as it is, or not be reached.
        """
        with self._lock:
            found = self._read() or (self._read() if self._brought() else None)
            self._asked = True
            if found is None:
                return [], {}
            conversation, shown, first, complete = found
            self._shows_nothing = complete and not shown
            items = [Item(self._codec.to_theirs(run), run.position, run.id) for run in shown]
            metadata = metadata_json(conversation.metadata)
            view = View(metadata_of(metadata), complete=complete, incarnation=self._incarnation, shown=first)
            view.marked_at = max([_position(run) for run in shown if shown_from([run], self._created_at)], default=GONE)
            loaded = [item.run for item in items]
            self._known.hold(view, items, self._known.contents(loaded))
            return loaded, metadata

    def _read(self) -> tuple[Conversation, list[Run], int, bool] | None:
        """Return the conversation, the runs to be loaded, from where runs are shown, and whether these are all that are.

        None if there is no conversation. All of it is of one version of the conversation.
        """
        return steadily(self._try_to_read)

    def _try_to_read(self) -> tuple[Conversation, list[Run], int, bool] | None:
        with self._store.begin() as uow:
            conversation = self._look(uow)
        if conversation is None:
            return None
        read = partial(runs_in, self._store, cast(ConversationRecord, conversation.record))
        limit = _FIRST_READ if self._last is None else self._last + 1
        runs = list(read(Window(limit=limit, from_end=True)))
        first = shown_from(runs, self._created_at)
        if self._last is None and len(runs) == limit and first < _position(runs[0]):
            runs = [*read(Window(after=max(0, first - 1), before=_position(runs[0]))), *runs]
            first = first or shown_from(runs, self._created_at)
        shown = [run for run in runs if _position(run) >= first]
        if self._last is None or len(shown) <= self._last:
            return conversation, shown, first, True
        return conversation, shown[len(shown) - self._last :], first, False

    def _look(self, uow: UnitOfWork) -> Conversation | None:
        """Return the conversation as it is now, and remember that it is."""
        try:
            conversation = uow.conversations.get(self._id)
        except NotFoundError:
            self._incarnation, self._last_position = None, 0
            return None
        record = cast(ConversationRecord, conversation.record)
        self._incarnation, self._last_position = record.incarnation, record.last_position
        self._created_at = record.created_at
        return conversation

    def _brought(self) -> bool:
        """Make the conversation as it is in an old place; tell whether there is one there."""
        change = self._bring()
        if change is None:
            return False
        with suppress(AlreadyExistsError):  # another process was faster, with the same
            self._store.commit(ChangeSet.of([change], self._store.repository.clock()))
        return True

    # storing

    def store(self, runs: list[GriptapeRun], meta: dict[str, Any]) -> None:
        """Write what differs from what was loaded or stored before.

        Raises:
            PersistenceError: the store failed. What is not written now is written by the next call, once.
        """
        with self._lock:
            snapshot = list(runs)  # another thread may append meanwhile: it stores after this

            def work(_: UnitOfWork) -> None:
                self._settle()
                self._write(runs, snapshot, metadata_of(meta))

            self._store.run(work, retries=_RETRIES)

    def _settle(self) -> None:
        """Find out what became of the commit before: its answer was lost, it was cut short, or a read after it has failed."""
        if self._unsettled is not None:
            # These say that it was not written: what it held is new to the next comparison.
            with suppress(NotFoundError, AlreadyExistsError, ConflictError):
                self._commit(*self._unsettled)

    def _write(self, runs: list[GriptapeRun], snapshot: list[GriptapeRun], meta: dict[str, Json]) -> None:
        for _ in range(_TRIES):
            try:
                if self._try_to_write(runs, snapshot, meta):
                    return
            except (NotFoundError, AlreadyExistsError):
                # Somebody has removed the conversation, or a run of it; or made one meanwhile.
                with self._store.begin() as uow:
                    self._look(uow)
        raise ConflictError(f"conversation {self._id!r} is removed and made anew all the time: store it again")

    def _try_to_write(self, runs: list[GriptapeRun], snapshot: list[GriptapeRun], meta: dict[str, Json]) -> bool:
        with self._store.begin() as uow:
            if not self._asked:
                if self._look(uow) is None and self._brought():
                    self._look(uow)
                self._asked = True
            view, plan = compare(self._known, runs, snapshot, partial(self._recognise, uow))
            if view is not None and view.incarnation != self._incarnation:
                view.follow(self._incarnation)
                return False
            writing = Writing(
                uow, self._id, self._codec, view=view, plan=plan, trimmed=self._trimmed, created_at=self._created_at
            )
            change: Change | None
            seen: Seen | None = None
            at = self._store.repository.clock()
            if self._incarnation is None:
                change, self._created_at = writing.creation(meta, at), at
            else:
                try:
                    change, seen = writing.change(meta)
                except MisplacedError:
                    self._find_again(uow, plan.views)
                    return False
            if seen is not None and seen.incarnation != self._incarnation:
                self._look(uow)
                return False
            stored = plan.append if plan.items is None else snapshot
            done = _Done(runs, self._known.contents(stored), view, plan, writing, meta)
            if change is None:
                self._hold(done, None)
            else:
                changes = ChangeSet.of([change], at)
                self._commit(changes, lambda receipt: self._hold(done, receipt.written[self._id]))
            return True

    def _commit(self, changes: ChangeSet, then: Callable[[Receipt], None]) -> None:
        """Commit, and remember it as unsettled until it is known what became of it."""
        begun, self._unsettled = self._unsettled is not None, (changes, then)
        try:
            receipt = self._store.commit(changes)
        except CommitInDoubtError:
            raise
        except PartialCommitError as error:
            self._unsettled = cast(ChangeSet, error.changes), then
            raise
        except (NotFoundError, AlreadyExistsError, ConflictError):
            self._unsettled = None
            raise
        except PersistenceError:
            if not begun:  # else it says nothing of what was done before
                self._unsettled = None
            raise
        then(receipt)
        self._unsettled = None

    def _hold(self, done: "_Done", written: Written | None) -> None:
        """Remember what is stored by now."""
        view, placed = done.view, done.writing.placed
        new: list[Item] = []
        if written is not None:
            positions = self._positions(done.writing.new, written)
            appended = done.plan.append if placed is None else [item.run for item in placed if item.position is None]
            new = [Item(run, at, ours.id) for run, at, ours in zip(appended, positions, done.writing.new, strict=True)]
            if view is not None:
                view.follow(written.incarnation)
            self._incarnation, self._last_position = written.incarnation, written.last_position
        if view is None:
            if written is None:
                return  # nothing is stored, and nothing known
            complete = self._shows_nothing or written.run_count == len(new)
            view = View({}, complete=complete, incarnation=self._incarnation)
        view.meta = done.meta
        deleted = self._trimmed == "deleted"
        if placed is None:
            self._known.hold_more(view, new, done.contents, done.plan.dropped, done.runs, deleted=deleted)
        else:
            places = iter(new)
            items = [next(places) if item.position is None else item for item in placed]
            let_go = [each for each in done.plan.let_go if not (deleted and each.position in done.plan.trimmed)]
            self._known.hold(view, items, done.contents, done.runs, let_go)
            self._known.merged(done.plan.views[1:], done.runs)
        view.shown = done.plan.shown
        if written is not None and done.writing.mark is not None:
            shown, at = done.writing.mark
            view.marked_at = new[0].position or GONE if at is None else at
            view.shown = shown or view.marked_at

    def _positions(self, new: list[Run], written: Written) -> list[int]:
        """Return where the new runs are: the last ones, if nobody could append between them or after."""
        last, count = written.last_position, len(new)
        atomic = self._store.repository.capabilities.atomic
        if last != UNKNOWN and (count == 0 or atomic or last - count == self._last_position):
            return list(range(last - count + 1, last + 1))
        with self._store.begin() as uow:
            stored = uow.runs.list(self._id, after=self._last_position)
        found: dict[tuple[str, str, str], list[int]] = {}
        for run in reversed(stored):
            found.setdefault(_sameness(run), []).append(_position(run))
        return [places.pop() if (places := found.get(_sameness(run))) else GONE for run in new]

    def _find_again(self, uow: UnitOfWork, views: list[View]) -> None:
        """Read where the runs of these views are by now: others have moved them, or were said to be where ours are."""
        stored = {_position(run): run for run in uow.runs.list(self._id)}
        held = [each for view in views for each in (*view.held(), *view.let_go) if each.position != GONE]
        places = {each.position: (each.position, each.key) for each in held if _stands(stored.get(each.position), each)}
        free: dict[tuple[str, bytes], list[int]] = {}
        for at, run in reversed(stored.items()):
            if at not in places:
                theirs = self._codec.to_theirs(run)
                free.setdefault((theirs.id, self._codec.digest(theirs)), []).append(at)
        for each in held:
            if each.position not in places:
                sought = each.id_and_digest(self._codec.digest)
                at = free[sought].pop() if sought is not None and free.get(sought) else GONE
                places[each.position] = at, stored[at].id if at else ""
        for view in views:
            view.moved(places)
            if view.marked_at not in stored:
                view.marked_at = GONE

    def _recognise(
        self,
        uow: UnitOfWork,
        runs: list[GriptapeRun],
        everywhere: bool,  # noqa: FBT001
    ) -> tuple[dict[int, tuple[int, str]], int]:
        """Find runs in the store that are the same as these: a memory may have been made anew from its own JSON."""
        if self._incarnation is None:
            return {}, 0
        wanted: dict[tuple[str, bytes], list[int]] = {}
        for index, run in enumerate(runs):
            wanted.setdefault((run.id, self._codec.digest(run)), []).append(index)
        found: dict[int, tuple[int, str]] = {}
        page = uow.runs.last(self._id, _PAGE if everywhere else len(runs) + _BEHIND)
        shown = shown_from(page, self._created_at)
        while page:
            for stored in reversed(page):
                theirs = self._codec.to_theirs(stored)
                if same := wanted.get((theirs.id, self._codec.digest(theirs))):
                    found[same.pop()] = _position(stored), stored.id
            if not everywhere or len(found) == len(runs) or _position(page[0]) == 1:
                break
            window = Window(before=_position(page[0]), limit=_PAGE, from_end=True)
            page = list(self._store.repository.runs(self._store.name, self._id, window).runs)
        return found, shown


def _position(run: Run) -> int:
    return cast(int, run.position)


def _sameness(run: Run) -> tuple[str, str, str]:
    """Return what tells a run from others with its id, on any store."""
    record = run.to_record(1)
    return record.id, record.input, record.output


def _stands(stored: Run | None, held: Held) -> bool:
    return stored is not None and stored.id == held.key
