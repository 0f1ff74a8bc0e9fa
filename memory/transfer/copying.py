"""Copy conversations from one store to another: one, or all of a namespace or of all namespaces.

A conversation that fits into one commit is copied in one. A long one is created with the version *before* its own and its first
runs, continued piece by piece, and ended by an edit, which increments the version: if a copy is interrupted, no part passes for
the whole (docs/decisions/0050-a-long-copy-ends-with-its-version.md).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Literal, NamedTuple, TypeAlias

from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.domain.records import ConversationRecord, RunRecord
from memory.errors import (
    AlreadyExistsError,
    CommitTooLargeError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    UnsupportedError,
)
from memory.port.changes import Change, ChangeSet, ExpectedVersion, Written
from memory.transfer.loading import Loader, OnConflict, Totals, check_refusal
from memory.transfer.parsing import ParsedConversation
from memory.transfer.reading import (
    RECORD_SIZE,
    get_record,
    retry_on_conflict,
    run_batches,
    run_cost,
    runs_of,
    version_of,
)
from memory.transfer.verifying import Pair, has_any, head, named, pairs

Outcome: TypeAlias = Literal["equal", "copied", "removed", "absent", "kept"]
"""``equal`` before; ``copied``; ``removed`` because the source has none, or ``absent`` there and kept; ``kept`` on a conflict."""

_KEPT = "the target has another state of it, which is not an older one"


@dataclass(frozen=True, slots=True)
class NotCopied:
    """A conversation that `copy` left as it is in the target, and why.

    Attributes:
        namespace: its namespace in the source.
        id: its id.
        reason: why it was not copied.
        kept: whether it was left by choice, because the target has something else under its id (``on_conflict="skip"``).
    """

    namespace: str
    id: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{named(self.namespace, self.id)}: {self.reason}"


def copy(
    source: Store[Any],
    target: Store[Any],
    criterion: Criterion | None = None,
    *,
    all_namespaces: bool = False,
    on_conflict: OnConflict = "skip",
    delete: bool = False,
    on_not_copied: Callable[[NotCopied], object] = lambda _: None,
    progress: Callable[[Totals], object] = lambda _: None,
    totals: Totals | None = None,
) -> Totals:
    """Copy all conversations, with their runs, versions, positions and times. After an interruption, call it again.

    A conversation with the same metadata, version, times, number of runs and last position on both sides counts as equal. One
    that is an older state of the source's, or a part of it, is brought up to date. Anything else under its id is a conflict.
    Memory is constant, whatever the number of conversations or of their runs.

    Args:
        source: the store to copy from; it is only read.
        target: the store to copy to.
        criterion: copy only the conversations that match in the source when they are copied.
        all_namespaces: copy every namespace of the source to the one of the same name; by default only that of ``source`` to
            that of ``target``, whatever their names.
        on_conflict: ``"skip"`` the conversation, ``"replace"`` the target's, or ``"fail"``.
        delete: also delete the target's conversations (of those that match) that the source does not have; with
            ``all_namespaces`` only in namespaces in which the source has any.
        on_not_copied: called with each conversation that is left as it is.
        progress: called after each commit.
        totals: the totals to count up; new ones if left out. After an error they say what is written.

    Raises:
        InvalidValueError: ``on_conflict`` is something else; or nothing in the source matches, so that ``delete`` would delete
            everything: that is done only if the two namespaces have the same name and the source has other namespaces.
        AlreadyExistsError: there was a conflict and ``on_conflict`` is ``"fail"``.
        PersistenceError: a store failed; what ``totals`` counts is written.
    """
    totals = Totals() if totals is None else totals
    stores = [(source, target)]
    if all_namespaces:
        stores = [(source.namespace(name), target.namespace(name)) for name in source.namespaces()]
    deletes = [delete and has_any(here, criterion) for here, _ in stores]
    if delete and not any(deletes):
        was_emptied = not all_namespaces and criterion is None and source.namespace_name == target.namespace_name
        if not (was_emptied and source.namespaces()):
            raise InvalidValueError(
                "there is nothing in the source, so this would delete everything in the target: check the source's URL"
            )
        deletes = [True]
    for (here, there), deletes_here in zip(stores, deletes, strict=True):
        copying = _Copy(there, on_conflict, totals, progress, here, deletes_here, on_not_copied)
        copying.load(copying.missing(pairs(here, there, criterion)))
    progress(totals)
    return totals


@dataclass
class _Copy(Loader):
    """Copies one namespace: conversations that the target lacks in batches, all others one by one."""

    source: Store[Any]
    deletes: bool
    on_not_copied: Callable[[NotCopied], object]

    def missing(self, found: Iterable[Pair]) -> Iterator[ParsedConversation]:
        """Yield what the target seems to lack and one commit can create; handle all others."""
        for ours, theirs in found:
            if ours is None:
                # The source may have it all the same: created since, or no longer matching.
                if theirs is not None and (self.deletes or get_record(self.source, theirs.id) is not None):
                    self._copy_one(theirs.id)
            elif theirs is None:
                yield from self._read(ours)
            elif head(ours) == head(theirs):
                self.totals.equal += 1
                if not self.totals.seen % 1_000:
                    self.progress(self.totals)
            else:
                self._copy_one(ours.id)

    def _read(self, record: ConversationRecord) -> Iterator[ParsedConversation]:
        try:
            parts = run_batches(runs_of(self.source, record))
            runs = next(parts, [])
            if next(parts, None) is None:
                size = RECORD_SIZE + len(record.metadata) + sum(run_cost(run).characters for run in runs)
                yield ParsedConversation(0, Change(record.id, create=record, append=tuple(runs)), size)
                return
        except (ConflictError, CorruptRecordError):
            pass  # `_copy_one` reads it again
        self._copy_one(record.id)

    def handle_existing(self, one: ParsedConversation) -> None:
        self._copy_one(one.change.id)

    def handle_refused(self, one: ParsedConversation, reason: str) -> None:
        self._refuse(one.change.id, reason)

    def _refuse(self, conversation_id: str, reason: str) -> None:
        self.totals.refused += 1
        self.on_not_copied(NotCopied(self.source.namespace_name, conversation_id, reason))

    def _copy_one(self, conversation_id: str) -> None:
        one = _OneCopy(self.source, self.store, conversation_id, self.on_conflict == "replace", self.deletes)
        one.totals, one.progress = self.totals, self.progress
        try:
            outcome = one.copy()
        except (ConflictError, CorruptRecordError, InvalidValueError, PartialCommitError, UnsupportedError) as error:
            check_refusal(error)
            self._refuse(conversation_id, str(error))
            return
        namespace = self.source.namespace_name
        if outcome == "kept" and self.on_conflict == "fail":
            raise AlreadyExistsError(f"conversation {named(namespace, conversation_id)!r}: {_KEPT}")
        if outcome == "kept":
            self.totals.skipped += 1
            self.on_not_copied(NotCopied(namespace, conversation_id, _KEPT, kept=True))
        self.totals.conversations += outcome == "copied"
        self.totals.removed += outcome == "removed"
        self.totals.equal += outcome == "equal"
        self.progress(self.totals)


class Copied(NamedTuple):
    """What `copy_conversation` did in the target, and how many runs it wrote."""

    outcome: Outcome
    runs: int = 0


def copy_conversation(
    source: Store[Any], target: Store[Any], conversation_id: str, *, thorough: bool = False
) -> Copied:
    """Make a conversation of the target equal to the source's: its record, and its runs with their positions.

    Whatever the target has under this id is replaced; if the source has none, or an expired one, the target's is removed. It is
    safe to call again at any time: an equal conversation is left alone, and an interrupted copy is resumed. Memory is constant.
    Runs that are appended to the source during the copy are left out. An edit of the source, and any write to the target,
    restarts the copy.

    Args:
        source: the store to copy from; it is only read.
        target: the store to copy to.
        conversation_id: the conversation's id.
        thorough: compare all runs even if metadata, version, times, number of runs and last position are equal.

    Raises:
        ConflictError: it was changed on either side faster than it could be copied.
        CorruptRecordError: the source's conversation does not have as many runs as its record says.
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
    one = _OneCopy(source, target, conversation_id, thorough=thorough)
    return Copied(one.copy(), one.totals.runs)


