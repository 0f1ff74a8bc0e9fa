"""Filling pages and counting from what a store's index finds."""

from collections.abc import Callable, Sequence
from typing import cast

from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.port.paging import Page, Place, Query, write_cursor

_LARGEST_FETCH = 1_000  # records read at once while looking for the next match


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
            return Page(tuple(found[: query.limit]), write_cursor(query.order, last))
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
