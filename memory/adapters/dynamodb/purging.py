"""Deleting what belongs to nothing any more: removed runs, parts of replaced texts, expired conversations, broken commits."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.preparing import Preparer
from memory.adapters.dynamodb.reading import Scope
from memory.adapters.dynamodb.records import NO_HEAD, Head, parts_of, size_of_item, text_of
from memory.adapters.dynamodb.table import Action, RefusedError, Table, in_transactions
from memory.domain.values import new_id

_TRIES: Final = 5


def purge(scope: Scope, clock: Callable[[], int]) -> int:
    """Remove expired conversations and all that belongs to nothing; return how many had expired."""
    purged = 0
    until = keys.end_of(clock())
    for shard in range(scope.shards):
        partition = keys.listing("expires_at", scope.namespace, shard)
        for item in list(scope.table.query(partition, keys.LOWEST, until)):
            purged += _remove(scope, clock, text_of(item, "id"))
    for mark in list(scope.table.query(keys.unswept(scope.namespace), keys.LOWEST, keys.HIGHEST)):
        sweep(scope, mark.key[1])
    return purged


def _remove(scope: Scope, clock: Callable[[], int], conversation_id: str) -> bool:
    """Remove a conversation that has expired; return whether it was this call that did."""
    for _ in range(_TRIES):
        head = scope.reader.heads(scope.namespace, [conversation_id])[conversation_id]
        if head.record is None or not head.is_hidden(clock()):
            return False
        with suppress(RefusedError):
            preparer = Preparer(scope, clock())
            prepared = preparer.removal(conversation_id, head)
            action = scope.write_head(conversation_id, head, prepared.after)
            scope.table.write([action, *preparer.counts([prepared]), *prepared.actions])
            return True
    return False


def sweep(scope: Scope, conversation_id: str) -> None:
    """Delete what belongs to nothing in a conversation's partition, unless others prevent it.

    Every deletion has the stamp of the head as its condition, and the stamp is replaced before anything is read: a commit that
    is staging runs begins again, and nothing is deleted because of a read that is outdated.
    """
    for _ in range(_TRIES):
        head = scope.reader.heads(scope.namespace, [conversation_id])[conversation_id]
        with suppress(RefusedError):
            _sweep(scope, conversation_id, head)
            return


def _sweep(scope: Scope, conversation_id: str, head: Head) -> None:
    if head.stamp is not None:
        before, head = head, head._replace(stamp=new_id())
        scope.table.write([scope.write_head(conversation_id, before, head)])
    check = scope.check_head(conversation_id, head)
    for some in in_transactions(_deletions(scope.table, check.key[0], head)):
        scope.table.write([check, *some])
    clean = NO_HEAD if head.record is None else head._replace(stamp=new_id(), unswept=False)
    mark = keys.unswept(scope.namespace), conversation_id
    scope.table.write([scope.write_head(conversation_id, head, clean), scope.table.delete(mark)])
    scope.reader.seen.put(scope.namespace, conversation_id, clean)


def _deletions(table: Table, partition: str, head: Head) -> Iterator[Action]:
    """Yield the deletions of all items but the head, its parts, and the runs of the conversation with theirs."""
    first = last = keys.RUNS  # no run has this key
    if (record := head.record) is not None:
        first, last = keys.run(record.incarnation, head.first), keys.run(record.incarnation, record.last_position)
    parts = []
    below = table.query(partition, keys.PARTS, min(first, last))
    above = table.query(partition, max(first, last), keys.STATE)
    for item in chain(below, above):
        if item.key[1].startswith(keys.PARTS):
            parts.append(item)
        elif item.key[1] != keys.STATE and not first <= item.key[1] <= last:
            yield table.delete(item.key, size=size_of_item(item))
    owners = {owner for part in parts if first <= (owner := text_of(part, "of")) <= last or owner == keys.STATE}
    found = table.get_many((partition, owner) for owner in owners).values()
    names = {its.name for item in found if (its := parts_of(item)) is not None}
    for part in parts:
        if keys.part_name(part.key[1]) not in names:
            yield table.delete(part.key, size=size_of_item(part))
