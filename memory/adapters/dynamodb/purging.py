"""Purging: deletes removed runs, parts of replaced texts, expired conversations, and items of interrupted commits."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.preparing import Prepared, counts
from memory.adapters.dynamodb.reading import Space
from memory.adapters.dynamodb.records import NO_HEAD, Head, parts_of, size_of_item
from memory.adapters.dynamodb.table import Action, RefusedError, in_transactions
from memory.domain.values import key_of, new_id

_TRIES: Final = 5


def purge(space: Space, clock: Callable[[], int]) -> int:
    """Remove expired conversations and unreferenced items; return the number of expired conversations."""
    purged = 0
    until = keys.end_of(clock())
    for shard in range(space.shards):
        partition = space.listing("expires_at", shard)
        for item in list(space.table.query(partition, keys.LOWEST, until)):
            purged += _remove(space, clock, item.text("id"))
    for mark in list(space.table.query(keys.partition("unswept", space.namespace), keys.LOWEST, keys.HIGHEST)):
        sweep(space, mark.key[1])
    return purged


def _remove(space: Space, clock: Callable[[], int], conversation_id: str) -> bool:
    """Remove a conversation if it has expired; return whether this call removed it."""
    head = space.head(conversation_id)
    if head.record is None or not head.record.is_expired(clock()):
        return False
    removal = Prepared(space, conversation_id, head).finish()
    action = space.write_head(conversation_id, head, removal.after)
    with suppress(RefusedError):  # changed concurrently: the next purge removes it if it has expired
        space.table.write([action, *counts(space, [removal]), *removal.actions])
        return True
    return False


def sweep(space: Space, conversation_id: str) -> None:
    """Delete the unreferenced items in a conversation's partition; give up if concurrent writers keep changing the head.

    Every deletion is conditional on the head's stamp, which is replaced before the items are read: a commit that is staging runs
    starts again, and no item is deleted because of an outdated read.
    """
    mark = keys.partition("unswept", space.namespace), key_of(conversation_id)
    for _ in range(_TRIES):
        head = space.head(conversation_id)
        with suppress(RefusedError):
            if head.stamp is not None:
                before, head = head, head._replace(stamp=new_id())
                space.table.write([space.write_head(conversation_id, before, head)])
            check = space.check_head(conversation_id, head)
            for batch in in_transactions(_deletions(space, conversation_id, head)):
                space.table.write([check, *batch])
            clean = NO_HEAD if head.record is None else head._replace(stamp=new_id(), unswept=False)
            space.table.write([space.write_head(conversation_id, head, clean), space.table.delete(mark)])
            space.remember(conversation_id, clean)
            return


def _deletions(space: Space, conversation_id: str, head: Head) -> Iterator[Action]:
    """Yield deletions of all items except the head, the conversation's runs, and the parts of both."""
    table, partition = space.table, space.partition(conversation_id)
    first = last = keys.RUNS  # an empty range: no run has this key
    if (record := head.record) is not None:
        first, last = keys.run(record.incarnation, head.first), keys.run(record.incarnation, record.last_position)
    parts = []
    below = table.query(partition, keys.PARTS, min(first, last))
    above = table.query(partition, max(first, last), keys.STATE)
    for item in chain(below, above):
        if item.key[1].startswith(keys.PARTS):
            parts.append(item)
        elif item.key[1] != keys.STATE and not first <= item.key[1] <= last:
            if (place := space.open_place(conversation_id, item)) is not None:
                yield table.delete(place)
            yield table.delete(item.key, size=size_of_item(item))
    owners = {owner for part in parts if first <= (owner := part.text("of")) <= last or owner == keys.STATE}
    found = table.get_many((partition, owner) for owner in owners).values()
    names = {own.name for item in found if (own := parts_of(item)) is not None}
    for part in parts:
        if part.key[1].split("#")[1] not in names:
            yield table.delete(part.key, size=size_of_item(part))
