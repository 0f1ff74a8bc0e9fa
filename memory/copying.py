"""Copying from one store to another: versions, positions and times kept, resumable at any moment, in constant memory.

A conversation that fits one commit is copied by one, together with others. A long one is begun with the version *before* its own
and its first runs, continued piece by piece, and ended by an edit, which counts the version up: no part of it, whenever a copy
is cut short, passes for the whole (docs/decisions/0050-a-long-copy-ends-with-its-version.md).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from memory.changes import Change, ChangeSet, Seen, Written
from memory.comparing import Pair, get, head, pairs, runs_of, seen_in, steadily
from memory.domain import ConversationRecord, RunRecord
from memory.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
    UnsupportedError,
)
from memory.gathering import Load, gather
from memory.query import Criterion
from memory.store import Store
from memory.transfer import OnConflict

Outcome: TypeAlias = Literal["equal", "copied", "removed", "kept"]
"""``equal`` already, ``copied``, ``removed`` where the source has none, or ``kept`` as it is in the target, on a conflict."""

_RECORD_SIZE: Final = 200  # characters of a conversation without runs and metadata, and of a run without its texts


class Copied(NamedTuple):
    """What became of one conversation of the target, and how many runs were written for it."""

    outcome: Outcome
    runs: int = 0


@dataclass(frozen=True, slots=True)
class NotCopied:
    """A conversation that `copy` has left as it is in the target, and why.

    Attributes:
        id: the conversation's.
        reason: what stood in the way.
        kept: by choice: the target has something else there, see `copy`.
    """

    id: str
    reason: str
    kept: bool = False


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


def copy_conversation(source: Store, target: Store, conversation_id: str, *, thorough: bool = False) -> Copied:
    """Make a conversation of the target what it is in the source: its record, and its runs with their positions.

    Where the source has none, or an expired one, it is removed. Whatever stands in the target gives way. It may be called again
    at any time: what is equal is left alone, and what an earlier call has begun is gone on with. Memory is constant.
    What is appended to the source meanwhile is left out; when it is edited meanwhile, the copy begins again. What others write
    to the target meanwhile makes it begin again too; but a run that they append at the moment of its replacement goes with it.

    Args:
        source: where from; it is only read.
        target: where to.
        conversation_id: which.
        thorough: compare all runs also where both sides have the same metadata, version, times, number of runs and last position.

    Raises:
        ConflictError: it was edited on either side faster than it could be copied.
        CorruptRecordError: the source's has not as many runs as it says.
        InvalidValueError: the target cannot keep it.
        PersistenceError: a store failed.

    >>> import memory
    >>> source, target = memory.connect("memory://"), memory.connect("memory://")
    >>> with source.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    ...     uow.runs.append("support-42", memory.Run("Where is my refund?", "It left on Monday."))
    >>> copy_conversation(source, target, "support-42")
    Copied(outcome='copied', runs=1)
    >>> copy_conversation(source, target, "support-42")
    Copied(outcome='equal', runs=0)
    """
    return _OneCopy(source, target, conversation_id, thorough=thorough).make()


def copy(
    source: Store,
    target: Store,
    criterion: Criterion | None = None,
    *,
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
        criterion: only the conversations that match in the source.
        on_conflict: leave the target's (``"skip"``), ``"replace"`` it, or stop there (``"fail"``).
        delete: also remove the target's conversations (of those that match) that the source does not have.
        on_not_copied: called with each conversation that is left as it is.
        progress: called after each commit.
        totals: counts up, and is returned; a new one when left out. It tells what is written when this raises.

    Raises:
        InvalidValueError: ``on_conflict`` is something else; or nothing in the source matches, and ``delete`` would remove all.
        AlreadyExistsError: there was a conflict, and ``on_conflict`` is ``"fail"``.
        PersistenceError: a store failed; what ``totals`` counts is written.
    """
    if on_conflict not in get_args(OnConflict):
        raise InvalidValueError(f"on_conflict must be one of {', '.join(get_args(OnConflict))}, not {on_conflict!r}")
    if delete and not any(True for _ in source.begin().conversations.find(criterion, order="id", limit=1)):
        raise InvalidValueError("there is nothing in the source: that would delete all there is in the target")
    totals = CopyTotals() if totals is None else totals
    copying = _Copying(source, target, on_conflict, on_not_copied, progress, totals)
    for group in gather(copying.ready(pairs(source, target, criterion), delete=delete), _load):
        copying.write(group)
        group.clear()  # before the next one is read
    progress(totals)
    return totals


