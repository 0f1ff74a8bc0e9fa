"""Finding conversations: look-ups in the index where they find few, a walk along the list by time (or by id) where they do not.

*Driven*: the ids of a look-up, or of several where all must hold, are read; then their heads, a hundred with each request.
*Walked*: the list in the order asked for is read; by time of the last change its items are copies of the heads, some thousand
with each request. Either way `Criterion.matches` decides.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from typing import Any, Final, TypeAlias

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.models import Kept
from memory.adapters.dynamodb.reading import Reader
from memory.adapters.dynamodb.table import Table, in_batches
from memory.domain.criteria import FieldCompares
from memory.domain.records import ConversationRecord
from memory.domain.values import check_id
from memory.errors import InvalidValueError
from memory.port.index import Every, KeyBetween, KeyIn, Lookup, Plan, Some
from memory.port.paging import Order, Place

_FOUND_AT_MOST: Final = 1_000
"""Entries of a look-up that are read to see whether it finds few."""

_DRIVEN_AT_MOST: Final = 200
"""Conversations that are sooner read one by one than walked to: two requests."""

_FEW: Final = 20  # a look-up that finds no more is not narrowed down by others
_REQUESTS_AT_MOST: Final = 4  # of one look-up: an equality with more values is walked, or left to another
_LOOKUPS_AT_MOST: Final = 3  # that are tried
_HEADS_AT_ONCE: Final = 100
_LISTS: Final = {"updated_at": keys.BY_UPDATED, "created_at": keys.BY_CREATED, "id": keys.BY_ID}
_LONGEST_BOUND: Final = 1_000  # bytes of a sort key that a bound is made of

Bounds: TypeAlias = tuple[bytes, bytes]


@dataclass(slots=True)
class _Drive:
    """Look-ups one of which finds each match, or the ids themselves."""

    lookups: list[Lookup] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def requests(self, shards: int) -> int:
        return shards * sum(len(one.keys) if isinstance(one, KeyIn) else 1 for one in self.lookups)


class Search:
    """One plan, in one namespace, at one moment."""

    def __init__(self, table: Table, reader: Reader, namespace: str, shards: int, plan: Plan, *, now: int) -> None:
        self._table = table
        self._reader = reader
        self._namespace = namespace
        self._shards = shards
        self._plan = plan
        self._now = now

    def records(self, order: Order, after: Place | None, limit: int) -> Iterator[ConversationRecord]:
        """Yield all that match, and more, after a place, in order.

        Args:
            order: in which they come.
            after: where to begin; at the beginning, when it is None.
            limit: how many are wanted most probably.
        """
        ids = self._ids()
        if ids is None:
            return self._walk(order, after, limit)
        if order.field == "id":
            return self._in_order_of_ids(ids, order, after)
        return self._sorted(ids, order, after)

    # driven

    def _ids(self) -> set[str] | None:
        """Return the ids among which every match is, None if they are many, or no look-up tells."""
        drives = [drive for drive in _drives(self._plan) if drive.requests(self._shards) <= _REQUESTS_AT_MOST]
        drives.sort(key=lambda drive: (drive.requests(self._shards) > 0, _is_range(drive)))
        fewest: set[str] | None = None
        for drive in drives[:_LOOKUPS_AT_MOST]:
            ids = self._found(drive)
            if ids is not None:
                fewest = ids if fewest is None else fewest & ids
                if len(fewest) <= _FEW:
                    break
        return fewest if fewest is not None and len(fewest) <= _DRIVEN_AT_MOST else None

    def _found(self, drive: _Drive) -> set[str] | None:
        """Return the ids that a drive finds, None if there are many."""
        found = set(drive.ids)
        for lookup in drive.lookups:
            for partition, low, high in self._ranges(lookup):
                entries = self._table.query(partition, low, high, limit=_FOUND_AT_MOST, attributes=["id"])
                found.update(entry.id for entry in islice(entries, _FOUND_AT_MOST))
                if len(found) >= _FOUND_AT_MOST:
                    return None
        return found

    def _ranges(self, lookup: Lookup) -> Iterator[tuple[bytes, bytes, bytes]]:
        for shard in range(self._shards):
            partition = keys.entries(self._namespace, lookup.path, shard)
            if isinstance(lookup, KeyBetween):
                if lookup.low < lookup.high:
                    yield partition, *keys.entry_bounds(lookup.low, lookup.high)
            else:
                for key in lookup.keys:
                    yield partition, keys.entry_key(key) + b"\x00\x01", keys.entry_key(key) + b"\x00\x02"

    def _in_order_of_ids(self, ids: set[str], order: Order, after: Place | None) -> Iterator[ConversationRecord]:
        wanted = sorted(ids, reverse=order.descending)
        if after is not None:
            wanted = [id for id in wanted if _is_beyond(order, (id,), after)]
        for some in in_batches(wanted, _HEADS_AT_ONCE):
            kept = self._kept(some)
            yield from (kept[id].record for id in some if id in kept)

    def _sorted(self, ids: set[str], order: Order, after: Place | None) -> Iterator[ConversationRecord]:
        records = [kept.record for kept in self._kept(ids).values()]
        records.sort(key=order.place, reverse=order.descending)
        return (record for record in records if after is None or _is_beyond(order, order.place(record), after))

    def _kept(self, ids: Any) -> dict[str, Kept]:
        found = self._reader.kept(self._namespace, ids)
        return {id: kept for id, kept in found.items() if not kept.is_expired(self._now)}

    # walked

    def _walk(self, order: Order, after: Place | None, limit: int) -> Iterator[ConversationRecord]:
        low, high = self._bounds(order, after)
        if low > high:
            return
        is_all = self._plan == Every()
        shards = [
            self._table.query(
                keys.listing(_LISTS[order.field], self._namespace, shard),
                low,
                high,
                backwards=order.descending,
                limit=limit if is_all else max(limit, _FOUND_AT_MOST),
                then=limit if is_all else None,
            )
            for shard in range(self._shards)
        ]
        items = shards[0] if self._shards == 1 else merge(*shards, key=lambda item: item.sk, reverse=order.descending)
        size = -(-limit // -(-limit // _HEADS_AT_ONCE))  # as large as may be, so that some of them are just the limit
        start = None if after is None else _sort_key(order, after)
        for some in in_batches((item for item in items if item.sk != start), size):
            yield from self._read(order, some)

    def _read(self, order: Order, items: list[Any]) -> Iterator[ConversationRecord]:
        """Yield what items of a list stand for: what they say, if they are copies, else what their heads say."""
        copies = {item.id: kept for item in items if hasattr(item, "version") and (kept := self._reader.copy(item))}
        copies = self._reader.with_texts(self._namespace, copies)
        pointers = [item.id for item in items if item.id not in copies]
        heads = self._reader.kept(self._namespace, pointers) if pointers else {}
        for item in items:
            kept = copies.get(item.id) or heads.get(item.id)
            if kept is None or kept.is_expired(self._now):
                continue
            if _sort_key(order, order.place(kept.record)) == item.sk:  # else it stands elsewhere now
                yield kept.record

    def _bounds(self, order: Order, after: Place | None) -> Bounds:
        """Return between which sort keys of the list every match is."""
        low, high = keys.ONLY, b"\xff" * 16
        for part in self._plan.parts if isinstance(self._plan, Every) else (self._plan,):
            if isinstance(part, FieldCompares) and part.field == order.field:
                below, above = _bounds_of(part)
                low, high = max(low, below), min(high, above)
        if after is not None:
            place = _sort_key(order, after)
            low, high = (low, min(high, place)) if order.descending else (max(low, place), high)
        return low, high


def _drives(plan: Plan) -> list[_Drive]:
    """Return the ways to drive a plan: each conjunct that is a look-up, or a choice between look-ups."""
    drives = []
    for part in plan.parts if isinstance(plan, Every) else (plan,):
        drive = _Drive()
        for choice in part.parts if isinstance(part, Some) else (part,):
            if isinstance(choice, KeyIn | KeyBetween):
                drive.lookups.append(choice)
            elif isinstance(choice, FieldCompares) and choice.field == "id" and choice.operator == "==":
                with suppress(InvalidValueError):  # no conversation has what cannot be an id
                    drive.ids.add(check_id(choice.value, "the id"))
            else:
                break
        else:
            drives.append(drive)
    return drives


def _is_range(drive: _Drive) -> bool:
    return any(isinstance(lookup, KeyBetween) for lookup in drive.lookups)


def _sort_key(order: Order, place: Place) -> bytes:
    if order.field == "id":
        return keys.compact(str(place[0]))
    at, conversation_id = place  # type: ignore[misc]  # by a time it has both
    return keys.time(int(at)) + keys.compact(conversation_id)


def _bounds_of(part: FieldCompares) -> Bounds:
    """Return between which sort keys of its list the conversations are for which a comparison holds, and maybe more."""
    if part.field == "id":
        at = keys.compact(str(part.value))[:_LONGEST_BOUND] or keys.ONLY
    else:
        at = keys.time(max(-(2**63), min(2**63 - 1, int(part.value))))
    low = at if part.operator in ("==", ">", ">=") else keys.ONLY
    high = at + b"\xff" * 16 if part.operator in ("==", "<", "<=") else b"\xff" * 16
    return low, high


def _is_beyond(order: Order, place: Place, after: Place) -> bool:
    return place < after if order.descending else place > after
