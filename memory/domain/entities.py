"""The entities that an application stores: conversations and their runs."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, final

from memory.domain.encoding import to_json
from memory.domain.records import (
    ConversationRecord,
    RunRecord,
    check_record,
    check_run,
    decode_metadata,
    decode_object,
    encode_metadata,
)
from memory.domain.timestamps import format_timestamp, parse_timestamp
from memory.domain.values import (
    LAST_TIME,
    Default,
    check_conversation_id,
    check_id,
    decode,
    encode,
    new_id,
    to_datetime,
    to_duration,
    to_microseconds,
)
from memory.errors import CorruptRecordError, InvalidValueError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    M = TypeVar("M", default=dict[str, Any])
else:  # which needs no default
    from typing import TypeVar

    M = TypeVar("M")
"""The type of a conversation's metadata: a dict, unless the store was opened with a type (`connect`)."""


class Pending(Enum):
    """The type of `PENDING`."""

    PENDING = "pending"

    def __repr__(self) -> str:
        return self.name


PENDING: Final = Pending.PENDING
"""The output of a run that has none yet: ``Run(input="...", output=PENDING)``. `Runs.complete` sets it."""


@final
class Conversation(Generic[M]):
    """A conversation: an id, metadata that queries search, and fields that the store maintains.

    The unit of work that loaded a conversation detects changes of ``metadata``, ``expires_at`` and ``expires_after``. All other
    fields are set by the store and read-only. Two conversations are equal if all their fields are; the hash is that of the id.

    Args:
        id: 1 to 2,048 characters without control characters; default: a new unique id.
        metadata: a dict of JSON values, or the type with which the store was opened: see `memory.connect`.
        expires_at: an aware ``datetime`` after which the conversation and its runs are hidden; default: never.
        expires_after: the time after its last append at which the conversation expires. Each append moves ``expires_at``
            forward, without a new version and without a conflict.
        created_at: when a conversation from elsewhere was created; default: the time of its first commit.

    Raises:
        InvalidValueError: the id or ``created_at`` is not valid.

    >>> conversation = Conversation("support-42", metadata={"customer": "ada"})
    >>> conversation.version, conversation.run_count, conversation.created_at
    (0, 0, None)
    """

    __slots__ = ("__weakref__", "_created_at", "_id", "_record", "expires_after", "expires_at", "metadata", "unchanged")

    def __init__(
        self,
        id: str | None = None,
        metadata: M | None = None,
        expires_at: datetime | None = None,
        *,
        expires_after: timedelta | None = None,
        created_at: datetime | None = None,
    ) -> None:
        self._id = new_id() if id is None else check_conversation_id(id)
        self._record: ConversationRecord | None = None
        self.unchanged = ""
        self._created_at = None if created_at is None else to_microseconds(created_at, "the conversation's created_at")
        self.metadata: M = {} if metadata is None else metadata  # type: ignore[assignment]  # the default of M is dict
        self.expires_at = expires_at
        self.expires_after = expires_after

    @classmethod
    def from_record(cls, record: ConversationRecord) -> "Conversation[dict[str, Any]]":
        """Return the conversation for a store's record; raise `CorruptRecordError` for values that no store writes."""
        check_record(record)
        metadata = decode_metadata(record.metadata, f"the metadata of conversation {record.id!r}")
        if "\\u" in record.metadata:  # earlier versions escaped every character that is not ASCII
            with suppress(ValueError):  # edited by hand: it could not be written again
                record = record._replace(metadata=encode_metadata(metadata))
        conversation: Conversation[dict[str, Any]] = Conversation(record.id, metadata)
        conversation.written(record)
        return conversation

    def written(self, record: ConversationRecord | None, unchanged: str | None = None) -> None:
        """Set the record that is now stored, and the expiry that the store computes. The unit of work calls this.

        Args:
            record: the record.
            unchanged: the text that the metadata encodes to as long as nobody changes it; default: the record's.
        """
        self._record = record
        if record is not None:
            self.unchanged = record.metadata if unchanged is None else unchanged
            self.expires_at = None if record.expires_at is None else to_datetime(record.expires_at)
            self.expires_after = None if record.expires_after is None else timedelta(microseconds=record.expires_after)

    def memento(self) -> Callable[[], None]:
        """Return a function that takes back what `written` will set, for a commit that the application rolls back."""
        before = self._record, self.unchanged, self.expires_at, self.expires_after

        def restore() -> None:
            self._record, self.unchanged, self.expires_at, self.expires_after = before

        return restore

    def to_create(self, metadata: str, at: int) -> ConversationRecord:
        """Return the record of this conversation, with this metadata, for its creation at a time."""
        created_at = at if self._created_at is None else self._created_at
        expires_at, expires_after = self.expiry
        if expires_at is None and expires_after is not None:
            expires_at = min(at + expires_after, LAST_TIME)
        return ConversationRecord(self._id, metadata, 1, "", 0, 0, created_at, at, expires_at, expires_after)

    @property
    def expiry(self) -> tuple[int | None, int | None]:
        """``expires_at`` and ``expires_after`` in microseconds; raise `InvalidValueError` if one cannot be stored."""
        return (
            # At least 0, because a negative value could be `NEVER`.
            None
            if self.expires_at is None
            else max(0, to_microseconds(self.expires_at, "the conversation's expires_at")),
            None if self.expires_after is None else to_duration(self.expires_after, "the conversation's expires_after"),
        )

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
        """When the conversation was created (UTC, in microseconds); None before the first commit, unless it was given."""
        created_at = self._record.created_at if self._record else self._created_at
        return None if created_at is None else to_datetime(created_at)

    @property
    def updated_at(self) -> datetime | None:
        """When the conversation or one of its runs was last written (UTC, in microseconds)."""
        return to_datetime(self._record.updated_at) if self._record else None

    @property
    def last_run_at(self) -> datetime | None:
        """When the last run was made: its ``created_at``; of a conversation without runs, the time of its creation.

        Edits, such as a new title or a pin, leave it alone.
        """
        return to_datetime(self._record.last_run_at) if self._record else None

    @property
    def etag(self) -> str:
        """A text for the HTTP header ``ETag``, quotes included, that changes with every write.

        It is ``""`` before the first commit, which no stored conversation has. A conversation that is removed and created again
        under the same id has another one.
        """
        if self._record is None:
            return ""
        from hashlib import sha256  # which takes a while to import

        state = self._record.incarnation, self.version, self.last_position, self.run_count, self._record.updated_at
        return f'"{sha256(repr(state).encode()).hexdigest()[:32]}"'

    def to_dict(self) -> dict[str, Any]:
        """Return the conversation as JSON values, with times as ISO 8601 text: what `memory export` writes, without the runs.

        >>> Conversation("support-42", {"customer": "ada"}).to_dict()
        {'id': 'support-42', 'metadata': {'customer': 'ada'}, 'version': 0, 'run_count': 0, 'last_position': 0}
        """
        times = {name: getattr(self, name) for name in ("created_at", "updated_at", "last_run_at", "expires_at")}
        return {
            "id": self._id,
            "metadata": _as_json(self.metadata, "metadata"),
            "version": self.version,
            "run_count": self.run_count,
            "last_position": self.last_position,
            **{name: format_timestamp(to_microseconds(time, name)) for name, time in times.items() if time is not None},
            **({} if self.expires_after is None else {"expires_after": self.expires_after.total_seconds()}),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Conversation[dict[str, Any]]":
        """Return a new conversation, not committed yet, from what `to_dict` returned. The store's own fields are ignored.

        >>> Conversation.from_dict({"id": "support-42", "metadata": {"customer": "ada"}, "version": 3}).version
        0
        """
        times = {name: parse_timestamp(fields[name], name) for name in ("expires_at", "created_at") if name in fields}
        after = timedelta(seconds=fields["expires_after"]) if "expires_after" in fields else None
        return Conversation(fields["id"], dict(fields.get("metadata", {})), expires_after=after, **times)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Conversation):
            return NotImplemented
        mine, theirs = [(one.id, one.metadata, one.expires_at, one.expires_after, one.record) for one in (self, other)]
        return mine == theirs

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"Conversation({self._id!r}, metadata={self.metadata!r}, version={self.version}, run_count={self.run_count})"