def _load(change: Change) -> Load:
    size = _RECORD_SIZE + (len(change.create.metadata) if change.create else 0)
    return Load(size + sum(_run_load(run).characters for run in change.append), len(change.append), change.id)


def _run_load(run: RunRecord) -> Load:
    return Load(_RECORD_SIZE + len(run.input) + len(run.output) + len(run.metadata))


@dataclass(frozen=True, slots=True)
class _Copying:
    """One call of `copy`."""

    source: Store
    target: Store
    on_conflict: OnConflict
    on_not_copied: Callable[[NotCopied], object]
    progress: Callable[[CopyTotals], object]
    totals: CopyTotals

    def ready(self, found: Iterable[Pair], *, delete: bool) -> Iterator[Change]:
        """Yield what makes the conversations that the target seems to lack, and see to all others."""
        for ours, theirs in found:
            if ours is None:
                if theirs is not None and delete and get(self.source, theirs.id) is None:
                    self._copy_one(theirs.id)
            elif theirs is None:
                yield from self._new(ours)
            elif head(ours) == head(theirs):
                self.totals.equal += 1
                if not self.totals.seen % 1_000:
                    self.progress(self.totals)
            else:
                self._copy_one(ours.id)

    def _new(self, record: ConversationRecord) -> Iterator[Change]:
        try:
            pieces = _pieces(runs_of(self.source, record))
            runs = next(pieces, [])
            if next(pieces, None) is None:
                yield Change(record.id, create=record, append=tuple(runs))
                return
        except (ConflictError, CorruptRecordError):
            pass  # it is looked at again
        self._copy_one(record.id)

    def write(self, group: list[Change]) -> None:
        """Write what makes new conversations; one by one where one of them cannot be written."""
        if len(group) > 1 and not self.target.repository.capabilities.atomic:
            for change in group:
                self.write([change])
            return
        try:
            self.target.commit(ChangeSet.of(group, self.target.repository.clock()))
        except (AlreadyExistsError, InvalidValueError, PartialCommitError, UnsupportedError) as error:
            _check_refused(error)
            for change in group:
                self._copy_one(change.id)
        else:
            self.totals.conversations += len(group)
            self.totals.runs += sum(len(change.append) for change in group)
            self.progress(self.totals)

    def _copy_one(self, conversation_id: str) -> None:
        def count(runs: int) -> None:
            self.totals.runs += runs
            self.progress(self.totals)

        one = _OneCopy(self.source, self.target, conversation_id, replaces=self.on_conflict == "replace", count=count)
        try:
            outcome = one.make().outcome
        except (ConflictError, CorruptRecordError, InvalidValueError, PartialCommitError, UnsupportedError) as error:
            _check_refused(error)
            self.totals.failed += 1
            self.on_not_copied(NotCopied(conversation_id, str(error)))
            return
        if outcome == "kept":
            reason = "the target has another state of it, which is not an older one"
            if self.on_conflict == "fail":
                raise AlreadyExistsError(f"conversation {conversation_id!r}: {reason}")
            self.totals.kept += 1
            self.on_not_copied(NotCopied(conversation_id, reason, kept=True))
        self.totals.conversations += outcome == "copied"
        self.totals.removed += outcome == "removed"
        self.totals.equal += outcome == "equal"
        self.progress(self.totals)


