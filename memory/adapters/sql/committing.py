"""The commit of a change set: what each change does to the tables, inside one transaction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from sqlalchemy.engine.interfaces import DBAPICursor

from memory.adapters.sql.statements import Statements, record_of
from memory.domain.records import ConversationRecord, RunRecord, check_record, decode_metadata
from memory.domain.values import LARGEST
from memory.errors import CorruptRecordError
from memory.port.changes import Change, ChangeSet, Receipt, Written, assign_positions, check_preconditions, missing_runs
from memory.port.index import Entry, entries
from memory.port.outbox import dump, resolved

_FORGET_EVERY: Final = 1_000
"""One commit in so many, chosen by the hash of its token, deletes old receipts: short-lived processes do so too."""

_SHARDS: Final = 16
"""The rows that count a namespace's conversations. Keys rise by one, so concurrent creations update different rows."""


@dataclass(slots=True)
class Writer:
    """Writes change sets on one connection. Rows of runs and of index entries are gathered and written together.

    ``cursor`` runs the statements whose result is read at once, ``unread`` all others: in a pipeline, a result may arrive when
    its cursor already runs another statement. If ``careful``, it looks before it creates a conversation.
    """

    statements: Statements
    cursor: DBAPICursor
    unread: DBAPICursor
    namespace: str
    now: int
    careful: bool
    replicas: Sequence[str] = ()
    _run_rows: list[tuple[object, ...]] = field(default_factory=list)
    _entry_rows: list[tuple[object, ...]] = field(default_factory=list)
    _counts: Counter[int] = field(default_factory=Counter)

    def write(self, changes: ChangeSet) -> Receipt:
        """Write everything, the receipt last: its token is what a second commit of the same change set stumbles over."""
        at = changes.at
        written = {change.id: self._append(change, at) or self._apply(change, at) for change in changes.changes}
        receipt = Receipt(changes.token, written)
        self._send_many("add_run", self._run_rows)
        self._send_many("add_entry", self._entry_rows)
        self._write_counts()
        self._send("add_receipt", namespace=self.namespace, token=changes.token, receipt=receipt.dump(), now=self.now)
        if self.replicas:
            self._add_outbox_entries(changes, receipt)
        if crc32(changes.token.encode()) % _FORGET_EVERY == 0:
            self.forget_receipts()
        return receipt

    def purge(self, limit: int) -> int:
        """Remove expired conversations, at most ``limit``; return how many."""
        expired = self._execute("expired", namespace=self.namespace, now=self.now, limit=limit).fetchall()
        for (key,) in expired:
            self._remove(key)
        self._write_counts()
        return len(expired)

    def forget_receipts(self) -> None:
        """Delete some of the receipts, in all namespaces, that are older than a day."""
        self._send("forget_receipts", now=self.now)

    def _write_counts(self) -> None:
        """Update the counts. All conversations are locked by now, and the rows are locked in order: no deadlock is possible."""
        if not self._counts:
            return
        rows = [(self.namespace, shard, count) for shard, count in sorted(self._counts.items()) if count]
        self._send_many("count", rows)

    def _add_outbox_entries(self, changes: ChangeSet, receipt: Receipt) -> None:
        """Write an entry for each replica. Numbers are assigned while all the conversations are locked, which orders them."""
        text = dump(resolved(changes, receipt))
        rows = [(replica, self.namespace, changes.at, text) for replica in self.replicas]
        self._send_many("add_outbox_entry", rows)

    def _execute(self, name: str, **values: object) -> Any:
        return self.statements.execute(self.cursor, name, values)

    def _send(self, name: str, **values: object) -> None:
        self.statements.execute(self.unread, name, values)

    def _send_many(self, name: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            self.statements.execute_many(self.unread, name, rows)

    def _append(self, change: Change, at: int) -> Written | None:
        """Append in one update and one insert, where nothing else is wanted; None where that is not all, or did not go."""
        if not change.only_appends:
            return None
        size = len(change.append)
        row = self._execute(
            "append", namespace=self.namespace, id=change.id, now=self.now, count=size, at=at
        ).fetchone()
        if row is None:
            return None
        key, version, run_count, last_position = row
        if not (type(run_count) is type(last_position) is int and size <= run_count <= last_position <= LARGEST):
            raise CorruptRecordError(f"conversation {change.id!r} is stored with a damaged run_count or last_position")
        self._add_runs(key, assign_positions(change, last_position - size)[0])
        return Written(version, str(key), run_count, last_position)

    def _apply(self, change: Change, at: int) -> Written | None:
        """Do all that a change says to one conversation, after locking it."""
        if change.only_creates and change.create is not None and not self.careful:
            check_preconditions(change, None)
            return self._create(change, change.create)
        row = self._execute("lock", namespace=self.namespace, id=change.id).fetchone()
        if row is None and change.create is None:
            # PostgreSQL: a statement that waited for one that was removed does not see what was made in its place; the next does.
            row = self._execute("lock", namespace=self.namespace, id=change.id).fetchone()
        stored = None if row is None else record_of(row)
        if stored is not None:
            check_record(stored)
        present = None if stored is None or stored.is_expired(self.now) else stored
        check_preconditions(change, present)
        if stored is not None and (change.remove or change.create):  # an expired one makes way too
            self._remove(int(stored.incarnation))
        if change.create is not None:
            return self._create(change, change.create)
        if present is None or change.remove:
            return None
        return self._edit(change, present, at)

    def _create(self, change: Change, record: ConversationRecord) -> Written:
        runs, last_position = assign_positions(change, record.last_position)
        record = record._replace(run_count=len(runs), last_position=last_position)
        (key,) = self._execute("create", namespace=self.namespace, **record._asdict()).fetchone()
        self._counts[key % _SHARDS] += 1
        self._add_runs(key, runs)
        self._add_entries(key, _entries(record))
        return Written(record.version, str(key), record.run_count, last_position)

    def _remove(self, key: int) -> None:
        for name in ("clear_runs", "remove_entries", "remove"):
            self._send(name, key=key)
        self._counts[key % _SHARDS] -= 1

    def _edit(self, change: Change, record: ConversationRecord, at: int) -> Written:
        key = int(record.incarnation)
        removed = self._edit_runs(change, key)
        runs, last_position = assign_positions(change, record.last_position)
        self._add_runs(key, runs)
        after = change.applied(record, record.run_count - removed + len(runs), last_position, at)
        self._send("update", key=key, **after._asdict())
        if change.metadata is not None:
            before, wanted = _entries(record), _entries(after)
            for entry in before - wanted:
                self._send("remove_entry", key=key, path=entry.path, value=entry.key)
            self._add_entries(key, wanted - before)
        return Written(after.version, after.incarnation, after.run_count, after.last_position)

    def _edit_runs(self, change: Change, key: int) -> int:
        removed = len(change.remove_runs)
        if change.remove_before:
            removed += len(self._execute("remove_runs_before", key=key, before=change.remove_before).fetchall())
        for position in change.remove_runs:
            if not self._execute("remove_run", key=key, position=position).fetchall():
                raise missing_runs(change, position)
        for run in change.replace_runs:
            new = {f"new_{name}": value for name, value in run._asdict().items()}
            if not self._execute("replace_run", key=key, position=run.position, **new).fetchall():
                raise missing_runs(change, run.position)
        return removed

    def _add_runs(self, key: int, runs: tuple[RunRecord, ...]) -> None:
        self._run_rows += [(key, *run) for run in runs]

    def _add_entries(self, key: int, new: set[Entry]) -> None:
        self._entry_rows += [(key, path, value, self.namespace) for path, value in new]


def _entries(record: ConversationRecord) -> set[Entry]:
    return entries(decode_metadata(record.metadata, f"the metadata of conversation {record.id!r}"))
