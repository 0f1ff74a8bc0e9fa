"""The commit of a change set: guessed from what this store saw last, and repeated when the guess was wrong.

What is written is worked out from a head that may have changed since; the transaction has the head's stamp as its condition, and
a failed condition brings what the head really says. So no commit depends on a guess, and the last writer needs no reading.
"""

import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.errors import delays
from memory.adapters.dynamodb.models import Held
from memory.adapters.dynamodb.preparing import Prepared, Preparer, leaves_trash
from memory.adapters.dynamodb.reading import ChangedError
from memory.adapters.dynamodb.staging import Staging
from memory.adapters.dynamodb.table import MOST_ACTIONS, MOST_BYTES, RefusedError
from memory.adapters.dynamodb.writing import Writer
from memory.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    StoreUnavailableError,
)
from memory.port.changes import ChangeSet, Receipt
from memory.port.deadlines import remaining

_REFUSALS: Final = (AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError)


class Commit:
    """One commit: what is known of each head, and what is made of it."""

    def __init__(self, writer: Writer, staging: Staging, changes: ChangeSet, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._staging = staging
        self._changes = changes
        self._clock = clock
        self._heads: dict[str, Held] = {}
        self._read: set[str] = set()  # those that are no guesses
        for change in changes.changes:
            held = writer.seen.get(writer.namespace, change.id)
            if held is None and change.create is not None and not change.remove:
                held = Held()  # most probably there is none
            if held is not None:
                self._heads[change.id] = held

    def run(self) -> tuple[Receipt, bool]:
        """Write everything; return the receipt, and whether there is something to sweep now.

        Raises:
            PersistenceError: as `Repository.commit`.
        """
        for wait in _waits():
            if wait:  # sleep(0) lets others have the processor: a millisecond, on a machine that is busy
                time.sleep(wait)
            try:
                prepared = self._prepare()
                return self._write(prepared)
            except RefusedError as error:
                if (known := self._learn(error)) is not None:
                    return known, False
            except ChangedError:
                self._forget()
            except _REFUSALS:
                # What is known may be old; and what is refused may be written already. Both cost a look only here.
                if self._read.issuperset(self._heads):
                    if (found := self._writer.receipt(self._changes.token)) is not None:
                        return found, False
                    raise
                self._forget()
        raise StoreUnavailableError("other commits of the same conversations stood in the way; nothing was written")

    def _prepare(self) -> list[Prepared]:
        """Work out every change, from heads that no staged commit has locked."""
        unknown = [change.id for change in self._changes.changes if change.id not in self._heads]
        if unknown:
            self._heads |= self._writer.reader.held(self._writer.namespace, unknown)
            self._read.update(unknown)
        locked = {held.stage for held in self._heads.values() if held.stage is not None}
        if locked:
            for stage in locked:
                self._staging.settle(stage)
            raise ChangedError  # whether they have ended or not
        preparer = Preparer(self._writer.table, self._writer.reader, self._writer.namespace, self._clock())
        return [preparer.prepare(change, self._heads[change.id], self._changes.at) for change in self._changes.changes]

    def _write(self, prepared: list[Prepared]) -> tuple[Receipt, bool]:
        writer = self._writer
        receipt = Receipt(self._changes.token, {each.id: each.written for each in prepared})
        if sum(1 + len(each.metadata) + len(each.appended) for each in prepared) > MOST_ACTIONS:
            return self._staging.commit(prepared, receipt.token), True
        actions = [action for each in prepared for action in writer.actions(each)]
        kept, parts = writer.token_actions(receipt)
        actions += [kept, *parts]
        if len(actions) > MOST_ACTIONS or sum(action.size for action in actions) > MOST_BYTES:
            return self._staging.commit(prepared, receipt.token), True
        writer.table.write(actions)
        for each in prepared:
            writer.seen.put(writer.namespace, each.id, Held(None if each.after is None else each.stamp, each.after))
        return receipt, any(leaves_trash(each.before, each.after) for each in prepared)

    def _learn(self, refused: RefusedError) -> Receipt | None:
        """Take in what a refused transaction found; return the receipt if that is what it found."""
        writer, token = self._writer, self._changes.token
        if (item := refused.found.get(keys.token(writer.namespace, token))) is not None:
            return writer.receipt_of(token, item)
        for change in self._changes.changes:
            key = keys.head(writer.namespace, change.id)
            if key in refused.found:
                self._heads[change.id] = writer.reader.met(writer.namespace, change.id, refused.found[key])
                self._read.add(change.id)
        return None

    def _forget(self) -> None:
        """Read every head again, at the next try."""
        self._heads.clear()
        self._read.clear()


def _waits() -> Iterator[float]:
    """Yield how long to wait before each try: not at first, nor when a guess was wrong once."""
    yield 0
    yield 0
    for wait in delays(10_000):
        if remaining(inf) <= wait:
            return
        yield wait
