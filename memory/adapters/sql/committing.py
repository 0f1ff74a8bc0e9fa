"""The commit of a change set: what each change does to the tables, inside one transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine.interfaces import DBAPICursor

from memory.adapters.sql.statements import Statements
from memory.domain.records import ConversationRecord, RunRecord, check_record, decode_metadata
from memory.domain.values import LARGEST
from memory.errors import CorruptRecordError
from memory.port.changes import (
    ALL_RUNS,
    Change,
    ChangeSet,
    Receipt,
    Written,
    assign_positions,
    check_preconditions,
    missing_runs,
)
from memory.port.index import Entry, entries
from memory.port.outbox import dump, resolved


class Writer:
    """Writes one change set on one cursor. Rows of runs and of index entries are gathered and written together."""

    def __init__(
        self,
        statements: Statements,
        cursor: DBAPICursor,
        namespace: str,
        now: int,
        *,
        careful: bool,
        replicas: Sequence[str] = (),
    ) -> None:
        self._statements = statements
        self._cursor = cursor
        self._namespace = namespace
        self._now = now
        self._careful = careful
        self._replicas = replicas
        self._run_rows: list[tuple[object, ...]] = []
        self._entry_rows: list[tuple[object, ...]] = []

    def write(self, changes: ChangeSet) -> Receipt:
        """Write everything, the receipt last: its token is what a second commit of the same change set stumbles over."""
        written = {
            change.id: self._append(change, changes.at) or self._apply(change, changes.at) for change in changes.changes
        }
        if self._run_rows:
            self._statements.execute_many(self._cursor, "add_run", self._run_rows)
        if self._entry_rows:
            self._statements.execute_many(self._cursor, "add_entry", self._entry_rows)
        receipt = Receipt(changes.token, written)
        self._execute("add_receipt", namespace=self._namespace, token=changes.token, receipt=receipt.dump())
        if self._replicas:
            self._add_outbox_entries(changes, receipt)
        return receipt

    def _add_outbox_entries(self, changes: ChangeSet, receipt: Receipt) -> None:
        """Write an entry for each replica. Numbers are assigned while all the conversations are locked, which orders them."""
        text = dump(resolved(changes, receipt))
        rows = [(replica, self._namespace, changes.at, text) for replica in self._replicas]
        self._statements.execute_many(self._cursor, "add_outbox_entry", rows)

    def _execute(self, name: str, **values: object) -> Any:
        return self._statements.execute(self._cursor, name, values)

    def _append(self, change: Change, at: int) -> Written | None:
        """Append in one update and one insert, where nothing else is wanted; None where that is not all, or did not go."""
        if not change.only_appends:
            return None
        size = len(change.append)
        row = self._execute(
            "append", namespace=self._namespace, id=change.id, now=self._now, count=size, at=at
        ).fetchone()
        if row is None:
            return None
        key, version, run_count, last_position = row
        if not (type(run_count) is type(last_position) is int and size <= run_count <= last_position <= LARGEST):
            raise CorruptRecordError(
                f"conversation {change.id!r} is stored but its run_count or last_position is damaged"
            )
        self._add_runs(key, assign_positions(change, last_position - size)[0])
        return Written(version, str(key), run_count, last_position)

    def _apply(self, change: Change, at: int) -> Written | None:
        """Do all that a change says to one conversation, after locking it."""
        if change.only_creates and change.create is not None and not self._careful:
            check_preconditions(change, None)
            return self._create(change, change.create)
        row = self._execute("lock", namespace=self._namespace, id=change.id).fetchone()
        if row is None and change.create is None:
            # PostgreSQL: a statement that waited for one that was removed does not see what was made in its place; the next does.
            row = self._execute("lock", namespace=self._namespace, id=change.id).fetchone()
        stored = None if row is None else record_of(row)
        if stored is not None:
            check_record(stored)
        present = None if stored is None or _is_expired(stored, self._now) else stored
        check_preconditions(change, present)
        if stored is not None and (change.remove or change.create):  # an expired one makes way too
            remove_conversation(self._statements, self._cursor, int(stored.incarnation))
        if change.create is not None:
            return self._create(change, change.create)
        if present is None or change.remove:
            return None
        return self._edit(change, present, at)

    def _create(self, change: Change, record: ConversationRecord) -> Written:
        runs, last_position = assign_positions(change, record.last_position)
        record = record._replace(run_count=len(runs), last_position=last_position)
        (key,) = self._execute("create", namespace=self._namespace, **record._asdict()).fetchone()
        self._add_runs(key, runs)
        self._add_entries(key, _entries(record))
        return Written(record.version, str(key), record.run_count, last_position)

    def _edit(self, change: Change, record: ConversationRecord, at: int) -> Written:
        key = int(record.incarnation)
        removed = self._edit_runs(change, key)
        runs, last_position = assign_positions(change, record.last_position)
        self._add_runs(key, runs)
        after = change.applied(record, record.run_count - removed + len(runs), last_position, at)
        self._execute("update", key=key, **after._asdict())
        if change.metadata is not None:
            before, wanted = _entries(record), _entries(after)
            for entry in before - wanted:
                self._execute("remove_entry", key=key, path=entry.path, value=entry.key)
            self._add_entries(key, wanted - before)
        return Written(after.version, after.incarnation, after.run_count, after.last_position)

    def _edit_runs(self, change: Change, key: int) -> int:
        """Remove and replace stored runs; return how many were removed."""
        removed = len(change.remove_runs)
        if change.remove_before:
            removed += self._execute("remove_runs_before", key=key, before=change.remove_before).rowcount
        for position in change.remove_runs:
            if not self._execute("remove_run", key=key, position=position).rowcount:
                raise missing_runs(change, position)
        for run in change.replace_runs:
            new = {f"new_{name}": value for name, value in run._asdict().items()}
            if not self._execute("replace_run", key=key, position=run.position, **new).rowcount:
                raise missing_runs(change, run.position)
        return removed

    def _add_runs(self, key: int, runs: tuple[RunRecord, ...]) -> None:
        self._run_rows += [(key, *run) for run in runs]

    def _add_entries(self, key: int, new: set[Entry]) -> None:
        self._entry_rows += [(key, path, value, self._namespace) for path, value in new]


def remove_conversation(statements: Statements, cursor: DBAPICursor, key: int) -> None:
    """Remove a conversation's rows from every table."""
    statements.execute(cursor, "remove_runs_before", {"key": key, "before": ALL_RUNS})
    for name in ("remove_entries", "remove"):
        statements.execute(cursor, name, {"key": key})


def _is_expired(record: ConversationRecord, now: int) -> bool:
    return record.expires_at is not None and record.expires_at <= now


def record_of(row: Sequence[Any]) -> ConversationRecord:
    """Return the record that a row of `RECORD_COLUMNS` is."""
    record = ConversationRecord(*row)
    return record._replace(incarnation=str(record.incarnation))


def _entries(record: ConversationRecord) -> set[Entry]:
    return entries(decode_metadata(record.metadata, f"the metadata of conversation {record.id!r}"))
