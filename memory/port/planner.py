"""The planner: how conversations are found, decided once for every store.

A criterion becomes look-ups in the metadata index (`memory.port.index.plan`). Two ways lead from there to a page:

- *driven*: every conversation that the most selective look-up finds is read, checked and sorted. The cost grows with the matches.
- *walked*: conversations are read in the order of the query, and each is checked. The cost grows with the misses.

The rule: a look-up that finds at most `Search.drive_limit` entries drives. Otherwise the order is walked past at most
`Search.walk_limit` conversations; if the page is not full by then, the most selective look-up drives after all.
"""

import heapq
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from memory.domain.criteria import EVERYTHING, Criterion
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.port.index import Every, KeyBetween, KeyIn, Lookup, Plan, Some, describe
from memory.port.paging import Order, Page, Place, Query, write_cursor

T = TypeVar("T")
_COUNTED_AT_ONCE: Final = 1_000  # candidates that a count asks for at a time


@dataclass(frozen=True, slots=True)
class Drive:
    """Look-ups that together find every match, and the rest of the plan, which is checked for each conversation found."""

    lookups: tuple[Lookup, ...]
    rest: Plan

    def __str__(self) -> str:
        return " or ".join(map(describe, self.lookups))


@dataclass(frozen=True, slots=True)
class Step:
    """One step that answered a query: what was done, and how many entries or conversations it read."""

    action: str
    read: int


@dataclass(slots=True)
class Explanation:
    """How a query was answered, as `Store.explain` returns it.

    Attributes:
        steps: what was done, in order.
        found: the conversations on the page.
    """

    steps: list[Step] = field(default_factory=list)
    found: int = 0

    def __str__(self) -> str:
        lines = [f"{number}. {step.action}: {step.read:,} read" for number, step in enumerate(self.steps, 1)]
        return "\n".join([*lines, f"{self.found:,} found"])


