"""Search: implements the operations that `memory.port.planner` combines.

Index entries and list items contain only ids, so the heads must be read too: a hundred per request, at one read unit each. The
lists by ``last_run_at`` and ``updated_at`` are the exception: they contain copies of the heads, about nine per read unit.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from typing import Final, TypeAlias

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.reading import Space
from memory.adapters.dynamodb.records import Item, read_head
from memory.adapters.dynamodb.table import in_batches
from memory.domain.criteria import FieldCompares
from memory.domain.records import ConversationRecord
from memory.port.index import Every, KeyBetween, Lookup, Plan, named_ids
from memory.port.paging import Order, Place
from memory.port.planner import Drive, Search, nearest

_FEW: Final = 20  # if a lookup finds no more entries than this, no other lookup is estimated
_QUERIES_AT_MOST: Final = 32  # lookups that need more queries are not estimated
_HEADS_AT_ONCE: Final = 100
_WALKED_AT_ONCE: Final = 500

_COPIED: Final = ("last_run_at", "updated_at")  # the lists with copies of the heads

_Range: TypeAlias = tuple[str, str, str]
"""A partition, the lowest sort key and the highest sort key."""


class DynamoDbSearch(Search):
    """The search for one criterion in one namespace, at one point in time."""

    drive_limit = 300
    walk_limit = 2_000
    counts_by = Order("last_run_at", descending=False)

    def __init__(self, space: Space, plan: Plan, now: int) -> None:
        self.plan = plan
        self._space = space
        self._table = space.table
        self._namespace = space.namespace
        self._shards = range(space.shards)
        self._now = now
        self._ids: dict[Drive, list[str]] = {}  # all ids that a drive finds, if it was read to its end

    def total(self) -> int:
        """Return the sum of the namespace's counters, minus the conversations that have expired but are not purged."""
        counters = self._table.query(keys.COUNTS, *keys.counters(self._namespace))
        until = keys.end_of(self._now)
        expired = (
            1
            for shard in self._shards
            for _ in self._table.query(self._space.listing("expires_at", shard), keys.LOWEST, until)
        )
        return max(0, sum(item.number("count") for item in counters) - sum(expired))

    # driven

    def estimate(self, drives: Sequence[Drive], limit: int) -> Sequence[int]:
        """See `Search.estimate`. Equalities are read first, and a lookup is read only as far as the best one before it."""
        counts, best = dict.fromkeys(drives, limit + 1), limit
        for drive in sorted(drives, key=lambda drive: any(isinstance(lookup, KeyBetween) for lookup in drive.lookups)):
            if best > _FEW and len(ranges := list(self._ranges(drive.lookups))) <= _QUERIES_AT_MOST:
                counts[drive] = len(ids := list(islice(self._found(ranges, best + 1), best + 1)))
                if len(ids) <= best:
                    self._ids[drive], best = ids, len(ids)
        return [counts[drive] for drive in drives]

    def drive(self, drive: Drive, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:  # noqa: ARG002  # the planner sorts
        """See `Search.drive`. The records are unordered."""
        ids = self._ids[drive] if drive in self._ids else self._found(self._ranges(drive.lookups), None)
        seen: set[str] = set()
        for batch in in_batches(ids, _HEADS_AT_ONCE):
            yield from self._records({id for id in batch if id not in seen}).values()
            seen.update(batch)

    def _found(self, ranges: Iterable[_Range], limit: int | None) -> Iterator[str]:
        """Yield the ids of all entries in the ranges."""
        for partition, low, high in ranges:
            items = self._table.query(partition, low, high, limit=limit)
            yield from (item.text("id") for item in items)

    def _ranges(self, lookups: Iterable[Lookup]) -> Iterator[_Range]:
        for lookup in lookups:
            for shard in self._shards:
                partition = keys.entries(self._namespace, lookup.path, shard)
                if isinstance(lookup, KeyBetween):
                    bounds = [(lookup.low, lookup.high)] if lookup.low < lookup.high else []
                else:
                    bounds = [(key, key + b"\0") for key in lookup.keys]
                yield from ((partition, *keys.entries_between(low, high)) for low, high in bounds)

    # walked

    def walk(
        self, order: Order, after: Place | None, wanted: int, most: int | None
    ) -> Iterator[ConversationRecord | None]:
        """See `Search.walk`. If the plan restricts the ids to a few, their heads are read instead of a list."""
        if (ids := named_ids(self.plan)) is not None:
            records = self._records(ids).values()
            yield from nearest(records, order.place, order, after, len(records))
            return
        items = self._listed(order, after, wanted)
        seen: set[str] = set()  # conversations move to the end while the list by last_run_at is read
        # The largest size with which a whole number of batches contains about as many items as are wanted.
        size = -(-wanted // -(-wanted // _HEADS_AT_ONCE))
        for batch in in_batches(items if most is None else islice(items, most), size):
            for record in self._read(order, batch):
                if record.id not in seen:
                    seen.add(record.id)
                    yield record
        if most is not None and next(items, None) is not None:
            yield None

    def _listed(self, order: Order, after: Place | None, wanted: int) -> Iterator[Item]:
        """Yield the items of a list (or the entries of a metadata path) after a place, merging all shards in order."""
        low, high = self._bounds(order)
        start = None if after is None else _sort_key(order, after)
        if start is not None:
            low, high = (low, min(high, start)) if order.descending else (max(low, start), high)
        if low > high:
            return
        limit = wanted + (start is not None)  # the place itself is included
        if self.plan != Every():
            limit = max(limit, _WALKED_AT_ONCE)
        lists = [
            self._table.query(
                keys.entries(self._namespace, order.index_path, shard)
                if order.path
                else self._space.listing(order.field, shard),
                low,
                high,
                backwards=order.descending,
                limit=limit,
            )
            for shard in self._shards
        ]
        if order.field == "updated_at":
            lists += [self._updated(shard, low, high, 2 * limit, descending=order.descending) for shard in self._shards]
        items = merge(*lists, key=_by_sort_key, reverse=order.descending)
        yield from (item for item in items if item.key[1] != start)

    def _updated(self, shard: int, low: str, high: str, limit: int, *, descending: bool) -> Iterator[Item]:
        """Yield the conversations that are only in the list by ``last_run_at``, in the order of ``updated_at``.

        Both times are in the same minute, so the conversations of one minute are sorted.
        """
        partition, bounds = self._space.listing("last_run_at", shard), (keys.minute(low), keys.minute(high) + "~")
        items = self._table.query(partition, *bounds, backwards=descending, limit=limit)
        for minute, group in groupby(items, key=lambda item: keys.minute(item.key[1])):
            listed = [(keys.listed(item.number("updated_at"), item.text("id")), item) for item in group]
            found = [
                Item((partition, key), item.values)
                for key, item in listed
                if keys.minute(key) == minute and low <= key <= high
            ]
            yield from sorted(found, key=_by_sort_key, reverse=descending)

    def _read(self, order: Order, items: list[Item]) -> Iterator[ConversationRecord]:
        """Yield the records of the items of a list, from their copies of the heads or from the heads."""
        ids = [item.text("id") for item in items]
        if order.field in _COPIED:
            copies = dict(zip(ids, map(read_head, items), strict=True))
            records = self._space.records(copies, self._now)
        else:
            records = self._records(ids)
        for id, item in zip(ids, items, strict=True):
            if (record := records.get(id)) is not None:
                place = order.place(record)
                if order.has(place) and _sort_key(order, place) == item.key[1]:  # otherwise it has moved since
                    yield record

    def _records(self, ids: Iterable[str]) -> dict[str, ConversationRecord]:
        return self._space.records(self._space.heads(ids), self._now)

    def _bounds(self, order: Order) -> tuple[str, str]:
        """Return the lowest and highest sort key that a match can have in a list."""
        low, high = keys.LOWEST, keys.HIGHEST
        for part in self.plan.parts if isinstance(self.plan, Every) else (self.plan,):
            if isinstance(part, FieldCompares) and part.field == order.field:
                begin, end = _bounds_of(part)
                low = max(low, begin) if part.operator in ("==", ">", ">=") else low
                high = min(high, end) if part.operator in ("==", "<", "<=") else high
            elif isinstance(part, KeyBetween) and order.path and part.path == order.index_path:
                below, above = keys.entries_between(part.low, part.high)
                low, high = max(low, below), min(high, above)
        return low, high


def _by_sort_key(item: Item) -> str:
    return item.key[1]


def _sort_key(order: Order, place: Place) -> str:
    conversation_id = str(place[-1])
    if order.path:
        return keys.entry(bytes.fromhex(str(place[0])), conversation_id)
    return conversation_id if order.field == "id" else keys.listed(int(place[0]), conversation_id)


def _bounds_of(part: FieldCompares) -> tuple[str, str]:
    """Return the lowest and highest sort key of conversations with the value of a comparison."""
    if part.field != "id":
        return keys.time(int(part.value)), keys.end_of(int(part.value))
    return str(part.value), str(part.value)
