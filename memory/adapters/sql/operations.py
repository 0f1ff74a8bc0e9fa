"""The reads and commits of a SQL store, on its own connection or the application's."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, ClassVar, Final, TypeVar

from sqlalchemy import ClauseElement, Connection

from memory.adapters.sql import statements
from memory.adapters.sql.committing import Writer
from memory.adapters.sql.errors import TakenError
from memory.adapters.sql.searching import SqlSearch
from memory.adapters.sql.statements import Executor, record_of
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.errors import AlreadyExistsError, ConflictError, CorruptRecordError, InvalidValueError, NotFoundError
from memory.port.changes import ALL_RUNS, ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import limited
from memory.port.repository import Capabilities, Repository, RunsRead, Window

T = TypeVar("T")

_position: Final = attrgetter("position")
_PURGED_AT_ONCE: Final = 500


class SqlCommits(Repository):
    """Reads and commits on a connection that a subclass provides."""

    capabilities: ClassVar[Capabilities] = Capabilities(joins=True)
    replicas: Sequence[str] = ()
    """The replicas for which each commit writes an outbox entry."""

    @abstractmethod
    def _read(self, work: Callable[[Connection], T]) -> T:
        """Call a function that only reads with a connection."""

    @abstractmethod
    def _write(self, work: Callable[[Connection], T]) -> T:
        """Call a function with a connection, in its own transaction or savepoint, which is committed when this returns."""

    def _fetch(self, statement: ClauseElement, **values: object) -> Sequence[Any]:
        return self._read(lambda connection: Executor(connection).execute(statement, **values))

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        rows = self._fetch(statements.GET, in_namespace=namespace, with_id=conversation_id, now=self.clock())
        return Conversation.from_record(record_of(rows[0])) if rows else None

    @contextmanager
    def searching(self, namespace: str, criterion: Criterion) -> Iterator[SqlSearch]:
        yield SqlSearch(self._read, namespace, criterion, self.clock())

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        rows = self._fetch(
            statements.LAST_RUNS if window.from_end else statements.FIRST_RUNS,
            in_namespace=namespace,
            with_id=conversation_id,
            now=self.clock(),
            after=window.after,
            before=ALL_RUNS if window.before is None else window.before,
            limit=ALL_RUNS if window.limit is None else window.limit,
        )
        if not rows:
            return RunsRead(None, ())
        ((key, *_, last_position, version),) = [row for row in rows if row[1] is None]
        if not (type(version) is int and type(last_position) is str and last_position.isdecimal()):
            raise CorruptRecordError(f"conversation {conversation_id!r} is stored without a version or last position")
        read = [Run.from_record(conversation_id, row) for row in rows if row[1] is not None]
        read.sort(key=_position)  # the order of rows in a union is not promised
        return RunsRead(ExpectedVersion(str(key), version), tuple(read), int(last_position))

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        # The first attempt inserts a new conversation without reading; if the key is taken, the next attempt reads it. Another
        # commit may take the key after that, hence the third attempt.
        for careful in (False, True):
            try:
                return self._commit_once(namespace, changes, careful=careful)
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
            return self._write(lambda connection: self._writer(connection, namespace, careful=careful).write(changes))
        except (ConflictError, NotFoundError, AlreadyExistsError, InvalidValueError):
            # Perhaps refused because it is written already. The receipt is read only in this case.
            if (written := self._receipt(namespace, changes.token)) is not None:
                return written
            raise

    def _receipt(self, namespace: str, token: str) -> Receipt | None:
        rows = self._fetch(statements.RECEIPT, in_namespace=namespace, with_token=token)
        return Receipt.load(token, rows[0][0]) if rows else None

    def _writer(self, connection: Connection, namespace: str, *, careful: bool) -> Writer:
        return Writer(Executor(connection), namespace, self.clock(), careful, self.replicas)

    @limited
    def namespaces(self) -> set[str]:
        return {name for (name,) in self._fetch(statements.NAMESPACES)}

    def purge_expired(self, namespace: str) -> int:
        purged = 0
        while removed := self._write(lambda connection: self._purge_some(connection, namespace)):
            purged += removed
        return purged

    @limited
    def _purge_some(self, connection: Connection, namespace: str) -> int:
        writer = self._writer(connection, namespace, careful=True)
        writer.forget_receipts()
        return writer.purge(_PURGED_AT_ONCE)
