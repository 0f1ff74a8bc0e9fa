"""The identity map of a unit of work: the conversations that it has read, and their pending changes."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

from memory.domain.codecs import Serializer
from memory.domain.entities import Conversation, M, Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import same
from memory.errors import AlreadyExistsError, InvalidValueError, NotFoundError
from memory.port.changes import ALL_RUNS, NEVER, UNKNOWN, Change, Completion, ExpectedVersion, Written

T = TypeVar("T")


def id_of(conversation: Conversation[Any] | str) -> str:
    """Return the id of a conversation that is given as an object or by its id."""
    return conversation.id if isinstance(conversation, Conversation) else conversation


def check_ids(conversations: Iterable[T]) -> Iterable[T]:
    """Return conversations, or their ids, unless they are one text: its characters would be ids."""
    if isinstance(conversations, str):
        raise InvalidValueError(f"this method takes a list of conversations or ids, as in [{conversations!r:.60}]")
    return conversations


class TrackedConversation(Generic[M]):
    """State of one conversation in a unit of work: what was read, and the pending changes."""

    def __init__(self, conversation_id: str, serializer: Serializer[M]) -> None:
        self.id = conversation_id
        self._serializer = serializer
        self.conversation: Conversation[M] | None = None
        self.seen: ExpectedVersion | None = None
        self._last_position: int | None = None  # when ``seen`` was read
        self._added = False
        self._removed = False  # the stored conversation; another one may be added afterwards
        self._forced = False  # the removal does not check what was read
        self._remove_after: int | None = None
        self.was_absent = False  # `get` did not find it
        self._discard_run_changes()

    def _discard_run_changes(self) -> None:
        self._after: int | None = None
        self._append: list[tuple[Run, RunRecord]] = []
        self._complete: dict[str, Completion] = {}
        self._replace: dict[int, RunRecord] = {}
        self.removed_before = 0
        self.removed_after: int | None = None
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
        return [Run.from_record(self.id, record) for _, record in self._append]

    def read(self, found: Conversation | None) -> None:
        """Record what the store has: the conversation, or that it does not exist."""
        if found is None:
            self.was_absent = True
        else:
            self.found(found)

    def found(self, stored: Conversation) -> Conversation[M]:
        """Return the unit of work's object for a stored conversation: this one, if it is the first."""
        return self.resolve(self._typed(stored)) if self.conversation is None else self.conversation

    def _typed(self, stored: Conversation) -> Conversation[M]:
        conversation = cast("Conversation[M]", stored)
        if self._serializer.is_typed:
            conversation.metadata, conversation.unchanged = self._serializer.read(stored.metadata, self.id)
        return conversation

    def attach(self, conversation: Conversation[M]) -> None:
        """Make this object the one for the conversation in this unit of work."""
        self.conversation = conversation
        if conversation.record is not None:
            record = conversation.record
            self.record_read(ExpectedVersion(record.incarnation, record.version), record.last_position)

    def resolve(self, conversation: Conversation[M]) -> Conversation[M]:
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
        if not (self._edits_runs or self._complete):
            return list(runs)
        left = [self._replaced(run) for run in runs if not self._removes(run.position or 0)]
        completions = dict(self._complete)
        for index in reversed(range(len(left))):  # of several open runs with one id, the last is completed
            if left[index].is_open and (completion := completions.pop(left[index].id, None)) is not None:
                record = left[index].to_record(left[index].position or 0)
                left[index] = Run.from_record(self.id, completion.of(record))
        return left

    @property
    def _edits_runs(self) -> bool:
        return bool(self.removed_before or self.removed_runs or self._replace or self.removed_after is not None)

    def _removes(self, position: int) -> bool:
        return (
            position < self.removed_before
            or (self.removed_after is not None and position > self.removed_after)
            or position in self.removed_runs
        )

    def _replaced(self, run: Run) -> Run:
        record = self._replace.get(run.position or 0)
        return run if record is None else Run.from_record(self.id, record)

    # pending changes

    def add(self, conversation: Conversation[M]) -> None:
        if self.conversation is not None:
            raise AlreadyExistsError(f"conversation {self.id!r} already exists", conversation_id=self.id)
        self._created(conversation, 0)  # raises if it cannot be stored
        pending, after = self._append, self._after  # runs may be appended before their conversation is added
        self._discard_run_changes()
        self._append, self._after = pending, after
        self.conversation, self._added = conversation, True

    def remove(self, *, force: bool) -> None:
        self._check_present()
        if not self._added:
            # The removal conflicts with a run that someone appends after the conversation was read.
            self._removed, self._forced = True, force
            self._remove_after = None if force else self._last_position
        self.conversation, self._added = None, False
        self._discard_run_changes()

    def append(self, runs: list[tuple[Run, RunRecord]], after: int | None) -> None:
        self._check_present()
        if after is not None and self._after not in (None, after):
            raise InvalidValueError(
                f"this unit of work already appends to conversation {self.id!r} with after={self._after}, not {after}"
            )
        if not runs and after is not None and not self._added:
            self._last_position = after  # only sets the expected last position, for a removal
            return
        self._append += runs
        self._after = self._after if after is None else after

    def replace_run(self, record: RunRecord) -> None:
        self._check_present()
        self._check_has_positions(record.position)
        if self._removes(record.position):
            raise NotFoundError(
                f"conversation {self.id!r} has no run at position {record.position}: this unit of work has removed it"
            )
        self._replace[record.position] = record

    def remove_runs(self, positions: list[int]) -> None:
        self._check_present()
        for position in positions:
            self._check_has_positions(position)
            if position >= self.removed_before and (self.removed_after is None or position <= self.removed_after):
                self._replace.pop(position, None)
                self.removed_runs.add(position)

    def remove_runs_before(self, position: int) -> None:
        self._check_present()
        if self._added:
            return
        self.removed_before = max(self.removed_before, position)
        self._forget_edits(lambda at: at < self.removed_before)

    def remove_runs_after(self, position: int) -> None:
        self._check_present()
        self._append.clear()  # pending runs come last
        if self._added:
            return
        self.removed_after = position if self.removed_after is None else min(self.removed_after, position)
        self._forget_edits(lambda at: at > position)

    def _forget_edits(self, are_removed: Callable[[int], bool]) -> None:
        self.removed_runs = {at for at in self.removed_runs if not are_removed(at)}
        self._replace = {at: record for at, record in self._replace.items() if not are_removed(at)}

    def clear_runs(self) -> None:
        self.remove_runs_before(ALL_RUNS)
        self._append.clear()
        self._complete.clear()
        self._after = None

    def complete(self, completion: Completion) -> None:
        self._check_present()
        for index in reversed(range(len(self._append))):
            run, record = self._append[index]
            if record.id == completion.run_id and record.is_open:
                self._append[index] = run, completion.of(record)
                return
        if self._added:
            raise NotFoundError(f"conversation {self.id!r} has no open run {completion.run_id!r}")
        before = self._complete.get(completion.run_id)
        if before is not None and not before.is_open:
            raise NotFoundError(f"this unit of work has already completed run {completion.run_id!r} of {self.id!r}")
        if before is not None and completion.metadata is None:
            completion = completion._replace(metadata=before.metadata)
        self._complete[completion.run_id] = completion

    def _check_present(self) -> None:
        if self.is_removed:
            raise NotFoundError(f"conversation {self.id!r} was removed in this unit of work")

    def _check_has_positions(self, position: int) -> None:
        if self._added:
            raise NotFoundError(f"conversation {self.id!r} is not committed yet, and has no run at position {position}")

    # commit

    def change(self, at: int) -> Change | None:
        create, metadata, expires_at, expires_after = self._conversation_changes(at)
        edits = metadata is not None or expires_at is not None or expires_after is not None
        edits_runs = self._edits_runs
        if not (edits or edits_runs or create or self._removed or self._append or self._complete):
            return None
        checks = edits or edits_runs or (self._removed and not self._forced)
        return Change(
            self.id,
            self.seen if checks else None,  # an append never conflicts
            self._expected_last_position(),
            self._removed,
            create,
            metadata,
            expires_at,
            self.removed_before,
            tuple(sorted(self.removed_runs)),
            tuple([record for _, record in sorted(self._replace.items())]),
            tuple([record for _, record in self._append]),
            self.removed_after,
            expires_after,
            tuple(self._complete.values()),
        )

    def _expected_last_position(self) -> int | None:
        """Return `Change.after`. A removal or a clear expects the position that was read, to keep later appends."""
        if self._removed:
            return self._remove_after
        if self._after is None and (self.removed_before == ALL_RUNS or self.removed_after is not None):
            return self._last_position
        return self._after

    def _conversation_changes(self, at: int) -> tuple[ConversationRecord | None, str | None, int | None, int | None]:
        """Return the record to create, and the new metadata, expiry and lifetime, each None if it does not change."""
        if self.conversation is None:
            return None, None, None, None
        record = self.conversation.record
        if self._added or record is None:
            return self._created(self.conversation, at), None, None, None
        metadata = self._serializer.dump(self.conversation.metadata)
        expires_at, expires_after = self.conversation.expiry
        return (
            None,
            None if same(metadata, self.conversation.unchanged) else metadata,
            None if expires_at == record.expires_at else NEVER if expires_at is None else expires_at,
            None if expires_after == record.expires_after else NEVER if expires_after is None else expires_after,
        )

    def _created(self, conversation: Conversation[M], at: int) -> ConversationRecord:
        return conversation.to_create(self._serializer.dump(conversation.metadata), at)

    def memento(self) -> Callable[[], None]:
        """Return a function that takes back what a commit tells the entities, for a rollback of the application's."""
        restore_conversation = None if self.conversation is None else self.conversation.memento()
        runs, seen, last_position = [run for run, _ in self._append], self.seen, self._last_position

        def restore() -> None:
            self.seen, self._last_position = seen, last_position  # after a savepoint, the unit of work goes on
            if restore_conversation is not None:
                restore_conversation()
            for run in runs:
                run.written(None)

        return restore

    def committed(self, change: Change, written: Written | None, at: int) -> None:
        self._added = self._removed = self._forced = self.was_absent = False
        if written is not None and written.last_position != UNKNOWN:
            first = written.last_position - len(self._append) + 1
            for position, (run, _) in enumerate(self._append, first):
                run.written(position)
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
            unchanged = self.conversation.unchanged if change.metadata is None and change.create is None else None
            self.conversation.written(change.outcome(self.conversation.record, written, at), unchanged)