@dataclass(slots=True)
class _OneCopy:
    """One conversation, from the one store to the other; ``count`` is told how many runs each commit has written."""

    source: Store
    target: Store
    id: str
    replaces: bool = True
    thorough: bool = False
    count: Callable[[int], object] = lambda _: None
    runs: int = 0

    def make(self) -> Copied:
        """Copy it, again where others write it meanwhile."""
        return Copied(steadily(self._try), self.runs)

    def _try(self) -> Outcome:
        try:
            return self._outcome()
        except (AlreadyExistsError, NotFoundError) as error:  # of the target, which was not so a moment ago
            raise ConflictError(f"conversation {self.id!r} was changed while it was copied: copy it again") from error

    def _outcome(self) -> Outcome:
        ours, theirs = get(self.source, self.id), get(self.target, self.id)
        if ours is None:
            if theirs is None:
                return "equal"
            self._commit(Change(self.id, seen_in(theirs), remove=True))
            return "removed"
        if theirs is None:
            self._make_new(ours, None)
            return "copied"
        if head(ours) == head(theirs) and not self.thorough:
            return "equal"
        rest = self._rest(ours, theirs)
        if rest is None and not self.replaces and not _is_older(theirs, ours):
            return "kept"
        if rest is not None:
            if head(ours) == head(theirs):
                return "equal"
            self._append_rest(ours, theirs, rest)
            theirs = get(self.target, self.id)
        if (
            rest is None or theirs is None or head(ours) != head(theirs)
        ):  # a store may have its own idea of when runs were appended
            self._make_new(ours, theirs)
        return "copied"

    def _make_new(self, ours: ConversationRecord, theirs: ConversationRecord | None) -> None:
        """Make it, in place of what stands there."""
        pieces = _pieces(runs_of(self.source, ours))
        piece, following = next(pieces, []), next(pieces, None)
        last_position = piece[-1].position if piece else 0
        begun = ours if following is None else ours._replace(version=ours.version - 1, last_position=0)
        seen = None if theirs is None else seen_in(theirs)
        written = self._commit(
            Change(self.id, seen, remove=theirs is not None, create=begun, append=tuple(piece)), ours.updated_at
        )
        piece.clear()  # before more is read
        if following is not None and written is not None:
            self._append(ours, Seen(written.incarnation, written.version), chain([following], pieces), last_position)

    def _rest(self, ours: ConversationRecord, theirs: ConversationRecord) -> Iterator[RunRecord] | None:
        """Return the runs that the target lacks, if all that it has is a beginning of the source's; else None."""
        begun = ours.version - theirs.version in (0, 1) and theirs.last_position <= ours.last_position
        if not begun or _identity(theirs) != _identity(ours):
            return None
        rest = runs_of(self.source, ours)
        try:
            for run in runs_of(self.target, theirs):
                if next(rest, None) != run:
                    return None
        except CorruptRecordError:  # the target's, or it is found again by whoever reads the source
            return None
        return rest

    def _append_rest(self, ours: ConversationRecord, theirs: ConversationRecord, rest: Iterator[RunRecord]) -> None:
        first = next(rest, None)
        if first is not None or ours.version > theirs.version:
            pieces = _pieces(chain([] if first is None else [first], rest))
            self._append(ours, seen_in(theirs), pieces, theirs.last_position)

    def _append(
        self, ours: ConversationRecord, seen: Seen, pieces: Iterator[list[RunRecord]], last_position: int
    ) -> None:
        """Append runs to what is begun, and end it with the version that it is to have."""
        change = partial(Change, self.id, seen)
        piece = next(pieces, [])
        while (following := next(pieces, None)) is not None:
            self._commit(change(last_position, append=tuple(piece)), ours.updated_at)
            last_position, piece = piece[-1].position, following
        end = piece[-1].position if piece else last_position
        if seen.version == ours.version:
            self._commit(change(last_position, append=tuple(piece)), ours.updated_at)
        elif end == ours.last_position:
            self._commit(change(last_position, metadata=ours.metadata, append=tuple(piece)), ours.updated_at)
        else:  # the last run was removed in the source: one takes its position, and goes
            gone = RunRecord(ours.last_position, "removed", "null", "null", "{}", ours.updated_at)
            self._commit(change(last_position, append=(*piece, gone)), ours.updated_at)
            self._counted(-1)
            self._commit(change(gone.position, remove_runs=(gone.position,)), ours.updated_at)

    def _commit(self, change: Change, at: int | None = None) -> Written | None:
        at = self.target.repository.clock() if at is None else at
        written = self.target.commit(ChangeSet.of([change], at)).written[self.id]
        self._counted(len(change.append))
        return written

    def _counted(self, runs: int) -> None:
        self.runs += runs
        self.count(runs)


def _check_refused(error: PersistenceError) -> None:
    """Raise the error, if it is one of a commit that broke off for another reason than what was to be written."""
    if isinstance(error, PartialCommitError) and not isinstance(error.__cause__, InvalidValueError):
        raise error


def _identity(record: ConversationRecord) -> tuple[object, ...]:
    return record.metadata, record.created_at, record.expires_at


def _is_older(theirs: ConversationRecord, ours: ConversationRecord) -> bool:
    """Tell whether the one is a state that the other was in before, as far as their records tell."""
    return (
        theirs.created_at == ours.created_at
        and theirs.version < ours.version
        and theirs.last_position <= ours.last_position
        and theirs.updated_at <= ours.updated_at
    )


def _pieces(runs: Iterable[RunRecord]) -> Iterator[list[RunRecord]]:
    return gather(runs, _run_load)
