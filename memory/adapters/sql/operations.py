"""What a SQL store reads and commits, on whatever connection: its own, or the application's."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Final, TypeVar

from sqlalchemy import URL, Connection, Dialect
from sqlalchemy.engine.interfaces import DBAPICursor

from memory.adapters.sql.committing import Writer, record_of, remove_conversation
from memory.adapters.sql.connections import with_cursor
from memory.adapters.sql.errors import TakenError
from memory.adapters.sql.searching import Search, fitting
from memory.adapters.sql.statements import SchemaMap, Statements
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.errors import AlreadyExistsError, ConflictError, CorruptRecordError, InvalidValueError, NotFoundError
from memory.port.changes import ALL_RUNS, ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import limited
from memory.port.index import plan
from memory.port.paging import Page, Place, Query
from memory.port.repository import Capabilities, Repository, RunsRead, Window
from memory.port.searching import collect, count_pages

T = TypeVar("T")

_ATTEMPTS: Final = 3  # at a commit: a key may be taken at the same moment
_RECEIPTS_KEPT: Final = 24 * 3600 * 1000  # milliseconds, at least: as long as a lost answer may be asked for again
_PURGED_AT_ONCE: Final = 500


class SqlCommits(Repository):
    """Reads and commits, on connections that a subclass provides."""

    capabilities: ClassVar[Capabilities] = Capabilities(joins=True)
    replicas: Sequence[str] = ()
    """The replicas for which each commit writes an outbox entry."""

    def __init__(self, dialect: Dialect, schemas: SchemaMap | None) -> None:
        self._statements = Statements.of(dialect, schemas)

    @property
    @abstractmethod
    def url(self) -> URL:
        """The URL of the database."""

    @abstractmethod
    def _read(self, work: Callable[[Connection], T]) -> T:
        """Do something that only reads, on a connection."""

    @abstractmethod
    def _write(self, work: Callable[[DBAPICursor], T]) -> T:
        """Do something in a transaction (or a savepoint) of its own, written when this returns."""

    def _look(self, work: Callable[[DBAPICursor], T]) -> T:
        """Do something that only reads, with statements of `Statements`."""
        return self._read(lambda connection: with_cursor(connection.connection, work))

    def _fetch(self, name: str, values: Mapping[str, object]) -> Any:
        """Return the first row that a statement finds."""
        return self._look(lambda cursor: self._statements.execute(cursor, name, values).fetchone())

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        values = {"namespace": namespace, "id": conversation_id, "now": self.clock()}
        row = self._fetch("get", values)
        return None if row is None else Conversation.from_record(record_of(row))

    @limited
    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        planned, exact = fitting(*plan(query.criterion))

        def fetch(after: Place | None, limit: int) -> Sequence[ConversationRecord]:
            rows = self._read(
                lambda connection: Search(connection, namespace, planned, self.clock()).page(query.order, after, limit)
            )
            return [record_of(row) for row in rows]

        return collect(query, fetch, exact=exact)

    @limited
    def count(self, namespace: str, criterion: Criterion) -> int:
        planned, exact = fitting(*plan(criterion))
        if exact:
            return self._read(lambda connection: Search(connection, namespace, planned, self.clock()).count())
        return count_pages(lambda query: self.find(namespace, query), criterion)

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        values = {
            "namespace": namespace,
            "id": conversation_id,
            "now": self.clock(),
            "after": window.after,
            "before": ALL_RUNS if window.before is None else window.before,
            "limit": ALL_RUNS if window.limit is None else window.limit,
        }
        name = "last_runs" if window.from_end else "first_runs"

        rows = self._look(lambda cursor: self._statements.execute(cursor, name, values).fetchall())
        if not rows:
            return RunsRead(None, ())
        key, version, last_position = rows[0][:3]
        if not type(version) is type(last_position) is int:
            raise CorruptRecordError(
                f"conversation {conversation_id!r} is stored but its version or last position is not"
            )
        read = [Run.from_record(conversation_id, RunRecord(*row[3:])) for row in rows if row[3] is not None]
        read.sort(key=attrgetter("position"))  # the order of a joined window is not promised
        return RunsRead(ExpectedVersion(str(key), version), tuple(read), last_position)

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        # At first a new conversation is inserted without looking; whatever stands in its way is looked at then.
        for attempt in range(_ATTEMPTS - 1):
            try:
                return self._commit_once(namespace, changes, careful=attempt > 0)
            except TakenError:
                continue
        try:
            return self._commit_once(namespace, changes, careful=True)
        except TakenError as error:
            if any(change.create for change in changes.changes):
                raise
            ids = [change.id for change in changes.changes]
            raise CorruptRecordError(
                f"{self}: of conversations {ids}, one has a run beyond its last position, or an index entry of another metadata"
            ) from error

    def _commit_once(self, namespace: str, changes: ChangeSet, *, careful: bool) -> Receipt:
        try:
            return self._write(lambda cursor: self._writer(cursor, namespace, careful=careful).write(changes))
        except (ConflictError, NotFoundError, AlreadyExistsError, InvalidValueError):
            # Refused, perhaps because it is written already: that costs a look only here, and nothing where all goes well.
            if (written := self._receipt(namespace, changes.token)) is not None:
                return written
            raise

    def _receipt(self, namespace: str, token: str) -> Receipt | None:
        row = self._fetch("receipt", {"namespace": namespace, "token": token})
        return None if row is None else Receipt.load(token, row[0])

    def _writer(self, cursor: DBAPICursor, namespace: str, *, careful: bool) -> Writer:
        return Writer(self._statements, cursor, namespace, self.clock(), careful=careful, replicas=self.replicas)

    @limited
    def namespaces(self) -> set[str]:
        return {
            name for (name,) in self._look(lambda cursor: self._statements.execute(cursor, "namespaces", {}).fetchall())
        }

    def purge_expired(self, namespace: str) -> int:
        purged = 0
        while removed := self._write(lambda cursor: self._purge_some(cursor, namespace)):
            purged += removed
        return purged

    @limited
    def _purge_some(self, cursor: DBAPICursor, namespace: str) -> int:
        values = {"namespace": namespace, "now": self.clock(), "limit": _PURGED_AT_ONCE}
        expired = self._statements.execute(cursor, "expired", values).fetchall()
        for (key,) in expired:
            remove_conversation(self._statements, cursor, key)
        self._forget_receipts(cursor, namespace)
        return len(expired)

    def _forget_receipts(self, cursor: DBAPICursor, namespace: str) -> None:
        oldest = (
            f"{self.clock() // 1000 - _RECEIPTS_KEPT:012x}"  # a token begins with its time: memory.domain.values.new_id
        )
        self._statements.execute(cursor, "forget_receipts", {"namespace": namespace, "token": oldest})
