"""Pages of conversations: an order, a limit, and the cursor at which the next page begins.

Keyset pagination: a cursor contains the sort key of the last conversation of a page. Page 100 therefore costs as much as page 1,
and concurrent additions and removals never shift the other conversations between pages.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, get_args

from memory.domain.criteria import EVERYTHING, Criterion, check_criterion, check_depth
from memory.domain.records import ConversationRecord
from memory.domain.values import check_id, decode, key_of
from memory.errors import InvalidValueError
from memory.port.index import index_path, is_indexed, key

T = TypeVar("T")
OrderField: TypeAlias = Literal["last_run_at", "updated_at", "created_at", "id"]
_METADATA: Final = "metadata."
_LARGEST_LIMIT = 2**53 - 2  # one more is still an integer in every store


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of the results, in order, which can be iterated and indexed.

    Attributes:
        items: the results.
        cursor: to be passed to ``find(after=...)`` for the next page, by another process too; None if this is the last one.

    >>> import memory
    >>> store = memory.connect("memory://")
    >>> with store.begin() as uow:
    ...     for name in ("a", "b", "c"):
    ...         uow.conversations.add(memory.Conversation(name))
    >>> page = store.conversations.find(order="id", limit=2)
    >>> page[0].id, page.has_more, [one.id for one in page.next()]
    ('a', True, ['c'])
    """

    items: tuple[T, ...]
    cursor: str | None = None
    following: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    @property
    def has_more(self) -> bool:
        """Whether there is a next page."""
        return self.cursor is not None

    def next(self) -> "Page[T]":
        """Return the next page of the same query; an empty one after the last. In `memory.aio`, await it."""
        if self.cursor is None or self.following is None:
            return Page(())
        return cast(Page[T], self.following(after=self.cursor))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.items, self.cursor)  # for copies and pickles: without the store

    def __getitem__(self, index: int) -> T:
        return self.items[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Order:
    """An order by a field, with ties broken by id in the same direction.

    Attributes:
        field: ``"last_run_at"``, ``"updated_at"``, ``"created_at"``, ``"id"``, or a metadata path such as
            ``"metadata.customer.tier"``. An order by a path contains only conversations that have the path; values sort by type,
            then by value.
        descending: whether the largest comes first.
    """

    field: str = "last_run_at"
    descending: bool = True

    @classmethod
    def parse(cls, text: str) -> "Order":
        """Return the order written as ``"created_at"``, or ``"-created_at"`` to descend."""
        field = text.removeprefix("-") if isinstance(text, str) else ""
        order = cls(field, text != field)
        if field not in get_args(OrderField) and not order.path:
            raise InvalidValueError(
                f"cannot order by {text!r}: use last_run_at, updated_at, created_at, id or metadata.KEY, with - before it to "
                "descend"
            )
        if order.path and not is_indexed(order.path):
            raise InvalidValueError(f"cannot order by {text!r}: metadata keys that begin with _ are not indexed")
        return order

    def __str__(self) -> str:
        return f"-{self.field}" if self.descending else self.field

    @property
    def path(self) -> tuple[str, ...]:
        """The metadata keys that lead to the value; empty for an order by a field of the conversation itself."""
        return tuple(self.field.removeprefix(_METADATA).split(".")) if self.field.startswith(_METADATA) else ()

    @cached_property
    def index_path(self) -> bytes:
        """The path of the index entries whose keys are in this order, for an order by a metadata path."""
        return index_path(self.path)

    def place(self, record: ConversationRecord) -> "Place":
        """Return the conversation's place in this order; without a value at the metadata path, see `has`."""
        if self.field == "id":
            return (key_of(record.id),)
        if not self.path:
            return getattr(record, self.field), key_of(record.id)
        value = decode(record.metadata)
        for name in self.path:
            if not isinstance(value, dict) or name not in value:
                return "", key_of(record.id)
            value = value[name]
        return key(value).hex(), key_of(record.id)

    def has(self, place: "Place") -> bool:
        """Return whether a conversation with this place is in the order: it has a value at the metadata path."""
        return place[0] != "" or not self.path


NEWEST_FIRST: Final = Order()
Place: TypeAlias = tuple[int, str] | tuple[str, str] | tuple[str]
"""A place in an order: the time or the index key in hexadecimal, and `key_of` the id. Places compare as tuples do."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query: the criterion, the order, the most conversations to return, and the place after which to begin."""

    criterion: Criterion = EVERYTHING
    order: Order = NEWEST_FIRST
    limit: int = 50
    after: Place | None = None

    @classmethod
    def parse(cls, criterion: Criterion | None, order: str, limit: int, after: str | None) -> "Query":
        """Return the query for these arguments; raise `InvalidValueError` for an invalid one or the cursor of another order."""
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
    if order.field == "id":
        is_valid = len(place) == 1
    elif order.path:
        is_valid = len(place) == 2 and _is_hexadecimal(place[0])  # noqa: PLR2004  # the value and the id
    else:
        is_valid = len(place) == 2 and type(place[0]) is int and abs(place[0]) < 2**63  # noqa: PLR2004
    if not is_valid:
        raise InvalidValueError(f"this is no cursor of a page: {cursor!r:.60}")
    check_id(str(place[-1]).replace("\t", ""), "the id in the cursor")  # `key_of` has a tab
    return cast(Place, (*place[:-1], str(place[-1])))


def _is_hexadecimal(text: object) -> bool:
    return isinstance(text, str) and len(text) % 2 == 0 and set(text) <= set("0123456789abcdef")
