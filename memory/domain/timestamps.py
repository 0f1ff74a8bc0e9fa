"""Timestamps as text: ISO 8601 in UTC, with microseconds."""

from datetime import UTC, datetime

from memory.domain.values import to_datetime, to_microseconds
from memory.errors import InvalidValueError


def format_timestamp(microseconds: int) -> str:
    """Return microseconds since 1970 as ISO 8601 text.

    >>> format_timestamp(1_000_001)
    '1970-01-01T00:00:01.000001Z'
    """
    return to_datetime(microseconds).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_timestamp(text: object, name: str) -> datetime:
    """Return the ``datetime`` for text in any ISO 8601 format, in UTC, which is also assumed without a time zone.

    >>> parse_timestamp("2026-01-31T13:00+01:00", "created_at")
    datetime.datetime(2026, 1, 31, 12, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        timestamp = datetime.fromisoformat(text)  # type: ignore[arg-type]  # it raises for anything but a str
        return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValueError(f"{name} must be a time such as '2026-01-31T12:00:00Z', not {text!r:.60}") from error


def parse_microseconds(text: object, name: str) -> int:
    """Return the result of `parse_timestamp` in microseconds since 1970, and raise the same errors."""
    return to_microseconds(parse_timestamp(text, name), name)
