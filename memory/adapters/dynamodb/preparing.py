"""What a change makes of a conversation, worked out before anything is written: the new head, and the actions beside it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.reading import Scope
from memory.adapters.dynamodb.records import (
    INLINE_METADATA,
    NO_HEAD,
    Head,
    Item,
    copy_values,
    part_items,
    parts_of,
    run_items,
    size_of,
    size_of_item,
)
from memory.adapters.dynamodb.table import MOST_ACTIONS, Action
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import new_id
from memory.errors import CommitTooLargeError
from memory.port.changes import Change, Written, assign_positions, check_preconditions, missing_runs
from memory.port.index import entries

MOST_ENTRIES: Final = 90
"""Index entries of one conversation, so that its removal fits a transaction."""


@dataclass(slots=True)
class Prepared:
    """One change, worked out against the head that was read or guessed.

    Attributes:
        id: the conversation's.
        before: the head that must still be there when the change is written.
        after: the head then; its record is None if there is no conversation then.
        actions: what the transaction does beside the head.
        contents: new runs, and parts of what is too large for an item. Nothing refers to them before the new head does, so
            they may be written before it.
        leaves: the change leaves something for `purge`.
    """

    id: str
    before: Head
    after: Head = NO_HEAD
    actions: list[Action] = field(default_factory=list)
    contents: list[Item] = field(default_factory=list)
    leaves: bool = False

    @property
    def written(self) -> Written | None:
        """What the receipt says."""
        if (record := self.after.record) is None:
            return None
        return Written(record.version, record.incarnation, record.run_count, record.last_position)


class Preparer(NamedTuple):
    """Prepares changes of conversations in one namespace, at one moment of the repository's clock."""

    scope: Scope
    now: int

    def prepare(self, change: Change, head: Head, at: int) -> Prepared:
        """Return what the change makes of a conversation with this head.

        Raises:
            CommitTooLargeError: the conversation has too many index entries.
            PersistenceError: it is refused, as `memory.port.changes.check_preconditions` says.
        """
        present = None if head.is_hidden(self.now) else head.record
        check_preconditions(change, present)
        prepared = Prepared(change.id, head)
        if change.create is not None:
            self._create(prepared, change, change.create)
        elif present is not None and not change.remove:
            self._edit(prepared, change, present, at)
        return self._finish(prepared)

    def removal(self, conversation_id: str, head: Head) -> Prepared:
        """Return the removal of a conversation that has expired."""
        return self._finish(Prepared(conversation_id, head))

    def counts(self, prepared: Iterable[Prepared]) -> list[Action]:
        """Return the actions on the counters of the namespace's conversations."""
        added: Counter[Key] = Counter()
        for each in prepared:
            if change := (each.after.record is not None) - (each.before.record is not None):
                added[keys.counter(self.scope.namespace, each.id)] += change
        beside = {"namespace": self.scope.namespace}
        return [self.scope.table.add(counter, "count", number, beside) for counter, number in added.items() if number]

    # the new head and its contents

    def _create(self, prepared: Prepared, change: Change, record: ConversationRecord) -> None:
        runs, last_position = assign_positions(change, record.last_position)
        record = record._replace(incarnation=new_id(), run_count=len(runs), last_position=last_position)
        shard = keys.spread(change.id, self.scope.shards)
        prepared.after = self._with_metadata(prepared, Head(new_id(), record, shard=shard))
        self._append(prepared, record, runs)

    def _edit(self, prepared: Prepared, change: Change, record: ConversationRecord, at: int) -> None:
        before = prepared.before
        removed = self._edit_runs(prepared, change, record)
        runs, last_position = assign_positions(change, record.last_position)
        first = max(before.first, min(change.remove_before, record.last_position + 1))
        record = change.applied(record, record.run_count - removed + len(runs), last_position, at)
        after = before._replace(stamp=new_id(), record=record, first=first)
        prepared.after = after if change.metadata is None else self._with_metadata(prepared, after)
        prepared.leaves = prepared.leaves or (first > before.first and removed > 0)
        self._append(prepared, record, runs)

    def _append(self, prepared: Prepared, record: ConversationRecord, runs: tuple[RunRecord, ...]) -> None:
        partition = keys.conversation(self.scope.namespace, prepared.id)
        for run in runs:
            prepared.contents += run_items(partition, record.incarnation, run)

    def _with_metadata(self, prepared: Prepared, after: Head) -> Head:
        """Return the head, its metadata divided into parts if they are too large for it."""
        whole = after.record.metadata if after.record else ""
        if size_of(whole) <= INLINE_METADATA:
            return after._replace(parts=None)
        parts, items = part_items(keys.conversation(self.scope.namespace, prepared.id), whole, keys.STATE)
        prepared.contents += items
        return after._replace(parts=parts)

    def _edit_runs(self, prepared: Prepared, change: Change, record: ConversationRecord) -> int:
        """Prepare what happens to stored runs; return how many are removed."""
        head, table = prepared.before, self.scope.table
        removed = self._count_before(head, record, change.remove_before) + len(change.remove_runs)
        new = {run.position: run for run in change.replace_runs}
        partition, low = keys.conversation(self.scope.namespace, change.id), max(head.first, change.remove_before)
        places = {n: (partition, keys.run(record.incarnation, n)) for n in (*change.remove_runs, *new)}
        stored = table.get_many(place for n, place in places.items() if low <= n <= record.last_position)
        for n, place in places.items():
            if place not in stored:
                raise missing_runs(change, n)
            prepared.leaves = prepared.leaves or parts_of(stored[place]) is not None
            if n in new:
                *parts, item = run_items(partition, record.incarnation, new[n])
                prepared.contents += parts
                prepared.actions.append(table.put(item))
            else:
                prepared.actions.append(table.delete(place, size=size_of_item(stored[place])))
        return removed

    def _count_before(self, head: Head, record: ConversationRecord, before: int) -> int:
        """Return how many runs there are before a position."""
        if before <= head.first:
            return 0
        if before > record.last_position:
            return record.run_count
        if record.run_count == record.last_position - head.first + 1:
            return before - head.first  # there are no gaps
        partition = keys.conversation(self.scope.namespace, record.id)
        low, high = keys.run(record.incarnation, head.first), keys.run(record.incarnation, before - 1)
        return sum(1 for _ in self.scope.table.query(partition, low, high))

    # everything that follows from the head

    def _finish(self, prepared: Prepared) -> Prepared:
        """Add the actions on lists, index entries, and the list of unswept conversations."""
        before, after = prepared.before, prepared.after
        prepared.actions += self._moves(prepared.id, before, after)
        if not before.unswept and (prepared.leaves or _leaves_items(before, after)):
            prepared.actions.append(self.mark(prepared.id))
            prepared.leaves = True
        if before.unswept or prepared.leaves:  # a head without a conversation stays until it is swept
            prepared.after = after._replace(stamp=after.stamp or new_id(), unswept=True)
        return prepared

    def mark(self, conversation_id: str) -> Action:
        """Return the action that names a conversation in the list of those that left something for `purge`."""
        return self.scope.table.put(Item((keys.unswept(self.scope.namespace), conversation_id), {}))

    def _moves(self, conversation_id: str, before: Head, after: Head) -> Iterator[Action]:
        """Yield the actions that move a conversation in the lists and the index."""
        table, old_copy, new_copy = self.scope.table, self.copy_place(before), self.copy_place(after)
        if new_copy is not None:
            yield table.put(Item(new_copy, copy_values(after)))
        if old_copy is not None and old_copy != new_copy:
            yield table.delete(old_copy)
        old, new = self.pointers(before), self.pointers(after)
        if _differ_in_entries(before, after):
            # If the metadata were replaced meanwhile, so was the head's stamp, and the transaction will be refused.
            heads = self.scope.reader.with_metadata(self.scope.namespace, {conversation_id: before})
            old |= self.entries(heads.get(conversation_id, NO_HEAD))
            new |= self.entries(after)
        for key in sorted(new - old):
            yield table.put(Item(key, {"id": {"S": conversation_id}}))
        for key in sorted(old - new):
            yield table.delete(key)

    def copy_place(self, head: Head) -> Key | None:
        """Return where the copy of a head is, in the list by ``updated_at``."""
        if (record := head.record) is None:
            return None
        return keys.listing("updated_at", self.scope.namespace, head.shard), keys.listed(record.updated_at, record.id)

    def pointers(self, head: Head) -> set[Key]:
        """Return where the other lists contain the id of a conversation."""
        if (record := head.record) is None:
            return set()
        found = {(keys.listing("id", self.scope.namespace, head.shard), record.id)}
        for name in ("created_at", "expires_at"):
            if (at := getattr(record, name)) is not None:
                found.add((keys.listing(name, self.scope.namespace, head.shard), keys.listed(at, record.id)))
        return found

    def entries(self, head: Head) -> set[Key]:
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
        namespace, shard = self.scope.namespace, head.shard
        return {(keys.entries(namespace, each.path, shard), keys.entry(each.key, record.id)) for each in found}


def _differ_in_entries(before: Head, after: Head) -> bool:
    """Return whether one conversation may have other index entries than the other."""
    if before.record is None or after.record is None:
        return before.record is not after.record
    if before.shard != after.shard or before.parts != after.parts:
        return True
    return after.parts is None and before.record.metadata != after.record.metadata


def _leaves_items(before: Head, after: Head) -> bool:
    """Return whether a change of the head leaves runs or parts behind that belong to nothing."""
    if (record := before.record) is None:
        return False
    if after.record is None or after.record.incarnation != record.incarnation:
        return record.last_position >= before.first or before.parts is not None
    return before.parts is not None and before.parts != after.parts