class Search(ABC):
    """What a store can do to answer one criterion, in one namespace, at one moment. The planner combines these primitives.

    A *candidate* is a record of a conversation that has not expired, and that may match: every match is among the candidates.

    Attributes:
        plan: the look-ups of the criterion; ``Every()`` where the store has no index.
        exact: candidates are exactly the matches; if false, the planner checks each with `Criterion.matches`.
        drive_limit: how many entries of a look-up are sooner read and sorted than walked around.
        walk_limit: how many conversations a walk passes before it gives up.
        sorts: `drive` yields candidates in order and after the place; if false, the planner sorts them in bounded memory.
        counts_by: the order that is cheapest to walk for a count.
    """

    plan: Plan = Every()
    exact: bool = False
    drive_limit: int = 1_000
    walk_limit: int = 4_000
    sorts: bool = False
    counts_by: Order = Order("id", descending=False)

    @abstractmethod
    def walk(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        """Yield the candidates after a place, in order.

        Args:
            order: the order. For one by a metadata path, only conversations that have the path are candidates.
            after: the place to begin after; None for the beginning.
            wanted: how many candidates are probably needed: a hint for the size of requests.
            most: how many conversations to pass before giving up, None for no limit. A walk that gives up yields None last.
        """

    def estimate(self, drives: Sequence[Drive], limit: int) -> Sequence[int]:
        """Return how many entries each drive finds; anything above the limit counts as ``limit + 1``."""
        raise NotImplementedError

    def drive(self, drive: Drive, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:
        """Yield the candidates that a drive finds; see `sorts`. Arguments as `walk`."""
        raise NotImplementedError

    def total(self) -> int | None:
        """Return how many conversations the namespace has; None if the store keeps no such number."""
        return None

    def count(self, drive: Drive | None, matches: int) -> int | None:  # noqa: ARG002  # most stores count by reading
        """Return how many conversations match the plan, which is exact; None if the store counts by reading.

        Args:
            drive: the most selective drive, None if there is none.
            matches: what `estimate` returned for it, up to ``drive_limit + 1``.
        """
        return None


class ListedSearch(Search):
    """A search without an index, through the records of all conversations of a namespace, which are in memory."""

    def __init__(self, records: Sequence[ConversationRecord]) -> None:
        self._records = records

    def walk(self, order: Order, after: Place | None, wanted: int, most: int | None) -> Iterator[ConversationRecord]:  # noqa: ARG002  # all records are at hand
        return iter(nearest(self._records, order.place, order, after, len(self._records)))

    def total(self) -> int:
        return len(self._records)


def nearest(
    found: Iterable[T], place_of: Callable[[T], Place], order: Order, after: Place | None, wanted: int
) -> list[T]:
    """Return the first of what was found, in no order, that come after a place in an order. Memory grows with ``wanted`` only."""
    choose, beyond = (heapq.nlargest, operator.lt) if order.descending else (heapq.nsmallest, operator.gt)
    placed = ((place, one) for one in found if order.has(place := place_of(one)))
    rest = ((place, one) for place, one in placed if after is None or beyond(place, after))
    return [one for _, one in choose(wanted, rest, key=operator.itemgetter(0))]


def find(query: Query, search: Search, explanation: Explanation | None = None) -> Page[Conversation]:
    """Return the page of conversations that a query asks for."""
    told = Explanation() if explanation is None else explanation
    drive, matches = _best_drive(search, told)
    page = None
    if drive is None or matches > search.drive_limit:
        most = None if drive is None else search.walk_limit
        walked = search.walk(query.order, query.after, query.limit + 1, most)
        page = _page(query, _checked(walked, query.criterion, search, told, f"walk the order {query.order}"))
    if page is None and drive is not None:
        page = _page(query, _driven(drive, query, search, told))
    assert page is not None  # only a walk with a limit gives up, and it has a drive  # noqa: S101
    told.found = len(page)
    return page


def count(criterion: Criterion, search: Search) -> int:
    """Return how many conversations match a criterion."""
    if criterion is EVERYTHING and (total := search.total()) is not None:
        return total
    told = Explanation()
    drive, matches = _best_drive(search, told)
    if search.exact and (counted := search.count(drive, matches)) is not None:
        return counted
    if drive is not None and matches <= search.drive_limit:
        candidates: Iterator[ConversationRecord | None] = search.drive(drive, search.counts_by, None, _COUNTED_AT_ONCE)
    else:
        candidates = search.walk(search.counts_by, None, _COUNTED_AT_ONCE, None)
    return sum(1 for _ in _checked(candidates, criterion, search, told, "count"))


def _best_drive(search: Search, told: Explanation) -> tuple[Drive | None, int]:
    """Return the drive that finds the fewest entries, and how many: at most ``drive_limit + 1``."""
    drives = _drives(search.plan)
    if not drives:
        return None, 0
    counts = search.estimate(drives, search.drive_limit)
    told.steps += [Step(f"look up {drive}", read) for drive, read in zip(drives, counts, strict=True)]
    return min(zip(drives, counts, strict=True), key=operator.itemgetter(1))


def _drives(plan: Plan) -> list[Drive]:
    """Return the ways to drive a plan: each conjunct that is a look-up, or a choice between look-ups."""
    conjuncts = plan.parts if isinstance(plan, Every) else (plan,)
    drives = []
    for place, part in enumerate(conjuncts):
        lookups = part.parts if isinstance(part, Some) else (part,)
        if lookups and all(isinstance(lookup, KeyIn | KeyBetween) for lookup in lookups):
            rest = conjuncts[:place] + conjuncts[place + 1 :]
            drives.append(Drive(cast(tuple[Lookup, ...], lookups), Every(rest)))
    return drives


def _driven(drive: Drive, query: Query, search: Search, told: Explanation) -> Iterator[Conversation | None]:
    candidates = search.drive(drive, query.order, query.after, query.limit + 1)
    matching = _checked(candidates, query.criterion, search, told, f"read what {drive} finds")
    if search.sorts:
        return matching
    found, order = cast("Iterator[Conversation]", matching), query.order
    return iter(nearest(found, lambda one: order.place(_record(one)), order, query.after, query.limit + 1))


def _checked(
    candidates: Iterator[ConversationRecord | None],
    criterion: Criterion,
    search: Search,
    told: Explanation,
    action: str,
) -> Iterator[Conversation | None]:
    """Yield the candidates that match, and None where a walk gave up; report how many were read, however far this is read."""
    read, gave_up = 0, ""
    try:
        for record in candidates:
            if record is None:
                gave_up = ", and give up"
                yield None
                return
            read += 1
            conversation = Conversation.from_record(record)
            if search.exact or criterion.matches(conversation):
                yield conversation
    finally:
        told.steps.append(Step(f"{action}{gave_up}", read))


def _page(query: Query, matching: Iterator[Conversation | None]) -> Page[Conversation] | None:
    """Fill a page; return None if the walk gave up before it was full."""
    found: list[Conversation] = []
    for conversation in matching:
        if conversation is None:
            return None
        found.append(conversation)
        if len(found) > query.limit:  # one more than the limit shows that there is a next page
            cursor = write_cursor(query.order, _record(found[query.limit - 1]))
            return Page(tuple(found[: query.limit]), cursor)
    return Page(tuple(found))


def _record(conversation: Conversation) -> ConversationRecord:
    return cast(ConversationRecord, conversation.record)
