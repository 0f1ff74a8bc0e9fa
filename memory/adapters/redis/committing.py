"""The commit of a change set: the arguments for `commit.lua`, and what its answer means.

Each text is an argument of its own: one JSON argument costs both sides twice as much, and needs escaping
(docs/decisions/0010-one-script-a-commit.md).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from memory.adapters.redis import records
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord, RunRecord
from memory.errors import CorruptRecordError, PersistenceError, UnsupportedError
from memory.port.changes import NEVER, Change, ChangeSet, Receipt, Written, check_preconditions, missing_runs
from memory.port.index import entries

COMMIT: Final = Script("shared", "commit")
APPEND: Final = Script("append")

RECEIPT_KEPT: Final = 25 * 3600 * 1000
"""Milliseconds that a receipt lives. It has Redis's own expiry, by the server's clock, so nothing has to sweep receipts."""

_MOST_ARGUMENTS: Final = 1_000_000  # Redis takes 1,048,576


class Writer:
    """Writes change sets in one namespace."""

    def __init__(self, wire: Wire, keys: Keys, namespace: str, now: int) -> None:
        self._wire, self._keys, self._namespace, self._now = wire, keys, namespace, now

    def write(self, changes: ChangeSet) -> Receipt:
        """Write everything in one round trip, or raise the reason why nothing could be written."""
        if len(changes.changes) == 1:
            (change,) = changes.changes
            if len(change.append) == 1 and change.only_appends and (receipt := self._append(changes, change)):
                return receipt
        return self._commit(changes)

    def _append(self, changes: ChangeSet, change: Change) -> Receipt | None:
        """Fast path: append one run. Return None if `commit.lua` has to do it."""
        namespace, keys = self._namespace, self._keys
        receipt = keys.receipt(namespace, changes.token)
        answer = self._wire.commit(
            APPEND,
            (
                receipt,
                keys.conversation(namespace, change.id),
                keys.runs(namespace, change.id),
                keys.order(namespace, "updated_at"),
            ),
            (changes.at, RECEIPT_KEPT, change.id, records.run_member(change.append[0])),
        )
        return None if answer is None else _receipt(receipt, changes, answer)

    def _commit(self, changes: ChangeSet) -> Receipt:
        namespace = self._namespace
        receipt = self._keys.receipt(namespace, changes.token)
        keys = [receipt, self._keys.namespaces, *self._keys.orders(namespace)]
        arguments: list[Argument] = [self._now, changes.at, changes.token, RECEIPT_KEPT, namespace]
        for change in changes.changes:
            keys += [self._keys.conversation(namespace, change.id), self._keys.runs(namespace, change.id)]
            arguments += self._arguments(change)
        if len(arguments) + len(keys) > _MOST_ARGUMENTS:
            raise UnsupportedError(
                f"a commit of {len(changes.changes):,} changes and {len(arguments):,} values is more than Redis takes at once: "
                "commit in several parts"
            )
        kind, *answer = self._wire.commit(COMMIT, keys, arguments)
        if kind == b"written":
            return _receipt(receipt, changes, answer[0])
        raise self._refusal(changes, kind, answer)

    def _arguments(self, change: Change) -> Iterator[Argument]:
        seen, create = change.seen, change.create
        yield change.id
        yield from ("", "") if seen is None else (seen.incarnation, seen.version)
        yield "" if change.after is None else change.after
        yield "1" if change.remove else ""
        yield "1" if change.edits else ""
        yield from ("1", create.last_position, create.created_at, create.updated_at) if create else ("", 0, "", "")
        yield from _pairs(self._fields(change))
        yield _expiry(change)
        yield change.remove_before
        yield from (len(change.remove_runs), *change.remove_runs)
        yield from _runs(change.replace_runs)
        yield "1" if change.gives_positions else ""
        yield from _runs(change.append)

    def _fields(self, change: Change) -> Mapping[str, Argument]:
        """Return the fields that the script sets as they are."""
        create, metadata = change.create, change.metadata
        if metadata is None:
            if create is None:
                return {}
            metadata = create.metadata
        record = ConversationRecord(change.id, metadata, 0, "", 0, 0, 0, 0, None)
        tokens = Tokens(self._namespace).of(entries(Conversation.from_record(record).metadata))
        fields: dict[str, Argument] = {"metadata": metadata, "entries": tokens}
        if create is not None:
            fields |= {"id": create.id, "namespace": self._namespace, "version": create.version + change.edits}
        return fields

    def _refusal(self, changes: ChangeSet, kind: bytes, answer: Sequence[Any]) -> PersistenceError:
        number, *rest = answer
        change = changes.changes[number - 1]
        if kind == b"missing":
            return missing_runs(change, int(rest[0]))
        key = self._keys.conversation(self._namespace, change.id)
        stored = records.conversation(self._keys, self._namespace, key, rest) if rest else None
        check_preconditions(change, stored)
        return CorruptRecordError(f"the hash at {key} was refused by the server although it fits the change")


def _pairs(fields: Mapping[str, Argument]) -> Iterator[Argument]:
    yield len(fields)
    for name, value in fields.items():
        yield name
        yield value


def _runs(runs: Sequence[RunRecord]) -> Iterator[Argument]:
    yield len(runs)
    for run in runs:
        yield run.position
        yield records.run_member(run)


def _expiry(change: Change) -> Argument:
    expires_at = change.expires_at
    if change.create is not None:  # which has no expiry to lose
        expires_at = change.expiry(change.create.expires_at)
        return "" if expires_at is None else expires_at
    return "" if expires_at is None else "never" if expires_at == NEVER else expires_at


def _receipt(key: str, changes: ChangeSet, text: bytes) -> Receipt:
    try:
        # What was written is acknowledged, even if somebody made the incarnation something that is no text.
        written = json.loads(text.decode(errors="replace"))
        return Receipt(
            changes.token, {change.id: _written(*one) for change, one in zip(changes.changes, written, strict=True)}
        )
    except (TypeError, ValueError, RecursionError) as error:  # somebody edited an earlier receipt
        raise records.corrupt(key, f"this is not a receipt ({error})") from error


def _written(version: str = "", incarnation: str = "", run_count: str = "", last_position: str = "") -> Written | None:
    return Written(int(version), incarnation, int(run_count), int(last_position)) if version else None
