"""Records: the stored form of conversations and runs, as strings and integers."""

from typing import NamedTuple, cast

from memory.domain.values import FIRST_TIME, LARGEST, LAST_TIME, Json, decode, encode
from memory.errors import CorruptRecordError, InvalidValueError


class ConversationRecord(NamedTuple):
    """The stored form of a conversation: strings and integers, times in microseconds since 1970.

    ``incarnation`` distinguishes a conversation from one created later under the same id. It is any string that the store
    never assigns twice.
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


class RunRecord(NamedTuple):
    """The stored form of a run: strings and integers, the time in microseconds since 1970.

    ``position`` is 0 until a store has assigned one.
    """

    position: int
    id: str
    input: str
    output: str
    metadata: str
    created_at: int


def encode_metadata(metadata: object) -> str:
    """Return a metadata dict as JSON text.

    Raises:
        InvalidValueError: the metadata is no dict, or contains something that is not JSON.
    """
    if type(metadata) is not dict:
        raise InvalidValueError(f"metadata must be a dict, not {type(metadata).__name__}")
    return encode(cast(Json, metadata), "metadata") if metadata else "{}"


def check_record(record: ConversationRecord) -> None:
    """Check that a record holds only values that a store writes.

    Raises:
        CorruptRecordError: the record was damaged, or written by something else.
    """
    id, metadata, version, _, run_count, last_position, created_at, updated_at, expires_at = record
    if (
        not (type(id) is type(metadata) is str)
        or not all(type(n) is int and 0 <= n <= LARGEST for n in (version, run_count, last_position))
        or not all(type(n) is int and FIRST_TIME <= n <= LAST_TIME for n in (created_at, updated_at))
        or not (expires_at is None or (type(expires_at) is int and 0 <= expires_at <= LAST_TIME))
    ):
        raise CorruptRecordError(
            f"conversation {id!r} is stored but cannot be read: {record._replace(metadata='...')!r:.500}"
        )


def check_run(record: RunRecord, what: str) -> None:
    """Check that a run's record holds only values that a store writes; raise `CorruptRecordError` otherwise."""
    if (
        not (type(record.position) is int and 0 <= record.position <= LARGEST)
        or not all(type(text) is str for text in record[1:5])
        or not (type(record.created_at) is int and FIRST_TIME <= record.created_at <= LAST_TIME)
    ):
        kinds = {name: type(value).__name__ for name, value in record._asdict().items()}
        raise CorruptRecordError(f"{what} is stored but cannot be read: {kinds}, created_at {record.created_at!r:.100}")


def decode_text(text: str, what: str) -> Json:
    """Return the value of stored JSON text; raise `CorruptRecordError` if it cannot be read."""
    try:
        return decode(text)
    except ValueError as error:  # also UnicodeDecodeError and json.JSONDecodeError
        raise CorruptRecordError(f"{what} is stored but cannot be read: {error}") from error


def decode_metadata(text: str, what: str) -> dict[str, Json]:
    """Return the metadata dict of stored JSON text.

    Raises:
        CorruptRecordError: the text is not a JSON object; the message begins with ``what``.
    """
    if text == "{}":
        return {}
    metadata = decode_text(text, what)
    if not isinstance(metadata, dict):
        raise CorruptRecordError(f"{what} is stored but its metadata is not an object: {text[:40]!r}")
    return metadata
