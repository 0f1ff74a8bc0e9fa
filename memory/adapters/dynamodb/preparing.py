"""What a change makes of a conversation, worked out before anything is written: the new head, and the actions beside it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.reading import Scope
from memory.adapters.dynamodb.records import (
    INLINE_METADATA,
    Head,
    Item,
    Values,
    copy_values,
    part_items,
    parts_of,
    run_items,
    size_of,
    size_of_item,
    text,
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
        marks: whether the conversation is to be named in the list of those that left something for `purge`.
    """

    id: str
    before: Head
    after: Head = field(default_factory=Head)
    actions: list[Action] = field(default_factory=list)
    contents: list[Item] = field(default_factory=list)
    marks: bool = False

    @property
    def written(self) -> Written | None:
        """What the receipt says."""
        if (record := self.after.record) is None:
            return None
        return Written(record.version, record.incarnation, record.run_count, record.last_position)

    @property
    def added(self) -> int:
        """By how much the number of conversations changes."""
        return (self.after.record is not None) - (self.before.record is not None)


@dataclass(frozen=True, slots=True)
class Preparer:
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
        elif not change.remove:
            self._edit(prepared, change, at)
        self._finish(prepared)
        return prepared

    def removal(self, conversation_id: str, head: Head) -> Prepared:
        """Return the removal of a conversation that has expired."""
        prepared = Prepared(conversation_id, head)
        self._finish(prepared)
        return prepared

    def counts(self, prepared: Iterable[Prepared]) -> list[Action]:
        """Return the actions on the counters of the namespace's conversations."""
        added: Counter[Key] = Counter()
        for each in prepared:
            added[keys.counter(self.scope.namespace, each.id)] += each.added
        beside = {"namespace": self.scope.namespace}
        return [self.scope.table.add(counter, "count", number, beside) for counter, number in added.items() if number]

    # the new head and its contents

    def _create(self, prepared: Prepared, change: Change, record: ConversationRecord) -> None:
        runs, last_position = assign_positions(change, record.last_position)
        record = record._replace(incarnation=new_id(), run_count=len(runs), last_position=last_position)
        shard = keys.shard_of(change.id, self.scope.shards)
        prepared.after = self._with_metadata(prepared, Head(new_id(), record, shard=shard))
        self._append(prepared, record, runs)

    def _edit(self, prepared: Prepared, change: Change, at: int) -> None:
        before, record = prepared.before, prepared.before.record
        assert record is not None  # noqa: S101  # the preconditions hold
        removed = self._edit_runs(prepared, change, record)
        runs, last_position = assign_positions(change, record.last_position)
        first = max(before.first, min(change.remove_before, record.last_position + 1))
        record = change.applied(record, record.run_count - removed + len(runs), last_position, at)
        staged = before.staged if before.staged > last_position else 0
        after = replace(before, stamp=new_id(), record=record, first=first, staged=staged)
        prepared.after = after if change.metadata is None else self._with_metadata(prepared, after)
        prepared.marks = prepared.marks or (first > before.first and removed > 0)
        self._append(prepared, record, runs)

    def _append(self, prepared: Prepared, record: ConversationRecord, runs: tuple[RunRecord, ...]) -> None:
        partition = keys.conversation(self.scope.namespace, prepared.id)
        for run in runs:
            prepared.contents += run_items(partition, record.incarnation, run)

    def _with_metadata(self, prepared: Prepared, after: Head) -> Head:
        """Return the head, its metadata divided into parts if they are too large for it."""
        assert after.record is not None  # noqa: S101  # there is a conversation
        whole = after.record.metadata
        if size_of(whole) <= INLINE_METADATA:
            return replace(after, parts=None)
        parts, items = part_items(keys.conversation(self.scope.namespace, prepared.id), whole, keys.STATE)
        prepared.contents += items
        return replace(after, parts=parts)

    def _edit_runs(self, prepared: Prepared, change: Change, record: ConversationRecord) -> int:
        """Prepare what happens to stored runs; return how many are removed."""
        head = prepared.before
        removed = self._count_before(head, record, change.remove_before) + len(change.remove_runs)
        new = {run.position: run for run in change.replace_runs}
        positions = [*change.remove_runs, *new]
        if not positions:
            return removed
        partition = keys.conversation(self.scope.namespace, change.id)
        low = max(head.first, change.remove_before)
        places = {
            n: (partition, keys.run(record.incarnation, n)) for n in positions if low <= n <= record.last_position
        }
        stored = self.scope.table.get_many(places.values())
        if missing := [n for n in positions if places.get(n) not in stored]:
            raise missing_runs(change, missing[0])
        for n in positions:
            prepared.marks = prepared.marks or parts_of(stored[places[n]]) is not None
            if n in new:
                *parts, item = run_items(partition, record.incarnation, new[n])
                prepared.contents += parts
                prepared.actions.append(self.scope.table.put(item))
            else:
                prepared.actions.append(self.scope.table.delete(places[n], size=size_of_item(stored[places[n]])))
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
        return self.scope.table.count(partition, low, high)

    # everything that follows from the head

    def _finish(self, prepared: Prepared) -> None:
        """Add the actions on lists, index entries, and the list of unswept conversations."""
        before, after = prepared.before, prepared.after
        prepared.actions += self._moves(prepared.id, before, after)
        prepared.marks = (prepared.marks or _leaves_items(before, after)) and not before.unswept
        prepared.after = replace(after, unswept=before.unswept or prepared.marks)
        if prepared.marks:
            prepared.actions.append(self.mark(prepared.id))

    def mark(self, conversation_id: str) -> Action:
        """Return the action that names a conversation in the list of those that left something for `purge`."""
        key = keys.unswept_place(self.scope.namespace, conversation_id)
        return self.scope.table.put(Item(key, {"id": text(conversation_id), "stamp": text(new_id())}))

    def _moves(self, conversation_id: str, before: Head, after: Head) -> Iterator[Action]:
        old, new = self._places(before), self._places(after)
        if _differ_in_entries(before, after):
            # If the metadata were replaced meanwhile, so was the head's stamp, and the transaction will be refused.
            heads = self.scope.reader.with_metadata(self.scope.namespace, {conversation_id: before})
            old |= self._entries(heads.get(conversation_id, Head()))
            new |= self._entries(after)
        for key, values in new.items():
            if values != old.get(key):
                yield self.scope.table.put(Item(key, values))
        for key in old:
            if key not in new:
                yield self.scope.table.delete(key)

    def _places(self, head: Head) -> dict[Key, Values]:
        """Return what the lists contain of a conversation."""
        if (record := head.record) is None:
            return {}
        pointer = {"id": text(record.id)}

        def listing(field: str) -> str:
            return keys.listing(field, self.scope.namespace, head.shard)

        found = {
            (listing("updated_at"), keys.listed(record.updated_at, record.id)): copy_values(head),
            (listing("created_at"), keys.listed(record.created_at, record.id)): pointer,
            (listing("id"), keys.listed_by_id(record.id)): pointer,
        }
        if (at := record.expires_at) is not None:
            place = listing("expires_at"), keys.expiring(at, record.id, record.incarnation)
            found[place] = pointer | {"incarnation": text(record.incarnation)}
        return found

    def _entries(self, head: Head) -> dict[Key, Values]:
        if (record := head.record) is None:
            return {}
        values = {"id": text(record.id)}
        found = entries(Conversation.from_record(record).metadata)
        if len(found) > MOST_ENTRIES:
            raise CommitTooLargeError(
                f"the metadata of conversation {record.id!r} have {len(found)} index entries, and DynamoDB can store "
                f"{MOST_ENTRIES} for one conversation: begin the names of large parts with an underscore, which are not indexed",
                limit=MOST_ACTIONS,
                size=len(found) + MOST_ACTIONS - MOST_ENTRIES,
            )
        return {keys.entry(self.scope.namespace, each, record.id, head.shard): values for each in found}


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
