"""Pages of conversations: an order, a limit, and a cursor that says where the next page begins.

Keyset pagination: a cursor holds the sort key of the last conversation of a page, so page 100 costs what page 1 costs, and
what is added or removed meanwhile moves nothing else.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar, cast, get_args

from memory.domain.criteria import EVERYTHING, Criterion, check_criterion, check_depth
from memory.domain.records import ConversationRecord
from memory.domain.values import check_id
from memory.errors import InvalidValueError

T = TypeVar("T")
OrderField: TypeAlias = Literal["updated_at", "created_at", "id"]
_LARGEST_LIMIT = 2**53 - 2  # more than there can be; one more still is an integer to every store


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what was found, in order; ``cursor`` is what ``find(after=...)`` takes for the rest, None if there is none."""

    items: tuple[T, ...]
    cursor: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class Order:
    """By a field, ties by id, both in the same direction."""

    field: OrderField = "updated_at"
    descending: bool = True

    @classmethod
    def parse(cls, text: str) -> "Order":
        """Return the order written as ``"created_at"`` or, newest first, ``"-created_at"``.

        Raises:
            InvalidValueError: there is no such order.
        """
        field = text.removeprefix("-") if isinstance(text, str) else text
        if field not in get_args(OrderField):
            raise InvalidValueError(
                f"cannot order by {text!r}: take updated_at, created_at or id, with - before it to descend"
            )
        return cls(cast(OrderField, field), text != field)

    def __str__(self) -> str:
        return f"-{self.field}" if self.descending else self.field

    def place(self, record: ConversationRecord) -> "Place":
        """Return where the conversation stands in this order."""
        return (record.id,) if self.field == "id" else (getattr(record, self.field), record.id)


NEWEST_FIRST: Final = Order()
Place: TypeAlias = tuple[int, str] | tuple[str]
"""Where a conversation stands in an order: the field's value and the id; compares as tuples do."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a repository is asked for: the criterion, the order, how many at most, and the place to begin after."""

    criterion: Criterion = EVERYTHING
    order: Order = NEWEST_FIRST
    limit: int = 50
    after: Place | None = None

    @classmethod
    def parse(cls, criterion: Criterion | None, order: str, limit: int, after: str | None) -> "Query":
        """Return the query that a caller's arguments make.

        Raises:
            InvalidValueError: an argument is none, or the cursor belongs to another order.
        """
        if type(limit) is not int or limit < 1:
            raise InvalidValueError(f"limit must be an int from 1, not {limit!r}")
        parsed = Order.parse(order)
        return cls(
            EVERYTHING if criterion is None else check_depth(check_criterion(criterion)),
            parsed,
            min(limit, _LARGEST_LIMIT),
            None if after is None else _read_cursor(after, parsed),
        )


def write_cursor(order: Order, record: ConversationRecord) -> str:
    """Return the cursor of a page that ends with this conversation."""
    return base64.urlsafe_b64encode(json.dumps([str(order), *order.place(record)]).encode()).decode()


def _read_cursor(cursor: str, order: Order) -> Place:
    try:
        written_for, *place = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidValueError(f"this is no cursor of a page: {cursor!r:.60}") from error
    if written_for != str(order):
        raise InvalidValueError(f"the cursor belongs to a page ordered by {written_for!r}, not by {str(order)!r}")
    moments = place[:-1]
    if len(place) != (1 if order.field == "id" else 2) or not all(
        type(moment) is int and abs(moment) < 2**63 for moment in moments
    ):
        raise InvalidValueError(f"this is no cursor of a page: {cursor!r:.60}")
    return cast(Place, (*moments, check_id(place[-1], "the id in the cursor")))
