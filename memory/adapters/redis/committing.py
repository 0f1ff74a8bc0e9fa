"""The commit of a change set: builds the arguments of `commit.lua`, and converts its reply to a receipt or an error.

Each text is a separate argument: inside the JSON it would need escaping, which doubles the cost for client and server
(docs/decisions/0010-one-script-a-commit.md).
"""

import json
from typing import Any, Final

from memory.adapters.redis import records
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.tokens import Tokens
from memory.adapters.redis.wire import Argument, Script, Wire
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import key_of
from memory.errors import CorruptRecordError, UnsupportedError
from memory.port.changes import (
    NEVER,
    Change,
    ChangeSet,
    Receipt,
    check_preconditions,
    missing_open_run,
    missing_runs,
)
from memory.port.index import entries

COMMIT: Final = Script("shared", "commit")
APPEND: Final = Script("append")

_MOST_ARGUMENTS: Final = 1_000_000  # Redis's limit is 1,048,576
_ARGUMENTS_BEFORE_TEXTS: Final = 5
_MAY_BE_ZERO: Final = (
    "after",
    "remove_after",
)  # all other fields of a change are left out if they are 0, false or empty


class Writer:
    """Writes change sets."""

    def __init__(self, wire: Wire, keys: Keys) -> None:
        self._wire, self._keys = wire, keys

    def write(self, namespace: str, changes: ChangeSet, now: int) -> Receipt:
        """Write the whole change set in one round trip, or raise an error."""
        receipt, repeated = None, False
        match changes.changes:
            case (Change(append=(run,)) as change,) if change.only_appends and not run.is_open:
                receipt = self._append(namespace, changes, change.id, run, now)
        if receipt is None:
            receipt, repeated = self._commit(namespace, changes, now)
        # The commit succeeded, so a receipt is returned even if an edited incarnation is not valid UTF-8.
        return Receipt.load(changes.token, receipt.decode(errors="replace"), repeated=repeated)

    def _append(
        self, namespace: str, changes: ChangeSet, conversation_id: str, run: RunRecord, now: int
    ) -> bytes | None:
        """Fast path: append one finished run and return the receipt. Return None if the change needs `commit.lua`."""
        keys = (
            self._keys.receipt(namespace, changes.token),
            self._keys.conversation(namespace, conversation_id),
            self._keys.runs(namespace, conversation_id),
            *[self._keys.order(namespace, field) for field in ("updated_at", "last_run_at", "expires_at")],
        )
        ids = dict.fromkeys((conversation_id, key_of(conversation_id)))  # one, unless they differ
        kept = changes.receipt_kept // 1000
        arguments: list[Argument] = [now, changes.at, kept, records.run_member(run), *ids]
        written: bytes | None = self._wire.commit(APPEND, keys, arguments)
        return written

    def _commit(self, namespace: str, changes: ChangeSet, now: int) -> tuple[bytes, bool]:
        """Return the receipt, and whether the token was written before."""
        keys = [self._keys.receipt(namespace, changes.token), self._keys.namespaces, *self._keys.sorted_sets(namespace)]
        for change in changes.changes:
            keys += [self._keys.conversation(namespace, change.id), self._keys.runs(namespace, change.id)]
        texts: list[str] = []
        plans = [_change(namespace, changes, change, texts) for change in changes.changes]
        kept = changes.receipt_kept // 1000
        arguments: list[Argument] = [now, changes.at, kept, namespace, json.dumps(plans), *texts]
        if len(arguments) + len(keys) > _MOST_ARGUMENTS:
            raise UnsupportedError(
                f"a commit of {len(changes.changes):,} changes and {len(arguments):,} values exceeds the limit of one "
                "Redis command: commit it in several parts"
            )
        kind, *answer = self._wire.commit(COMMIT, keys, arguments)
        if kind in (b"written", b"repeated"):
            return answer[0], kind == b"repeated"
        number, *rest = answer
        change = changes.changes[number - 1]
        if kind == b"missing":
            raise missing_runs(change, int(rest[0]))
        if kind == b"not open":
            raise missing_open_run(change, change.complete[rest[0] - 1].run_id)
        key = self._keys.conversation(namespace, change.id)
        check_preconditions(change, records.conversation(self._keys, namespace, key, rest) if rest else None)
        raise CorruptRecordError(f"the script refused the hash at {key}, although it satisfies the preconditions")


def _digits(time: int | None) -> str | None:
    """Return a time, or `NEVER`, as `commit.lua` reads it: a string, because Lua's numbers have 53 bits."""
    return None if time is None else "never" if time == NEVER else f"{time}"


def _change(namespace: str, changes: ChangeSet, change: Change, texts: list[str]) -> dict[str, Any]:
    """Return a change in the form that `commit.lua` reads. Texts are appended to the list and referenced by index in ARGV."""

    def add(text: str) -> int:
        texts.append(text)
        return _ARGUMENTS_BEFORE_TEXTS + len(texts)

    create, run_times = change.create, [run.created_at for run in (*change.append, *change.replace_runs)]
    expires_at, expires_after, metadata = change.expires_at, change.expires_after, change.metadata
    if create is not None:
        new = change.applied(create, 0, 0, changes.at)
        expires_at, expires_after, metadata = new.expires_at, new.expires_after, new.metadata
        run_times = [new.last_run_at]
    key_of_id = key_of(change.id)
    plan: dict[str, Any] = {
        "id": change.id,
        "key_of_id": None if key_of_id == change.id else key_of_id,
        "expected": change.expected,
        "after": change.after,
        "remove": change.remove,
        "edits": change.edits,
        "expires_at": _digits(expires_at),
        "expires_after": _digits(expires_after),
        "slides": bool(change.append or change.complete or change.expires_after),
        "ran_at": f"{max(run_times)}" if run_times else None,
        "opens": any(run.is_open for run in (*change.append, *change.replace_runs)),
        "remove_before": change.remove_before,
        "remove_after": change.remove_after,
        "edited_runs": [[position] for position in change.remove_runs],
        "complete": [
            [one.run_id, add(one.output), 0 if one.metadata is None else add(one.metadata), one.is_open]
            for one in change.complete
        ],
        "append": [[run.position, add(records.run_member(run))] for run in change.append],
        "set": {},
    }
    plan["edited_runs"] += [[run.position, add(records.run_member(run))] for run in change.replace_runs]
    if create is not None:
        plan["create"] = {
            "version": create.version + change.edits,
            "incarnation": changes.token,
            "last": create.last_position,
            "created_at": f"{create.created_at}",
            "updated_at": f"{create.updated_at}",
        }
        plan["set"] |= {"id": add(create.id), "namespace": add(namespace)}
    if metadata is not None:
        record = ConversationRecord(change.id, metadata, 0, "", 0, 0, 0, 0, None)
        tokens = Tokens(namespace).of(entries(Conversation.from_record(record).metadata))
        plan["set"] |= {"metadata": add(metadata), "entries": add(tokens)}
    return {name: value for name, value in plan.items() if value or (value == 0 and name in _MAY_BE_ZERO)}