@dataclass(slots=True)
class _OneCopy:
    """The copy of one conversation. Unless it ``replaces``, it changes only a beginning or an older state of the source's."""

    source: Store[Any]
    target: Store[Any]
    id: str
    replaces: bool = True
    removes: bool = True
    thorough: bool = False
    totals: Totals = field(default_factory=Totals)
    progress: Callable[[Totals], object] = lambda _: None

    def copy(self) -> Outcome:
        return retry_on_conflict(self._try)

    def _try(self) -> Outcome:
        try:
            return self._copy()
        except (AlreadyExistsError, NotFoundError) as error:  # the target's, which was different a moment ago
            raise self._conflict() from error

    def _conflict(self) -> ConflictError:
        return ConflictError(f"conversation {self.id!r} was changed while it was copied: copy it again")

    def _copy(self) -> Outcome:
        # The target first: runs that another copy brings to it meanwhile must not look like more than the source has.
        theirs, ours = get_record(self.target, self.id), get_record(self.source, self.id)
        if ours is None:
            return self._remove(theirs)
        if theirs is None:
            return self._replace(ours, None)
        if head(ours) == head(theirs) and not self.thorough:
            return "equal"
        missing = self._missing(ours, theirs)
        if missing is not None:
            return self._continue(ours, theirs, missing)
        replaces = self.replaces or _is_older(theirs, ours) or self._only_completes(ours, theirs)
        return self._replace(ours, theirs) if replaces else "kept"

    def _remove(self, theirs: ConversationRecord | None) -> Outcome:
        if theirs is None:
            return "equal"
        if not self.removes:
            return "absent"
        self._commit(Change(self.id, version_of(theirs), theirs.last_position, remove=True))
        return "removed"

    def _replace(self, ours: ConversationRecord, theirs: ConversationRecord | None) -> Outcome:
        pieces = run_batches(runs_of(self.source, ours))
        piece, following = next(pieces, []), next(pieces, None)
        last_position = piece[-1].position if piece else 0
        begun = ours if following is None else ours._replace(version=ours.version - 1, last_position=0)
        change = Change(self.id, create=begun, append=tuple(piece))
        if theirs is not None:
            change = change._replace(expected=version_of(theirs), after=theirs.last_position, remove=True)
        written = self._commit(change, ours.updated_at)
        piece.clear()  # before more is read
        if following is not None and written is not None:
            seen = ExpectedVersion(written.incarnation, written.version)
            self._append(ours, seen, chain([following], pieces), last_position)
        return "copied"

    def _missing(self, ours: ConversationRecord, theirs: ConversationRecord) -> Iterator[RunRecord] | None:
        """Return the runs that the target lacks if what it has is a beginning of the source's conversation; else None."""
        is_begun = ours.version - theirs.version in (0, 1) and theirs.last_position <= ours.last_position
        if not is_begun or _identity(theirs) != _identity(ours):
            return None
        missing = runs_of(self.source, ours)
        try:
            if any(next(missing, None) != run for run in runs_of(self.target, theirs)):
                return None
        except CorruptRecordError:  # the target's; if it is the source's, reading the source again raises it again
            return None
        return missing

    def _only_completes(self, ours: ConversationRecord, theirs: ConversationRecord) -> bool:
        """Whether the source only completed runs that are still open in the target, and appended others after them."""
        if theirs.version != ours.version or _identity(theirs) != _identity(ours):
            return False
        pairs = zip_longest(runs_of(self.target, theirs), runs_of(self.source, ours))
        try:
            return all(there == here or there is None or (there.is_open and here) for there, here in pairs)
        except CorruptRecordError:  # as in `_missing`
            return False

    def _continue(self, ours: ConversationRecord, theirs: ConversationRecord, missing: Iterator[RunRecord]) -> Outcome:
        if head(ours) == head(theirs):
            return "equal"
        pieces = run_batches(missing)
        first = next(pieces, [])
        if first or ours.version > theirs.version:
            self._append(ours, version_of(theirs), chain([first], pieces), theirs.last_position)
        now = get_record(self.target, self.id)
        if now is None or head(now)._replace(updated_at=0, last_run_at=0) != head(ours)._replace(
            updated_at=0, last_run_at=0
        ):
            raise self._conflict()
        if head(now) != head(ours):  # some stores set the times of an append themselves
            self._replace(ours, now)
        return "copied"

    def _append(
        self, ours: ConversationRecord, seen: ExpectedVersion, pieces: Iterator[list[RunRecord]], last_position: int
    ) -> None:
        """Append runs to a begun conversation; the last commit gives it the source's version."""
        change = partial(Change, self.id, seen)
        piece = next(pieces)
        while (following := next(pieces, None)) is not None:
            self._commit(change(last_position, append=tuple(piece)), ours.updated_at)
            last_position, piece = piece[-1].position, following
        end = piece[-1].position if piece else last_position
        if seen.version == ours.version or end == ours.last_position:
            metadata = None if seen.version == ours.version else ours.metadata  # an edit increments the version
            self._commit(change(last_position, metadata=metadata, append=tuple(piece)), ours.updated_at)
        else:  # the source's last run was removed: a placeholder takes its position, and is removed
            removed = RunRecord(ours.last_position, "removed", "null", "null", "{}", ours.created_at)
            self._commit(change(last_position, append=(*piece, removed)), ours.updated_at)
            self.totals.runs -= 1
            self._commit(change(removed.position, remove_runs=(removed.position,)), ours.updated_at)

    def _commit(self, change: Change, at: int | None = None) -> Written | None:
        at = self.target.repository.clock() if at is None else at
        try:
            written = self.target.commit(ChangeSet.of([change], at)).written[self.id]
        except CommitTooLargeError:
            if change.create or not change.append[1:]:
                raise
        else:
            self.totals.runs += len(change.append)
            self.progress(self.totals)
            return written
        half = len(change.append) // 2
        self._commit(change._replace(metadata=None, append=change.append[:half]), at)
        return self._commit(change._replace(after=change.append[half - 1].position, append=change.append[half:]), at)


def _identity(record: ConversationRecord) -> tuple[object, ...]:
    return record.metadata, record.created_at, record.expires_at, record.expires_after


def _is_older(theirs: ConversationRecord, ours: ConversationRecord) -> bool:
    """Whether the target's conversation is an earlier state of the source's, as far as their records show."""
    return (
        theirs.created_at == ours.created_at
        and theirs.version < ours.version
        and theirs.last_position <= ours.last_position
        and theirs.updated_at <= ours.updated_at
    )
