"""The identity map of a unit of work: the conversations that it has read, and their pending changes."""

from collections.abc import Callable
from weakref import WeakValueDictionary

from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord, RunRecord, encode_metadata
from memory.domain.values import check_id, to_microseconds
from memory.errors import AlreadyExistsError, ClosedError, InvalidValueError, NotFoundError
from memory.port.changes import ALL_RUNS, NEVER, Change, ExpectedVersion, Written
from memory.port.repository import Repository


class TrackedConversation:
    """State of one conversation in a unit of work: what was read, and the pending changes."""

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.conversation: Conversation | None = None
        self.seen: ExpectedVersion | None = None
        self._last_position: int | None = None  # when ``seen`` was read
        self._added = False
        self._removed = False  # the stored conversation; another one may be added afterwards
        self._remove_after: int | None = None
        self.was_absent = False  # `get` did not find it
        self._discard_run_changes()

    def _discard_run_changes(self) -> None:
        self._after: int | None = None
        self._append: list[RunRecord] = []
        self._replace: dict[int, RunRecord] = {}
        self.removed_before = 0
        self.removed_runs: set[int] = set()

    # state

    @property
    def is_removed(self) -> bool:
        return self._removed and not self._added

    @property
    def is_stored(self) -> bool:
        """Whether the runs in the store belong to this conversation."""
        return not self._added and not self._removed

    @property
    def appended(self) -> list[Run]:
        return [Run.from_record(self.id, record) for record in self._append]

    def attach(self, conversation: Conversation) -> None:
        """Make this object the one for the conversation in this unit of work."""
        self.conversation = conversation
        if conversation.record is not None:
            record = conversation.record
            self.record_read(ExpectedVersion(record.incarnation, record.version), record.last_position)

    def resolve(self, conversation: Conversation) -> Conversation:
        """Return the unit of work's object for this conversation; attach the given one if it is the first."""
        if self.conversation is None and not self._removed:
            self.attach(conversation)
        return self.conversation or conversation

    def record_read(self, seen: ExpectedVersion | None, last_position: int | None) -> None:
        """Record the version that was read, unless one was recorded before: the commit expects the first one."""
        if self.seen is None and seen is not None:
            self.seen, self._last_position = seen, last_position

    def overlay(self, runs: tuple[Run, ...]) -> list[Run]:
        """Return stored runs with the pending changes applied."""
        if not (self.removed_before or self.removed_runs or self._replace):
            return list(runs)
        return [
            Run.from_record(self.id, self._replace[position]) if position in self._replace else run
            for run in runs
            if (position := run.position or 0) >= self.removed_before and position not in self.removed_runs
        ]

    # pending changes

    def add(self, conversation: Conversation) -> None:
        if self.conversation is not None:
            raise AlreadyExistsError(f"conversation {self.id!r} already exists")
        encode_metadata(conversation.metadata)
        _expiry(conversation)
        pending, after = self._append, self._after  # runs may be appended before their conversation is added
        self._discard_run_changes()
        self._append, self._after = pending, after
        self.conversation, self._added = conversation, True

    def remove(self) -> None:
        self._check_present()
        if not self._added:
            # The removal conflicts with a run that someone appends after the conversation was read.
            self._removed = True
            self._remove_after = self._last_position
        self.conversation, self._added = None, False
        self._discard_run_changes()

    def append(self, records: list[RunRecord], after: int | None) -> None:
        self._check_present()
        if after is not None and self._after not in (None, after):
            raise InvalidValueError(
                f"this unit of work already appends to conversation {self.id!r} with after={self._after}, not {after}"
            )
        if not records and after is not None and not self._added:
            self._last_position = after  # only sets the expected last position, for a removal
            return
        self._append += records
        self._after = self._after if after is None else after

    def replace_run(self, record: RunRecord) -> None:
        self._check_present()
        self._check_has_positions(record.position)
        if record.position < self.removed_before or record.position in self.removed_runs:
            raise NotFoundError(
                f"conversation {self.id!r} has no run at position {record.position}: this unit of work has removed it"
            )
        self._replace[record.position] = record

    def remove_runs(self, positions: list[int]) -> None:
        self._check_present()
        for position in positions:
            self._check_has_positions(position)
            if position >= self.removed_before:
                self._replace.pop(position, None)
                self.removed_runs.add(position)

    def remove_runs_before(self, position: int) -> None:
        self._check_present()
        if self._added:
            return
        self.removed_before = max(self.removed_before, position)
        self.removed_runs = {removed for removed in self.removed_runs if removed >= self.removed_before}
        self._replace = {at: record for at, record in self._replace.items() if at >= self.removed_before}

    def clear_runs(self) -> None:
        self.remove_runs_before(ALL_RUNS)
        self._append.clear()
        self._after = None

    def _check_present(self) -> None:
        if self.is_removed:
            raise NotFoundError(f"conversation {self.id!r} was removed in this unit of work")

    def _check_has_positions(self, position: int) -> None:
        if self._added:
            raise NotFoundError(f"conversation {self.id!r} is not committed yet, and has no run at position {position}")

    # commit

    def change(self, at: int) -> Change | None:
        create, metadata, expires_at = self._conversation_changes(at)
        edits = metadata is not None or expires_at is not None
        edits_runs = bool(self.removed_before or self.removed_runs or self._replace)
        if not (edits or edits_runs or create or self._removed or self._append):
            return None
        return Change(
            self.id,
            self.seen if edits or edits_runs or self._removed else None,  # an append never conflicts
            self._expected_last_position(),
            self._removed,
            create,
            metadata,
            expires_at,
            self.removed_before,
            tuple(sorted(self.removed_runs)),
            tuple([record for _, record in sorted(self._replace.items())]),
            tuple(self._append),
        )

    def _expected_last_position(self) -> int | None:
        """Return `Change.after`. A removal or a clear expects the position that was read, to keep later appends."""
        if self._removed:
            return self._remove_after
        if self._after is None and self.removed_before == ALL_RUNS:
            return self._last_position
        return self._after

    def _conversation_changes(self, at: int) -> tuple[ConversationRecord | None, str | None, int | None]:
        """Return the record to create, the new metadata and the new expiry, each None if it does not change."""
        if self.conversation is None:
            return None, None, None
        metadata, expires_at = encode_metadata(self.conversation.metadata), _expiry(self.conversation)
        record = self.conversation.record
        if self._added or record is None:
            return ConversationRecord(self.id, metadata, 1, "", 0, 0, at, at, expires_at), None, None
        return (
            None,
            None if metadata == record.metadata else metadata,
            None if expires_at == record.expires_at else NEVER if expires_at is None else expires_at,
        )

    def committed(self, change: Change, written: Written | None, at: int) -> None:
        self._added = self._removed = self.was_absent = False
        self._discard_run_changes()
        if written is None:
            self.seen = self._last_position = None
        elif change.create is not None:
            self.seen = ExpectedVersion(written.incarnation, written.version)
            self._last_position = written.last_position
        elif self.seen is not None:
            if change.edits:
                self.seen = ExpectedVersion(self.seen.incarnation, written.version)
            # Otherwise others appended runs that were not seen here.
            if self._last_position == written.last_position - len(change.append):
                self._last_position = written.last_position
        if self.conversation is not None and written is not None:
            # If another writer edited the conversation, its version was not read here and must conflict with the next change.
            self.conversation.written(change.outcome(self.conversation.record, written, at))


