"""Build the changes that `memory.transfer.restore` writes."""

from collections.abc import Sequence

from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, encode_metadata
from memory.domain.values import Json, check_id
from memory.port.changes import Change

_LATEST = 253_402_300_799  # seconds: the end of the year 9999


def conversation(
    id: Json, metadata: dict[str, Json], runs: Sequence[Run], created_at: int, updated_at: int | None = None
) -> Change:
    """Return the change that creates a conversation with these runs, at positions from 1."""
    id_ = check_id(id, "id")
    records = tuple([run.to_record(position) for position, run in enumerate(runs, 1)])
    record = ConversationRecord(
        id=id_,
        metadata=encode_metadata(metadata),
        version=1,
        incarnation="",
        run_count=len(records),
        last_position=len(records),
        created_at=created_at,
        updated_at=created_at if updated_at is None else updated_at,
        expires_at=None,
    )
    return Change(id_, create=record, append=records)


def microseconds(seconds: Json, default: int) -> int:
    """Convert seconds since 1970 to microseconds; return the default if the value is not a valid time.

    >>> microseconds(1700000000.25, 0), microseconds("yesterday", 7)
    (1700000000250000, 7)
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LATEST:
        return default
    return round(seconds * 1_000_000)
