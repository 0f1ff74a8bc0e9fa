"""Writes as data: a `ChangeSet` contains all changes of a unit of work, and an adapter writes it in one `commit`.

`check_preconditions` decides which changes every store must reject, so that all stores behave the same.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter, ge
from typing import Final, NamedTuple, cast

from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import LARGEST, LAST_TIME, compact, new_id, now
from memory.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PersistenceError,
    State,
)

ALL_RUNS: Final = LARGEST
"""As `Change.remove_before`: all runs, because no position is higher."""

NEVER: Final = -1
"""As `Change.expires_at`: clear the expiry."""

UNKNOWN: Final = 0
"""As `Written.last_position`: the runs were appended, but the store could not determine their positions."""


RECEIPTS_KEPT: Final = 24 * 3600 * 1_000_000
"""How long receipts are kept at least, in microseconds: for so long, a commit whose answer was lost can be repeated."""

KEYED_RECEIPTS_KEPT: Final = 30 * RECEIPTS_KEPT
"""The same for change sets with an idempotency key of the application's, in microseconds."""

_KEYED: Final = "key/"


class ExpectedVersion(NamedTuple):
    """The incarnation and the version of a conversation that was read."""

    incarnation: str
    version: int


class Completion(NamedTuple):
    """A new output of an open run. ``metadata`` is None to keep the run's; if ``is_open``, the output is not final yet."""

    run_id: str
    output: str
    metadata: str | None = None
    is_open: bool = False

    def of(self, run: RunRecord) -> RunRecord:
        """Return the completed run."""
        metadata = run.metadata if self.metadata is None else self.metadata
        return run._replace(output=self.output, metadata=metadata, is_open=self.is_open)


