"""Deletes what removed conversations leave behind: receipts with their ids, and their texts in the outbox."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from memory.adapters.sql import statements
from memory.adapters.sql.statements import Executor
from memory.domain.values import compact
from memory.port.changes import Change
from memory.port.outbox import dump, load
from memory.port.repository import Forgotten

_READ_AT_ONCE: Final = 500
"""The outbox entries in memory at once."""


def forget(executor: Executor, namespace: str, ids: Collection[str]) -> Forgotten:
    """Delete the receipts and the queued texts of these conversations, in the current transaction."""
    receipts = executor.execute_one_of(statements.FORGET_RECEIPTS_OF, in_namespace=namespace, ids=compact(list(ids)))
    return Forgotten(len(receipts), _forget_texts(executor, namespace, ids))


def _forget_texts(executor: Executor, namespace: str, ids: Collection[str]) -> int:
    """Delete the changes of these conversations from all entries, except removals; return the number of entries changed.

    It waits for a relay that delivers at this moment, which deletes what it has delivered within seconds.
    """
    changed = last = 0
    while rows := executor.execute(
        statements.OUTBOX_OF_NAMESPACE, in_namespace=namespace, after=last, limit=_READ_AT_ONCE
    ):
        for number, text in rows:
            changes = load(text)
            left = tuple(
                [
                    Change(change.id, remove=True) if change.id in ids else change
                    for change in changes.changes
                    if change.remove or change.id not in ids
                ]
            )
            if left == changes.changes:
                continue
            changed += 1
            if left:
                text_left = dump(replace(changes, changes=left))
                executor.execute(statements.REWRITE_OUTBOX_ENTRY, which=number, now=text_left)
            else:
                executor.execute(statements.REMOVE_OUTBOX_ENTRY, which=number)
        last = rows[-1][0]
    return changed
