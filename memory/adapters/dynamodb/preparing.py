"""What a change makes of a conversation, worked out before anything is written: the items, and what is told of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.models import INLINE_METADATA, Held, Kept, pieces, size_of
from memory.adapters.dynamodb.reading import Reader
from memory.adapters.dynamodb.table import Action, Table
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import new_id
from memory.port.changes import Change, Written, assign_positions, check_preconditions, missing_runs


@dataclass(slots=True)
class Prepared:
    """One change, against what was found at the head.

    Attributes:
        id: the conversation's.
        held: what must still be there when it is written.
        stamp: of the head then.
        after: the conversation then; None: there is none.
        metadata: the items of metadata that is too large for the head; nobody reads them before the head tells of them.
        appended: the runs that are new; nor these.
        edits: what changes in runs that are there.
        edited: the same as runs, for those who write all runs anew; None for one that is removed.
    """

    id: str
    held: Held
    stamp: str = field(default_factory=new_id)
    after: Kept | None = None
    metadata: list[Any] = field(default_factory=list)
    appended: tuple[RunRecord, ...] = ()
    edits: list[Action] = field(default_factory=list)
    edited: dict[int, RunRecord | None] = field(default_factory=dict)

    @property
    def before(self) -> Kept | None:
        """The conversation as it is, hidden or not."""
        return self.held.kept

    @property
    def written(self) -> Written | None:
        """What the receipt says."""
        if self.after is None:
            return None
        record = self.after.record
        return Written(record.version, record.incarnation, record.run_count, record.last_position)


def leaves_trash(before: Kept | None, after: Kept | None) -> bool:
    """Tell whether something in the conversation's partition is dead after such a change, and to be swept out."""
    if before is None:
        return False
    has_runs = before.record.last_position >= before.first
    if after is None or after.run_set != before.run_set:
        return has_runs or bool(before.parts)
    return (has_runs and after.first > before.first) or (
        bool(before.parts) and after.metadata_set != before.metadata_set
    )


def run_items(table: Table, partition: bytes, run_set: str, run: RunRecord) -> Iterator[Any]:
    """Yield the items of a run."""
    return table.models.run(partition, partial(keys.run, run_set, run.position), run)


class Preparer:
    """Prepares changes of conversations in one namespace."""

    def __init__(self, table: Table, reader: Reader, namespace: str, now: int) -> None:
        self._table = table
        self._reader = reader
        self._namespace = namespace
        self._now = now

    def prepare(self, change: Change, held: Held, at: int) -> Prepared:
        """Return what the change makes of what is held.

        Raises:
            ChangedError: what is held is not there any more.
            PersistenceError: it is refused, as `memory.port.changes.check_preconditions` says.
        """
        kept = held.kept
        present = None if kept is None or kept.is_expired(self._now) else kept
        check_preconditions(change, present.record if present else None)
        prepared = Prepared(change.id, held)
        if change.create is not None:
            self._create(prepared, change, change.create)
        elif present is not None and not change.remove:
            self._edit(prepared, change, present, at)
        return prepared

    def _create(self, prepared: Prepared, change: Change, record: ConversationRecord) -> None:
        runs, last_position = assign_positions(change, record.last_position)
        incarnation = new_id()
        record = record._replace(incarnation=incarnation, run_count=len(runs), last_position=last_position)
        prepared.after = self._with_metadata(prepared, Kept(record, incarnation))
        prepared.appended = runs

    def _edit(self, prepared: Prepared, change: Change, kept: Kept, at: int) -> None:
        record = kept.record
        removed = self._edit_runs(prepared, change, kept)
        runs, last_position = assign_positions(change, record.last_position)
        after = replace(
            kept,
            first=max(kept.first, min(change.remove_before, record.last_position + 1)),
            record=change.applied(record, record.run_count - removed + len(runs), last_position, at),
        )
        prepared.after = after if change.metadata is None else self._with_metadata(prepared, after)
        prepared.appended = runs

    def _with_metadata(self, prepared: Prepared, after: Kept) -> Kept:
        """Divide metadata that is too large for the head into parts."""
        text = after.record.metadata
        if size_of(text) <= INLINE_METADATA:
            return replace(after, parts=0, metadata_set="")
        metadata_set, partition = new_id(), keys.conversation(self._namespace, prepared.id)
        texts = list(pieces(text))
        prepared.metadata = [
            self._table.models.new(
                self._table.models.Part, partition, keys.metadata_part(metadata_set, number), text=each
            )
            for number, each in enumerate(texts, 1)
        ]
        return replace(after, parts=len(texts), metadata_set=metadata_set)

    def _edit_runs(self, prepared: Prepared, change: Change, kept: Kept) -> int:
        """Prepare what happens to stored runs; return how many are removed."""
        removed = self._count_before(kept, change.remove_before) + len(change.remove_runs)
        if not (change.remove_runs or change.replace_runs):
            return removed
        prepared.edited = dict.fromkeys(change.remove_runs) | {run.position: run for run in change.replace_runs}
        parts = self._parts_of(kept, change)
        partition = keys.conversation(self._namespace, change.id)
        for position, run in prepared.edited.items():
            stored = [keys.run(kept.run_set, position, part) for part in range(parts[position] + 1)]
            new = [] if run is None else list(run_items(self._table, partition, kept.run_set, run))
            prepared.edits += [self._table.put(item) for item in new]
            prepared.edits += [
                # A part that goes counts as what it holds, in the size of a transaction too.
                self._table.delete((partition, sk), size=400_000 if keys.part_of(sk) else 0)
                for sk in stored[len(new) :]
            ]
        return removed

    def _parts_of(self, kept: Kept, change: Change) -> dict[int, int]:
        """Return in how many parts each of the runs is that are to be edited.

        Raises:
            NotFoundError: one is not there.
        """
        partition = keys.conversation(self._namespace, change.id)
        positions = [*change.remove_runs, *(run.position for run in change.replace_runs)]
        low, high = max(kept.first, change.remove_before), kept.record.last_position
        places = {
            position: (partition, keys.run(kept.run_set, position)) for position in positions if low <= position <= high
        }
        items = self._table.get_many(places.values(), attributes=["parts"])
        if missing := [position for position in positions if places.get(position) not in items]:
            raise missing_runs(change, missing[0])
        return {position: items[key].parts or 0 for position, key in places.items()}

    def _count_before(self, kept: Kept, before: int) -> int:
        """Return how many runs there are before a position."""
        if before <= kept.first:
            return 0
        if before > kept.record.last_position:
            return kept.record.run_count
        partition = keys.conversation(self._namespace, kept.record.id)
        low, high = keys.run(kept.run_set, kept.first), keys.run(kept.run_set, before - 1, keys.LAST_PART)
        return sum(not keys.part_of(item.sk) for item in self._table.query(partition, low, high, attributes=[]))
