"""Moments as text: ISO 8601 in UTC, to the microsecond, as people and programs read it."""

from datetime import UTC, datetime

from memory.domain.values import to_datetime, to_microseconds
from memory.errors import InvalidValueError


def format_timestamp(microseconds: int) -> str:
    """Return the text of a moment that is given in microseconds since 1970.

    >>> format_timestamp(1_000_001)
    '1970-01-01T00:00:01.000001Z'
    """
    return to_datetime(microseconds).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_timestamp(text: object, name: str) -> datetime:
    """Return the moment that a text in any form of ISO 8601 means; one without a zone is taken as UTC.

    Args:
        text: for example ``2026-01-31``, ``2026-01-31T12:00:00Z`` or ``2026-01-31T13:00+01:00``.
        name: what it is called in an error.

    Raises:
        InvalidValueError: it is no such text.

    >>> parse_timestamp("2026-01-31T13:00+01:00", "created_at")
    datetime.datetime(2026, 1, 31, 12, 0, tzinfo=datetime.timezone.utc)
    """
    if not isinstance(text, str):
        raise InvalidValueError(f"{name} must be a time such as '2026-01-31T12:00:00Z', not {text!r:.60}")
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidValueError(f"{name} must be a time such as '2026-01-31T12:00:00Z', not {text!r:.60}") from error


def parse_microseconds(text: object, name: str) -> int:
    """Return what `read_moment` returns, in microseconds since 1970.

    Raises:
        InvalidValueError: as `read_moment`.
    """
    return to_microseconds(parse_timestamp(text, name), name)
