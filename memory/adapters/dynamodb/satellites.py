"""The small items around a conversation by which it is found: all of them follow from what its head says.

Two promises make them work. *Every committed conversation has all of its own*: they are written with the head, or before it.
*The head decides*: an item may point where nothing is any more (a commit was staged, or broke off), so whoever follows one
looks at the head, or at its copy, and asks `Criterion.matches`.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.models import Held, Kept, Models, ttl_of
from memory.domain.entities import Conversation
from memory.port.index import entries


@dataclass(frozen=True, slots=True)
class Satellite:
    """One of them: a pointer, or where ``copy`` is given all that the head says."""

    id: str
    ttl: int | None = None
    copy: Kept | None = None

    def item(self, models: Models, key: Key) -> Any:
        """Return what is written at the key."""
        if self.copy is not None:
            return models.head(*key, Held(kept=self.copy), self.id)
        return models.new(models.Pointer, *key, id=self.id, ttl=self.ttl)


Satellites: TypeAlias = dict[Key, Satellite]


def by_updated(namespace: str, kept: Kept, shards: int) -> Key:
    """Return where a conversation stands in the list by time of its last change; its copy is there."""
    record = kept.record
    partition = keys.listing(keys.BY_UPDATED, namespace, keys.shard_of(record.id, shards))
    return partition, keys.time(record.updated_at) + keys.compact(record.id)


def satellites_of(namespace: str, kept: Kept | None, shards: int, *, with_entries: bool = True) -> Satellites:
    """Return all satellites of a conversation (None has none).

    Args:
        namespace: the conversation's.
        kept: the conversation; with its metadata, if entries are wanted.
        shards: over how many partitions each list and each path's entries are spread.
        with_entries: also those of the metadata.
    """
    if kept is None:
        return {}
    record = kept.record
    shard, short, ttl = keys.shard_of(record.id, shards), keys.compact(record.id), ttl_of(record.expires_at)
    pointer = Satellite(record.id, ttl)
    found: Satellites = {
        by_updated(namespace, kept, shards): Satellite(record.id, copy=kept.without_text()),
        (keys.listing(keys.BY_CREATED, namespace, shard), keys.time(record.created_at) + short): pointer,
        (keys.listing(keys.BY_ID, namespace, shard), short): pointer,
    }
    if record.expires_at is not None:
        # Without a time to live: it leads `purge_expired` to the runs, when DynamoDB has removed the rest.
        at = keys.listing(keys.BY_EXPIRY, namespace, shard), keys.time(record.expires_at) + short
        found[at] = Satellite(record.id)
    if with_entries:
        for entry in entries(Conversation.from_record(record).metadata):
            found[keys.entry(namespace, entry, record.id, shard)] = pointer
    return found


def differ_in_entries(before: Kept | None, after: Kept | None) -> bool:
    """Tell whether one conversation may have other entries than the other."""
    if before is None or after is None:
        return True
    if ttl_of(before.record.expires_at) != ttl_of(after.record.expires_at):
        return True
    if before.parts or after.parts:
        return (before.parts, before.metadata_set) != (after.parts, after.metadata_set)
    return before.record.metadata != after.record.metadata
