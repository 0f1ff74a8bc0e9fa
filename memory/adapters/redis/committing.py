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
from memory.errors import CorruptRecordError, UnsupportedError
from memory.port.changes import NEVER, Change, ChangeSet, Receipt, check_preconditions, missing_runs
from memory.port.index import entries

COMMIT: Final = Script("shared", "commit")
APPEND: Final = Script("append")

RECEIPT_KEPT: Final = 25 * 3600 * 1000
"""The lifetime of a receipt in milliseconds. Redis expires receipts by the server's clock, so no purge is needed."""

_MOST_ARGUMENTS: Final = 1_000_000  # Redis's limit is 1,048,576
_ARGUMENTS_BEFORE_TEXTS: Final = 5


class Writer:
    """Writes change sets."""

    def __init__(self, wire: Wire, keys: Keys) -> None:
        self._wire, self._keys = wire, keys

    def write(self, namespace: str, changes: ChangeSet, now: int) -> Receipt:
        """Write the whole change set in one round trip, or raise an error."""
        receipt = None
        match changes.changes:
            case (Change(append=(run,)) as change,) if change.only_appends:
                receipt = self._append(namespace, changes, change.id, run)
        if receipt is None:
            receipt = self._commit(namespace, changes, now)
        # The commit succeeded, so a receipt is returned even if an edited incarnation is not valid UTF-8.
        return Receipt.load(changes.token, receipt.decode(errors="replace"))

    def _append(self, namespace: str, changes: ChangeSet, conversation_id: str, run: RunRecord) -> bytes | None:
        """Fast path: append one run and return the receipt. Return None if the change needs `commit.lua`."""
        keys = (
            self._keys.receipt(namespace, changes.token),
            self._keys.conversation(namespace, conversation_id),
            self._keys.runs(namespace, conversation_id),
            self._keys.order(namespace, "updated_at"),
        )
        arguments = (changes.at, RECEIPT_KEPT, conversation_id, records.run_member(run))
        written: bytes | None = self._wire.commit(APPEND, keys, arguments)
        return written

    def _commit(self, namespace: str, changes: ChangeSet, now: int) -> bytes:
        keys = [self._keys.receipt(namespace, changes.token), self._keys.namespaces, *self._keys.orders(namespace)]
        for change in changes.changes:
            keys += [self._keys.conversation(namespace, change.id), self._keys.runs(namespace, change.id)]
        texts: list[str] = []
        plans = [_change(namespace, changes.token, change, texts) for change in changes.changes]
        arguments: list[Argument] = [now, changes.at, RECEIPT_KEPT, namespace, json.dumps(plans), *texts]
        if len(arguments) + len(keys) > _MOST_ARGUMENTS:
            raise UnsupportedError(
                f"a commit of {len(changes.changes):,} changes and {len(arguments):,} values exceeds the limit of one "
                "Redis command: commit it in several parts"
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
        raise CorruptRecordError(f"the script refused the hash at {key}, although it satisfies the preconditions")


def _change(namespace: str, token: str, change: Change, texts: list[str]) -> dict[str, Any]:
    """Return a change in the form that `commit.lua` reads. Texts are appended to the list and referenced by index in ARGV.

    Times are strings, because Lua's numbers have 53 bits.
    """

    def add(text: str) -> int:
        texts.append(text)
        return _ARGUMENTS_BEFORE_TEXTS + len(texts)

    create = change.create
    expires_at = change.expires_at if create is None else change.expiry(create.expires_at)
    metadata = create.metadata if create is not None and change.metadata is None else change.metadata
    plan: dict[str, Any] = {
        "id": change.id,
        "expected": change.expected,
        "after": change.after,
        "remove": change.remove,
        "edits": change.edits,
        "expires_at": None if expires_at is None else "never" if expires_at == NEVER else f"{expires_at}",
        "remove_before": change.remove_before,
        "edited_runs": [[position] for position in change.remove_runs],
        "append": [[run.position, add(records.run_member(run))] for run in change.append],
        "set": {},
    }
    plan["edited_runs"] += [[run.position, add(records.run_member(run))] for run in change.replace_runs]
    if create is not None:
        plan["create"] = {
            "version": create.version + change.edits,
            "incarnation": token,
            "last": create.last_position,
            "created_at": f"{create.created_at}",
            "updated_at": f"{create.updated_at}",
        }
        plan["set"] |= {"id": add(create.id), "namespace": add(namespace)}
    if metadata is not None:
        record = ConversationRecord(change.id, metadata, 0, "", 0, 0, 0, 0, None)
        tokens = Tokens(namespace).of(entries(Conversation.from_record(record).metadata))
        plan["set"] |= {"metadata": add(metadata), "entries": add(tokens)}
    return {name: value for name, value in plan.items() if value is not None}
