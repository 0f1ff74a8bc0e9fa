"""A write is data: one `ChangeSet` says all that a unit of work changed, and an adapter writes it in one `commit`.

What every store must refuse, and why, is decided here (`check`), so that all refuse the same.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter, ge
from typing import Final, NamedTuple, cast

from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import LARGEST, compact, new_id, now
from memory.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PersistenceError,
)

ALL_RUNS: Final = LARGEST
"""As `Change.remove_before`: every run there is, being beyond any position."""

NEVER: Final = -1
"""As `Change.expires_at`: the conversation is to lose its expiry."""

UNKNOWN: Final = 0
"""As `Written.last_position`, after an append: it is done, and the store could not find out where."""


class ExpectedVersion(NamedTuple):
    """Which conversation, and which version of it, was read."""

    incarnation: str
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """What is to happen to one conversation, in the order of the fields.

    Attributes:
        id: the conversation's.
        seen: refuse with `ConflictError` unless this is what is stored. None: whatever is stored.
        after: refuse with `ConflictError` unless this is the last position given, to the conversation that is removed where one
            is. None: whatever it is.
        remove: the conversation goes, with its runs. Without ``create`` there must be one.
        create: then it is made; there must be none (left). Its ``incarnation`` and ``run_count`` are not read: the store gives
            them. Its ``last_position`` is where counting begins.
        metadata: the text of its new metadata; None leaves it.
        expires_at: microseconds since 1970, `NEVER`, or None to leave it.
        remove_before: every run at a lower position goes.
        remove_runs: the runs at these positions go; `NotFoundError` if one is not there.
        replace_runs: these stand where runs of their positions stood; `NotFoundError` if one did not.
        append: these come last, in this order. Where their position is 0 the store gives it; else it is kept
            (all or none of them, rising, and beyond the last position stored).
    """

    id: str
    seen: ExpectedVersion | None = None
    after: int | None = None
    remove: bool = False
    create: ConversationRecord | None = None
    metadata: str | None = None
    expires_at: int | None = None
    remove_before: int = 0
    remove_runs: tuple[int, ...] = ()
    replace_runs: tuple[RunRecord, ...] = ()
    append: tuple[RunRecord, ...] = ()

    @property
    def edits_runs(self) -> bool:
        """Whether stored runs are removed or replaced."""
        return bool(self.remove_before or self.remove_runs or self.replace_runs)

    @property
    def edits(self) -> bool:
        """Whether the version counts this change: all but an append, a creation or a removal."""
        return self.metadata is not None or self.expires_at is not None or self.edits_runs

    def outcome(self, before: ConversationRecord | None, written: "Written", at: int) -> ConversationRecord:
        """Return what this change made of a conversation as it was read before (None: it is the one created)."""
        if self.create is not None or before is None:
            created = cast(ConversationRecord, self.create)
            before = created._replace(version=written.version, incarnation=written.incarnation)
        return self.applied(before, written.run_count, written.last_position, at)

    def applied(self, record: ConversationRecord, run_count: int, last_position: int, at: int) -> ConversationRecord:
        """Return the record of a stored (or just created) conversation after this change, with these counts of its runs."""
        return record._replace(
            metadata=record.metadata if self.metadata is None else self.metadata,
            version=record.version + self.edits,
            run_count=run_count,
            last_position=last_position,
            updated_at=record.updated_at if self.create else max(record.updated_at, at),  # clocks differ: never back
            expires_at=self.expiry(record.expires_at),
        )

    def expiry(self, before: int | None) -> int | None:
        """Return when the conversation expires after this change."""
        if self.expires_at is None:
            return before
        return None if self.expires_at == NEVER else self.expires_at

    @property
    def only_creates(self) -> bool:
        """Whether a conversation is made, with its runs, and nothing else is to happen."""
        return self.create is not None and self.after is None and not (self.remove or self.seen or self.edits)

    @property
    def only_appends(self) -> bool:
        """Whether runs are appended, unconditionally, and nothing else is to happen: the change that never conflicts."""
        return (
            bool(self.append)
            and self.after is None
            and not (self.create or self.remove or self.seen or self.edits or self.gives_positions)
        )

    @property
    def gives_positions(self) -> bool:
        """Whether the appended runs bring their positions with them."""
        return bool(self.append) and self.append[0].position > 0


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """All that one unit of work changed: written completely, or not at all.

    Attributes:
        changes: one for each conversation, sorted by id (so that two writers lock in the same order).
        token: unique to this change set. A store that has written a token answers a second `commit` with the first's receipt.
        at: when, in microseconds since 1970: the ``updated_at`` of what is written.
    """

    changes: tuple[Change, ...]
    token: str = field(default_factory=new_id)
    at: int = field(default_factory=now)

    @classmethod
    def of(cls, changes: Iterable[Change], at: int) -> "ChangeSet":
        """Return the change set of these changes, each to another conversation.

        Raises:
            InvalidValueError: two of them are to the same conversation.
        """
        return cls(tuple(sorted(changes, key=attrgetter("id"))), at=at)

    def __post_init__(self) -> None:
        """Refuse what stores would understand differently."""
        if len({change.id for change in self.changes}) < len(self.changes):
            ids = [change.id for change in self.changes]
            twice = next(id for id in ids if ids.count(id) > 1)
            raise InvalidValueError(f"the change set changes conversation {twice!r} twice: make it one change")

    def split(self) -> list["ChangeSet"]:
        """Return a change set for each conversation, with tokens of their own that follow from this one's.

        >>> [one.token for one in ChangeSet((Change("a", remove=True), Change("b", remove=True)), "t").split()]
        ['t/a', 't/b']
        """
        return [ChangeSet((change,), f"{self.token}/{change.id}", self.at) for change in self.changes]


class Written(NamedTuple):
    """What a commit made of one conversation; ``run_count`` and ``last_position`` are those after it.

    Where runs were appended, ``last_position`` is that of the last of them, also if others appended at the same moment. A store
    that is not ``atomic`` may have to leave it `UNKNOWN`, never to guess it; then there are at least ``run_count`` runs.
    """

    version: int
    incarnation: str
    run_count: int
    last_position: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a commit wrote: for each conversation's id what became of it, None where it was removed."""

    token: str
    written: Mapping[str, Written | None]

    def dump(self) -> str:
        """Return what a store keeps of it beside its token."""
        return compact(dict(self.written))

    @classmethod
    def load(cls, token: str, text: str) -> "Receipt":
        """Return the receipt whose text was kept beside the token.

        Raises:
            CorruptRecordError: the text is none.
        """
        try:
            written = {id: None if fields is None else Written(*fields) for id, fields in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptRecordError(f"the receipt of the commit {token} is stored but cannot be read") from error
        return cls(token, written)


def check_preconditions(change: Change, stored: ConversationRecord | None) -> None:
    """Refuse a change that does not fit what is stored. Adapters call it; that is why all stores refuse alike.

    Args:
        change: what is to happen.
        stored: the conversation as it is now; None where there is none, or only an expired one.

    Raises:
        ConflictError: it is not what was seen.
        NotFoundError: there is none to change.
        AlreadyExistsError: there is one already.
        InvalidValueError: the appended runs' own positions are not beyond the last.
    """
    try:
        _check(change, stored)
    except PersistenceError as error:
        error.conversation_id = change.id
        raise


def _check(change: Change, stored: ConversationRecord | None) -> None:
    what = f"conversation {change.id!r}"
    again = "read it again and repeat the work"
    if change.seen is not None:
        if stored is None:
            raise ConflictError(f"{what} was removed since it was read: {again}")
        if stored.incarnation != change.seen.incarnation:
            raise ConflictError(f"{what} was removed and made anew since it was read: {again}")
        if stored.version != change.seen.version:
            raise ConflictError(
                f"{what} has version {stored.version}, not {change.seen.version} as it was read: {again}"
            )
    if change.create is None and stored is None:
        raise NotFoundError(f"there is no {what}")
    if change.create is not None and stored is not None and not change.remove:
        raise AlreadyExistsError(f"{what} exists already")
    base = change.create or stored
    last = base.last_position if base else 0
    given = stored.last_position if change.remove and stored else last
    if change.after is not None and given != change.after:
        raise ConflictError(f"{what} has runs up to position {given}, not {change.after} as was expected: {again}")
    if change.gives_positions:
        positions = [0 if change.create else last, *[run.position for run in change.append]]
        if any(map(ge, positions, positions[1:])):
            raise InvalidValueError(
                f"the runs appended to {what} do not rise from one position to the next: {positions}"
            )


def missing_runs(change: Change, positions: object) -> NotFoundError:
    """Return the error for runs that are to be edited and are not there."""
    return NotFoundError(f"conversation {change.id!r} has no run at position {positions}")


def assign_positions(change: Change, last_position: int) -> tuple[tuple[RunRecord, ...], int]:
    """Return the appended runs with their positions, and the conversation's last position after them.

    Args:
        change: what is appended.
        last_position: the one given last, as it is stored or created.
    """
    if change.gives_positions:
        return change.append, max(last_position, change.append[-1].position)
    runs = tuple([run._replace(position=last_position + n) for n, run in enumerate(change.append, 1)])
    return runs, last_position + len(runs)
