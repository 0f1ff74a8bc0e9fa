"""Computes the result of a change before anything is written: the new head, and the other actions of the transaction."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from memory.adapters.dynamodb import keys, records
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.reading import Space
from memory.adapters.dynamodb.records import NO_HEAD, Head, Item
from memory.adapters.dynamodb.table import MOST_ACTIONS, Action
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import new_id
from memory.errors import CommitTooLargeError
from memory.port.changes import Change, assign_positions, check_preconditions, missing_runs
from memory.port.index import entries

MOST_ENTRIES: Final = 90
"""The maximum number of index entries of a conversation, so that its removal fits into one transaction."""


@dataclass(slots=True)
class Prepared:
    """A change of one conversation, computed from a head that was read or cached. Until `apply` is called, it is a removal."""

    space: Space
    id: str
    before: Head  # must be unchanged when the change is written
    after: Head = NO_HEAD  # has no record if the conversation is removed
    actions: list[Action] = field(default_factory=list)  # all actions except the one on the head
    # New runs and parts of large texts. Only the new head refers to them, so they may be written before it.
    contents: list[Item] = field(default_factory=list)
    has_garbage: bool = False  # whether the change leaves items for a purge

    def apply(self, change: Change, *, now: int, at: int) -> "Prepared":
        """Apply a change made at the time ``at``; return self. Whether the conversation has expired depends on ``now``.

        Raises:
            CommitTooLargeError: the conversation has too many index entries.
            PersistenceError: the change is refused by `memory.port.changes.check_preconditions`.
        """
        before, present = self.before, self.before.visible(now)
        check_preconditions(change, present)
        if (record := change.create) is not None:
            runs, last_position = assign_positions(change, record.last_position)
            record = record._replace(incarnation=new_id(), run_count=len(runs), last_position=last_position)
            shard = keys.spread(self.id, self.space.shards)
            self._set_head(Head(new_id(), record, shard=shard), record.metadata, runs)
        elif present is not None and not change.remove:
            removed = self._edit_runs(change, present) if change.edits_runs else 0
            runs, last_position = assign_positions(change, present.last_position)
            first = max(before.first, min(change.remove_before, present.last_position + 1))
            self.has_garbage = self.has_garbage or (first > before.first and removed > 0)
            record = change.applied(present, present.run_count - removed + len(runs), last_position, at)
            self._set_head(before._replace(stamp=new_id(), record=record, first=first), change.metadata, runs)
        return self.finish()

    def _set_head(self, head: Head, metadata: str | None, runs: Iterable[RunRecord]) -> None:
        """Set the new head and prepare new metadata, in parts if it is too large for the head, and new runs."""
        partition = self.space.partition(self.id)
        if metadata is not None:
            parts = None
            if records.size_of(metadata) > records.INLINE_METADATA:
                parts, self.contents = records.part_items(partition, metadata, keys.STATE)
            head = head._replace(parts=parts)
        self.after = head
        for run in runs:
            self.contents += records.run_items(partition, head.record.incarnation if head.record else "", run)

    def _edit_runs(self, change: Change, record: ConversationRecord) -> int:
        """Prepare removals and replacements of stored runs; return how many runs are removed."""
        table = self.space.table
        removed = self._count_before(record, change.remove_before) + len(change.remove_runs)
        new = {run.position: run for run in change.replace_runs}
        partition, low = self.space.partition(self.id), max(self.before.first, change.remove_before)
        places = {n: (partition, keys.run(record.incarnation, n)) for n in (*change.remove_runs, *new)}
        stored = table.get_many(place for n, place in places.items() if low <= n <= record.last_position)
        for n, place in places.items():
            if place not in stored:
                raise missing_runs(change, n)
            self.has_garbage = self.has_garbage or records.parts_of(stored[place]) is not None
            if n in new:
                *parts, item = records.run_items(partition, record.incarnation, new[n])
                self.contents += parts
                self.actions.append(table.put(item))
            else:
                self.actions.append(table.delete(place, size=records.size_of_item(stored[place])))
        return removed

    def _count_before(self, record: ConversationRecord, before: int) -> int:
        """Return the number of runs before a position."""
        first = self.before.first
        if before <= first or before > record.last_position:
            return 0 if before <= first else record.run_count
        if record.run_count == record.last_position - first + 1:
            return before - first  # the positions have no gaps
        low, high = keys.run(record.incarnation, first), keys.run(record.incarnation, before - 1)
        return sum(1 for _ in self.space.table.query(self.space.partition(self.id), low, high))

    def finish(self) -> "Prepared":
        """Add the actions that follow from the new head, on lists, index entries and the list of unswept conversations."""
        before, after, record = self.before, self.after, self.before.record
        self.actions += self._moves()
        if record is not None and (after.record is None or after.record.incarnation != record.incarnation):
            self.has_garbage = self.has_garbage or record.last_position >= before.first
        self.has_garbage = self.has_garbage or (before.parts is not None and before.parts != after.parts)
        if self.has_garbage and not before.unswept:
            self.actions.append(mark_unswept(self.space, self.id))
        if self.has_garbage or before.unswept:  # keeps the head of a removed conversation until it is swept
            self.after = after._replace(stamp=after.stamp or new_id(), unswept=True)
        return self

    def _moves(self) -> Iterator[Action]:
        """Yield the actions that update a conversation's items in the lists and the index."""
        table, before, after = self.space.table, self.before, self.after
        old_copy, new_copy = copy_place(self.space, before), copy_place(self.space, after)
        if new_copy is not None:
            yield table.put(Item(new_copy, records.copy_values(after)))
        if old_copy is not None and old_copy != new_copy:
            yield table.delete(old_copy)
        old, new = pointers(self.space, before), pointers(self.space, after)
        if _indexed(before) != _indexed(after):
            # If the metadata was replaced since, so was the head's stamp, and the transaction will be refused.
            old |= index_places(self.space, self.space.with_metadata({self.id: before})[self.id])
            new |= index_places(self.space, after)
        for key in sorted(new - old):
            yield table.put(Item(key, {"id": {"S": self.id}}))
        for key in sorted(old - new):
            yield table.delete(key)


