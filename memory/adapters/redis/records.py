"""Conversion of Redis's replies to records. Unreadable data raises `CorruptRecordError` with its key; it is never skipped."""

from collections.abc import Sequence
from operator import ge
from typing import Any, Final, cast

from memory.adapters.redis.keys import Keys
from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.errors import CorruptRecordError

LEFT_OVER: Final = (
    "the conversation's hash was deleted, for example by FT.DROPINDEX ... DD: restore it from a backup, "
    "or remove or add the conversation, which also deletes its runs"
)
"""The error message for a conversation that is listed, or has runs, but has no hash."""

_FIELDS_OF_RUN: Final = 6


def conversation(keys: Keys, namespace: str, key: str, fields: Sequence[bytes | None]) -> ConversationRecord:
    """Return the record of a hash, whose fields are in the order of `ConversationRecord`."""
    if None in fields[:-1]:
        raise corrupt(key, "a field is missing")
    id_, metadata, version, incarnation, *numbers, expires_at = cast(Sequence[Any], fields)
    try:
        run_count, last_position, created_at, updated_at = map(_number, numbers)
        record = ConversationRecord(
            id_.decode(),
            metadata.decode(),
            _number(version),
            incarnation.decode(),
            run_count,
            last_position,
            created_at,
            updated_at,
            None if expires_at is None else _number(expires_at),
        )
    except ValueError as error:
        raise corrupt(key, error) from error
    if keys.conversation(namespace, record.id) != key:
        raise CorruptRecordError(f"the hash at {key} has the id {record.id!r}, which belongs to another key")
    return record


def run_member(run: RunRecord) -> str:
    """Return the member of a sorted set for a run, without the leading position: one field per line. No field has a newline."""
    return f"{run.created_at}\n{run.id}\n{run.metadata}\n{run.input}\n{run.output}"


def runs(key: str, conversation_id: str, members: Sequence[bytes]) -> tuple[Run, ...]:
    """Return the runs of members of a sorted set, which must be in order of position: an edited score would change it."""
    found = tuple([_run(key, conversation_id, member) for member in members])
    positions = [0, *[one.position or 0 for one in found]]
    if any(map(ge, positions, positions[1:])):
        raise corrupt(key, f"the runs are not in order of position: {positions[1:10]}")
    return found


def _run(key: str, conversation_id: str, member: bytes) -> Run:
    try:
        fields = member.decode().split("\n")
        if len(fields) != _FIELDS_OF_RUN:
            raise ValueError(f"a run has {_FIELDS_OF_RUN} lines, not {len(fields)}")  # noqa: TRY301  # handled below
        position, created_at, id_, metadata, given, output = fields
        record = RunRecord(int(position), id_, given, output, metadata, int(created_at))
        return Run.from_record(conversation_id, record)
    except (ValueError, OverflowError, CorruptRecordError) as error:
        raise corrupt(key, f"the run {member[:40]!r}: {error}") from error


def corrupt(key: str, why: object = "it was edited or damaged") -> CorruptRecordError:
    """Return the error for a key whose value cannot be read."""
    return CorruptRecordError(f"the value at the key {key} cannot be read: {why}")


def _number(value: bytes) -> int:
    """Return the integer of a field, or raise `ValueError`. `int` and Lua's ``tonumber`` accept more than this code writes."""
    if not value.removeprefix(b"-").isdigit():
        raise ValueError(f"{value[:40]!r} is not a valid integer")
    return int(value)
