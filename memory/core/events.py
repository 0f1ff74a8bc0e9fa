"""Domain events: what a commit did, as the handlers of `Store.subscribe` receive it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from memory.domain.codecs import UNTYPED, Codec
from memory.domain.entities import Run
from memory.domain.records import RunRecord, decode_metadata
from memory.domain.values import decode
from memory.port.changes import ALL_RUNS, UNKNOWN, Change, ChangeSet, Receipt, Written, assign_positions


@dataclass(frozen=True, slots=True)
class Event:
    """Base class of the events.

    Attributes:
        namespace: the namespace of the conversation.
        conversation_id: its id.
    """

    namespace: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class ConversationAdded(Event):
    """A conversation was added. Runs that came with it follow as `RunsAppended`."""

    metadata: Any


@dataclass(frozen=True, slots=True)
class ConversationRemoved(Event):
    """A conversation and its runs were removed."""


@dataclass(frozen=True, slots=True)
class MetadataChanged(Event):
    """The metadata of a conversation was replaced."""

    metadata: Any


@dataclass(frozen=True, slots=True)
class ExpiryChanged(Event):
    """``expires_at`` or ``expires_after`` was set or cleared. Appends that move a sliding expiry are no such event."""


@dataclass(frozen=True, slots=True)
class RunsAppended(Event):
    """Runs were appended; they have their positions, unless the store cannot tell them."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class RunCompleted(Event):
    """The output of an open run was set; if ``is_open``, it is not final. ``metadata`` is None if the run keeps its own."""

    run_id: str
    output: Any
    metadata: dict[str, Any] | None
    is_open: bool


@dataclass(frozen=True, slots=True)
class RunsReplaced(Event):
    """Runs were replaced by these, at their positions."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class RunsRemoved(Event):
    """Runs were removed: those at the positions, all before a position, and all after one (None: no bound)."""

    positions: tuple[int, ...]
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Committed:
    """A commit, as handlers of `Store.subscribe` receive it.

    Attributes:
        namespace: the namespace that it was written to.
        changes: the change set, with texts and without positions.
        receipt: its receipt.
    """

    namespace: str
    changes: ChangeSet
    receipt: Receipt
    codec: Codec[Any] = UNTYPED

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """What happened, in the order in which it was applied.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> end = store.subscribe(lambda committed: print(*[type(event).__name__ for event in committed.events]))
        >>> with store.begin() as uow:
        ...     uow.conversations.add(memory.Conversation("support-42"))
        ...     uow.runs.append("support-42", memory.Run("Where is my refund?", "It left on Monday."))
        ConversationAdded RunsAppended
        """
        return tuple(
            [
                event
                for change in self.changes.changes
                for event in self._of(change, self.receipt.written.get(change.id))
            ]
        )

    def _of(self, change: Change, written: Written | None) -> Iterator[Event]:
        of = self.namespace, change.id
        if change.remove:
            yield ConversationRemoved(*of)
        if change.create is not None:
            yield ConversationAdded(*of, self._metadata(change, change.metadata or change.create.metadata))
        elif change.metadata is not None:
            yield MetadataChanged(*of, self._metadata(change, change.metadata))
        if change.expires_at is not None or change.expires_after is not None:
            yield ExpiryChanged(*of)
        if change.remove_before or change.remove_runs or change.remove_after is not None:
            before = None if change.remove_before == 0 else min(change.remove_before, ALL_RUNS)
            yield RunsRemoved(*of, change.remove_runs, before, change.remove_after)
        if change.replace_runs:
            yield RunsReplaced(*of, _runs(change, change.replace_runs))
        for one in change.complete:
            metadata = None if one.metadata is None else decode_metadata(one.metadata, "the run's metadata")
            yield RunCompleted(*of, one.run_id, decode(one.output), metadata, one.is_open)
        if change.append:
            is_known = written is not None and written.last_position != UNKNOWN
            last = written.last_position - len(change.append) if written is not None and is_known else 0
            yield RunsAppended(*of, _runs(change, assign_positions(change, last)[0] if is_known else change.append))

    def _metadata(self, change: Change, text: str) -> Any:
        return self.codec.decode(decode_metadata(text, f"the metadata of conversation {change.id!r}"))


def _runs(change: Change, records: tuple[RunRecord, ...]) -> tuple[Run, ...]:
    return tuple([Run.from_record(change.id, record) for record in records])