class Session:
    """The conversations of one unit of work."""

    def __init__(self, repository: Repository, namespace: str, check_store: Callable[[], object]) -> None:
        self.repository = repository
        self.namespace = namespace
        self._check_store = check_store
        self._tracked: dict[str, TrackedConversation] = {}
        # Conversations from earlier steps of `iterate`, which may still be changed while the application references them.
        self._released: WeakValueDictionary[str, Conversation] | None = None
        self._ended = False
        self.is_in_doubt = False

    def check_open(self) -> None:
        if self._ended:
            raise ClosedError("this unit of work has ended: begin another")
        self._check_store()

    def tracked(self, conversation_id: str) -> TrackedConversation:
        """Return the state of a conversation in this unit of work; a new one, if it was not used before."""
        self.check_open()
        if type(conversation_id) is not str:  # may not even be hashable
            check_id(conversation_id, "the conversation's id")
        if (tracked := self._tracked.get(conversation_id)) is None:
            check_id(conversation_id, "the conversation's id")
            tracked = self._tracked[conversation_id] = TrackedConversation(conversation_id)
            if self._released and (conversation := self._released.pop(conversation_id, None)) is not None:
                tracked.attach(conversation)
        return tracked

    def is_tracked(self, conversation_id: str) -> bool:
        return conversation_id in self._tracked

    def all_tracked(self) -> list[TrackedConversation]:
        for conversation_id in list(self._released or ()):
            self.tracked(conversation_id)
        return list(self._tracked.values())

    def release(self, tracked: TrackedConversation) -> None:
        if tracked.conversation is not None and tracked.change(0) is None:
            if self._released is None:
                self._released = WeakValueDictionary()
            self._released[tracked.id] = tracked.conversation
            del self._tracked[tracked.id]

    def clear(self) -> None:
        self._tracked.clear()
        self._released = None

    def end(self, *, in_doubt: bool = False) -> None:
        self.clear()
        self._ended = True
        self.is_in_doubt = in_doubt


def _expiry(conversation: Conversation) -> int | None:
    if conversation.expires_at is None:
        return None
    # At least 0, because a negative value could be `NEVER`.
    return max(0, to_microseconds(conversation.expires_at, "the conversation's expires_at"))
