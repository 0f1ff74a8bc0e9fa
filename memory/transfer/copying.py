"""One conversation, from the one store to the other.

One that fits one commit is copied by one. A long one is begun with the version *before* its own and its first runs, continued
piece by piece, and ended by an edit, which counts the version up: no part of it, whenever a copy is cut short, passes for the
whole (docs/decisions/0050-a-long-copy-ends-with-its-version.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

from memory.core.store import Store
from memory.domain.records import ConversationRecord, RunRecord
from memory.errors import AlreadyExistsError, ConflictError, CorruptRecordError, NotFoundError
from memory.port.changes import Change, ChangeSet, ExpectedVersion, Written
from memory.transfer.reading import get_record, retry_on_conflict, run_batches, runs_of, version_of
from memory.transfer.verifying import head

Outcome: TypeAlias = Literal["equal", "copied", "removed", "absent", "kept"]
"""``equal`` already; ``copied``; ``removed`` where the source has none, or ``absent`` there and left; ``kept`` on a conflict."""


class Copied(NamedTuple):
    """What became of one conversation of the target, and how many runs were written for it."""

    outcome: Outcome
    runs: int = 0


def copy_conversation(source: Store, target: Store, conversation_id: str, *, thorough: bool = False) -> Copied:
    """Make a conversation of the target what it is in the source: its record, and its runs with their positions.

    Where the source has none, or an expired one, it is removed. Whatever stands in the target gives way. It may be called again
    at any time: what is equal is left alone, and what an earlier call has begun is gone on with. Memory is constant.
    What is appended to the source meanwhile is left out; when it is edited meanwhile, the copy begins again. What others write
    to the target meanwhile, a run that they append among it, makes it begin again too.

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
    return OneCopy(source, target, conversation_id, thorough=thorough).make()


@dataclass(slots=True)
class OneCopy:
    """One conversation, from the one store to the other.

    Attributes:
        replaces: whatever stands in the target gives way; else only what is a beginning of the source's, or older.
        removes: where the source has none, the target's is removed.
        thorough: as for `copy_conversation`.
        count: is told how many runs each commit has written.
        runs: how many that are.
    """

    source: Store
    target: Store
    id: str
    replaces: bool = True
    removes: bool = True
    thorough: bool = False
    count: Callable[[int], object] = lambda _: None
    runs: int = 0

    def make(self) -> Copied:
        """Copy it, again where others write it meanwhile."""
        return Copied(retry_on_conflict(self._try), self.runs)

    def _try(self) -> Outcome:
        try:
            return self._outcome()
        except (AlreadyExistsError, NotFoundError) as error:  # of the target, which was not so a moment ago
            raise ConflictError(f"conversation {self.id!r} was changed while it was copied: copy it again") from error

    def _outcome(self) -> Outcome:
        # The target first: what another copy brings to it meanwhile does not pass for more than the source has.
        theirs, ours = get_record(self.target, self.id), get_record(self.source, self.id)
        if ours is None:
            return self._remove(theirs)
        if theirs is None:
            self._make_new(ours, None)
            return "copied"
        if head(ours) == head(theirs) and not self.thorough:
            return "equal"
        rest = self._rest(ours, theirs)
        if rest is not None:
            return self._go_on(ours, theirs, rest)
        if not self.replaces and not _is_older(theirs, ours):
            return "kept"
        self._make_new(ours, theirs)
        return "copied"

    def _remove(self, theirs: ConversationRecord | None) -> Outcome:
        if theirs is None:
            return "equal"
        if not self.removes:
            return "absent"
        self._commit(Change(self.id, version_of(theirs), theirs.last_position, remove=True))
        return "removed"

    def _go_on(self, ours: ConversationRecord, theirs: ConversationRecord, rest: Iterator[RunRecord]) -> Outcome:
        """Append what the target lacks, which has a beginning of it."""
        if head(ours) == head(theirs):
            return "equal"
        self._append_rest(ours, theirs, rest)
        now = get_record(self.target, self.id)
        if now is None or _extent(now) != _extent(ours):
            raise ConflictError(f"conversation {self.id!r} was changed while it was copied: copy it again")
        if head(now) != head(ours):  # a store may have its own idea of when runs were appended
            self._make_new(ours, now)
        return "copied"

    def _make_new(self, ours: ConversationRecord, theirs: ConversationRecord | None) -> None:
        """Make it, in place of what stands there."""
        rest = run_batches(runs_of(self.source, ours))
        piece, following = next(rest, []), next(rest, None)
        last_position = piece[-1].position if piece else 0
        begun = ours if following is None else ours._replace(version=ours.version - 1, last_position=0)
        change = Change(self.id, create=begun, append=tuple(piece))
        if theirs is not None:
            change = replace(change, seen=version_of(theirs), after=theirs.last_position, remove=True)
        written = self._commit(change, ours.updated_at)
        piece.clear()  # before more is read
        if following is not None and written is not None:
            self._append(
                ours, ExpectedVersion(written.incarnation, written.version), chain([following], rest), last_position
            )

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
            missing = run_batches(chain([] if first is None else [first], rest))
            self._append(ours, version_of(theirs), missing, theirs.last_position)

    def _append(
        self, ours: ConversationRecord, seen: ExpectedVersion, missing: Iterator[list[RunRecord]], last_position: int
    ) -> None:
        """Append runs to what is begun, and end it with the version that it is to have."""
        change = partial(Change, self.id, seen)
        piece = next(missing, [])
        while (following := next(missing, None)) is not None:
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


def _extent(record: ConversationRecord) -> tuple[int, ...]:
    return record.version, record.run_count, record.last_position


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