class Change(NamedTuple):  # a tuple, because a frozen dataclass takes five times as long to make
    """The change of one conversation. Stores apply the fields in this order.

    Attributes:
        id: the conversation's id.
        expected: the expected version: raise `ConflictError` unless the store has exactly this one. None: no check.
        after: the expected last position, of the removed conversation if ``remove`` is set: raise `ConflictError` unless it is
            the last one assigned. None: no check.
        remove: delete the conversation and its runs. Unless ``create`` is set too, the conversation must exist.
        create: create this conversation, which must not exist (after ``remove``). The store assigns ``incarnation`` and
            ``run_count`` itself, and starts to count positions after ``last_position``. It computes ``last_run_at`` if that is 0.
        metadata: the new metadata as JSON text; None to keep it.
        expires_at: the new expiry in microseconds since 1970, `NEVER`, or None to keep it.
        remove_before: delete every run at a lower position.
        remove_runs: delete the runs at these positions; raise `NotFoundError` if one does not exist.
        replace_runs: replace the runs at the positions of these; raise `NotFoundError` if one does not exist.
        append: append these runs in this order. The store assigns positions that are 0 and keeps all others. Either all or none
            of them are given; they must ascend, and be higher than the last stored one.
        remove_after: delete every run at a higher position; None to delete none. Applied after ``remove_before``.
        expires_after: the new time after which the conversation expires, in microseconds since its last append, `NEVER`, or
            None to keep it.
        complete: set the output of these open runs, found by their ids; raise `NotFoundError` if there is no open run with the
            id. If several have it, the last one is completed. Applied before ``append``.
    """

    id: str
    expected: ExpectedVersion | None = None
    after: int | None = None
    remove: bool = False
    create: ConversationRecord | None = None
    metadata: str | None = None
    expires_at: int | None = None
    remove_before: int = 0
    remove_runs: tuple[int, ...] = ()
    replace_runs: tuple[RunRecord, ...] = ()
    append: tuple[RunRecord, ...] = ()
    remove_after: int | None = None
    expires_after: int | None = None
    complete: tuple[Completion, ...] = ()

    @property
    def edits_runs(self) -> bool:
        return bool(self.remove_before or self.remove_runs or self.replace_runs or self.remove_after is not None)

    @property
    def edits(self) -> bool:
        """Whether this change increments the version: anything except an append, a completion, a creation or a removal."""
        return (
            self.metadata is not None
            or self.expires_at is not None
            or self.expires_after is not None
            or self.edits_runs
        )

    def outcome(self, before: ConversationRecord | None, written: "Written", at: int) -> ConversationRecord:
        """Return the conversation's record after this change was written; ``before`` is the one read, None for a new one."""
        if self.create is not None or before is None:
            created = cast(ConversationRecord, self.create)
            before = created._replace(version=written.version, incarnation=written.incarnation)
        return self.applied(before, written.run_count, written.last_position, at)

    def applied(self, record: ConversationRecord, run_count: int, last_position: int, at: int) -> ConversationRecord:
        """Return a stored (or newly created) record after this change, with the given run count and last position."""
        return record._replace(
            metadata=record.metadata if self.metadata is None else self.metadata,
            version=record.version + self.edits,
            run_count=run_count,
            last_position=last_position,
            # Clocks differ: it never goes back. After a completion it is another one, since nothing else of the record changes.
            updated_at=record.updated_at if self.create else max(record.updated_at + bool(self.complete), at),
            expires_at=self.expiry(record, at),
            expires_after=self.lifetime(record.expires_after),
            last_run_at=self.last_run(record),
        )

    def last_run(self, record: ConversationRecord) -> int:
        """Return `ConversationRecord.last_run_at` after this change: not before any run, unless a new conversation brings it."""
        if self.create is not None and self.create.last_run_at:
            return self.create.last_run_at
        before = record.last_run_at if self.create is None else self.create.created_at
        return max([before, *[run.created_at for run in (*self.append, *self.replace_runs)]])

    def lifetime(self, before: int | None) -> int | None:
        """Return `ConversationRecord.expires_after` after this change."""
        if self.expires_after is None:
            return before
        return None if self.expires_after == NEVER else self.expires_after

    def expiry(self, record: ConversationRecord, at: int) -> int | None:
        """Return `ConversationRecord.expires_at` after this change of a stored (or newly created) record.

        Only an append, a completion, or a new ``expires_after`` moves a sliding expiry, and only forward.
        """
        if self.expires_at is not None:
            return None if self.expires_at == NEVER else self.expires_at
        lifetime = self.lifetime(record.expires_after)
        if lifetime is None or self.create or not (self.append or self.complete or self.expires_after):
            return record.expires_at
        return max(record.expires_at or 0, min(at + lifetime, LAST_TIME))

    @property
    def only_creates(self) -> bool:
        """Whether this change only creates a conversation with its runs."""
        return self.create is not None and self.after is None and not (self.remove or self.expected or self.edits)

    @property
    def only_appends(self) -> bool:
        """Whether this change only appends runs, without conditions. Such a change never conflicts."""
        return (
            bool(self.append)
            and self.after is None
            and not (self.create or self.remove or self.expected or self.edits or self.complete or self.gives_positions)
        )

    @property
    def gives_positions(self) -> bool:
        return bool(self.append) and self.append[0].position > 0


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """All changes of one unit of work, which are written completely or not at all.

    Attributes:
        changes: one for each conversation, sorted by id, so that all writers lock in the same order.
        token: the unique idempotency token. If it was already written, `commit` returns the first receipt and writes nothing.
            See `keyed` for a token that the application chooses.
        at: the timestamp of the changes in microseconds since 1970, which becomes ``updated_at``.
    """

    changes: tuple[Change, ...]
    token: str = field(default_factory=new_id)
    at: int = field(default_factory=now)

    @classmethod
    def of(cls, changes: Iterable[Change], at: int, token: str | None = None) -> "ChangeSet":
        """Return the change set of these changes, one for each conversation; by default with a new token.

        Raises:
            InvalidValueError: two changes have the same conversation.
        """
        return cls(tuple(sorted(changes, key=attrgetter("id"))), new_id() if token is None else token, at)

    @classmethod
    def keyed(cls, idempotency_key: str) -> str:
        """Return the token for an idempotency key of the application's."""
        return _KEYED + idempotency_key

    @property
    def is_keyed(self) -> bool:
        """Whether the token is an idempotency key of the application's."""
        return self.token.startswith(_KEYED)

    @property
    def receipt_kept(self) -> int:
        """How long the store keeps the receipt, in microseconds: at least `RECEIPTS_KEPT`, or `KEYED_RECEIPTS_KEPT`."""
        return KEYED_RECEIPTS_KEPT if self.is_keyed else RECEIPTS_KEPT

    def __post_init__(self) -> None:
        if len(self.changes) > 1 and len({change.id for change in self.changes}) < len(self.changes):
            ids = [change.id for change in self.changes]
            twice = next(id for id in ids if ids.count(id) > 1)
            raise InvalidValueError(f"the change set has two changes of conversation {twice!r}: combine them into one")

    def split(self) -> list["ChangeSet"]:
        """Return a change set for each conversation, with tokens of their own that follow from this one's.

        >>> [one.token for one in ChangeSet((Change("a", remove=True), Change("b", remove=True)), "t").split()]
        ['t/a', 't/b']
        """
        return [ChangeSet((change,), f"{self.token}/{change.id}", self.at) for change in self.changes]


