"""What DynamoDB can do to find conversations: the primitives that `memory.port.planner` combines.

Every index entry, and every place in a list but one, contains only an id: the head is read too, a hundred with each request, at
one read unit each. The list by ``updated_at`` contains copies of the heads, about nine of them in a read unit.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, islice
from typing import Final, TypeAlias

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.reading import Space
from memory.adapters.dynamodb.records import Item, read_head
from memory.adapters.dynamodb.table import in_batches
from memory.domain.criteria import FieldCompares
from memory.domain.records import ConversationRecord
from memory.domain.values import check_id
from memory.errors import InvalidValueError
from memory.port.index import Every, KeyBetween, Lookup, Plan, named_ids
from memory.port.paging import Order, Place
from memory.port.planner import Drive, Search, nearest

_FEW: Final = 20  # entries; a look-up that finds no more is taken without a look at the others
_QUERIES_AT_MOST: Final = 32  # of one look-up that is only estimated
_HEADS_AT_ONCE: Final = 100
_WALKED_AT_ONCE: Final = 500

_Range: TypeAlias = tuple[str, str, str]
"""A partition, and the lowest and highest sort key in it."""


class DynamoDbSearch(Search):
    """One criterion, in one namespace, at one moment."""

    drive_limit = 300
    walk_limit = 2_000
    counts_by = Order("updated_at", descending=False)

    def __init__(self, space: Space, plan: Plan, now: int) -> None:
        self.plan = plan
        self._space = space
        self._table = space.table
        self._namespace = space.namespace
        self._shards = range(space.shards)
        self._now = now
        self._estimated: dict[Drive, Iterator[str]] = {}

    def total(self) -> int:
        """Return the sum of the namespace's counters, without the conversations that have expired and are not purged."""
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
        """As `Search.estimate`; a look-up is not read further than the best one before it, equalities come first."""
        counts, best = dict.fromkeys(drives, limit + 1), limit
        for drive in sorted(drives, key=lambda drive: any(isinstance(lookup, KeyBetween) for lookup in drive.lookups)):
            if best > _FEW and len(ranges := list(self._ranges(drive.lookups))) <= _QUERIES_AT_MOST:
                found = self._found(ranges, best + 1)
                ids = list(islice(found, best + 1))
                self._estimated[drive] = chain(ids, found)
                counts[drive] = len(ids)
                best = min(best, len(ids))
        return [counts[drive] for drive in drives]

    def drive(self, drive: Drive, order: Order, after: Place | None, wanted: int) -> Iterator[ConversationRecord]:  # noqa: ARG002  # the planner sorts
        """As `Search.drive`, in no order."""
        ids = self._estimated.pop(drive, None) or self._found(self._ranges(drive.lookups), None)
        seen: set[str] = set()
        for some in in_batches(ids, _HEADS_AT_ONCE):
            yield from self._records({id for id in some if id not in seen}).values()
            seen.update(some)

    def _found(self, ranges: Iterable[_Range], limit: int | None) -> Iterator[str]:
        """Yield the ids of all entries in some ranges."""
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
        """As `Search.walk`. A plan that allows for a few ids only needs no walk: their heads are read."""
        if (ids := named_ids(self.plan)) is not None:
            records = self._records(ids).values()
            yield from nearest(records, order.place, order, after, len(records))
            return
        items = self._listed(order, after, wanted)
        seen: set[str] = set()  # conversations move to the end while the list by updated_at is read
        # As large as may be, so that some batches are just what is wanted.
        size = -(-wanted // -(-wanted // _HEADS_AT_ONCE))
        for some in in_batches(items if most is None else islice(items, most), size):
            for record in self._read(order, some):
                if record.id not in seen:
                    seen.add(record.id)
                    yield record
        if most is not None and next(items, None) is not None:
            yield None

    def _listed(self, order: Order, after: Place | None, wanted: int) -> Iterator[Item]:
        """Yield the items of a list (or the entries of a metadata path) after a place, those of all shards in one order."""
        low, high = self._bounds(order)
        start = None if after is None else _sort_key(order, after)
        if start is not None:
            low, high = (low, min(high, start)) if order.descending else (max(low, start), high)
        if low > high:
            return
        is_all = self.plan == Every()
        first = wanted + (start is not None)  # the place itself is among them
        shards = [
            self._table.query(
                keys.entries(self._namespace, order.index_path, shard)
                if order.path
                else self._space.listing(order.field, shard),
                low,
                high,
                backwards=order.descending,
                limit=first if is_all else max(first, _WALKED_AT_ONCE),
            )
            for shard in self._shards
        ]
        items = merge(*shards, key=lambda item: item.key[1], reverse=order.descending)
        yield from (item for item in items if item.key[1] != start)

    def _read(self, order: Order, items: list[Item]) -> Iterator[ConversationRecord]:
        """Yield the records that items of a list refer to: from their copies of the head, or from the heads."""
        ids = [item.text("id") for item in items]
        if order.field == "updated_at":
            copies = dict(zip(ids, map(read_head, items), strict=True))
            records = self._space.records(copies, self._now)
        else:
            records = self._records(ids)
        for id, item in zip(ids, items, strict=True):
            if (record := records.get(id)) is not None:
                place = order.place(record)
                if order.has(place) and _sort_key(order, place) == item.key[1]:  # else it has moved meanwhile
                    yield record

    def _records(self, ids: Iterable[str]) -> dict[str, ConversationRecord]:
        return self._space.records(self._space.heads(ids), self._now)

    def _bounds(self, order: Order) -> tuple[str, str]:
        """Return between which sort keys of a list every match is."""
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


def _sort_key(order: Order, place: Place) -> str:
    conversation_id = str(place[-1])
    if order.path:
        return keys.entry(bytes.fromhex(str(place[0])), conversation_id)
    return conversation_id if order.field == "id" else keys.listed(int(place[0]), conversation_id)


def _bounds_of(part: FieldCompares) -> tuple[str, str]:
    """Return the first and the last sort key that a conversation with the value of a comparison may have."""
    if part.field != "id":
        return keys.time(int(part.value)), keys.end_of(int(part.value))
    try:
        return (id := check_id(part.value, "id")), id
    except InvalidValueError:  # no conversation has such an id; `matches` decides on which side of it one is
        return keys.LOWEST, keys.HIGHEST
