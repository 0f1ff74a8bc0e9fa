"""What a change makes of a conversation, worked out before anything is written: the new head, and the actions beside it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb import records as its
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
"""Index entries of one conversation, so that its removal fits a transaction."""


@dataclass(slots=True)
class Prepared:
    """One change of a conversation, worked out against the head that was read or guessed. As it is made, it is a removal."""

    space: Space
    id: str
    before: Head  # must still be there when the change is written
    after: Head = NO_HEAD  # without a record, if there is no conversation then
    actions: list[Action] = field(default_factory=list)  # of the transaction, beside the head
    # New runs, and parts of what is too large for an item: the new head refers to them first, so they may be written before it.
    contents: list[Item] = field(default_factory=list)
    leaves: bool = False  # something for a purge

    def apply(self, change: Change, *, now: int, at: int) -> "Prepared":
        """Let it be a change of the conversation.

        Args:
            change: the change.
            now: the time by the repository's clock, at which conversations expire.
            at: the time of the change.

        Raises:
            CommitTooLargeError: the conversation has too many index entries.
            PersistenceError: it is refused, as `memory.port.changes.check_preconditions` says.
        """
        before, present = self.before, None if self.before.is_hidden(now) else self.before.record
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
            self.leaves = self.leaves or (first > before.first and removed > 0)
            record = change.applied(present, present.run_count - removed + len(runs), last_position, at)
            self._set_head(before._replace(stamp=new_id(), record=record, first=first), change.metadata, runs)
        return self.finish()

    def _set_head(self, head: Head, metadata: str | None, runs: Iterable[RunRecord]) -> None:
        """Take a head, new metadata, which are divided into parts if they are too large for the head, and new runs."""
        partition = self.space.partition(self.id)
        if metadata is not None:
            parts = None
            if its.size_of(metadata) > its.INLINE_METADATA:
                parts, self.contents = its.part_items(partition, metadata, keys.STATE)
            head = head._replace(parts=parts)
        self.after = head
        for run in runs:
            self.contents += its.run_items(partition, head.record.incarnation if head.record else "", run)

    def _edit_runs(self, change: Change, record: ConversationRecord) -> int:
        """Prepare what happens to stored runs; return how many are removed."""
        table = self.space.table
        removed = self._count_before(record, change.remove_before) + len(change.remove_runs)
        new = {run.position: run for run in change.replace_runs}
        partition, low = self.space.partition(self.id), max(self.before.first, change.remove_before)
        places = {n: (partition, keys.run(record.incarnation, n)) for n in (*change.remove_runs, *new)}
        stored = table.get_many(place for n, place in places.items() if low <= n <= record.last_position)
        for n, place in places.items():
            if place not in stored:
                raise missing_runs(change, n)
            self.leaves = self.leaves or its.parts_of(stored[place]) is not None
            if n in new:
                *parts, item = its.run_items(partition, record.incarnation, new[n])
                self.contents += parts
                self.actions.append(table.put(item))
            else:
                self.actions.append(table.delete(place, size=its.size_of_item(stored[place])))
        return removed

    def _count_before(self, record: ConversationRecord, before: int) -> int:
        """Return how many runs there are before a position."""
        first = self.before.first
        if before <= first or before > record.last_position:
            return 0 if before <= first else record.run_count
        if record.run_count == record.last_position - first + 1:
            return before - first  # there are no gaps
        low, high = keys.run(record.incarnation, first), keys.run(record.incarnation, before - 1)
        return sum(1 for _ in self.space.table.query(self.space.partition(self.id), low, high))

    def finish(self) -> "Prepared":
        """Add what follows from the new head: the actions on lists, index entries, and the list of unswept conversations."""
        before, after, record = self.before, self.after, self.before.record
        self.actions += self._moves()
        if record is not None and (after.record is None or after.record.incarnation != record.incarnation):
            self.leaves = self.leaves or record.last_position >= before.first
        self.leaves = self.leaves or (before.parts is not None and before.parts != after.parts)
        if self.leaves and not before.unswept:
            self.actions.append(mark(self.space, self.id))
        if self.leaves or before.unswept:  # a head without a conversation stays until it is swept
            self.after = after._replace(stamp=after.stamp or new_id(), unswept=True)
        return self

    def _moves(self) -> Iterator[Action]:
        """Yield the actions that move a conversation in the lists and the index."""
        table, before, after = self.space.table, self.before, self.after
        old_copy, new_copy = copy_place(self.space, before), copy_place(self.space, after)
        if new_copy is not None:
            yield table.put(Item(new_copy, its.copy_values(after)))
        if old_copy is not None and old_copy != new_copy:
            yield table.delete(old_copy)
        old, new = pointers(self.space, before), pointers(self.space, after)
        if _indexed(before) != _indexed(after):
            # If the metadata were replaced meanwhile, so was the head's stamp, and the transaction will be refused.
            old |= index_places(self.space, self.space.with_metadata({self.id: before})[self.id])
            new |= index_places(self.space, after)
        for key in sorted(new - old):
            yield table.put(Item(key, {"id": {"S": self.id}}))
        for key in sorted(old - new):
            yield table.delete(key)


def counts(space: Space, prepared: Iterable[Prepared]) -> list[Action]:
    """Return the actions on the counters of the namespace's conversations."""
    added: dict[Key, int] = {}
    for each in prepared:
        if change := (each.after.record is not None) - (each.before.record is not None):
            counter = keys.counter(space.namespace, each.id)
            added[counter] = added.get(counter, 0) + change
    return [space.table.count(counter, number, space.namespace) for counter, number in added.items() if number]


def mark(space: Space, conversation_id: str) -> Action:
    """Return the action that names a conversation in the list of those that left something for `purge`."""
    return space.table.put(Item((keys.partition("unswept", space.namespace), conversation_id), {}))


def copy_place(space: Space, head: Head) -> Key | None:
    """Return where the copy of a head is, in the list by ``updated_at``."""
    if (record := head.record) is None:
        return None
    return space.listing("updated_at", head.shard), keys.listed(record.updated_at, record.id)


def pointers(space: Space, head: Head) -> frozenset[Key]:
    """Return where the other lists contain the id of a conversation."""
    if (record := head.record) is None:
        return frozenset()
    return keys.pointers(space.namespace, head.shard, record.id, record.created_at, record.expires_at)


def index_places(space: Space, head: Head) -> set[Key]:
    """Return where the index contains the id of a conversation."""
    if (record := head.record) is None:
        return set()
    found = entries(Conversation.from_record(record).metadata)
    if len(found) > MOST_ENTRIES:
        raise CommitTooLargeError(
            f"the metadata of conversation {record.id!r} have {len(found)} index entries, and DynamoDB can store "
            f"{MOST_ENTRIES} for one conversation: begin the names of large parts with an underscore, which are not indexed",
            limit=MOST_ACTIONS,
            size=len(found) + MOST_ACTIONS - MOST_ENTRIES,
        )
    return {(keys.entries(space.namespace, each.path, head.shard), keys.entry(each.key, record.id)) for each in found}


def _indexed(head: Head) -> object:
    """Return what the index entries of a conversation follow from."""
    return head.record and (head.shard, head.parts or head.record.metadata)