def counts(space: Space, prepared: Iterable[Prepared]) -> list[Action]:
    """Return the actions that update the counters of the namespace's conversations."""
    added: dict[Key, int] = {}
    for each in prepared:
        if change := (each.after.record is not None) - (each.before.record is not None):
            counter = keys.counter(space.namespace, each.id)
            added[counter] = added.get(counter, 0) + change
    return [space.table.count(counter, number, space.namespace) for counter, number in added.items() if number]


def mark_unswept(space: Space, conversation_id: str) -> Action:
    """Return the action that adds a conversation to the list of those that `purge` has to sweep."""
    return space.table.put(Item((keys.partition("unswept", space.namespace), conversation_id), {}))


def copy_place(space: Space, head: Head) -> Key | None:
    """Return the key of the copy of a head in the list by ``updated_at``."""
    if (record := head.record) is None:
        return None
    return space.listing("updated_at", head.shard), keys.listed(record.updated_at, record.id)


def pointers(space: Space, head: Head) -> frozenset[Key]:
    """Return the keys of a conversation's items in the other lists."""
    if (record := head.record) is None:
        return frozenset()
    return keys.pointers(space.namespace, head.shard, record.id, record.created_at, record.expires_at)


def index_places(space: Space, head: Head) -> set[Key]:
    """Return the keys of a conversation's index entries."""
    if (record := head.record) is None:
        return set()
    found = entries(Conversation.from_record(record).metadata)
    if len(found) > MOST_ENTRIES:
        raise CommitTooLargeError(
            f"the metadata of conversation {record.id!r} has {len(found)} index entries, but the limit is {MOST_ENTRIES}: "
            "start the names of large parts with an underscore, which excludes them from the index",
            limit=MOST_ACTIONS,
            size=len(found) + MOST_ACTIONS - MOST_ENTRIES,
        )
    return {(keys.entries(space.namespace, each.path, head.shard), keys.entry(each.key, record.id)) for each in found}


def _indexed(head: Head) -> object:
    """Return a value that changes whenever the index entries of a conversation may change."""
    return head.record and (head.shard, head.parts or head.record.metadata)
