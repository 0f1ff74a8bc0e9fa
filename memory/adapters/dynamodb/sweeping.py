"""Removing what is dead: runs and metadata that no head tells of any more, expired conversations, commits that broke off."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.models import Held, Kept
from memory.adapters.dynamodb.preparing import Prepared
from memory.adapters.dynamodb.reading import ChangedError
from memory.adapters.dynamodb.satellites import satellites_of
from memory.adapters.dynamodb.staging import Staging
from memory.adapters.dynamodb.table import MOST_ACTIONS, Action, RefusedError, in_transactions
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
                    self._drop(pointer, held)
                return is_gone
            try:
                self._remove(pointer.id, held)
            except (RefusedError, ChangedError):
                continue
            return True
        return False

    def _drop(self, pointer: Any, held: Held) -> None:
        """Remove a pointer that leads to nothing, if its conversation is still as it was read."""
        place = pointer.pk, pointer.sk
        if place not in satellites_of(self._namespace, held.kept, self._writer.shards, with_entries=False):
            with suppress(RefusedError):  # a later purge will look again
                self._table.write([self._is_still(pointer.id, held), self._table.delete(place)])

    def _is_still(self, conversation_id: str, held: Held) -> Action:
        """Return the check that a head is as it was read: nothing is removed because a read says that it is dead."""
        return self._table.check(keys.head(self._namespace, conversation_id), self._writer.is_still(held))

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
        key = keys.head(self._namespace, conversation_id)
        held = self._writer.reader.held(self._namespace, [conversation_id])[conversation_id]
        found = list(self._dead_or_alive(key[0], held.kept))
        for _ in range(_TRIES):
            if held.stage is not None:
                return False
            dead = (self._table.delete(place, size=size) for place, size in found if _is_dead(place[1], held.kept))
            try:
                for some in in_transactions(dead):
                    self._table.write([self._is_still(conversation_id, held), *some])
            except RefusedError as error:
                held = self._writer.reader.met(self._namespace, conversation_id, error.found[key])
            else:
                return True
        return False

    def _dead_or_alive(self, partition: bytes, kept: Kept | None) -> Iterator[tuple[Key, int]]:
        """Yield the keys and sizes of what may be dead: all but the runs of the conversation itself."""
        if kept is None:
            ranges = [(keys.RUNS, keys.HEAD), (keys.METADATA, keys.END)]
        else:
            ranges = [
                (keys.RUNS, keys.run(kept.run_set, kept.first - 1, keys.LAST_PART)),
                (keys.run(kept.run_set, 2**56 - 1, keys.LAST_PART), keys.HEAD),
                (keys.METADATA, keys.END),
            ]
        for low, high in ranges:
            for item in self._table.query(partition, low, high):
                if item.sk != keys.HEAD:
                    yield (partition, item.sk), self._table.put(item).size


def _is_dead(sort_key: bytes, kept: Kept | None) -> bool:
    if kept is None:
        return True
    if sort_key.startswith(keys.METADATA):
        return keys.set_of(sort_key) != kept.metadata_set
    return keys.set_of(sort_key) != kept.run_set or keys.position_of(sort_key) < kept.first
