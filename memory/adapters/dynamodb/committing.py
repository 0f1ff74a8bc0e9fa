"""The commit of a change set: one transaction, computed from cached heads, and recomputed if one of them has changed.

The transaction is conditional on the stamps of the heads, and a failed condition returns the current head (decision 0020). It
also stores the change set's receipt, on condition that it does not exist (0021). New runs and parts of large texts that do not
fit into the transaction are *staged*: written before it, while no head refers to them (0022).
"""

from collections.abc import Callable, Mapping
from typing import Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.errors import delays
from memory.adapters.dynamodb.keys import Key
from memory.adapters.dynamodb.preparing import Prepared, counts, mark_unswept
from memory.adapters.dynamodb.purging import sweep
from memory.adapters.dynamodb.reading import ChangedError, Space
from memory.adapters.dynamodb.records import NO_HEAD, TTL, Head, Item
from memory.adapters.dynamodb.table import (
    IS_ABSENT,
    MOST_ACTIONS,
    MOST_BYTES,
    Action,
    RefusedError,
    back_off,
    in_transactions,
)
from memory.domain.values import key_of, new_id, now
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    CommitTooLargeError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    StoreUnavailableError,
)
from memory.port.changes import Change, ChangeSet, Receipt, Written

_REFUSALS: Final = (AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError)
_TRIES: Final = 10_000  # the operation's deadline expires first


class Commit:
    """One commit: the heads as far as they are known, and the writes computed from them."""

    def __init__(self, space: Space, changes: ChangeSet, clock: Callable[[], int]) -> None:
        self._space = space
        self._table = space.table
        self._changes = changes
        self._clock = clock
        self._receipt_key = keys.partition("receipt", space.namespace, changes.token), "receipt"
        self._heads: dict[str, Head] = {}
        for change in changes.changes:
            head = space.seen.get((space.namespace, key_of(change.id)))
            if head is None and change.create is not None and not change.remove:
                head = NO_HEAD  # a new conversation, most probably
            if head is not None:
                self._heads[change.id] = head
        self._guesses = set(self._heads)

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
                if (item := error.found.get(self._receipt_key)) is not None:
                    return Receipt.load(self._changes.token, item.text("receipt"))
                self._update_heads(error.found)
            except ChangedError:
                self._heads.clear()
            except _REFUSALS:
                # The cached heads may be outdated, or the change set may have been written before: only here both are checked.
                if not self._guesses:
                    if (known := self._find_receipt()) is not None:
                        return known
                    raise
                self._heads.clear()
            if not is_first and not back_off(waits):  # the first failure is most probably an outdated head: no wait
                raise StoreUnavailableError(
                    "concurrent commits of the same conversations prevented this one; nothing was written"
                )
            is_first = False

    def _write(self) -> Receipt:
        prepared = self._prepare()
        receipt = Receipt(self._changes.token, {each.id: _written(each.after) for each in prepared})
        fixed = [action for each in prepared for action in each.actions]
        fixed += [*counts(self._space, prepared), self._receipt_action(receipt)]
        contents = [self._table.put(item) for each in prepared for item in each.contents]
        if _excess(prepared, fixed + contents) is None:
            fixed += contents
        elif (excess := _excess(prepared, fixed)) is not None:
            raise excess
        elif (known := self._find_receipt()) is not None:
            return known  # otherwise the commit would be refused only after staging everything
        else:
            self._stage([each for each in prepared if each.contents])
        heads = [self._space.write_head(each.id, each.before, each.after) for each in prepared]
        self._table.write([*heads, *fixed])
        for each in prepared:
            self._space.remember(each.id, each.after)
        return receipt

    def _prepare(self) -> list[Prepared]:
        """Compute every change; read the heads that are not known yet."""
        unknown = [change.id for change in self._changes.changes if change.id not in self._heads]
        if unknown:
            self._heads |= self._space.heads(unknown)
            self._guesses.difference_update(unknown)
        for change in self._changes.changes:
            if _could_expose_staged_runs(change, self._heads[change.id]):
                sweep(self._space, change.id)
                raise ChangedError
        moment, at = self._clock(), self._changes.at
        return [
            Prepared(self._space, change.id, self._heads[change.id]).apply(change, now=moment, at=at)
            for change in self._changes.changes
        ]

    def _stage(self, prepared: list[Prepared]) -> None:
        """Write contents before the transaction that makes the heads refer to them."""
        actions: list[Action] = []
        for each in prepared:
            claim = each.before._replace(stamp=new_id(), unswept=True)
            actions.append(self._space.write_head(each.id, each.before, claim))
            if not each.before.unswept:
                actions.append(mark_unswept(self._space, each.id))
            each.before, each.after = claim, each.after._replace(unswept=True)
        try:
            self._table.write(actions)
            for each in prepared:
                check = self._space.check_head(each.id, each.before)
                for batch in in_transactions(map(self._table.put, each.contents)):
                    self._table.write([check, *batch])
        except CommitInDoubtError as error:
            raise StoreUnavailableError(f"{error}; no part of the commit is visible, and it may be retried") from error

    def _update_heads(self, found: Mapping[Key, Item | None]) -> None:
        """Replace the known heads with those that a refused transaction returned."""
        for id in self._heads:
            if (key := (self._space.partition(id), keys.STATE)) in found:
                self._heads[id] = self._space.read(id, found[key])
                self._guesses.discard(id)

    def _receipt_action(self, receipt: Receipt) -> Action:
        """Return the action that stores the receipt; its condition fails if the change set was written before."""
        until = (now() + self._changes.receipt_kept) // 1_000_000
        values = {"receipt": {"S": receipt.dump()}, TTL: {"N": str(until)}}
        return self._table.put(Item(self._receipt_key, values), IS_ABSENT)

    def _find_receipt(self) -> Receipt | None:
        """Return the receipt of the change set if it was written before, or None."""
        item = self._table.get(self._receipt_key)
        return None if item is None else Receipt.load(self._changes.token, item.text("receipt"))


def _written(after: Head) -> Written | None:
    """Return a conversation's entry for the receipt."""
    if (record := after.record) is None:
        return None
    return Written(record.version, record.incarnation, record.run_count, record.last_position)


def _could_expose_staged_runs(change: Change, head: Head) -> bool:
    """Return whether the change leaves gaps in the positions where an interrupted commit may have staged runs."""
    last = head.record.last_position if head.record else 0
    has_gaps = change.gives_positions and change.append[-1].position > last + len(change.append)
    return head.unswept and has_gaps and change.create is None


def _excess(prepared: list[Prepared], actions: list[Action]) -> CommitTooLargeError | None:
    """Return the error for actions that, together with those on the heads, do not fit into one transaction."""
    count, size = len(prepared) + len(actions), sum([action.size for action in actions])
    for found, limit, unit in ((count, MOST_ACTIONS, "writes"), (size, MOST_BYTES, "bytes")):
        if found > limit:
            return CommitTooLargeError(
                f"the commit consists of {found:,} {unit}, but DynamoDB allows {limit:,} in a transaction; nothing was "
                "written. Commit fewer conversations at once, or change fewer runs or less metadata of one",
                limit=limit,
                size=found,
            )
    return None
