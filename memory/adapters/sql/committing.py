"""The commit of a change set: what each change does to the tables, inside one transaction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from memory.adapters.sql import statements
from memory.adapters.sql.statements import Executor, record_of
from memory.domain.records import ConversationRecord, RunRecord, check_record, decode_metadata
from memory.domain.values import LARGEST, key_of
from memory.errors import CorruptRecordError
from memory.port.changes import (
    RECEIPTS_KEPT,
    Change,
    ChangeSet,
    Receipt,
    Written,
    assign_positions,
    check_preconditions,
    missing_open_run,
    missing_runs,
)
from memory.port.index import Entry, entries
from memory.port.outbox import dump, resolved

_FORGET_EVERY: Final = 1_000
"""One commit in so many, chosen by the hash of its token, deletes old receipts: short-lived processes do so too."""

_SHARDS: Final = 16
"""The rows that count a namespace's conversations. Keys rise by one, so concurrent creations update different rows."""


@dataclass(slots=True)
class Writer:
    """Writes change sets in one transaction. Rows of runs and of index entries are gathered and written together.

    If ``careful``, it reads before it creates a conversation.
    """

    executor: Executor
    namespace: str
    now: int
    careful: bool
    replicas: Sequence[str] = ()
    _run_rows: list[tuple[object, ...]] = field(default_factory=list)
    _entry_rows: list[tuple[object, ...]] = field(default_factory=list)
    _counts: Counter[int] = field(default_factory=Counter)

    def write(self, changes: ChangeSet) -> Receipt:
        """Write everything, and the receipt last. Its token is unique, so that a second commit of the same change set fails."""
        receipt = self._append_one(changes)
        if receipt is None:
            at = changes.at
            written = {change.id: self._append(change, at) or self._apply(change, at) for change in changes.changes}
            receipt = Receipt(changes.token, written)
            self._write_gathered()
            self.executor.execute_one_of(
                statements.ADD_RECEIPT,
                namespace=self.namespace,
                token=changes.token,
                receipt=receipt.dump(),
                now=self.now,
                longer=changes.receipt_kept - RECEIPTS_KEPT,
            )
        if self.replicas:
            self._add_outbox_entries(changes, receipt)
        if crc32(changes.token.encode()) % _FORGET_EVERY == 0:
            self.forget_receipts()
        return receipt

    def purge(self, limit: int) -> int:
        """Remove expired conversations, at most ``limit``; return how many."""
        expired = self.executor.execute(statements.EXPIRED, in_namespace=self.namespace, now=self.now, limit=limit)
        for (key,) in expired:
            self._remove(key)
        self._write_gathered()
        return len(expired)

    def forget_receipts(self) -> None:
        """Delete some of the receipts, in all namespaces, that are older than a day."""
        self.executor.execute_one_of(statements.FORGET_RECEIPTS, now=self.now)

    def _write_gathered(self) -> None:
        self.executor.execute_many(statements.ADD_RUN, self._run_rows)
        self.executor.execute_many(statements.ADD_ENTRY, self._entry_rows)
        if self._counts:
            # All conversations are locked by now, and these rows are locked in order: no deadlock is possible.
            counts = [(self.namespace, shard, count) for shard, count in sorted(self._counts.items()) if count]
            self.executor.execute_many(statements.ADD_COUNT, counts)

    def _add_outbox_entries(self, changes: ChangeSet, receipt: Receipt) -> None:
        """Write an entry for each replica. Numbers are assigned while all the conversations are locked, which orders them."""
        text = dump(resolved(changes, receipt))
        rows = [(replica, self.namespace, changes.at, text) for replica in self.replicas]
        self.executor.execute_many(statements.ADD_OUTBOX_ENTRY, rows)

    def _append_one(self, changes: ChangeSet) -> Receipt | None:
        """Append one run and write the receipt in one statement; None if the database or the change set does not allow it."""
        change = changes.changes[0] if len(changes.changes) == 1 else None
        if self.executor.dialect.name != "postgresql" or change is None:
            return None
        if not change.only_appends or len(change.append) > 1:
            return None
        run = {f"run_{name}": value for name, value in change.append[0]._asdict().items() if name != "position"}
        rows = self.executor.execute(
            statements.APPEND_ONE,
            **run,
            **self._appended(change, changes.at),
            full_id=change.id,
            with_token=changes.token,
            longer=changes.receipt_kept - RECEIPTS_KEPT,
        )
        return Receipt(changes.token, {change.id: _written(change, rows[0])}) if rows else None

    def _appended(self, change: Change, at: int) -> dict[str, object]:
        return {
            "in_namespace": self.namespace,
            "with_id": key_of(change.id),
            "now": self.now,
            "count": len(change.append),
            "at": at,
            "run_at": max([run.created_at for run in change.append]),
        }

    def _append(self, change: Change, at: int) -> Written | None:
        """Append by one update and one insert; None if the change does more, or if there is no conversation."""
        if not change.only_appends:
            return None
        rows = self.executor.execute(statements.APPEND, **self._appended(change, at))
        if not rows:
            return None
        written = _written(change, rows[0])
        self._add_runs(rows[0][0], assign_positions(change, written.last_position - len(change.append))[0])
        return written

    def _apply(self, change: Change, at: int) -> Written | None:
        """Lock one conversation, and apply all of a change to it."""
        if change.only_creates and change.create is not None and not self.careful:
            check_preconditions(change, None)
            return self._create(change, change.create, at)
        named = {"in_namespace": self.namespace, "with_id": key_of(change.id)}
        rows = self.executor.execute(statements.LOCK, **named)
        if not rows and change.create is None:
            # PostgreSQL: a statement that waited for a removed row does not see the row created in its place; the next one does.
            rows = self.executor.execute(statements.LOCK, **named)
        stored = record_of(rows[0]) if rows else None
        if stored is not None:
            check_record(stored)
        present = None if stored is None or stored.is_expired(self.now) else stored
        check_preconditions(change, present)
        if stored is not None and (change.remove or change.create):  # an expired one is replaced too
            self._remove(int(stored.incarnation))
        if change.create is not None:
            return self._create(change, change.create, at)
        if present is None or change.remove:
            return None
        return self._edit(change, present, at)

    def _create(self, change: Change, record: ConversationRecord, at: int) -> Written:
        runs, last_position = assign_positions(change, record.last_position)
        record = change.applied(record, len(runs), last_position, at)
        key_of_id = key_of(record.id)
        ids = {"id": key_of_id, "long_id": None if key_of_id == record.id else record.id}
        ((key,),) = self.executor.execute(statements.CREATE, **{**record._asdict(), **ids}, namespace=self.namespace)
        self._counts[key % _SHARDS] += 1
        self._add_runs(key, runs)
        self._add_entries(key, _entries_of(record))
        return Written(record.version, str(key), record.run_count, last_position)

    def _remove(self, key: int) -> None:
        for statement in (statements.REMOVE_ALL_RUNS, statements.REMOVE_ENTRIES, statements.REMOVE):
            self.executor.execute(statement, of=key)
        self._counts[key % _SHARDS] -= 1

    def _edit(self, change: Change, record: ConversationRecord, at: int) -> Written:
        key = int(record.incarnation)
        removed = self._edit_runs(change, key)
        self._complete(change, key)
        runs, last_position = assign_positions(change, record.last_position)
        self._add_runs(key, runs)
        after = change.applied(record, record.run_count - removed + len(runs), last_position, at)
        self.executor.execute(statements.UPDATE, of=key, **after._asdict())
        if change.metadata is not None:
            before, wanted = _entries_of(record), _entries_of(after)
            self.executor.execute_many(
                statements.REMOVE_ENTRY, [(key, entry.path, entry.key) for entry in before - wanted]
            )
            self._add_entries(key, wanted - before)
        return Written(after.version, after.incarnation, after.run_count, after.last_position)

    def _edit_runs(self, change: Change, key: int) -> int:
        removed = len(change.remove_runs)
        if change.remove_before:
            removed += len(self.executor.execute(statements.REMOVE_RUNS_BEFORE, of=key, before=change.remove_before))
        if change.remove_after is not None:
            removed += len(self.executor.execute(statements.REMOVE_RUNS_AFTER, of=key, after=change.remove_after))
        for position in change.remove_runs:
            if not self.executor.execute(statements.REMOVE_RUN, of=key, at=position):
                raise missing_runs(change, position)
        for run in change.replace_runs:
            if not self.executor.execute(statements.REPLACE_RUN, of=key, at=run.position, **run._asdict()):
                raise missing_runs(change, run.position)
        return removed

    def _complete(self, change: Change, key: int) -> None:
        for one in change.complete:
            values = {"output": one.output, "metadata": one.metadata, "is_open": one.is_open}
            if not self.executor.execute(statements.COMPLETE, of=key, with_id=one.run_id, **values):
                raise missing_open_run(change, one.run_id)

    def _add_runs(self, key: int, runs: tuple[RunRecord, ...]) -> None:
        self._run_rows += [(key, *run) for run in runs]

    def _add_entries(self, key: int, new: set[Entry]) -> None:
        self._entry_rows += [(key, path, value, self.namespace) for path, value in new]


def _written(change: Change, row: Sequence[Any]) -> Written:
    """Return what an append has written, from its row; raise `CorruptRecordError` if its numbers are impossible."""
    key, version, run_count, last_position = row
    if not (
        type(run_count) is type(last_position) is int and len(change.append) <= run_count <= last_position <= LARGEST
    ):
        raise CorruptRecordError(f"conversation {change.id!r} is stored with a damaged run_count or last_position")
    return Written(version, str(key), run_count, last_position)


def _entries_of(record: ConversationRecord) -> set[Entry]:
    return entries(decode_metadata(record.metadata, f"the metadata of conversation {record.id!r}"))