@final
@dataclass(frozen=True, slots=True)
class Run:
    """An input and the output that answered it. Immutable: to change a stored run, `replace` it with another one.

    Args:
        input: any JSON value: a string, or a framework's own structure.
        output: any JSON value, like the input; `PENDING` if there is none yet.
        metadata: a dict of JSON values.
        id: the application's own identifier, 1 to 255 characters; it need not be unique. Default: a new unique id.
        created_at: when the run was made; default: now.
        position: assigned by the store at the commit, counting from 1 in each conversation and never reused; None before. The
            unit of work sets it on the runs that were appended.
        is_open: whether the output is missing or not final, and `Runs.complete` can set it; always true if it is `PENDING`.

    Two runs are equal if all their fields are; the hash is that of the id.

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
    is_open: bool = False

    def __post_init__(self) -> None:
        if self.output is PENDING:
            _set_is_open(self, True)  # noqa: FBT003  # the slot's setter

    def __hash__(self) -> int:
        return hash(self.id)

    @classmethod
    def from_record(cls, conversation_id: str, record: RunRecord) -> "Run":
        """Return the run for a store's record. A `CorruptRecordError` names the conversation and the position."""
        check_run(record, conversation_id)
        position, id, input, output, metadata, created_at, is_open = record
        run = object.__new__(cls)
        try:
            _set_input(run, decode(input))
            _set_output(run, PENDING if is_open and output == "" else decode(output))
            _set_metadata(run, {} if metadata == "{}" else decode_object(metadata))
        except ValueError as error:  # also UnicodeDecodeError and json.JSONDecodeError
            raise CorruptRecordError(
                f"run {position} of conversation {conversation_id!r} is stored but cannot be read: {error}"
            ) from error
        _set_id(run, id)
        _set_created_at(run, to_datetime(created_at))
        _set_position(run, position or None)
        _set_is_open(run, is_open == 1)
        return run

    def written(self, position: int | None) -> None:
        """Set the position that the store assigned. The unit of work calls this after a commit, and after its rollback."""
        _set_position(self, position)

    def to_record(self, position: int = 0, default: Default | None = None) -> RunRecord:
        """Return the record that a store keeps of this run, with the given position. ``default`` is as for `connect`."""
        if type(self.is_open) is not bool:
            raise InvalidValueError(f"the run's is_open must be a bool, not {self.is_open!r:.60}")
        return RunRecord(
            position,
            check_id(self.id, "the run's id"),
            encode(self.input, "input", default),
            "" if self.output is PENDING else encode(self.output, "output", default),
            encode_metadata(self.metadata, default),
            to_microseconds(self.created_at, "the run's created_at"),
            self.is_open,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON values, with ``created_at`` as ISO 8601 text: what `memory export` writes.

        A run without an output yet has no ``output``; ``is_open`` and ``position`` are left out if false and None.
        """
        return {
            **({} if self.position is None else {"position": self.position}),
            "id": self.id,
            "created_at": format_timestamp(to_microseconds(self.created_at, "the run's created_at")),
            "input": _as_json(self.input, "input"),
            **({} if self.output is PENDING else {"output": _as_json(self.output, "output")}),
            "metadata": _as_json(self.metadata, "metadata"),
            **({"is_open": True} if self.is_open else {}),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Run":
        """Return the run of what `to_dict` returned. ``id``, ``metadata`` and ``created_at`` may be missing.

        >>> Run.from_dict(Run("Where is my refund?", PENDING).to_dict()).output
        PENDING
        """
        others: dict[str, Any] = {
            name: fields[name] for name in ("id", "metadata", "position", "is_open") if name in fields
        }
        if "created_at" in fields:
            others["created_at"] = parse_timestamp(fields["created_at"], "created_at")
        if "output" not in fields and not fields.get("is_open"):
            raise InvalidValueError("a run needs an output, or is_open to be true")
        return cls(fields["input"], fields.get("output", PENDING), **others)


def _as_json(value: object, name: str) -> Any:
    return decode(encode(value, name, to_json))


# The __init__ of a frozen dataclass sets each field by name, which takes three times as long: a third of the time to load runs.
_set_input, _set_output, _set_metadata, _set_id, _set_created_at, _set_position, _set_is_open = [
    vars(Run)[field.name].__set__ for field in fields(Run)
]
