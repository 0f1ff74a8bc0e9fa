"""All conversations of a namespace, or of all, the small ones together in one commit."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.domain.records import ConversationRecord
from memory.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    PartialCommitError,
    PersistenceError,
    UnsupportedError,
)
from memory.port.changes import Change, ChangeSet
from memory.transfer.batching import Cost, batches
from memory.transfer.copying import OneCopy
from memory.transfer.loading import OnConflict
from memory.transfer.reading import RECORD_SIZE, get_record, run_batches, run_cost, runs_of
from memory.transfer.verifying import Pair, has_any, head, named, pairs


@dataclass(frozen=True, slots=True)
class NotCopied:
    """A conversation that `copy` has left as it is in the target, and why.

    Attributes:
        namespace: the source's.
        id: the conversation's.
        reason: what stood in the way.
        kept: by choice: the target has something else there, see `copy`.
    """

    namespace: str
    id: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{named(self.namespace, self.id)}: {self.reason}"


@dataclass(slots=True)
class CopyTotals:
    """What `copy` has done so far.

    Attributes:
        conversations: copied.
        runs: written.
        equal: those that were the same on both sides before.
        removed: those that the source did not have.
        kept: those that are something else in the target, and were left so.
        failed: those that could not be copied.
    """

    conversations: int = 0
    runs: int = 0
    equal: int = 0
    removed: int = 0
    kept: int = 0
    failed: int = 0

    @property
    def seen(self) -> int:
        """How many conversations of the source are done with."""
        return self.conversations + self.equal + self.kept + self.failed


def copy(
    source: Store,
    target: Store,
    criterion: Criterion | None = None,
    *,
    all_namespaces: bool = False,
    on_conflict: OnConflict = "skip",
    delete: bool = False,
    on_not_copied: Callable[[NotCopied], object] = lambda _: None,
    progress: Callable[[CopyTotals], object] = lambda _: None,
    totals: CopyTotals | None = None,
) -> CopyTotals:
    """Copy all conversations, with their runs, versions, positions and times; call it again to go on after an interruption.

    A conversation that has the same metadata, version, times, number of runs and last position on both sides counts as equal. One
    that is an older state of the source's, or a part of it, is brought up to date. Anything else under its id is a conflict.
    Memory is constant, whatever the number of conversations or of their runs.

    Args:
        source: where from; it is only read.
        target: where to.
        criterion: only the conversations that match in the source, or did when they were copied.
        all_namespaces: copy every namespace that the source has, each to the one of its name; else that of ``source`` to that of
            ``target``, whatever their names.
        on_conflict: leave the target's (``"skip"``), ``"replace"`` it, or stop there (``"fail"``).
        delete: also remove the target's conversations (of those that match) that the source does not have; of all namespaces, in
            each where the source has any.
        on_not_copied: called with each conversation that is left as it is.
        progress: called after each commit.
        totals: counts up, and is returned; a new one when left out. It tells what is written when this raises.

    Raises:
        InvalidValueError: ``on_conflict`` is something else; or nothing in the source matches, and ``delete`` would remove all:
            that is done only to a namespace of the same name, and if the source has others.
        AlreadyExistsError: there was a conflict, and ``on_conflict`` is ``"fail"``.
        PersistenceError: a store failed; what ``totals`` counts is written.
    """
    if on_conflict not in get_args(OnConflict):
        raise InvalidValueError(f"on_conflict must be one of {', '.join(get_args(OnConflict))}, not {on_conflict!r}")
    stores = [(source, target)]
    if all_namespaces:
        stores = [(source.namespace(name), target.namespace(name)) for name in source.namespaces()]
    deletes = [delete and has_any(here, criterion) for here, _ in stores]
    if delete and not any(deletes):
        was_emptied = not all_namespaces and criterion is None and source.namespace_name == target.namespace_name
        if not (was_emptied and source.namespaces()):
            raise InvalidValueError("there is nothing in the source: that would delete all there is in the target")
        deletes = [True]
    told = _Told(on_not_copied, progress, CopyTotals() if totals is None else totals)
    for (here, there), deletes_here in zip(stores, deletes, strict=True):
        copying = _Copying(here, there, on_conflict, deletes_here, told)
        ready = copying.ready(pairs(here, there, criterion))
        for group in batches(ready, _load, together=there.repository.capabilities.atomic):
            copying.write(group)
            group.clear()  # before the next one is read
    progress(told.totals)
    return told.totals


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told of a copy while it goes on."""

    on_not_copied: Callable[[NotCopied], object]
    progress: Callable[[CopyTotals], object]
    totals: CopyTotals


