"""Reading heads, metadata and runs."""

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.records import (
    NO_HEAD,
    Head,
    Item,
    head_values,
    parts_of,
    position_of,
    read_head,
    read_run,
    text_of,
)
from memory.adapters.dynamodb.table import Action, Table
from memory.domain.records import RunRecord
from memory.errors import CorruptRecordError, StoreUnavailableError
from memory.port.repository import Window

_HEADS_KEPT: Final = 4_096
_READS: Final = 5  # of what is being changed meanwhile
_ALL: Final = 2**53


class ChangedError(Exception):
    """What was read does not fit together, because it was changed meanwhile: read it again."""


class LastSeen:
    """The heads that this store wrote or read last: guesses, of a bounded number."""

    def __init__(self) -> None:
        self._heads: OrderedDict[tuple[str, str], Head] = OrderedDict()  # each of its operations is atomic

    def get(self, namespace: str, conversation_id: str) -> Head | None:
        """Return what a head said when it was seen last; None if it was not."""
        return self._heads.get((namespace, conversation_id))

    def put(self, namespace: str, conversation_id: str, head: Head) -> None:
        """Remember what a head says."""
        self._heads.pop((namespace, conversation_id), None)
        if head.stamp is not None:
            self._heads[namespace, conversation_id] = head.with_metadata("") if head.parts else head
        if len(self._heads) > _HEADS_KEPT:
            self._heads.popitem(last=False)


class Scope(NamedTuple):
    """One namespace of a table: where the other modules work.

    Attributes:
        table: the table.
        reader: reads its conversations.
        namespace: the namespace.
        shards: over how many partitions each list is spread.
    """

    table: Table
    reader: "Reader"
    namespace: str
    shards: int

    def write_head(self, conversation_id: str, before: Head, after: Head) -> Action:
        """Return the action that replaces a head, or deletes it, if the old one is still there."""
        key, condition = keys.head(self.namespace, conversation_id), self.table.has_stamp(before.stamp)
        if after.stamp is None:
            return self.table.delete(key, condition)
        return self.table.put(Item(key, head_values(after, conversation_id)), condition)

    def check_head(self, conversation_id: str, head: Head) -> Action:
        """Return the action that checks that a head is still there."""
        return self.table.check(keys.head(self.namespace, conversation_id), self.table.has_stamp(head.stamp))


