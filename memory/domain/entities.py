"""The entities that an application stores: conversations and their runs."""

from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from memory.domain.records import (
    ConversationRecord,
    RunRecord,
    check_record,
    check_run,
    decode_metadata,
    decode_object,
    encode_metadata,
)
from memory.domain.values import check_id, decode, encode, new_id, to_datetime, to_microseconds
from memory.errors import CorruptRecordError


class Conversation:
    """A conversation: an id, metadata that queries search, and fields that the store maintains.

    The unit of work that loaded a conversation detects changes of ``metadata`` and ``expires_at``. All other fields are set by
    the store and read-only. Two conversations are equal if all their fields are.

    Args:
        id: 1 to 255 characters without control characters; default: a new unique id.
        metadata: a dict of JSON values.
        expires_at: an aware ``datetime`` after which the conversation and its runs are hidden; default: never.

    Raises:
        InvalidValueError: the id is not valid.

    >>> conversation = Conversation("support-42", metadata={"customer": "ada"})
    >>> conversation.version, conversation.run_count, conversation.created_at
    (0, 0, None)
    """

    __slots__ = ("__weakref__", "_id", "_record", "expires_at", "metadata")
    __hash__ = None  # type: ignore[assignment]  # mutable and equal by value

    def __init__(
        self, id: str | None = None, metadata: dict[str, Any] | None = None, expires_at: datetime | None = None
    ) -> None:
        self._id = new_id() if id is None else check_id(id, "the conversation's id")
        self._record: ConversationRecord | None = None
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.expires_at = expires_at

    @classmethod
    def from_record(cls, record: ConversationRecord) -> "Conversation":
        """Return the conversation for a store's record; raise `CorruptRecordError` for values that no store writes."""
        check_record(record)
        metadata = decode_metadata(record.metadata, f"the metadata of conversation {record.id!r}")
        if "\\u" in record.metadata:  # earlier versions escaped every character that is not ASCII
            with suppress(ValueError):  # edited by hand: it could not be written again
                record = record._replace(metadata=encode_metadata(metadata))
        conversation = cls(record.id, metadata, None if record.expires_at is None else to_datetime(record.expires_at))
        conversation.written(record)
        return conversation

    def written(self, record: ConversationRecord | None) -> None:
        """Set the record that is now stored. The unit of work calls this after a commit."""
        self._record = record

    @property
    def id(self) -> str:
        """The id, unique within the namespace."""
        return self._id

    @property
    def record(self) -> ConversationRecord | None:
        """The stored record as last read or written; None before the first commit."""
        return self._record

    @property
    def version(self) -> int:
        """The version: 0 before the first commit, 1 after it, then one more per edit. Appends do not change it."""
        return self._record.version if self._record else 0

    @property
    def run_count(self) -> int:
        """The number of runs when the conversation was last read or written."""
        return self._record.run_count if self._record else 0

    @property
    def last_position(self) -> int:
        """The last position that the store assigned, even if that run was removed since; 0 before the first run."""
        return self._record.last_position if self._record else 0

    @property
    def created_at(self) -> datetime | None:
        """When the conversation was first committed (UTC, in microseconds)."""
        return to_datetime(self._record.created_at) if self._record else None

    @property
    def updated_at(self) -> datetime | None:
        """When the conversation or one of its runs was last written (UTC, in microseconds)."""
        return to_datetime(self._record.updated_at) if self._record else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Conversation):
            return NotImplemented
        mine, theirs = [(one.id, one.metadata, one.expires_at, one.record) for one in (self, other)]
        return mine == theirs

    def __repr__(self) -> str:
        return f"Conversation({self._id!r}, metadata={self.metadata!r}, version={self.version}, run_count={self.run_count})"


@dataclass(frozen=True, slots=True)
class Run:
    """An input and the output that answered it. Immutable: to change a stored run, `replace` it with another one.

    Args:
        input: any JSON value: a string, or a framework's own structure.
        output: any JSON value, like the input.
        metadata: a dict of JSON values.
        id: the application's own identifier, 1 to 255 characters; it need not be unique. Default: a new unique id.
        created_at: when the run was made; default: now.
        position: assigned by the store at the commit, counting from 1 in each conversation and never reused; None before.

    >>> run = Run(input="Where is my refund?", output="It left on Monday.")
    >>> run.position is None
    True
    """

    input: Any
    output: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    position: int | None = None

    @classmethod
    def from_record(cls, conversation_id: str, record: RunRecord) -> "Run":
        """Return the run for a store's record. A `CorruptRecordError` names the conversation and the position."""
        check_run(record, conversation_id)
        position, id, input, output, metadata, created_at = record
        run = object.__new__(cls)
        try:
            _set_input(run, decode(input))
            _set_output(run, decode(output))
            _set_metadata(run, {} if metadata == "{}" else decode_object(metadata))
        except ValueError as error:  # also UnicodeDecodeError and json.JSONDecodeError
            raise CorruptRecordError(
                f"run {position} of conversation {conversation_id!r} is stored but cannot be read: {error}"
            ) from error
        _set_id(run, id)
        _set_created_at(run, to_datetime(created_at))
        _set_position(run, position or None)
        return run

    def to_record(self, position: int = 0) -> RunRecord:
        """Return the record that a store keeps of this run, with the given position."""
        return RunRecord(
            position,
            check_id(self.id, "the run's id"),
            encode(self.input, "input"),
            encode(self.output, "output"),
            encode_metadata(self.metadata),
            to_microseconds(self.created_at, "the run's created_at"),
        )


# The __init__ of a frozen dataclass sets each field by name, which takes three times as long: a third of the time to load runs.
_set_input, _set_output, _set_metadata, _set_id, _set_created_at, _set_position = [
    vars(Run)[field.name].__set__ for field in fields(Run)
]