class Written(NamedTuple):
    """State of one conversation after a commit.

    If runs were appended, ``last_position`` is the position of the last of them, even if others appended concurrently. A store
    that is not ``atomic`` may return `UNKNOWN`, but never a guess; the conversation then has at least ``run_count`` runs.
    """

    version: int
    incarnation: str
    run_count: int
    last_position: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a commit: the new state of each conversation by id, None if it was removed.

    ``repeated`` says that the token was written before, and that this commit wrote nothing.
    """

    token: str
    written: Mapping[str, Written | None]
    repeated: bool = field(default=False, compare=False)

    def last_position(self, conversation_id: str) -> int:
        """Return the position of the last run that the commit appended to a conversation.

        Raises:
            NotFoundError: the commit did not write to the conversation, or removed it.
        """
        written = self.written.get(conversation_id)
        if written is None:
            raise NotFoundError(
                f"the commit {self.token} wrote no conversation {conversation_id!r}", conversation_id=conversation_id
            )
        return written.last_position

    def dump(self) -> str:
        """Return the receipt as text, for the store to keep with the token."""
        return compact(dict(self.written))

    @classmethod
    def load(cls, token: str, text: str, *, repeated: bool = True) -> "Receipt":
        """Return the receipt from the stored text.

        Raises:
            CorruptRecordError: the text is not a receipt.
        """
        try:
            written = {id: None if fields is None else Written(*fields) for id, fields in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptRecordError(f"the receipt of the commit {token} is stored but cannot be read") from error
        return cls(token, written, repeated)


def check_preconditions(change: Change, stored: ConversationRecord | None) -> None:
    """Raise if a change cannot be applied to the stored conversation. Every adapter calls this before it writes.

    Args:
        change: the change to write.
        stored: the current record; None if the conversation does not exist or has expired.

    Raises:
        ConflictError: the conversation is not at the expected version or last position.
        NotFoundError: the conversation to change does not exist.
        AlreadyExistsError: the conversation to create already exists.
        InvalidValueError: the given positions of the appended runs do not ascend from the last stored one.
    """
    try:
        _check(change, stored)
    except PersistenceError as error:
        error.conversation_id = change.id
        if isinstance(error, ConflictError):
            expected = change.expected and change.expected.version
            error.expected = State(expected, change.after)
            error.actual = None if stored is None else State(stored.version, stored.last_position)
        raise


def _check(change: Change, stored: ConversationRecord | None) -> None:
    what = f"conversation {change.id!r}"
    again = "read it again and repeat the work"
    if change.expected is not None:
        if stored is None:
            raise ConflictError(f"{what} was removed since it was read: {again}")
        if stored.incarnation != change.expected.incarnation:
            raise ConflictError(f"{what} was removed and created again since it was read: {again}")
        if stored.version != change.expected.version:
            raise ConflictError(
                f"{what} was changed by someone else (version {stored.version}, you read {change.expected.version}): {again}"
            )
    if change.create is None and stored is None:
        raise NotFoundError(f"there is no {what}")
    if change.create is not None and stored is not None and not change.remove:
        raise AlreadyExistsError(f"{what} already exists")
    base = change.create or stored
    last = base.last_position if base else 0
    current = stored.last_position if change.remove and stored else last
    if change.after is not None and current != change.after:
        raise ConflictError(f"the last position of {what} is {current}, but {change.after} was expected: {again}")
    if change.gives_positions:
        positions = [0 if change.create else last, *[run.position for run in change.append]]
        if any(map(ge, positions, positions[1:])):
            raise InvalidValueError(f"the positions of the runs appended to {what} do not ascend: {positions}")


def missing_runs(change: Change, positions: object) -> NotFoundError:
    """Return the error for edited runs that do not exist."""
    return NotFoundError(f"conversation {change.id!r} has no run at position {positions}", conversation_id=change.id)


def missing_open_run(change: Change, run_id: str) -> NotFoundError:
    """Return the error for a completed run that is not open, or does not exist."""
    return NotFoundError(f"conversation {change.id!r} has no open run {run_id!r}", conversation_id=change.id)


def assign_positions(change: Change, last_position: int) -> tuple[tuple[RunRecord, ...], int]:
    """Return the appended runs with their positions, and the conversation's last position after them.

    Args:
        change: the change with the appended runs.
        last_position: the last position assigned so far.
    """
    if change.gives_positions:
        return change.append, max(last_position, change.append[-1].position)
    runs = tuple([run._replace(position=last_position + n) for n, run in enumerate(change.append, 1)])
    return runs, last_position + len(runs)
