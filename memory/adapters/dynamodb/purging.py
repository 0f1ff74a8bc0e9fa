"""Deleting what belongs to nothing any more: removed runs, parts of replaced texts, expired conversations, broken commits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.preparing import Preparer
from memory.adapters.dynamodb.reading import ChangedError, Scope
from memory.adapters.dynamodb.records import Head, Item, head_values, parts_of, size_of_item, text_of
from memory.adapters.dynamodb.table import Action, RefusedError, in_transactions
from memory.domain.values import new_id, now

ABANDONED_AFTER: Final = 600_000_000
"""Microseconds for which a purge leaves a commit alone that has staged something. To interrupt it sooner would only make it begin
again; it takes no longer than the timeout of its store."""

_TRIES: Final = 5


class Sweeper:
    """Deletes what is dead in the partitions of a namespace's conversations.

    Every deletion has the stamp of the head as its condition, and the stamp is replaced first if a commit may be staging: nothing
    is deleted because of a read that is outdated, and what is deleted cannot become visible.
    """

    def __init__(self, scope: Scope) -> None:
        self._table = scope.table
        self._reader = scope.reader
        self._namespace = scope.namespace

    def sweep(self, conversation_id: str, abandoned_after: int = 0) -> bool:
        """Delete what is dead in a conversation's partition; return whether that is done.

        Args:
            conversation_id: the conversation's.
            abandoned_after: leave a commit alone that began to stage something so many microseconds ago, or less.
        """
        place = keys.unswept_place(self._namespace, conversation_id)
        for _ in range(_TRIES):
            mark = self._table.get(place)
            head = self._reader.heads(self._namespace, [conversation_id])[conversation_id]
            if head.staged and 0 <= now() - head.staged_at < abandoned_after:
                return False
            try:
                self._sweep(conversation_id, head, mark)
            except RefusedError:
                continue
            return True
        return False

    def _sweep(self, conversation_id: str, head: Head, mark: Item | None) -> None:
        key = keys.head(self._namespace, conversation_id)
        if head.staged:
            head, claimed = replace(head, stamp=new_id()), head
            self._table.write([self._put(key, head, conversation_id, claimed)])
        still = self._table.has_stamp(head.stamp)
        for some in in_transactions(self._deletions(key[0], head)):
            self._table.write([self._table.check(key, still), *some])
        clean = head
        if head.stamp is not None and head.record is None:
            clean, actions = Head(), [self._table.delete(key, still)]
        elif head.staged or head.unswept:
            clean = replace(head, stamp=new_id(), staged=0, unswept=False)
            actions = [self._put(key, clean, conversation_id, head)]
        else:
            actions = [self._table.check(key, still)]
        if mark is not None:
            actions.append(self._table.delete(mark.key, self._table.has_stamp(text_of(mark, "stamp"))))
        self._table.write(actions)
        self._reader.seen.put(self._namespace, conversation_id, clean)

    def _put(self, key: Key, head: Head, conversation_id: str, before: Head) -> Action:
        return self._table.put(Item(key, head_values(head, conversation_id)), self._table.has_stamp(before.stamp))

    def _deletions(self, partition: str, head: Head) -> Iterator[Action]:
        """Yield the deletions of all items but the head, its parts, and the runs of the conversation with theirs."""
        first, last, dead = keys.RUNS, keys.RUNS, [(keys.RUNS, keys.STATE)]  # no run has such a key
        if (record := head.record) is not None:
            first, last = keys.run(record.incarnation, head.first), keys.run(record.incarnation, record.last_position)
            below, above = head.first - 1, record.last_position + 1
            dead = [(keys.RUNS, keys.run(record.incarnation, below)), (keys.run(record.incarnation, above), keys.STATE)]
        for low, high in dead:
            for item in self._table.query(partition, low, high):
                if item.key[1] != keys.STATE:
                    yield self._table.delete(item.key, size=size_of_item(item))
        parts = list(self._table.query(partition, keys.PARTS, keys.RUNS))
        owners = {(partition, owner) for part in parts if first <= (owner := text_of(part, "of")) <= last}
        found = self._table.get_many(owners, attributes=["parts", "part_count"])
        names = {key[1]: its.name for key, item in found.items() if (its := parts_of(item))}
        if head.parts is not None:
            names[keys.STATE] = head.parts.name
        for part in parts:
            if not part.key[1].startswith(f"{keys.PARTS}{names.get(text_of(part, 'of'))}#"):
                yield self._table.delete(part.key, size=size_of_item(part))


class Purge:
    """The purge of one namespace."""

    def __init__(self, scope: Scope, clock: Callable[[], int], abandoned_after: int) -> None:
        self._scope = scope
        self._table = scope.table
        self._reader = scope.reader
        self._namespace = scope.namespace
        self._clock = clock
        self._abandoned_after = abandoned_after

    def run(self) -> int:
        """Remove expired conversations and all that is dead; return how many had expired."""
        purged = 0
        until = keys.beyond(keys.time(self._clock()))
        for shard in range(self._scope.shards):
            partition = keys.listing("expires_at", self._namespace, shard)
            for item in list(self._table.query(partition, keys.LOWEST, until)):
                purged += self._remove(text_of(item, "id"), text_of(item, "incarnation"))
        sweeper = Sweeper(self._scope)
        for mark in list(self._table.query(keys.unswept(self._namespace), keys.LOWEST, keys.HIGHEST)):
            sweeper.sweep(text_of(mark, "id"), self._abandoned_after)
        return purged

    def _remove(self, conversation_id: str, incarnation: str) -> bool:
        """Remove a conversation that has expired; return whether it was this call that did."""
        for _ in range(_TRIES):
            head = self._reader.heads(self._namespace, [conversation_id])[conversation_id]
            if head.record is None or head.record.incarnation != incarnation or not head.is_hidden(self._clock()):
                return False
            preparer = Preparer(self._scope, self._clock())
            try:
                prepared = preparer.removal(conversation_id, head)
                self._table.write([preparer.head_action(prepared), *preparer.counts([prepared]), *prepared.actions])
            except (RefusedError, ChangedError):
                continue
            return True
        return False
