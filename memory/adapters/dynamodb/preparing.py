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
from memory.domain.values import key_of, new_id
from memory.errors import CommitTooLargeError
from memory.port.changes import Change, assign_positions, check_preconditions, missing_open_run, missing_runs
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
    first_open: int | None = None  # as `Head.first_open`, of the new head

    def apply(self, change: Change, *, now: int, at: int) -> "Prepared":
        """Apply a change made at the time ``at``; return self. Whether the conversation has expired depends on ``now``.

        Raises:
            CommitTooLargeError: the conversation has too many index entries.
            PersistenceError: the change is refused by `memory.port.changes.check_preconditions`.
        """
        before, present = self.before, self.before.visible(now)
        check_preconditions(change, present)
        if change.create is not None:
            record = change.create._replace(incarnation=new_id())
            self._set_head(Head(record=record, shard=keys.spread(self.id, self.space.shards)), change, 0, at)
        elif present is not None and not change.remove:
            self.first_open = before.first_open
            low, high = self._kept(change, present)
            removed = self._edit_runs(change, present, low, high) if change.edits_runs or change.complete else 0
            self.has_garbage = self.has_garbage or (low > before.first and removed > 0)
            self._set_head(before._replace(record=present, first=low, is_old=False), change, removed, at)
        return self.finish()

    def _set_head(self, head: Head, change: Change, removed: int, at: int) -> None:
        """Set the new head and prepare new metadata, in parts if it is too large for the head, and new runs."""
        assert head.record is not None  # noqa: S101  # the head of a conversation that exists
        runs, last_position = assign_positions(change, head.record.last_position)
        count = (0 if change.create else head.record.run_count) - removed + len(runs)
        record = change.applied(head.record, count, last_position, at)
        if change.metadata is not None or change.create is not None:
            parts = None
            if records.size_of(record.metadata) > records.INLINE_METADATA:
                partition = self.space.partition(self.id)
                parts, self.contents = records.part_items(partition, record.metadata, keys.STATE)
            head = head._replace(parts=parts)
        for run in runs:
            self.contents += self._run_items(head, run)
        self.after = head._replace(stamp=new_id(), record=record, first_open=self.first_open)

    def _run_items(self, head: Head, run: RunRecord) -> Iterator[Item]:
        """Yield the items of a new run, and its item in the list of open runs."""
        assert head.record is not None  # noqa: S101  # the head of a conversation that exists
        partition = self.space.partition(self.id)
        *parts, item = records.run_items(partition, head.record.incarnation, run, head.shard)
        yield from parts
        yield item
        if (place := self.space.open_place(self.id, item)) is not None:
            yield Item(place, {"id": {"S": key_of(self.id)}, "run": {"S": item.key[1]}})
            self.first_open = min(self.first_open or run.position, run.position)

    def _kept(self, change: Change, record: ConversationRecord) -> tuple[int, int]:
        """Return the positions between which runs are not removed by ``remove_before`` and ``remove_after``."""
        last = record.last_position
        low = max(self.before.first, min(change.remove_before, last + 1))
        high = last if change.remove_after is None else min(last, change.remove_after)
        return (low, high) if low <= high else (last + 1, last)  # all runs are removed like those before a position

    def _edit_runs(self, change: Change, record: ConversationRecord, low: int, high: int) -> int:
        """Prepare removals, replacements and completions of stored runs; return how many runs are removed."""
        new: dict[int, RunRecord | None] = dict.fromkeys(change.remove_runs)
        new |= {run.position: run for run in change.replace_runs}
        partition = self.space.partition(self.id)
        places = [(partition, keys.run(record.incarnation, n)) for n in new if low <= n <= high]
        stored = {item.position: item for item in self.space.table.get_many(places).values()}
        for n in new:
            if n not in stored:
                raise missing_runs(change, n)
        if high < record.last_position:
            first, last = keys.run(record.incarnation, high + 1), keys.run(record.incarnation, record.last_position)
            tail = {item.position: item for item in self.space.table.query(partition, first, last)}
            stored |= tail
            new |= dict.fromkeys(tail)
            self.first_open = None if self.first_open is None or self.first_open > high else self.first_open
        if change.complete:
            self._complete(change, stored, new, low, high)
        for n, run in new.items():
            self._replace(stored[n], run)
        return self._count_before(record, low) + sum(run is None for run in new.values())

    def _complete(
        self, change: Change, stored: dict[int, Item], new: dict[int, RunRecord | None], low: int, high: int
    ) -> None:
        """Add the completed runs to ``new`` and their items to ``stored``, reading open runs from the end."""
        runs = {n: run for n, run in new.items() if run is not None}
        unread, lowest = self.space.open_items(self.before, low, high), high + 1

        def last_open(run_id: str) -> int:
            return max((n for n, run in runs.items() if run.is_open and run.id == run_id), default=0)

        for completion in change.complete:
            while (n := last_open(completion.run_id)) < lowest and (item := next(unread, None)) is not None:
                lowest = item.position
                if lowest not in new:
                    stored[lowest] = item
                    (runs[lowest],) = self.space.parsed(self.id, self.before, [item])
            if not n:
                raise missing_open_run(change, completion.run_id)
            new[n] = runs[n] = completion.of(runs[n])
        if lowest == self.first_open:
            self.first_open = min((n for n, run in runs.items() if run.is_open), default=None)

    def _replace(self, old: Item, run: RunRecord | None) -> None:
        """Prepare the replacement of a stored run, or its removal."""
        table, place = self.space.table, self.space.open_place(self.id, old)
        self.has_garbage = self.has_garbage or records.parts_of(old) is not None
        new = {} if run is None else {item.key: item for item in self._run_items(self.before, run)}
        for key, item in new.items():
            if key[1].startswith(keys.PARTS):
                self.contents.append(item)
            elif key != place:  # it is listed already
                self.actions.append(table.put(item))
        if run is None:
            self.actions.append(table.delete(old.key, size=records.size_of_item(old)))
        if place is not None and place not in new:
            self.actions.append(table.delete(place))

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
        old_copies, new_copies = copy_places(self.space, before), copy_places(self.space, after)
        for key in sorted(new_copies):
            yield table.put(Item(key, records.copy_values(after)))
        for key in sorted(old_copies - new_copies):
            yield table.delete(key)
        old, new = pointers(self.space, before), pointers(self.space, after)
        if _indexed(before) != _indexed(after):
            # If the metadata was replaced since, so was the head's stamp, and the transaction will be refused.
            old |= index_places(self.space, self.space.with_metadata({self.id: before})[self.id])
            new |= index_places(self.space, after)
        for key in sorted(new - old):
            yield table.put(Item(key, {"id": {"S": key_of(self.id)}}))
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
    return space.table.put(Item((keys.partition("unswept", space.namespace), key_of(conversation_id)), {}))


def copy_places(space: Space, head: Head) -> set[Key]:
    """Return the keys of the copies of a head in the lists.

    Every conversation is in the list by ``last_run_at``. It is in the list by ``updated_at`` only if both times are not in the
    same minute: an append, which sets both, then writes to one list only. See decision 0027.
    """
    if (record := head.record) is None:
        return set()
    by_run, by_update = keys.listed(record.last_run_at, record.id), keys.listed(record.updated_at, record.id)
    places = set() if head.is_old else {(space.listing("last_run_at", head.shard), by_run)}
    if head.is_old or keys.minute(by_run) != keys.minute(by_update):
        places.add((space.listing("updated_at", head.shard), by_update))
    return places


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
