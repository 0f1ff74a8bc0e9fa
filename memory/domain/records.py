"""Records: the stored form of conversations and runs, as strings and integers."""

from typing import NamedTuple

from memory.domain.values import FIRST_TIME, LARGEST, LAST_TIME, LONGEST, Default, Json, decode, encode
from memory.errors import CorruptRecordError, InvalidValueError


class ConversationRecord(NamedTuple):
    """The stored form of a conversation: strings and integers, times in microseconds since 1970.

    ``incarnation`` distinguishes a conversation from one created later under the same id. It is any string that the store
    never assigns twice. ``expires_after`` is the time that each append moves ``expires_at`` ahead, in microseconds.
    ``last_run_at`` is the latest ``created_at`` of any run written so far, and not less than the conversation's own.
    """

    id: str
    metadata: str
    version: int
    incarnation: str
    run_count: int
    last_position: int
    created_at: int
    updated_at: int
    expires_at: int | None
    expires_after: int | None = None
    last_run_at: int = 0

    def is_expired(self, now: int) -> bool:
        """Whether the conversation has expired at this time."""
        return self.expires_at is not None and self.expires_at <= now


class RunRecord(NamedTuple):
    """The stored form of a run: strings and integers, the time in microseconds since 1970.

    ``position`` is 0 until a store has assigned one. While ``is_open``, the output is not final; it is empty before there is any.
    Without a bool of their own, stores may read 0 or 1 for it.
    """

    position: int
    id: str
    input: str
    output: str
    metadata: str
    created_at: int
    is_open: bool = False


def encode_metadata(metadata: object, default: Default | None = None) -> str:
    """Return a metadata dict as JSON text; raise `InvalidValueError` for anything else. ``default`` is as for `encode`."""
    if type(metadata) is not dict:
        raise InvalidValueError(f"metadata must be a dict, not {type(metadata).__name__}")
    return encode(metadata, "metadata", default) if metadata else "{}"


def check_record(record: ConversationRecord) -> None:
    """Raise `CorruptRecordError` if a record holds a value that no store writes."""
    (
        id,
        metadata,
        version,
        _,
        run_count,
        last_position,
        created_at,
        updated_at,
        expires_at,
        expires_after,
        last_run_at,
    ) = record
    if not (
        type(id) is type(metadata) is str
        and type(version) is type(run_count) is type(last_position) is type(created_at) is type(updated_at) is int
        and type(last_run_at) is int
        and 0 <= version <= LARGEST
        and 0 <= run_count <= LARGEST
        and 0 <= last_position <= LARGEST
        and FIRST_TIME <= created_at <= LAST_TIME
        and FIRST_TIME <= updated_at <= LAST_TIME
        and FIRST_TIME <= last_run_at <= LAST_TIME
        and (expires_at is None or (type(expires_at) is int and 0 <= expires_at <= LAST_TIME))
        and (expires_after is None or (type(expires_after) is int and 0 < expires_after <= LONGEST))
    ):
        raise CorruptRecordError(
            f"conversation {id!r} is stored but cannot be read: {record._replace(metadata='...')!r:.500}"
        )


def check_run(record: RunRecord, conversation_id: str) -> None:
    """Raise `CorruptRecordError`, which names the run, if a run's record holds a value that no store writes."""
    position, id, input, output, metadata, created_at, is_open = record
    if not (
        is_open in (False, True)
        and type(position) is type(created_at) is int
        and type(id) is type(input) is type(output) is type(metadata) is str
        and 0 <= position <= LARGEST
        and FIRST_TIME <= created_at <= LAST_TIME
    ):
        kinds = {name: type(value).__name__ for name, value in zip(RunRecord._fields, record, strict=True)}
        raise CorruptRecordError(
            f"run {position!r} of conversation {conversation_id!r} is stored but cannot be read: {kinds}, "
            f"created_at {created_at!r:.100}"
        )


def decode_object(text: str) -> dict[str, Json]:
    """Return the dict of a stored JSON text; raise `ValueError` if it is not one."""
    value = decode(text)
    if not isinstance(value, dict):
        raise ValueError(f"its metadata is not an object: {text[:40]!r}")  # noqa: TRY004  # the text is bad, not its type
    return value


def decode_metadata(text: str, what: str) -> dict[str, Json]:
    """Return the metadata dict of stored JSON text, or raise `CorruptRecordError` with a message that begins with ``what``."""
    if text == "{}":
        return {}
    try:
        return decode_object(text)
    except ValueError as error:  # also UnicodeDecodeError and json.JSONDecodeError
        raise CorruptRecordError(f"{what} is stored but cannot be read: {error}") from error
