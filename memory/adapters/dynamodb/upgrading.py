"""The upgrade of conversations from version 0002 of the layout, which had no list by ``last_run_at``.

Each conversation is upgraded by one transaction, on condition that its head is unchanged. An upgrade that was interrupted is
resumed by running it again: it skips the heads that have a ``last_run_at``.
"""

from collections import OrderedDict
from contextlib import suppress
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.errors import delays
from memory.adapters.dynamodb.preparing import Prepared
from memory.adapters.dynamodb.reading import Space
from memory.adapters.dynamodb.table import RefusedError, Table, back_off, in_batches
from memory.domain.values import new_id
from memory.errors import StoreUnavailableError
from memory.port.repository import Window

_HEADS_AT_ONCE: Final = 100
_TRIES: Final = 20
_BEFORE_ANY_EXPIRY: Final = -1


def upgrade(table: Table, shards: int) -> None:
    """Upgrade every conversation of the table, including expired ones."""
    counters = table.query(keys.COUNTS, keys.LOWEST, keys.HIGHEST)
    for namespace in sorted({item.text("namespace") for item in counters}):
        space = Space(table, OrderedDict(), namespace, shards)
        for shard in range(shards):
            listed = table.query(space.listing("id", shard), keys.LOWEST, keys.HIGHEST)
            for batch in in_batches(listed, _HEADS_AT_ONCE):
                heads = space.heads(item.text("id") for item in batch)
                for id in [id for id, head in heads.items() if head.is_old]:
                    _upgrade(space, id)


def _upgrade(space: Space, conversation_id: str) -> None:
    waits = delays(_TRIES)
    while True:
        head, runs = space.runs(conversation_id, Window(limit=1, from_end=True), _BEFORE_ANY_EXPIRY)
        if head.record is None or not head.is_old:
            return
        last_run_at = max([head.record.created_at, *[run.created_at for run in runs]])
        record = head.record._replace(last_run_at=last_run_at)
        new = Prepared(
            space, conversation_id, head, head._replace(stamp=new_id(), record=record, is_old=False)
        ).finish()
        with suppress(RefusedError):  # the conversation was changed since
            space.table.write([space.write_head(conversation_id, head, new.after), *new.actions])
            return
        if not back_off(waits):
            raise StoreUnavailableError(
                f"conversation {conversation_id!r} is being changed all the time, and was not upgraded: run migrate again"
            )