class Reader:
    """Reads the conversations of one table, and remembers what their heads said."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.seen = LastSeen()

    # heads

    def heads(self, namespace: str, ids: Iterable[str]) -> dict[str, Head]:
        """Return the heads of conversations, also of those that are not there."""
        places = {id: keys.head(namespace, id) for id in ids}
        if len(places) == 1:
            items = {key: self._table.get(key) for key in places.values()}
        else:
            items = {**self._table.get_many(places.values())}
        return {id: self.read(namespace, id, items.get(key)) for id, key in places.items()}

    def read(self, namespace: str, conversation_id: str, item: Item | None) -> Head:
        """Return the head that an item contains (None: there is no item), and remember it."""
        head = NO_HEAD if item is None else read_head(item)
        if item is not None and (found := text_of(item, "id")) != conversation_id:
            raise CorruptRecordError(f"the head of conversation {conversation_id!r} is stored as that of {found!r}")
        if item is not None and head.stamp is None:
            raise CorruptRecordError(f"the head of conversation {conversation_id!r} is stored without its stamp")
        self.seen.put(namespace, conversation_id, head)
        return head

    # metadata

    def complete(self, namespace: str, ids: Iterable[str]) -> dict[str, Head]:
        """Return the heads of those conversations that are there, with their metadata."""
        heads = {id: head for id, head in self.heads(namespace, ids).items() if head.record is not None}
        return self.with_metadata(namespace, heads)

    def with_metadata(self, namespace: str, heads: dict[str, Head]) -> dict[str, Head]:
        """Return these heads with their metadata; where they were replaced meanwhile, what the head says then."""
        missing: list[str] = []
        for _ in range(_READS):
            places = {
                id: head.parts.places(keys.conversation(namespace, id))
                for id, head in heads.items()
                if head.parts and head.record and not head.record.metadata
            }
            if not places:
                return heads
            items = self._table.get_many([place for each in places.values() for place in each])
            missing = [id for id, each in places.items() if not all(place in items for place in each)]
            for id in places.keys() - missing:
                heads[id] = heads[id].with_metadata("".join([text_of(items[place], "text") for place in places[id]]))
            if missing:
                heads = {id: head for id, head in heads.items() if id not in missing}
                heads |= {id: head for id, head in self.heads(namespace, missing).items() if head.record is not None}
        raise CorruptRecordError(f"the metadata of {missing[:3]} are stored, but parts of them are missing")

    # runs

    def runs(self, namespace: str, conversation_id: str, window: Window, now: int) -> tuple[Head, list[RunRecord]]:
        """Return a head and those of the conversation's runs that are in the window: none if it has expired."""
        for _ in range(_READS):
            with suppress(ChangedError):
                head, items = self._runs(namespace, conversation_id, window, now)
                return head, self._records(namespace, conversation_id, head, items)
        raise StoreUnavailableError(
            f"conversation {conversation_id!r} was changed each time its runs were read: read them again"
        )

    def _runs(self, namespace: str, conversation_id: str, window: Window, now: int) -> tuple[Head, list[Item]]:
        limit = _ALL if window.limit is None else min(window.limit, _ALL)
        is_all = window.after == 0 and limit == _ALL
        if limit and window.before is None and (window.from_end or is_all):
            return self._last_runs(namespace, conversation_id, window.after, limit, now)
        head = self.heads(namespace, [conversation_id])[conversation_id]
        if head.is_hidden(now) or head.record is None:
            return NO_HEAD, []
        low, high = max(head.first, window.after + 1), head.record.last_position
        high = high if window.before is None else min(high, window.before - 1)
        if low > high or not limit:
            return head, []
        items = self._between(namespace, head, low, high, limit, backwards=window.from_end)
        wanted = range(low, high + 1)
        self._check_still(namespace, head, items, wanted[-limit:] if window.from_end else wanted[:limit])
        return head, items

    def _last_runs(
        self, namespace: str, conversation_id: str, after: int, limit: int, now: int
    ) -> tuple[Head, list[Item]]:
        """Read the head and the last runs by one query, backwards from the head, and by more if that does not bring all."""
        partition = keys.conversation(namespace, conversation_id)
        pages = self._table.pages(partition, keys.RUNS, keys.STATE, backwards=True, limit=limit + 1)
        items, is_last = next(pages)
        if not items or items[0].key[1] != keys.STATE:
            return NO_HEAD, []
        head = self.read(namespace, conversation_id, items[0])
        if head.is_hidden(now) or head.record is None:
            return NO_HEAD, []
        low, high = max(head.first, after + 1), head.record.last_position
        first, last = keys.run(head.record.incarnation, low), keys.run(head.record.incarnation, high)
        runs = [item for item in reversed(items) if first <= item.key[1] <= last]
        if is_last or len(runs) == limit or items[-1].key[1] < first:
            return head, runs
        before = position_of(runs[0]) if runs else high + 1
        runs[:0] = self._between(namespace, head, low, before - 1, limit - len(runs), backwards=True)
        self._check_still(namespace, head, runs, range(low, high + 1)[-limit:])
        return head, runs

    def _between(self, namespace: str, head: Head, low: int, high: int, limit: int, *, backwards: bool) -> list[Item]:
        if low > high or head.record is None:
            return []
        partition, incarnation = keys.conversation(namespace, head.record.id), head.record.incarnation
        first, last = keys.run(incarnation, low), keys.run(incarnation, high)
        asked = None if limit > high - low else limit
        runs = list(islice(self._table.query(partition, first, last, backwards=backwards, limit=asked), limit))
        return runs[::-1] if backwards else runs

    def _check_still(self, namespace: str, head: Head, runs: list[Item], wanted: range) -> None:
        """Make sure that runs which took several requests are all there were: none was deleted between two of them.

        Args:
            namespace: the conversation's.
            head: the head that was read first.
            runs: the items found.
            wanted: the positions in the window, if none between the first and the last was removed.

        Raises:
            ChangedError: some may have been deleted.
        """
        record = head.record
        assert record is not None  # noqa: S101  # it is not hidden
        has_gaps = record.run_count != record.last_position - head.first + 1
        if not has_gaps and [item.key[1] for item in runs] == [keys.run(record.incarnation, n) for n in wanted]:
            return  # nothing is missing: seen without another request
        still = self.heads(namespace, [record.id])[record.id]
        if still.record is None or (still.record.incarnation, still.first) != (record.incarnation, head.first):
            raise ChangedError

    def _records(self, namespace: str, conversation_id: str, head: Head, items: list[Item]) -> list[RunRecord]:
        """Return the runs of items, with the parts of those that are too large for one item."""
        partition = keys.conversation(namespace, conversation_id)
        large = [parts for item in items if "parts" in item.values and (parts := parts_of(item))]
        wanted = [place for parts in large for place in parts.places(partition)]
        texts = {key: text_of(item, "text") for key, item in self._table.get_many(wanted).items()}
        if len(texts) < len(wanted):
            if self.heads(namespace, [conversation_id])[conversation_id].stamp != head.stamp:
                raise ChangedError
            raise CorruptRecordError(f"runs of conversation {conversation_id!r} are stored, but parts are missing")
        return [read_run(item, texts) for item in items]
