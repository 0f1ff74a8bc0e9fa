"""Reads heads, metadata and runs."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Final

from memory.adapters.dynamodb import keys, records
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.records import NO_HEAD, Head, Item
from memory.adapters.dynamodb.table import Action, Table, has_stamp, in_batches
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import key_of
from memory.errors import CorruptRecordError, StoreUnavailableError
from memory.port.repository import Window

_HEADS_KEPT: Final = 4_096
_READS: Final = 5  # attempts to read a conversation that is being changed
_ALL: Final = 2**53
_HEADS_AT_ONCE: Final = 100
_BATCHED_RUNS: Final = 20
_OPEN_AT_ONCE: Final = 20  # an open run is most probably one of the last


class ChangedError(Exception):
    """A conversation was changed while it was being read, and must be read again."""


@dataclass(frozen=True, slots=True)
class Space:
    """The conversations of one namespace."""

    table: Table
    # A cache of the heads that this store wrote or read last, in all namespaces. Each operation of the dict is atomic.
    seen: OrderedDict[tuple[str, str], Head]
    namespace: str
    shards: int = 0  # the number of partitions of each list; 0 if no list is read or written

    # heads

    def remember(self, conversation_id: str, head: Head) -> None:
        """Cache a head."""
        place = self.namespace, key_of(conversation_id)
        self.seen.pop(place, None)
        if head.stamp is not None:
            self.seen[place] = head.with_metadata("") if head.parts else head
        if len(self.seen) > _HEADS_KEPT:
            self.seen.popitem(last=False)

    def partition(self, conversation_id: str) -> str:
        """Return the partition of a conversation."""
        return keys.partition("conversation", self.namespace, key_of(conversation_id))

    def listing(self, field: str, shard: int) -> str:
        """Return the partition of a list: of conversations by a field, or of ``open`` runs."""
        return keys.partition("list", field, self.namespace, shard)

    def head(self, conversation_id: str) -> Head:
        """Return the head of a conversation."""
        return self.read(conversation_id, self.table.get((self.partition(conversation_id), keys.STATE)))

    def heads(self, ids: Iterable[str]) -> dict[str, Head]:
        """Return the heads of conversations; `NO_HEAD` for those that do not exist."""
        places = {id: (self.partition(id), keys.STATE) for id in ids}
        if len(places) == 1:
            return {id: self.head(id) for id in places}
        items = self.table.get_many(places.values())
        return {id: self.read(id, items.get(key)) for id, key in places.items()}

    def read(self, conversation_id: str, item: Item | None) -> Head:
        """Parse the item of a head (None: it does not exist), cache the head, and return it."""
        head = NO_HEAD if item is None else records.read_head(item)
        if item is not None and key_of(found := item.text("id")) != key_of(conversation_id):
            raise CorruptRecordError(f"the head of conversation {conversation_id!r} has the id {found!r}")
        if item is not None and head.stamp is None:
            raise CorruptRecordError(f"the head of conversation {conversation_id!r} has no stamp")
        self.remember(conversation_id, head)
        return head

    def write_head(self, conversation_id: str, before: Head, after: Head) -> Action:
        """Return the action that replaces or deletes a head, on condition that it is unchanged."""
        key, condition = (self.partition(conversation_id), keys.STATE), has_stamp(before.stamp)
        if after.stamp is None:
            return self.table.delete(key, condition)
        return self.table.put(Item(key, records.head_values(after, conversation_id)), condition)

    def check_head(self, conversation_id: str, head: Head) -> Action:
        """Return the action that checks that a head is unchanged."""
        return self.table.check((self.partition(conversation_id), keys.STATE), has_stamp(head.stamp))

    # metadata

    def records(self, heads: dict[str, Head], now: int) -> dict[str, ConversationRecord]:
        """Return the records of the heads that are not hidden, including their metadata."""
        return {id: record for id, head in self.with_metadata(heads).items() if (record := head.visible(now))}

    def with_metadata(self, heads: dict[str, Head]) -> dict[str, Head]:
        """Return the heads with their metadata. Heads whose metadata was replaced since are read again."""
        missing: list[str] = []
        for _ in range(_READS):
            places = {
                id: head.parts.places(self.partition(id))
                for id, head in heads.items()
                if head.parts and head.record and not head.record.metadata
            }
            if not places:
                return heads
            items = self.table.get_many([place for each in places.values() for place in each])
            missing = [id for id, each in places.items() if not all(place in items for place in each)]
            for id in places.keys() - missing:
                heads[id] = heads[id].with_metadata("".join([items[place].text("text") for place in places[id]]))
            heads |= self.heads(missing)
        raise CorruptRecordError(f"the metadata of {missing[:3]} is incomplete: parts of it are missing")

    # runs

    def last_runs(self, ids: Iterable[str], n: int, now: int) -> dict[str, tuple[Head, list[RunRecord]]]:
        """Return the heads and the last ``n`` runs of conversations, reading all heads at once, and then all runs.

        If ``n`` is large or the positions of a conversation have gaps, its runs are read by `runs`.
        """
        if n > _BATCHED_RUNS:  # a query takes fewer read units for many runs
            return {id: self.runs(id, Window(limit=n, from_end=True), now) for id in ids}
        heads = {id: head for id, head in self.heads(ids).items() if head.visible(now)}
        places = {id: self._last_places(head, n) for id, head in heads.items()}
        items = self.table.get_many(place for each in places.values() for place in each)
        found: dict[str, tuple[Head, list[RunRecord]]] = {}
        for id, head in heads.items():
            own = [items[place] for place in places[id] if place in items]
            if head.record is not None and len(own) == min(n, head.record.run_count):
                with suppress(ChangedError):
                    found[id] = head, self.parsed(id, head, own)
            if id not in found:
                found[id] = self.runs(id, Window(limit=n, from_end=True), now)
        return found

    def _last_places(self, head: Head, n: int) -> list[Key]:
        """Return the keys that the last ``n`` runs have if their positions have no gaps."""
        assert head.record is not None  # noqa: S101  # the head of a conversation that exists
        partition, record = self.partition(head.record.id), head.record
        positions = range(max(head.first, record.last_position - n + 1), record.last_position + 1)
        return [(partition, keys.run(record.incarnation, position)) for position in positions]

    def open_runs(self, before: int | None, limit: int, now: int) -> Iterator[tuple[str, RunRecord]]:
        """Yield the open runs and the ids of their conversations, in the order of the list, merging all shards.

        Items in the list that a removal has left there are skipped.
        """
        high = keys.HIGHEST if before is None else keys.time(before)
        partitions = [self.listing("open", shard) for shard in range(self.shards)]
        lists = [self.table.query(each, keys.LOWEST, high, limit=limit) for each in partitions]
        for batch in in_batches(merge(*lists, key=lambda item: item.key[1]), min(limit, _HEADS_AT_ONCE)):
            heads = self.heads({item.text("id") for item in batch})
            runs = {item.key: (self.partition(item.text("id")), item.text("run")) for item in batch}
            stored = self.table.get_many(runs.values())
            for pointer in batch:
                id, run = pointer.text("id"), stored.get(runs[pointer.key])
                head = heads[id]
                if run and (record := head.visible(now)) and head.has(run) and self.open_place(id, run) == pointer.key:
                    yield from ((record.id, one) for one in self._still_open(head, run, now))

    def _still_open(self, head: Head, run: Item, now: int) -> list[RunRecord]:
        """Parse the item of an open run; return no run if it was completed or removed while its parts were read."""
        assert head.record is not None  # noqa: S101  # the head of a conversation that exists
        try:
            return self.parsed(head.record.id, head, [run])
        except ChangedError:
            window = Window(after=run.position - 1, before=run.position + 1)
            return [one for one in self.runs(head.record.id, window, now)[1] if one.is_open]

    def open_place(self, conversation_id: str, run: Item) -> Key | None:
        """Return the key of a run in the list of open runs; None if the run is not open."""
        if "open_shard" not in run.values:
            return None
        key = keys.opened(run.number("created_at"), conversation_id, run.key[1])
        return self.listing("open", run.number("open_shard")), key

    def open_items(self, head: Head, low: int, high: int) -> Iterator[Item]:
        """Yield the open runs between two positions, the last one first."""
        low = max(low, head.first_open or high + 1)
        if (record := head.record) is not None and low <= high:
            first, last = keys.run(record.incarnation, low), keys.run(record.incarnation, high)
            items = self.table.query(self.partition(record.id), first, last, backwards=True, limit=_OPEN_AT_ONCE)
            yield from (item for item in items if "open_shard" in item.values)

    def runs(self, conversation_id: str, window: Window, now: int) -> tuple[Head, list[RunRecord]]:
        """Return the head and the runs in the window, or `NO_HEAD` and no runs if the conversation has expired."""
        for _ in range(_READS):
            with suppress(ChangedError):
                head, items = self._runs(conversation_id, window, now)
                return head, self.parsed(conversation_id, head, items)
        raise StoreUnavailableError(
            f"conversation {conversation_id!r} was changed during {_READS} attempts to read its runs: read them again"
        )

    def _runs(self, conversation_id: str, window: Window, now: int) -> tuple[Head, list[Item]]:
        limit = _ALL if window.limit is None else min(window.limit, _ALL)
        if limit and window.before is None and (window.from_end or (window.after == 0 and limit == _ALL)):
            return self._last_runs(conversation_id, window.after, limit, now)
        head = self.head(conversation_id)
        if (record := head.visible(now)) is None:
            return NO_HEAD, []
        low, high = max(head.first, window.after + 1), record.last_position
        high = high if window.before is None else min(high, window.before - 1)
        return head, self._between(head, low, high, limit, backwards=window.from_end)

    def _last_runs(self, conversation_id: str, after: int, limit: int, now: int) -> tuple[Head, list[Item]]:
        """Read the head and the last runs with one backward query from the head, and with further queries if needed."""
        partition = self.partition(conversation_id)
        items, is_last = next(self.table.pages(partition, keys.RUNS, keys.STATE, backwards=True, limit=limit + 1))
        if not items or items[0].key[1] != keys.STATE:
            return NO_HEAD, []
        head = self.read(conversation_id, items[0])
        if (record := head.visible(now)) is None:
            return NO_HEAD, []
        low, high = max(head.first, after + 1), record.last_position
        first, last = keys.run(record.incarnation, low), keys.run(record.incarnation, high)
        runs = [item for item in reversed(items) if first <= item.key[1] <= last]
        if is_last or len(runs) == limit or items[-1].key[1] < first:
            return head, runs
        before = runs[0].position if runs else high + 1
        return head, self._between(head, low, before - 1, limit - len(runs), backwards=True) + runs

    def _between(self, head: Head, low: int, high: int, limit: int, *, backwards: bool) -> list[Item]:
        """Return the first or the last runs between two positions.

        Raises:
            ChangedError: runs were removed since the head was read, and a purge may have deleted them.
        """
        record, most = head.record, min(limit, high - low + 1)
        if record is None or most <= 0:
            return []
        first, last = keys.run(record.incarnation, low), keys.run(record.incarnation, high)
        asked = most if most == limit else None
        items = self.table.query(self.partition(record.id), first, last, backwards=backwards, limit=asked)
        runs = list(islice(items, most))
        if len(runs) < most:
            still = self.head(record.id)
            if still.record is None or (still.record.incarnation, still.first) != (record.incarnation, head.first):
                raise ChangedError
        return runs[::-1] if backwards else runs

    def parsed(self, conversation_id: str, head: Head, items: list[Item]) -> list[RunRecord]:
        """Parse items as runs; read the parts of runs that are too large for one item."""
        partition = self.partition(conversation_id)
        large = [parts for item in items if "parts" in item.values and (parts := records.parts_of(item))]
        wanted = [place for parts in large for place in parts.places(partition)]
        texts = {key: item.text("text") for key, item in self.table.get_many(wanted).items()}
        if len(texts) < len(wanted):
            if self.head(conversation_id).stamp != head.stamp:
                raise ChangedError
            raise CorruptRecordError(f"runs of conversation {conversation_id!r} are incomplete: parts are missing")
        return [records.read_run(item, texts) for item in items]
