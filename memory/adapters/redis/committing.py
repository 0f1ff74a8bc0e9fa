"""The commit of a change set: the arguments for `commit.lua`, and what its answer means.

Each text is an argument of its own: one JSON argument costs both sides twice as much, and needs escaping
(docs/decisions/0010-one-script-a-commit.md).
"""

from collections.abc import Iterator
from typing import Final

from memory.adapters.redis import records
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.errors import CorruptRecordError, UnsupportedError
from memory.port.changes import NEVER, Change, ChangeSet, Receipt, check_preconditions, missing_runs
from memory.port.index import entries

COMMIT: Final = Script("shared", "commit")
APPEND: Final = Script("append")

RECEIPT_KEPT: Final = 25 * 3600 * 1000
"""Milliseconds that a receipt lives. It has Redis's own expiry, by the server's clock, so nothing has to sweep receipts."""

_MOST_ARGUMENTS: Final = 1_000_000  # Redis takes 1,048,576


class Writer:
    """Writes change sets."""

    def __init__(self, wire: Wire, keys: Keys) -> None:
        self._wire, self._keys = wire, keys

    def write(self, namespace: str, changes: ChangeSet, now: int) -> Receipt:
        """Write everything in one round trip, or raise the reason why nothing could be written."""
        receipt = None
        if len(changes.changes) == 1:
            (change,) = changes.changes
            if len(change.append) == 1 and change.only_appends:
                receipt = self._append(namespace, changes, change)
        if receipt is None:
            receipt = self._commit(namespace, changes, now)
        # What was written is acknowledged, even if somebody made the incarnation something that is no text.
        return Receipt.load(changes.token, receipt.decode(errors="replace"))

    def _append(self, namespace: str, changes: ChangeSet, change: Change) -> bytes | None:
        """Fast path: append one run, and return the receipt. Return None if `commit.lua` has to do it."""
        keys = (
            self._keys.receipt(namespace, changes.token),
            self._keys.conversation(namespace, change.id),
            self._keys.runs(namespace, change.id),
            self._keys.order(namespace, "updated_at"),
        )
        arguments = (changes.at, RECEIPT_KEPT, change.id, records.run_member(change.append[0]))
        written: bytes | None = self._wire.commit(APPEND, keys, arguments)
        return written

    def _commit(self, namespace: str, changes: ChangeSet, now: int) -> bytes:
        receipt = self._keys.receipt(namespace, changes.token)
        keys = [receipt, self._keys.namespaces, *self._keys.orders(namespace)]
        arguments: list[Argument] = [now, changes.at, RECEIPT_KEPT, namespace]
        for change in changes.changes:
            keys += [self._keys.conversation(namespace, change.id), self._keys.runs(namespace, change.id)]
            arguments += _arguments(namespace, changes.token, change)
        if len(arguments) + len(keys) > _MOST_ARGUMENTS:
            raise UnsupportedError(
                f"a commit of {len(changes.changes):,} changes and {len(arguments):,} values is more than Redis takes at once: "
                "commit in several parts"
            )
        kind, *answer = self._wire.commit(COMMIT, keys, arguments)
        if kind == b"written":
            written: bytes = answer[0]
            return written
        number, *rest = answer
        change = changes.changes[number - 1]
        if kind == b"missing":
            raise missing_runs(change, int(rest[0]))
        key = self._keys.conversation(namespace, change.id)
        check_preconditions(change, records.conversation(self._keys, namespace, key, rest) if rest else None)
        raise CorruptRecordError(f"the hash at {key} was refused by the server although it fits the change")


def _arguments(namespace: str, token: str, change: Change) -> Iterator[Argument]:
    """Yield the arguments of a change, in the order in which `take_change` in commit.lua takes them."""
    seen, create = change.seen, change.create
    yield change.id
    yield from ("", "") if seen is None else seen
    yield "" if change.after is None else change.after
    yield "1" if change.remove else ""
    yield "1" if change.edits else ""
    yield create.version + change.edits if create else ""
    yield create.last_position if create else ""
    yield create.updated_at if create else ""
    yield from _list(*_fields(namespace, token, change))
    yield _expiry(change)
    yield change.remove_before
    edited = [(position, "") for position in change.remove_runs]
    edited += [(run.position, records.run_member(run)) for run in change.replace_runs]
    yield from _list(*edited)
    yield from _list(*[(run.position, records.run_member(run)) for run in change.append])


def _list(*items: tuple[Argument, Argument]) -> Iterator[Argument]:
    yield len(items)
    for item in items:
        yield from item


def _fields(namespace: str, token: str, change: Change) -> Iterator[tuple[Argument, Argument]]:
    """Yield the fields that the script sets as they are."""
    create = change.create
    if create is not None:
        yield from (
            ("id", create.id),
            ("namespace", namespace),
            ("incarnation", token),
            ("created_at", create.created_at),
        )
    metadata = create.metadata if create is not None and change.metadata is None else change.metadata
    if metadata is not None:
        record = ConversationRecord(change.id, metadata, 0, "", 0, 0, 0, 0, None)
        yield "metadata", metadata
        yield "entries", Tokens(namespace).of(entries(Conversation.from_record(record).metadata))


def _expiry(change: Change) -> Argument:
    """Return the expiry that the script sets; ``never`` clears it, and an empty text leaves it."""
    expires_at = change.expires_at if change.create is None else change.expiry(change.create.expires_at)
    return "" if expires_at is None else "never" if expires_at == NEVER else expires_at
