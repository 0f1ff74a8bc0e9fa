"""Load a Griptape conversation from a store, and write the changes of its memory."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import RLock
from typing import Any, Final, cast

from attrs import define, field
from griptape.memory.structure import Run as GriptapeRun

from memory.bridges.griptape.codec import Codec
from memory.bridges.griptape.diff import Diff, compare
from memory.bridges.griptape.editing import Edit, Editing, StaleStateError, Trimmed, create
from memory.bridges.griptape.marks import shown_from, visible
from memory.bridges.griptape.metadata import metadata_of
from memory.bridges.griptape.places import LegacyLoader
from memory.bridges.griptape.state import GONE, NEW, KnownRun, MemoryState
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord
from memory.domain.values import Json
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConflictError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
)
from memory.formats.envelopes import metadata_json
from memory.port.changes import ALL_RUNS, UNKNOWN, ChangeSet, Receipt, Written
from memory.port.forking import ForkAware, watch
from memory.port.repository import Window
from memory.transfer.reading import retry_on_conflict, runs_in

_RETRIES: Final = 10
_FIRST_PAGE, _GROWTH = 256, 8  # runs; a long conversation is read in few, larger pages
_BEHIND: Final = 16  # how many runs of others may follow the runs of a memory that was restored from its JSON


@define(eq=False, slots=False)
class Recorder(ForkAware):
    """One conversation, for the memory of one driver. Safe to use from several threads.

    ``load_legacy`` returns the change that imports the conversation from the storage of Griptape's own driver.
    """

    _store: Store
    _id: str
    _codec: Codec
    _last: int | None = field(kw_only=True)
    _trimmed: Trimmed = field(kw_only=True)
    _load_legacy: LegacyLoader = field(kw_only=True)
    _lock: RLock = field(init=False, factory=RLock)
    _state: MemoryState = field(init=False, factory=MemoryState)
    _pending: tuple[ChangeSet, Callable[[Receipt], None]] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        watch(self)

    def after_fork_in_child(self) -> None:
        self._lock = RLock()

    # load

    def load(self) -> tuple[list[GriptapeRun], dict[str, Json]]:
        with self._lock:
            self._resolve_pending()
            conversation, runs, first = retry_on_conflict(self._load)
            state = self._state
            shown = visible(runs, first, state.created_at)
            is_window = self._last is not None and len(shown) > self._last
            if is_window:
                shown = shown[len(shown) - cast(int, self._last) :]
            loaded = [self._codec.to_theirs(run) for run in shown]
            metadata = metadata_json(conversation.metadata) if conversation else {}
            known = zip(shown, loaded, strict=True)
            self._state = replace(
                state,
                runs=[KnownRun(_position(ours), run.id, self._codec.digest(run)) for ours, run in known],
                detached=(),
                metadata=metadata_of(metadata),
                last_position=max([state.last_position, *map(_position, runs)]),
                shown_from=first,
                unseen=1 if is_window else ALL_RUNS,
                is_window=is_window,
            )
            return loaded, metadata

    def _load(self) -> tuple[Conversation | None, list[Run], int]:
        """Return the conversation, and the result of `_read` for the same version; `ConflictError` if it was edited meanwhile."""
        with self._store.begin() as uow:
            conversation = self._look(uow)
        if conversation is None:
            return None, [], 0
        return conversation, *self._read(cast(ConversationRecord, conversation.record), self._last)

    def _look(self, uow: UnitOfWork) -> Conversation | None:
        """Return the conversation, or None. If it is missing, import it from the storage of Griptape's own driver."""
        conversation = self._get(uow)
        if conversation is None and (change := self._load_legacy()) is not None:
            with suppress(AlreadyExistsError):  # another process imported it
                self._store.commit(ChangeSet.of([change], self._store.repository.clock()))
            conversation = self._get(uow)
        self._state = self._state.looked_up(conversation.record if conversation else None)
        return conversation

    def _get(self, uow: UnitOfWork) -> Conversation | None:
        try:
            return uow.conversations.get(self._id)
        except NotFoundError:
            return None

    def _read(self, record: ConversationRecord, enough: int | None) -> tuple[list[Run], int]:
        """Return the last runs, and the position from which runs are visible: more than ``enough``, or all that are."""
        limit = _FIRST_PAGE if enough is None else enough + 1
        created_at = self._state.created_at
        runs: list[Run] = []
        first, before = 0, None
        while True:
            page = list(runs_in(self._store, record, Window(before=before, limit=limit, from_end=True)))
            first = first or shown_from(page, created_at)
            runs = page + runs
            if len(page) < limit or (before := _position(page[0])) <= max(first, 1):
                return runs, first
            if enough is not None and len(visible(runs, first, created_at)) > enough:
                return runs, first
            limit *= _GROWTH

    # store

    def store(self, runs: list[GriptapeRun], meta: dict[str, Any]) -> None:
        """Write the changes since the last load or store. After an error the next call writes what is missing, exactly once."""
        with self._lock:
            snapshot = list(runs)  # another thread may append to the list; it calls store() after this
            digests = list(map(self._codec.digest, snapshot))
            metadata = metadata_of(meta)

            def work(uow: UnitOfWork) -> None:
                self._resolve_pending()
                try:
                    self._write(uow, snapshot, digests, metadata)
                except (NotFoundError, AlreadyExistsError) as error:
                    self._state = replace(self._state, is_current=False)
                    raise ConflictError(
                        f"conversation {self._id!r} was removed, created or edited by someone else: call store() again"
                    ) from error

            self._store.run(work, retries=_RETRIES)

    def _resolve_pending(self) -> None:
        """Resolve a pending commit, whose response was lost or after which a read failed."""
        if self._pending is not None:
            # These errors prove that it was not written. Its runs are then new in the next comparison.
            with suppress(NotFoundError, AlreadyExistsError, ConflictError):
                self._commit(*self._pending)

    def _write(
        self, uow: UnitOfWork, snapshot: list[GriptapeRun], digests: list[int], metadata: dict[str, Json]
    ) -> None:
        if not self._state.is_current:
            self._look(uow)
        at = self._store.repository.clock()
        diff = self._compare(snapshot, digests)
        if self._state.incarnation is None:
            planned = create(self._id, self._codec, diff, metadata, at)
        else:
            try:
                editing = Editing(uow, self._id, self._codec, self._state, diff, trimmed=self._trimmed)
                planned = editing.edit(metadata)
            except StaleStateError:
                self._look(uow)
                self._state = self._state.relocated(map(self._codec.known, uow.runs.list(self._id)))
                raise  # and compare again
        if planned.change is None:
            self._state = planned.state
        else:
            self._commit(ChangeSet.of([planned.change], at), partial(self._written, planned))

    def _compare(self, snapshot: list[GriptapeRun], digests: list[int]) -> Diff:
        diff = compare(self._state, snapshot, digests)
        if not diff.unsure or self._state.incarnation is None:
            return diff
        # These runs may have been restored from JSON, for example with a Structure that was serialized.
        everywhere = any(known.position != NEW for known in diff.runs)
        self._recognise(set(diff.unsure), None if everywhere else len(snapshot) + _BEHIND)
        return compare(self._state, snapshot, digests)

    def _recognise(self, digests: set[int], among: int | None) -> None:
        """Search the store for these runs, in the last ``among`` runs or (None) in all; those found become detached runs."""
        with self._store.begin() as uow:
            page = uow.runs.list(self._id) if among is None else uow.runs.last(self._id, among)
        state = self._state
        known = {each.position for each in (*state.runs, *state.detached)}
        found = [each for each in map(self._codec.known, page) if each.digest in digests and each.position not in known]
        shown = state.shown_from or shown_from(page, state.created_at)
        self._state = replace(state, detached=sorted([*state.detached, *found]), shown_from=shown)

    def _commit(self, changes: ChangeSet, then: Callable[[Receipt], None]) -> None:
        """Commit. The commit stays pending until its outcome is known and ``then`` has returned."""
        is_repeated, self._pending = self._pending is not None, (changes, then)
        try:
            receipt = self._store.commit(changes)
        except CommitInDoubtError:
            raise
        except PartialCommitError as error:
            self._pending = cast(ChangeSet, error.changes), then
            raise
        except (NotFoundError, AlreadyExistsError, ConflictError):
            self._pending = None
            raise
        except PersistenceError:
            if not is_repeated:  # of a repeated commit, the error does not tell whether the first one was written
                self._pending = None
            raise
        then(receipt)
        self._pending = None

    def _written(self, planned: Edit, receipt: Receipt) -> None:
        written = cast(Written, receipt.written[self._id])
        state, before = planned.state, planned.state.incarnation
        state = state.appended(self._positions(planned.new, state.last_position, written))
        if before is not None and written.incarnation != before:  # someone else replaced the conversation in between
            new = {index for index, known in enumerate(planned.state.runs) if known.position == NEW}
            runs = [known if index in new else known._replace(position=GONE) for index, known in enumerate(state.runs)]
            state = MemoryState(runs, metadata=state.metadata, last_position=written.last_position)
        self._state = replace(state, incarnation=written.incarnation)

    def _positions(self, new: list[Run], last: int, written: Written) -> list[int]:
        """Return the positions of the new runs: the last ones, unless others may have appended between or after them."""
        end, count = written.last_position, len(new)
        if end != UNKNOWN and (count == 0 or self._store.repository.capabilities.atomic or end - count == last):
            return list(range(end - count + 1, end + 1))
        with self._store.begin() as uow:
            stored = uow.runs.list(self._id, after=last)
        found: dict[tuple[str, str, str], list[int]] = {}
        for run in reversed(stored):
            found.setdefault(_sameness(run), []).append(_position(run))
        return [places.pop() if (places := found.get(_sameness(run))) else GONE for run in new]


def _position(run: Run) -> int:
    return cast(int, run.position)


def _sameness(run: Run) -> tuple[str, str, str]:
    """Return the fields that identify a run on any store, besides its position."""
    record = run.to_record(1)
    return record.id, record.input, record.output
