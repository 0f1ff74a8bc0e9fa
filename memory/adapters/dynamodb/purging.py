"""Deleting what belongs to nothing any more: removed runs, parts of replaced texts, expired conversations, broken commits."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.preparing import Preparer
from memory.adapters.dynamodb.reading import Scope
from memory.adapters.dynamodb.records import Head, Item, parts_of, size_of_item, text_of
from memory.adapters.dynamodb.table import Action, RefusedError, Table, in_transactions
from memory.domain.values import new_id, now

ABANDONED_AFTER: Final = 600_000_000
"""Microseconds for which a purge leaves a commit alone that has staged something. To interrupt it sooner would only make it begin
again; it takes no longer than the timeout of its store."""

_TRIES: Final = 5


def sweep(scope: Scope, conversation_id: str, abandoned_after: int = 0) -> None:
    """Delete what belongs to nothing in a conversation's partition, unless others prevent it.

    Every deletion has the stamp of the head as its condition, and the stamp is replaced first if a commit may be staging: nothing
    is deleted because of a read that is outdated, and what is deleted cannot become visible.

    Args:
        scope: the namespace.
        conversation_id: the conversation's.
        abandoned_after: leave a commit alone that began to stage something so many microseconds ago, or less.
    """
    place = keys.unswept_place(scope.namespace, conversation_id)
    for _ in range(_TRIES):
        mark = scope.table.get(place)
        head = scope.reader.heads(scope.namespace, [conversation_id])[conversation_id]
        if head.staged and 0 <= now() - head.staged_at < abandoned_after:
            return
        with suppress(RefusedError):
            _sweep(scope, conversation_id, head, mark)
            return


def _sweep(scope: Scope, conversation_id: str, head: Head, mark: Item | None) -> None:
    if head.staged:
        head, claimed = replace(head, stamp=new_id()), head
        scope.table.write([scope.write_head(conversation_id, claimed, head)])
    check = scope.check_head(conversation_id, head)
    for some in in_transactions(_deletions(scope.table, check.key[0], head)):
        scope.table.write([check, *some])
    clean = head
    if head.record is None:
        clean = Head()
    elif head.staged or head.unswept:
        clean = replace(head, stamp=new_id(), staged=0, unswept=False)
    actions = [check if clean is head else scope.write_head(conversation_id, head, clean)]
    if mark is not None:
        actions.append(scope.table.delete(mark.key, scope.table.has_stamp(text_of(mark, "stamp"))))
    scope.table.write(actions)
    scope.reader.seen.put(scope.namespace, conversation_id, clean)


def _deletions(table: Table, partition: str, head: Head) -> Iterator[Action]:
    """Yield the deletions of all items but the head, its parts, and the runs of the conversation with theirs."""
    first, last, dead = keys.RUNS, keys.RUNS, [(keys.RUNS, keys.STATE)]  # no run has such a key
    if (record := head.record) is not None:
        first, last = keys.run(record.incarnation, head.first), keys.run(record.incarnation, record.last_position)
        below, above = head.first - 1, record.last_position + 1
        dead = [(keys.RUNS, keys.run(record.incarnation, below)), (keys.run(record.incarnation, above), keys.STATE)]
    for low, high in dead:
        for item in table.query(partition, low, high):
            if item.key[1] != keys.STATE:
                yield table.delete(item.key, size=size_of_item(item))
    parts = list(table.query(partition, keys.PARTS, keys.RUNS))
    owners = {(partition, owner) for part in parts if first <= (owner := text_of(part, "of")) <= last}
    names = {key[1]: its.name for key, item in table.get_many(owners).items() if (its := parts_of(item))}
    if head.parts is not None:
        names[keys.STATE] = head.parts.name
    for part in parts:
        if not part.key[1].startswith(f"{keys.PARTS}{names.get(text_of(part, 'of'))}#"):
            yield table.delete(part.key, size=size_of_item(part))


def purge(scope: Scope, clock: Callable[[], int], abandoned_after: int) -> int:
    """Remove expired conversations and all that belongs to nothing; return how many had expired."""
    purged = 0
    until = keys.beyond(keys.time(clock()))
    for shard in range(scope.shards):
        partition = keys.listing("expires_at", scope.namespace, shard)
        for item in list(scope.table.query(partition, keys.LOWEST, until)):
            purged += _remove(scope, clock, text_of(item, "id"), text_of(item, "incarnation"))
    for mark in list(scope.table.query(keys.unswept(scope.namespace), keys.LOWEST, keys.HIGHEST)):
        sweep(scope, text_of(mark, "id"), abandoned_after)
    return purged


def _remove(scope: Scope, clock: Callable[[], int], conversation_id: str, incarnation: str) -> bool:
    """Remove a conversation that has expired; return whether it was this call that did."""
    for _ in range(_TRIES):
        head = scope.reader.heads(scope.namespace, [conversation_id])[conversation_id]
        if head.record is None or head.record.incarnation != incarnation or not head.is_hidden(clock()):
            return False
        with suppress(RefusedError):
            preparer = Preparer(scope, clock())
            prepared = preparer.removal(conversation_id, head)
            action = scope.write_head(conversation_id, head, prepared.after)
            scope.table.write([action, *preparer.counts([prepared]), *prepared.actions])
            return True
    return False
