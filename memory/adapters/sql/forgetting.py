"""Deletes what removed conversations leave behind: receipts with their ids, and their texts in the outbox."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from sqlalchemy import ClauseElement

from memory.adapters.sql import statements
from memory.adapters.sql.statements import Executor
from memory.port.changes import Change, ChangeSet
from memory.port.outbox import dump, load
from memory.port.repository import Forgotten

_READ_AT_ONCE: Final = 500
"""The outbox entries in memory at once."""


def forget(executor: Executor, namespace: str, ids: Collection[str]) -> Forgotten:
    """Delete the receipts and the queued texts of these conversations, in the current transaction."""
    receipts = executor.execute_one_of(statements.FORGET_RECEIPTS_OF, in_namespace=namespace, ids=executor.texts(ids))
    return Forgotten(len(receipts), _forget_texts(executor, namespace, ids))


def _forget_texts(executor: Executor, namespace: str, ids: Collection[str]) -> int:
    """Delete what was queued of these conversations before their last removal; return the number of entries changed.

    A conversation that was created again after its removal is delivered. It waits for a relay that delivers at this moment, which
    deletes what it has delivered within seconds.
    """
    removed_in = {
        change.id: number
        for number, changes in _queued(executor, statements.OUTBOX_OF_NAMESPACE, namespace)
        for change in changes.changes
        if change.remove and change.id in ids
    }
    changed = 0
    for number, changes in _queued(executor, statements.LOCKED_OUTBOX_OF_NAMESPACE, namespace) if removed_in else ():
        left = tuple(
            [
                Change(change.id, remove=True) if number < removed_in.get(change.id, 0) else change
                for change in changes.changes
                if change.remove or number >= removed_in.get(change.id, 0)
            ]
        )
        if left == changes.changes:
            continue
        changed += 1
        if left:
            executor.execute(statements.REWRITE_OUTBOX_ENTRY, which=number, now=dump(replace(changes, changes=left)))
        else:
            executor.execute(statements.REMOVE_OUTBOX_ENTRY, which=number)
    return changed


def _queued(executor: Executor, statement: ClauseElement, namespace: str) -> Iterator[tuple[int, ChangeSet]]:
    last = 0
    while rows := executor.execute(statement, in_namespace=namespace, after=last, limit=_READ_AT_ONCE):
        yield from ((number, load(text)) for number, text in rows)
        last = rows[-1][0]
