"""The commit of a change set: its arguments for `commit.lua`, and what that answered.

Texts go as they are, each an argument of its own: one JSON argument costs both sides twice as much, and needs escaping
(docs/decisions/0010-one-script-a-commit.md).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from memory.adapters.redis import records
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.searching import encoded
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
"""Milliseconds; a lost answer may be asked for again for a day."""

GRACE: Final = 10 * 60 * 1000
"""Milliseconds that Redis keeps a conversation that is expired by its own clock and by that of the client that set it."""

_MOST_ARGUMENTS: Final = 1_000_000  # Redis takes 1,048,576


class Writer:
    """Writes change sets in one namespace."""

    def __init__(self, wire: Wire, keys: Keys, namespace: str, now: int) -> None:
        self._wire, self._keys, self._namespace, self._now = wire, keys, namespace, now

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self._keys.prefix, self._namespace)

    def write(self, changes: ChangeSet) -> Receipt:
        """Write everything in one round trip, or find out why nothing could be."""
        if len(changes.changes) == 1:
            (change,) = changes.changes
            if len(change.append) == 1 and change.only_appends and (receipt := self._append(changes, change)):
                return receipt
        return self._commit(changes)

    def _append(self, changes: ChangeSet, change: Change) -> Receipt | None:
        """Append one run; None where that is not all that is to be done."""
        (run,) = change.append
        keys = [
            self._keys.receipt(self._namespace, changes.token),
            self._keys.conversation(self._namespace, change.id),
            self._keys.positions(self._namespace, change.id),
        ]
        runs = self._keys.runs(self._namespace, change.id)
        answer = self._wire.commit(APPEND, keys, (changes.at, runs, RECEIPT_KEPT, *run[1:]))
        return None if answer is None else _receipt(keys[0], changes, answer)

    def _commit(self, changes: ChangeSet) -> Receipt:
        keys = [self._keys.receipt(self._namespace, changes.token)]
        arguments: list[Argument] = [self._now, changes.at, changes.token, RECEIPT_KEPT, GRACE]
        for change in changes.changes:
            keys.append(self._keys.conversation(self._namespace, change.id))
            keys.append(self._keys.positions(self._namespace, change.id))
            arguments += self._arguments(change)
        if len(arguments) + len(keys) > _MOST_ARGUMENTS:
            raise UnsupportedError(
                f"a commit of {len(changes.changes):,} changes and {len(arguments):,} values is more than Redis takes at once: "
                "commit in several parts"
            )
        kind, *answer = self._wire.commit(COMMIT, keys, arguments)
        if kind == b"written":
            return _receipt(keys[0], changes, answer[0])
        raise self._refusal(changes, kind, answer)

    def _arguments(self, change: Change) -> Iterator[Argument]:
        seen = change.seen
        yield self._keys.runs(self._namespace, change.id)
        yield from ("", "") if seen is None else (seen.incarnation, seen.version)
        yield "" if change.after is None else change.after
        yield "1" if change.remove else ""
        yield "1" if change.edits else ""
        yield from _pairs(self._created(change, change.create) if change.create else {})
        yield change.create.last_position if change.create else 0
        yield from _pairs(self._set(change) if change.metadata is not None and not change.create else {})
        yield _expiry(change)
        yield change.remove_before
        yield from (len(change.remove_runs), *change.remove_runs)
        yield from _runs(change.replace_runs)
        yield "1" if change.gives_positions else ""
        yield from _runs(change.append)

    def _created(self, change: Change, record: ConversationRecord) -> Mapping[str, Argument]:
        """Return the hash of a new conversation, but for what the script adds: see there."""
        if change.metadata is not None:
            record = record._replace(metadata=change.metadata)
        return {
            "id": record.id,
            "metadata": record.metadata,
            "version": record.version + change.edits,
            "created_at": record.created_at,
            "updated_at": record.updated_at,
            **encoded(self._tokens, record, self._entries(record)),
        }

    def _set(self, change: Change) -> Mapping[str, Argument]:
        """Return the fields that new metadata changes."""
        metadata = change.metadata or ""
        record = ConversationRecord(change.id, metadata, 0, "", 0, 0, 0, 0, None)
        return {"metadata": metadata, "entries": self._entries(record)}

    def _entries(self, record: ConversationRecord) -> str:
        return self._tokens.of(entries(Conversation.from_record(record).metadata))

    def _refusal(self, changes: ChangeSet, kind: bytes, answer: Sequence[Any]) -> PersistenceError:
        number, *rest = answer
        change = changes.changes[number - 1]
        if kind == b"missing":
            return missing_runs(change, int(rest[0]))
        key = self._keys.conversation(self._namespace, change.id)
        check_preconditions(change, records.conversation_record(key, rest) if rest else None)
        return CorruptRecordError(f"the hash at {key} does not fit the change, though what it says does")


def _pairs(fields: Mapping[str, Argument]) -> Iterator[Argument]:
    yield len(fields)
    for name, value in fields.items():
        yield name
        yield value


def _runs(runs: Sequence[RunRecord]) -> Iterable[Argument]:
    return [len(runs), *[value for run in runs for value in run]]


def _expiry(change: Change) -> Argument:
    if change.expires_at is None and change.create is None:
        return ""
    expires_at = change.expiry(change.create.expires_at if change.create else None)
    return "never" if expires_at is None or expires_at == NEVER else expires_at


def _receipt(key: str, changes: ChangeSet, text: bytes) -> Receipt:
    try:
        # What was written is acknowledged, also where somebody made the incarnation something that is no text.
        written = json.loads(text.decode(errors="replace"))
        return Receipt(
            changes.token, {change.id: _written(*one) for change, one in zip(changes.changes, written, strict=True)}
        )
    except (TypeError, ValueError, RecursionError) as error:  # it was there before, and somebody edited it
        raise records.corrupt(key, f"it is no receipt ({error})") from error


def _written(version: str = "", incarnation: str = "", run_count: str = "", last_position: str = "") -> Written | None:
    return Written(int(version), incarnation, int(run_count), int(last_position)) if version else None
