"""From what a hash holds to a record; what cannot be one is named by its key, and never taken for missing."""

from collections.abc import Sequence
from operator import ge
from typing import Final

from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.errors import CorruptRecordError
from memory.port.changes import ExpectedVersion

LEFT_OVER: Final = (
    "its hash is gone, as after FT.DROPINDEX ... DD, and its runs are still there: "
    "put the hash back from a backup, or remove or add the conversation, which removes these runs"
)
"""What to say of runs without a conversation."""

_MOST_DIGITS: Final = 18  # of a moment between the years 1 and 9999, in microseconds


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
            number(version),
            _text(incarnation),
            number(run_count),
            number(last_position),
            number(created_at, signed=True),
            number(updated_at, signed=True),
            None if expires_at is None else number(expires_at, signed=True),
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
        texts = id_.decode(), given.decode(), output.decode(), metadata.decode()
        record = RunRecord(int(position), *texts, int(created_at))
        return Run.from_record(conversation_id, record)
    except (ValueError, OverflowError, CorruptRecordError) as error:
        raise corrupt(f"{keys}{position.decode(errors='replace')}", error) from error


def runs(
    keys: str, conversation_id: str, positions: Sequence[bytes], read: Sequence[Sequence[bytes | None]]
) -> list[Run]:
    """Return the runs at positions that rise.

    Raises:
        CorruptRecordError: a position or a run is none, or they do not rise: somebody edited the scores.
    """
    found = [run(keys, conversation_id, position, fields) for position, fields in zip(positions, read, strict=True)]
    numbers = [0, *[one.position or 0 for one in found]]
    if any(map(ge, numbers, numbers[1:])):
        raise corrupt(f"{keys}...", f"their places among the positions are mixed up: {numbers[1:10]}")
    return found


def seen(key: str, incarnation: bytes, version: bytes) -> ExpectedVersion:
    """Return which conversation, and which version of it, a hash says it is.

    Raises:
        CorruptRecordError: it does not.
    """
    try:
        return ExpectedVersion(_text(incarnation), number(version))
    except ValueError as error:
        raise corrupt(key, error) from error


def corrupt(key: str, why: object = "fields are missing") -> CorruptRecordError:
    """Return the error for a key that holds no record."""
    return CorruptRecordError(f"what is at the key {key} cannot be read: {why}")


def _text(value: bytes | None) -> str:
    if value is None:
        raise ValueError("a field is missing")
    return value.decode()


def number(value: bytes | None, *, signed: bool = False) -> int:
    """Return the number that a field is: digits, and nothing else that `int` or Lua's ``tonumber`` would take."""
    if value is None:
        raise ValueError("a field is missing")
    digits = value[1:] if signed and value[:1] == b"-" else value
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise ValueError(f"{value[:40]!r} is no such number")
    return int(value)