def _load(change: Change) -> Cost:
    size = RECORD_SIZE + (len(change.create.metadata) if change.create else 0)
    return Cost(size + sum(run_cost(run).characters for run in change.append), len(change.append), change.id)


@dataclass(frozen=True, slots=True)
class _Copying:
    """The copying of one namespace."""

    source: Store
    target: Store
    on_conflict: OnConflict
    deletes: bool
    told: _Told

    def ready(self, found: Iterable[Pair]) -> Iterator[Change]:
        """Yield what makes the conversations that the target seems to lack, and see to all others."""
        for ours, theirs in found:
            if ours is None:
                # It may be there all the same: made meanwhile, or as something that does not match any more.
                if theirs is not None and (self.deletes or get_record(self.source, theirs.id) is not None):
                    self._copy_one(theirs.id)
            elif theirs is None:
                yield from self._new(ours)
            elif head(ours) == head(theirs):
                self.told.totals.equal += 1
                if not self.told.totals.seen % 1_000:
                    self.told.progress(self.told.totals)
            else:
                self._copy_one(ours.id)

    def _new(self, record: ConversationRecord) -> Iterator[Change]:
        try:
            parts = run_batches(runs_of(self.source, record))
            runs = next(parts, [])
            if next(parts, None) is None:
                yield Change(record.id, create=record, append=tuple(runs))
                return
        except (ConflictError, CorruptRecordError):
            pass  # it is looked at again
        self._copy_one(record.id)

    def write(self, group: list[Change]) -> None:
        """Write what makes new conversations; one by one where one of them cannot be written."""
        try:
            self.target.commit(ChangeSet.of(group, self.target.repository.clock()))
        except (AlreadyExistsError, InvalidValueError, PartialCommitError, UnsupportedError) as error:
            _check_refused(error)
            for change in group:
                self._copy_one(change.id)
        else:
            self.told.totals.conversations += len(group)
            self.told.totals.runs += sum(len(change.append) for change in group)
            self.told.progress(self.told.totals)

    def _copy_one(self, conversation_id: str) -> None:
        def count(runs: int) -> None:
            self.told.totals.runs += runs
            self.told.progress(self.told.totals)

        replaces = self.on_conflict == "replace"
        one = OneCopy(self.source, self.target, conversation_id, replaces, self.deletes, count=count)
        try:
            outcome = one.make().outcome
        except (ConflictError, CorruptRecordError, InvalidValueError, PartialCommitError, UnsupportedError) as error:
            _check_refused(error)
            self.told.totals.failed += 1
            self.told.on_not_copied(NotCopied(self.source.namespace_name, conversation_id, str(error)))
            return
        if outcome == "kept":
            reason = "the target has another state of it, which is not an older one"
            if self.on_conflict == "fail":
                raise AlreadyExistsError(
                    f"conversation {named(self.source.namespace_name, conversation_id)!r}: {reason}"
                )
            self.told.totals.kept += 1
            self.told.on_not_copied(NotCopied(self.source.namespace_name, conversation_id, reason, kept=True))
        self.told.totals.conversations += outcome == "copied"
        self.told.totals.removed += outcome == "removed"
        self.told.totals.equal += outcome == "equal"
        self.told.progress(self.told.totals)


def _check_refused(error: PersistenceError) -> None:
    """Raise the error, if it is one of a commit that broke off for another reason than what was to be written."""
    if isinstance(error, PartialCommitError) and not error.is_refusal:
        raise error
