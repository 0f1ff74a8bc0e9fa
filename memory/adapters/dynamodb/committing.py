"""The commit of a change set: one transaction, worked out from the heads seen last, and again if one of them has changed.

Each transaction has the stamps of the heads as its conditions, and a condition that fails brings the head as it is. So no commit
depends on a guess, and the last writer of a conversation needs no reading.

New runs, and parts of large texts, that do not fit the transaction are *staged*: written before it, where nothing refers to them.
The commit first replaces the heads by ones with new stamps, otherwise unchanged, and each transaction that stages something
checks these. Whoever writes to a conversation meanwhile changes its stamp, so a commit that was overtaken can write nothing
more, and begins again. Nobody waits for it. What a commit that broke off has staged is overwritten or purged.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.errors import delays
from memory.adapters.dynamodb.preparing import Prepared, Preparer
from memory.adapters.dynamodb.purging import sweep
from memory.adapters.dynamodb.reading import ChangedError, Scope
from memory.adapters.dynamodb.receipts import find_receipt, read_receipt, receipt_action
from memory.adapters.dynamodb.records import Head
from memory.adapters.dynamodb.table import (
    MOST_ACTIONS,
    MOST_BYTES,
    Action,
    RefusedError,
    in_transactions,
)
from memory.domain.values import new_id, now
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    CommitTooLargeError,
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

    def __init__(self, scope: Scope, changes: ChangeSet, clock: Callable[[], int]) -> None:
        self._scope = scope
        self._table = scope.table
        self._reader = scope.reader
        self._namespace = scope.namespace
        self._changes = changes
        self._clock = clock
        self._heads: dict[str, Head] = {}
        self._read: set[str] = set()  # those that are no guesses
        for change in changes.changes:
            head = self._reader.seen.get(self._namespace, change.id)
            if head is None and change.create is not None and not change.remove:
                head = Head()  # most probably there is none
            if head is not None:
                self._heads[change.id] = head

    def run(self) -> Receipt:
        """Write everything, and return the receipt.

        Raises:
            PersistenceError: as `Repository.commit`.
        """
        for wait in _waits():
            if wait:  # sleep(0) gives the processor away: a millisecond, on a machine that is busy
                time.sleep(wait)
            try:
                return self._write()
            except RefusedError as error:
                if (known := self._learn(error)) is not None:
                    return known
            except ChangedError:
                self._forget()
            except _REFUSALS as error:
                # The heads may be outdated guesses; and what is refused may be written already. Both are looked up only here.
                # Nothing stored decides whether a commit that only creates is too large: an import tries many of those.
                only_creates = all(change.only_creates for change in self._changes.changes)
                if self._read.issuperset(self._heads) or (isinstance(error, CommitTooLargeError) and only_creates):
                    if (found := find_receipt(self._table, self._namespace, self._changes.token)) is not None:
                        return found
                    raise
                self._forget()
        raise StoreUnavailableError("other commits of the same conversations stood in the way; nothing was written")

    def _write(self) -> Receipt:
        preparer = Preparer(self._scope, self._clock())
        prepared = self._prepare(preparer)
        receipt = Receipt(self._changes.token, {each.id: each.written for each in prepared})
        fixed = [action for each in prepared for action in each.actions]
        fixed += [*preparer.counts(prepared), receipt_action(self._table, self._namespace, receipt)]
        contents = [self._table.put(item) for each in prepared for item in each.contents]
        if _fits(prepared, fixed + contents):
            fixed += contents
        else:
            self._check_size(prepared, fixed)
            if (known := find_receipt(self._table, self._namespace, self._changes.token)) is not None:
                return known  # it would be refused after all has been staged
            self._stage(preparer, [each for each in prepared if each.contents])
        heads = [self._scope.write_head(each.id, each.before, each.after) for each in prepared]
        self._table.write([*heads, *fixed])
        for each in prepared:
            self._reader.seen.put(self._namespace, each.id, each.after if each.after.record else Head())
        return receipt

    def _prepare(self, preparer: Preparer) -> list[Prepared]:
        """Work out every change, from heads that are read where none is known."""
        unknown = [change.id for change in self._changes.changes if change.id not in self._heads]
        if unknown:
            self._heads |= self._reader.heads(self._namespace, unknown)
            self._read.update(unknown)
        for change in self._changes.changes:
            if self._heads[change.id].staged and change.gives_positions and not change.create:
                # Runs that a broken commit staged between the positions given would become visible: they go first.
                sweep(self._scope, change.id)
                raise ChangedError
        return [preparer.prepare(change, self._heads[change.id], self._changes.at) for change in self._changes.changes]

    def _check_size(self, prepared: list[Prepared], actions: list[Action]) -> None:
        """Refuse what is too large for one transaction, before anything is written."""
        if _fits(prepared, actions):
            return
        limit, size, unit = MOST_ACTIONS, len(prepared) + len(actions), "writes"
        if size <= limit:
            limit, size, unit = MOST_BYTES, sum(action.size for action in actions), "bytes"
        raise CommitTooLargeError(
            f"the commit consists of {size:,} {unit}, and DynamoDB takes {limit:,} in one transaction; nothing was written. "
            "Commit fewer conversations at once, or change fewer runs or less metadata of one",
            limit=limit,
            size=size,
        )

    def _stage(self, preparer: Preparer, prepared: list[Prepared]) -> None:
        """Write contents before the transaction whose heads refer to them."""
        actions: list[Action] = []
        for each in prepared:
            before, record = each.before, each.after.record
            highest = max(before.staged, record.last_position if record else 1, 1)
            claim = replace(before, stamp=new_id(), staged=highest, staged_at=now(), unswept=True)
            actions.append(self._scope.write_head(each.id, before, claim))
            if not before.unswept:
                actions.append(preparer.mark(each.id))
            each.before, each.after = claim, replace(each.after, unswept=True)
        try:
            self._table.write(actions)
            for each in prepared:
                check = self._scope.check_head(each.id, each.before)
                for some in in_transactions(map(self._table.put, each.contents)):
                    self._table.write([check, *some])
        except CommitInDoubtError as error:
            raise StoreUnavailableError(f"{error}; nothing of the commit is visible: it may be repeated") from error

    def _learn(self, refused: RefusedError) -> Receipt | None:
        """Take in what a refused transaction found; return the receipt if that is what it found."""
        token = self._changes.token
        if (item := refused.found.get(keys.receipt(self._namespace, token))) is not None:
            return read_receipt(token, item)
        for change in self._changes.changes:
            key = keys.head(self._namespace, change.id)
            if key in refused.found:
                self._heads[change.id] = self._reader.read(self._namespace, change.id, refused.found[key])
                self._read.add(change.id)
        return None

    def _forget(self) -> None:
        """Read every head again, at the next try."""
        self._heads.clear()
        self._read.clear()


def _fits(prepared: list[Prepared], actions: list[Action]) -> bool:
    """Return whether the actions, and those on the heads, fit one transaction."""
    return len(prepared) + len(actions) <= MOST_ACTIONS and sum(action.size for action in actions) <= MOST_BYTES


def _waits() -> Iterator[float]:
    """Yield how long to wait before each try: not at first, nor when a guess was wrong once."""
    yield 0
    yield 0
    for wait in delays(10_000):
        if remaining(inf) <= wait:
            return
        yield wait
