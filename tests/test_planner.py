"""The planner gives the same pages whichever way it takes, and reads no more than its bounds allow."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory import Conversation, where
from memory.domain.criteria import Criterion
from memory.domain.records import ConversationRecord, encode_metadata
from memory.port.index import Every, plan
from memory.port.paging import Order, Place, Query
from memory.port.planner import Drive, Explanation, Search, count, find
from memory.testing.random_queries import criteria
from tests.test_index import POOL, holds, metadatas, values

ORDERS = ("updated_at", "-updated_at", "created_at", "id", "-id", "metadata.a", "-metadata.a")


class Reads(Search):
    """Records in a list, with an index; it counts what the planner reads."""

    def __init__(self, records: Sequence[ConversationRecord], criterion: Criterion, *, indexed: bool = True) -> None:
        self.records = records
        self.plan, self.exact = plan(criterion) if indexed else (Every(), False)
        self.walked = self.driven = 0

    def estimate(self, drives: Sequence[Drive], limit: int) -> Sequence[int]:
        return [min(limit + 1, len(self._found(drive))) for drive in drives]

    def _found(self, drive: Drive) -> list[ConversationRecord]:
        return [one for one in self.records if any(holds(lookup, _made(one)) for lookup in drive.lookups)]

    def drive(self, drive: Drive, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        for record in self._found(drive):
            self.driven += 1
            if not self.exact or holds(drive.rest, _made(record)):
                yield record

    def walk(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        for record in _ordered(self.records, order):
            if after is not None and not _beyond(order)(order.place(record), after):
                continue
            if most is not None and self.walked == most:
                yield None
                return
            self.walked += 1
            if not self.exact or holds(self.plan, _made(record)):
                yield record


class Sorts(Reads):
    """The same, of a store that sorts what a drive finds."""

    sorts = True

    def drive(self, drive: Drive, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        found = _ordered(list(super().drive(drive, order, after, wanted)), order)
        return (one for one in found if after is None or _beyond(order)(order.place(one), after))


def _beyond(order: Order) -> Any:
    return operator.lt if order.descending else operator.gt


def _ordered(records: Sequence[ConversationRecord], order: Order) -> list[ConversationRecord]:
    placed = [one for one in records if order.has(order.place(one))]
    return sorted(placed, key=order.place, reverse=order.descending)


def _made(record: ConversationRecord) -> Conversation:
    return Conversation.from_record(record)


def _records(metadatas: Sequence[dict[str, Any]]) -> list[ConversationRecord]:
    """Make conversations whose times and ids are in different orders."""
    return [
        ConversationRecord(
            f"{n * 7 % 10}{n}", encode_metadata(metadata), 1, "", n, n, n // 2, n * 3 % 5, None, None, n * 3 % 5
        )
        for n, metadata in enumerate(metadatas)
    ]


class Asked(NamedTuple):
    """A query, of a store with such limits."""

    criterion: Criterion
    order: str
    limit: int
    kind: type[Reads]
    drive_limit: int
    walk_limit: int

    def search(self, records: Sequence[ConversationRecord]) -> Reads:
        search = self.kind(records, self.criterion)
        search.drive_limit, search.walk_limit = self.drive_limit, self.walk_limit
        return search


asked = st.builds(
    Asked,
    criteria(values, POOL),
    st.sampled_from(ORDERS),
    st.integers(1, 4),
    st.sampled_from([Reads, Sorts]),
    st.integers(0, 4),
    st.integers(0, 4),
)


@given(st.lists(metadatas, max_size=9), asked)
def test_every_way_leads_to_the_same_pages(metadatas: list[dict[str, Any]], asked: Asked) -> None:
    records = _records(metadatas)
    order = Order.parse(asked.order)
    matches = [one.id for one in _ordered(records, order) if asked.criterion.matches(_made(one))]
    found: list[str] = []
    cursor = None
    while True:
        search = asked.search(records)
        page = find(Query.parse(asked.criterion, asked.order, asked.limit, cursor), search)
        assert search.walked <= asked.walk_limit or not search.driven
        found += [one.id for one in page]
        if (cursor := page.cursor) is None:
            break
    assert found == matches
    expected = sum(asked.criterion.matches(_made(one)) for one in records)
    assert count(asked.criterion, asked.search(records)) == expected


THOUSAND = _records([{"n": n, "even": n % 2 == 0, "old": n < 3} for n in range(1_000)])


@pytest.mark.parametrize(
    ("criterion", "walked", "driven"),
    [
        (where("n") == 500, 0, 1),  # few: driven
        (where("even") == True, 10, 0),  # many: walked until the page is full  # noqa: E712
        ((where("even") == True) & (where("n") >= 990), 0, 10),  # the most selective look-up drives  # noqa: E712
        (where("n") < 500, 20, 500),  # many, and none at the end where the walk begins: driven after all
    ],
)
def test_what_is_read(criterion: Criterion, walked: int, driven: int) -> None:
    records = [one._replace(last_run_at=n) for n, one in enumerate(THOUSAND)]
    search = Reads(records, criterion)
    search.drive_limit, search.walk_limit = 10, 20
    explanation = Explanation()
    find(Query(criterion, limit=4), search, explanation)
    assert (search.walked, search.driven) == (walked, driven)
    told = str(explanation)
    assert ("give up" in told) == (walked == 20)
    assert f"{explanation.found} found" in told


def test_without_an_index_all_is_walked() -> None:
    search = Reads(THOUSAND, where("n") == 500, indexed=False)
    assert len(find(Query(where("n") == 500), search)) == 1
    assert (search.walked, search.driven) == (1_000, 0)
