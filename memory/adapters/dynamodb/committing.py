"""The commit of a change set: one transaction, worked out from the heads seen last, and again if one of them has changed.

Each transaction has the stamps of the heads as its conditions, and a condition that fails brings the head as it is. So no commit
depends on a guess, and the last writer of a conversation needs no reading.

New runs, and parts of large texts, that do not fit the transaction are *staged*: written before it, where nothing refers to them.
The commit first replaces the heads by ones with new stamps, otherwise unchanged, and each transaction that stages something
checks these. Whoever writes to a conversation meanwhile changes its stamp, so a commit that was overtaken can write nothing
more, and begins again. Nobody waits for it. What a commit that broke off has staged is overwritten or purged.

A change set that is committed a second time writes nothing, and returns its receipt: an item that the transaction stores on
condition that there is none. DynamoDB deletes it by its time to live; until it does, one older than a day counts as deleted.
"""

from collections.abc import Callable
from typing import Final

from pynamodb.expressions.operand import Path

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.errors import delays
from memory.adapters.dynamodb.preparing import Prepared, Preparer
from memory.adapters.dynamodb.purging import sweep
from memory.adapters.dynamodb.reading import ChangedError, Scope
from memory.adapters.dynamodb.records import NO_HEAD, TTL, Head, Item, number_of, text_of
from memory.adapters.dynamodb.table import MOST_ACTIONS, MOST_BYTES, Action, RefusedError, in_transactions, waited
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
from memory.port.changes import Change, ChangeSet, Receipt

_REFUSALS: Final = (AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError)
_RECEIPT_KEPT: Final = 24 * 3600  # seconds
_TRIES: Final = 10_000  # the time of the operation ends first


class Commit:
    """One commit: what is known of each head, and what is made of it."""

    def __init__(self, scope: Scope, changes: ChangeSet, clock: Callable[[], int]) -> None:
        self._scope = scope
        self._table = scope.table
        self._reader = scope.reader
        self._namespace = scope.namespace
        self._changes = changes
        self._clock = clock
        self._receipt_key = keys.receipt(scope.namespace, changes.token)
        self._heads: dict[str, Head] = {}
        self._read: set[str] = set()  # those that are no guesses
        for change in changes.changes:
            head = self._reader.seen.get(self._namespace, change.id)
            if head is None and change.create is not None and not change.remove:
                head = NO_HEAD  # most probably there is none
            if head is not None:
                self._heads[change.id] = head

    def run(self) -> Receipt:
        """Write everything, and return the receipt.

        Raises:
            PersistenceError: as `Repository.commit`.
        """
        waits, is_first = delays(_TRIES), True
        while True:
            try:
                return self._write()
            except RefusedError as error:
                if (known := self._learn(error)) is not None:
                    return known
            except ChangedError:
                self._forget()
            except _REFUSALS:
                # The heads may be outdated guesses; and what is refused may be written already. Both are looked up only here.
                if self._read.issuperset(self._heads):
                    if (known := self._find_receipt()) is not None:
                        return known
                    raise
                self._forget()
            if not is_first and not waited(waits):  # the first time a guess was wrong, most probably
                raise StoreUnavailableError(
                    "other commits of the same conversations stood in the way; nothing was written"
                )
            is_first = False

    def _write(self) -> Receipt:
        preparer = Preparer(self._scope, self._clock())
        prepared = self._prepare(preparer)
        receipt = Receipt(self._changes.token, {each.id: each.written for each in prepared})
        fixed = [action for each in prepared for action in each.actions]
        fixed += [*preparer.counts(prepared), self._receipt_action(receipt)]
        contents = [self._table.put(item) for each in prepared for item in each.contents]
        if _fits(prepared, fixed + contents):
            fixed += contents
        else:
            _check_size(prepared, fixed)
            if (known := self._find_receipt()) is not None:
                return known  # it would be refused after all has been staged
            self._stage(preparer, [each for each in prepared if each.contents])
        heads = [self._scope.write_head(each.id, each.before, each.after) for each in prepared]
        self._table.write([*heads, *fixed])
        for each in prepared:
            self._reader.seen.put(self._namespace, each.id, each.after)
        return receipt

    def _prepare(self, preparer: Preparer) -> list[Prepared]:
        """Work out every change, from heads that are read where none is known."""
        unknown = [change.id for change in self._changes.changes if change.id not in self._heads]
        if unknown:
            self._heads |= self._reader.heads(self._namespace, unknown)
            self._read.update(unknown)
        for change in self._changes.changes:
            if _could_uncover(change, self._heads[change.id]):
                sweep(self._scope, change.id)
                raise ChangedError
        return [preparer.prepare(change, self._heads[change.id], self._changes.at) for change in self._changes.changes]

    def _stage(self, preparer: Preparer, prepared: list[Prepared]) -> None:
        """Write contents before the transaction whose heads refer to them."""
        actions: list[Action] = []
        for each in prepared:
            claim = each.before._replace(stamp=new_id(), unswept=True)
            actions.append(self._scope.write_head(each.id, each.before, claim))
            if not each.before.unswept:
                actions.append(preparer.mark(each.id))
            each.before, each.after = claim, each.after._replace(unswept=True)
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
        if (item := refused.found.get(self._receipt_key)) is not None:
            return self._receipt_in(item)
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

    # receipts

    def _receipt_action(self, receipt: Receipt) -> Action:
        """Return the action that stores the receipt, and refuses a change set that was written before."""
        seconds = now() // 1_000_000
        unwritten = self._table.is_absent() | (Path(TTL) <= seconds)
        values = {"receipt": {"S": receipt.dump()}, TTL: {"N": str(seconds + _RECEIPT_KEPT)}}
        return self._table.put(Item(self._receipt_key, values), unwritten)

    def _find_receipt(self) -> Receipt | None:
        """Return the receipt of the change set; None if it was not written, or more than a day ago."""
        item = self._table.get(self._receipt_key)
        if item is None or number_of(item, TTL) <= now() // 1_000_000:
            return None
        return self._receipt_in(item)

    def _receipt_in(self, item: Item) -> Receipt:
        return Receipt.load(self._changes.token, text_of(item, "receipt"))


def _could_uncover(change: Change, head: Head) -> bool:
    """Return whether runs that a broken commit staged could lie in the gaps of the positions that a change gives."""
    last = head.record.last_position if head.record else 0
    has_gaps = change.gives_positions and change.append[-1].position > last + len(change.append)
    return head.unswept and has_gaps and change.create is None


def _fits(prepared: list[Prepared], actions: list[Action]) -> bool:
    """Return whether the actions, and those on the heads, fit one transaction."""
    return len(prepared) + len(actions) <= MOST_ACTIONS and sum(action.size for action in actions) <= MOST_BYTES


def _check_size(prepared: list[Prepared], actions: list[Action]) -> None:
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
