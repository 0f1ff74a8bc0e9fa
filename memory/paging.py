"""Pages of conversations: an order, a limit, and a cursor that says where the next page begins.

Keyset pagination: a cursor holds the sort key of the last conversation of a page, so page 100 costs what page 1 costs, and
what is added or removed meanwhile moves nothing else.
"""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar, cast, get_args

from memory.domain import Conversation, ConversationRecord
from memory.errors import InvalidValueError
from memory.query import EVERYTHING, Criterion, check_criterion, check_depth
from memory.values import check_id

T = TypeVar("T")
OrderField: TypeAlias = Literal["updated_at", "created_at", "id"]
_LARGEST_LIMIT = 2**53 - 2  # more than there can be; one more still is an integer to every store
_LARGEST_FETCH = 1_000  # records read at once while looking for the next match


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


def collect(
    query: Query, fetch: Callable[[Place | None, int], Sequence[ConversationRecord]], *, exact: bool
) -> Page[Conversation]:
    """Fill a page from what a store's index finds.

    Args:
        query: what is asked.
        fetch: returns at most so many records after a place, in the query's order: all that match, or more.
        exact: whether the fetched records are exactly those that match; if not, `Criterion.matches` decides on each.
    """
    found: list[Conversation] = []
    after, size = query.after, query.limit + 1  # one more tells whether there is a next page
    while True:
        records = fetch(after, size)
        conversations = map(Conversation.from_record, records)
        found += conversations if exact else filter(query.criterion.matches, conversations)
        if len(found) > query.limit:
            last = cast(ConversationRecord, found[query.limit - 1].record)
            return Page(tuple(found[: query.limit]), _write_cursor(query.order, last))
        if len(records) < size:
            return Page(tuple(found))
        after, size = query.order.place(records[-1]), min(2 * size, max(size, _LARGEST_FETCH))


def count_pages(find: Callable[[Query], Page[Conversation]], criterion: Criterion) -> int:
    """Count what `find` finds, page by page: for criteria that a store's index does not answer exactly."""
    found, cursor = 0, None
    while True:
        page = find(Query.parse(criterion, "id", _LARGEST_FETCH, cursor))
        found += len(page)
        if (cursor := page.cursor) is None:
            return found


def _write_cursor(order: Order, record: ConversationRecord) -> str:
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
