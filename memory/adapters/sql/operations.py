"""The reads and commits of a SQL store, on its own connection or the application's."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, ClassVar, Final, TypeVar

from sqlalchemy import ClauseElement, Connection

from memory.adapters.sql import statements
from memory.adapters.sql.committing import Writer
from memory.adapters.sql.errors import TakenError
from memory.adapters.sql.forgetting import forget
from memory.adapters.sql.searching import SqlSearch
from memory.adapters.sql.statements import Executor, record_of
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.records import RunRecord
from memory.domain.values import LAST_TIME, key_of
from memory.errors import AlreadyExistsError, ConflictError, CorruptRecordError, InvalidValueError, NotFoundError
from memory.port.changes import ALL_RUNS, ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import limited
from memory.port.repository import Capabilities, Forgotten, OpenRun, Repository, RunsRead, Window

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

    def _fetch_each(
        self, by_dialect: Mapping[str, ClauseElement], namespace: str, conversation_ids: Iterable[str], **values: object
    ) -> Sequence[Any]:
        """Run a statement about these conversations, and return its rows."""
        values |= {"in_namespace": namespace, "now": self.clock()}

        def fetch(connection: Connection) -> Sequence[Any]:
            executor = Executor(connection)
            return executor.execute_one_of(by_dialect, **values, ids=executor.texts(map(key_of, conversation_ids)))

        return self._read(fetch)

    def _fetch(self, statement: ClauseElement, **values: object) -> Sequence[Any]:
        return self._read(lambda connection: Executor(connection).execute(statement, **values))

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        rows = self._fetch(statements.GET, in_namespace=namespace, with_id=key_of(conversation_id), now=self.clock())
        return Conversation.from_record(record_of(rows[0])) if rows else None

    @contextmanager
    def searching(self, namespace: str, criterion: Criterion) -> Iterator[SqlSearch]:
        yield SqlSearch(self._read, namespace, criterion, self.clock())

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        rows = self._fetch(
            statements.LAST_RUNS if window.from_end else statements.FIRST_RUNS,
            in_namespace=namespace,
            with_id=key_of(conversation_id),
            now=self.clock(),
            after=window.after,
            before=ALL_RUNS if window.before is None else window.before,
            limit=ALL_RUNS if window.limit is None else window.limit,
        )
        if not rows:
            return RunsRead(None, ())
        ((key, *_, last_position, version, _),) = [row for row in rows if row[1] is None]
        if type(last_position) is str and last_position.isdecimal():  # otherwise it is damaged
            last_position = int(last_position)
        return _runs_read(conversation_id, (key, version, last_position), [row for row in rows if row[1] is not None])

    @limited
    def get_many(self, namespace: str, conversation_ids: Sequence[str]) -> dict[str, Conversation]:
        rows = self._fetch_each(statements.GET_MANY, namespace, conversation_ids)
        return {record.id: Conversation.from_record(record) for record in map(record_of, rows)}

    @limited
    def last_runs(self, namespace: str, conversation_ids: Sequence[str], n: int) -> dict[str, RunsRead]:
        found: dict[str, tuple[Any, list[Any]]] = {}
        for id, key, version, last_position, *run in self._fetch_each(
            statements.LAST_RUNS_OF, namespace, conversation_ids, n=n
        ):
            runs = found.setdefault(id, ((key, version, last_position), []))[1]
            if run[0] is not None:
                runs.append(run)
        nothing = RunsRead(None, ())
        return {id: _runs_read(id, *found[id]) if id in found else nothing for id in conversation_ids}

    @limited
    def open_runs(self, namespace: str, before: int | None, limit: int) -> tuple[OpenRun, ...]:
        rows = self._fetch(
            statements.OPEN_RUNS,
            in_namespace=namespace,
            before=LAST_TIME + 1 if before is None else before,
            limit=limit,
            now=self.clock(),
        )
        return tuple([OpenRun(id, Run.from_record(id, RunRecord(*run))) for id, *run in rows])

    @limited
    def forget(self, namespace: str, conversation_ids: Collection[str]) -> Forgotten:
        return self._write(lambda connection: forget(Executor(connection), namespace, set(conversation_ids)))

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


def _runs_read(conversation_id: str, state: Sequence[Any], rows: Iterable[Any]) -> RunsRead:
    """Return the runs of these rows, and the state of their conversation: its key, version and last position."""
    key, version, last_position = state
    if not (type(version) is type(last_position) is int):
        raise CorruptRecordError(f"conversation {conversation_id!r} is stored without a version or last position")
    runs = [Run.from_record(conversation_id, row) for row in rows]
    runs.sort(key=_position)  # neither a union nor a join promises the order of its rows
    return RunsRead(ExpectedVersion(str(key), version), tuple(runs), last_position)
