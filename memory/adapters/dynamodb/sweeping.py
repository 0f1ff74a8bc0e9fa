"""Removing what is dead: runs and metadata that no head tells of any more, expired conversations, commits that broke off."""

from collections.abc import Callable, Iterator
from typing import Any

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.models import Held, Kept
from memory.adapters.dynamodb.preparing import Prepared
from memory.adapters.dynamodb.reading import ChangedError
from memory.adapters.dynamodb.satellites import satellites_of
from memory.adapters.dynamodb.staging import Staging
from memory.adapters.dynamodb.table import MOST_ACTIONS, RefusedError
from memory.adapters.dynamodb.writing import Writer

_TRIES = 5
_TRASH_AT_ONCE = 20
_HIGHEST = b"\xff" * 48  # beyond every sort key of a conversation's partition, behind its letter


class Sweeper:
    """Sweeps one namespace."""

    def __init__(self, writer: Writer, staging: Staging, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._table = writer.table
        self._staging = staging
        self._namespace = writer.namespace
        self._clock = clock

    def empty_trash(self, limit: int | None = _TRASH_AT_ONCE) -> None:
        """Remove what is dead in the conversations that were noted to have something dead."""
        for place in self._all(keys.trash(self._namespace), limit):
            if self._sweep(place.id):
                self._table.remove([(place.pk, place.sk)])

    def purge(self) -> int:
        """End broken commits, remove expired conversations and all that is dead; return how many had expired."""
        for item in self._all(keys.journal(self._namespace), None):
            if hasattr(item, "state"):  # else it is a part of one
                self._staging.purge(item)
        purged = 0
        for shard in range(self._writer.shards):
            partition = keys.listing(keys.BY_EXPIRY, self._namespace, shard)
            until = keys.time(self._clock()) + _HIGHEST
            for pointer in list(self._table.query(partition, keys.ONLY, until)):
                purged += self._purge(pointer)
        self.empty_trash(None)
        return purged

    def _all(self, partition: bytes, limit: int | None) -> list[Any]:
        found = self._table.query(partition, keys.ONLY, _HIGHEST, limit=limit)
        return [item for item, _ in zip(found, range(limit or 2**53), strict=False)]

    def _purge(self, pointer: Any) -> bool:
        """Remove the conversation that a pointer says is expired; tell whether it was this call that did."""
        for _ in range(_TRIES):
            held = self._writer.reader.held(self._namespace, [pointer.id])[pointer.id]
            if held.stage is not None:
                return False  # somebody is writing it, or a later purge will find it undone
            is_gone = held.kept is None  # DynamoDB has removed the head by its time to live
            if held.kept is None or not held.kept.is_expired(self._clock()):
                # Runs were not removed with it, for they have no time to live: it could be revoked.
                if self._sweep(pointer.id):
                    self._drop(pointer, held.kept)
                return is_gone
            try:
                self._remove(pointer.id, held)
            except (RefusedError, ChangedError):
                continue
            return True
        return False

    def _drop(self, pointer: Any, kept: Kept | None) -> None:
        """Remove a pointer that leads to nothing."""
        place = pointer.pk, pointer.sk
        if place not in satellites_of(self._namespace, kept, self._writer.shards, with_entries=False):
            self._table.remove([place])

    def _remove(self, conversation_id: str, held: Held) -> None:
        prepared = Prepared(conversation_id, held)
        actions = self._writer.actions(prepared)
        if len(actions) > MOST_ACTIONS:
            self._staging.commit([prepared], None)
        else:
            self._table.write(actions)

    def _sweep(self, conversation_id: str) -> bool:
        """Remove what is dead in a conversation's partition; tell whether that is all of it.

        What is found first, and is dead by a head read afterwards, stays dead: names of sets are given once, `first` only grows,
        and as long as a staged commit has locked the head nothing is touched.
        """
        held = self._writer.reader.held(self._namespace, [conversation_id])[conversation_id]
        if held.stage is not None:
            return False
        found = list(self._dead_or_alive(keys.conversation(self._namespace, conversation_id), held.kept))
        if not found:
            return True
        held = self._writer.reader.held(self._namespace, [conversation_id])[conversation_id]
        if held.stage is not None:
            return False
        self._table.remove(key for key in found if _is_dead(key[1], held.kept))
        return True

    def _dead_or_alive(self, partition: bytes, kept: Kept | None) -> Iterator[Key]:
        """Yield the keys of what may be dead: all but the runs of the conversation itself."""
        if kept is None:
            ranges = [(keys.RUNS, keys.HEAD), (keys.METADATA, keys.END)]
        else:
            ranges = [
                (keys.RUNS, keys.run(kept.run_set, kept.first - 1, keys.LAST_PART)),
                (keys.run(kept.run_set, 2**56 - 1, keys.LAST_PART), keys.HEAD),
                (keys.METADATA, keys.END),
            ]
        for low, high in ranges:
            for item in self._table.query(partition, low, high, attributes=[]):
                if item.sk != keys.HEAD:
                    yield partition, item.sk


def _is_dead(sort_key: bytes, kept: Kept | None) -> bool:
    if kept is None:
        return True
    if sort_key.startswith(keys.METADATA):
        return keys.set_of(sort_key) != kept.metadata_set
    return keys.set_of(sort_key) != kept.run_set or keys.position_of(sort_key) < kept.first
