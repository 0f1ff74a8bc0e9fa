"""The encoding of Python values that JSON lacks. `memory.domain.decoding` reads them back."""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

from memory.domain.timestamps import format_timestamp
from memory.domain.values import Default, to_microseconds
from memory.errors import InvalidValueError

if TYPE_CHECKING:
    from decimal import Decimal

_MAX_DIGITS: Final = 4300  # of an integer that can be stored


def to_json(value: object) -> Any:
    """Return a Python value that JSON lacks as one that JSON has, for ``memory.connect(url, default=memory.to_json)``.

    =================================  ======================================================================
    aware ``datetime``                 ISO 8601 text in UTC with microseconds, so that texts sort by time
    ``date``                           ISO 8601 text, such as ``2026-01-31``
    ``UUID``                           text
    ``Enum``                           its value
    ``Decimal``                        an equal ``int`` or ``float``
    ``tuple``, mapping                 ``list``, ``dict``
    dataclass, pydantic model          a ``dict`` of the fields
    =================================  ======================================================================

    The elements of containers are not encoded: whoever calls this, such as `json.dumps`, calls it again for each of them.

    Args:
        value: the value.

    Raises:
        InvalidValueError: a ``datetime`` has no time zone, or a ``Decimal`` has no exact JSON number.
        TypeError: the value has another type.

    >>> from datetime import UTC, datetime
    >>> to_json(datetime(2026, 1, 31, 12, tzinfo=UTC))
    '2026-01-31T12:00:00.000000Z'
    >>> from decimal import Decimal
    >>> to_json(Decimal("12.50"))
    12.5
    """
    # Only when there is a value to encode: an application that imports `memory` waits for less.
    from decimal import Decimal
    from uuid import UUID

    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return format_timestamp(to_microseconds(value, f"the datetime {value}"))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if is_model(value) and not isinstance(value, type):
        return cast(Any, value).model_dump(round_trip=True, serialize_as_any=True, warnings=False)
    raise TypeError(f"memory.to_json does not encode a {type(value).__name__}")


def either(first: Default, second: Default | None) -> Default:
    """Return a `Default` that asks the second one about the types that the first one does not know."""
    if second is None:
        return first

    def default(value: Any) -> Any:
        try:
            return first(value)
        except TypeError:
            return second(value)

    return default


def is_model(value: object) -> bool:
    """Whether a value is a pydantic model, or the class of one. Pydantic is not imported: without it there is no model."""
    pydantic: Any = sys.modules.get("pydantic")
    if pydantic is None:
        return False
    return isinstance(value, pydantic.BaseModel) or (isinstance(value, type) and issubclass(value, pydantic.BaseModel))


def _number(value: "Decimal") -> int | float:
    if value.is_finite() and value.adjusted() < _MAX_DIGITS:
        if value == value.to_integral_value():
            return int(value)
        if type(value)(repr(number := float(value))) == value:
            return number
    raise InvalidValueError(f"Decimal('{value}') has no exact JSON number: store it as a str")
