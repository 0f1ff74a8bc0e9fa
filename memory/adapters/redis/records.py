"""From what a hash holds to a record; what cannot be one is named by its key, and never taken for missing."""

from collections.abc import Sequence

from memory.domain import Conversation, ConversationRecord, Run, RunRecord
from memory.errors import CorruptRecordError


def conversation_record(key: str, fields: Sequence[bytes | None]) -> ConversationRecord:
    """Return the record that the fields of a hash are, in the order of `ConversationRecord`.

    Raises:
        CorruptRecordError: they are none.
    """
    id_, metadata, version, incarnation, run_count, last_position, created_at, updated_at, expires_at = fields
    try:
        return ConversationRecord(
            _text(id_),
            _text(metadata),
            _number(version),
            _text(incarnation),
            _number(run_count),
            _number(last_position),
            _number(created_at),
            _number(updated_at),
            None if expires_at is None else int(expires_at),
        )
    except ValueError as error:
        raise corrupt(key, error) from error


def conversation(key: str, fields: Sequence[bytes | None], conversation_id: str) -> Conversation:
    """Return the conversation of an id that the fields of a hash are.

    Raises:
        CorruptRecordError: they are none, or one of another id.
    """
    record = conversation_record(key, fields)
    if record.id != conversation_id:
        raise CorruptRecordError(f"the hash at {key} says that it is conversation {record.id!r}, which has another key")
    try:
        return Conversation.from_record(record)
    except CorruptRecordError as error:
        raise corrupt(key, error) from error


def run(keys: str, conversation_id: str, position: bytes, fields: Sequence[bytes | None]) -> Run:
    """Return the run that the fields of a hash are, in the order of `RunRecord`.

    Raises:
        CorruptRecordError: they are none.
    """
    id_, given, output, metadata, created_at = fields
    try:
        if id_ is None or given is None or output is None or metadata is None or created_at is None:
            raise ValueError("a field is missing")  # noqa: TRY301  # as any other that cannot be read
        record = RunRecord(
            int(position), id_.decode(), given.decode(), output.decode(), metadata.decode(), int(created_at)
        )
        return Run.from_record(conversation_id, record)
    except (ValueError, OverflowError, CorruptRecordError) as error:
        raise corrupt(f"{keys}{position.decode(errors='replace')}", error) from error


def corrupt(key: str, why: object = "fields are missing") -> CorruptRecordError:
    """Return the error for a key that holds no record."""
    return CorruptRecordError(f"what is at the key {key} cannot be read: {why}")


def _text(value: bytes | None) -> str:
    if value is None:
        raise ValueError("a field is missing")
    return value.decode()


def _number(value: bytes | None) -> int:
    return int(_text(value))
