"""`SqlRepository`: conversations in a relational database; and the same inside a transaction of the application's."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, NestedTransaction, event
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection

from memory.adapters.sql import schema
from memory.adapters.sql.engine import (
    ConnectionLostError,
    TakenError,
    begin_writing,
    check_driver,
    dispose,
    has_ended,
    is_disconnect,
    leave_connection,
    open_engine,
    reraise,
    take_connection,
)
from memory.adapters.sql.searching import Search, fitting
from memory.adapters.sql.statements import Statements
from memory.adapters.sql.writing import Writer, read_receipt, record_of, remove_conversation
from memory.changes import ALL_RUNS, ChangeSet, Receipt, Seen
from memory.connecting import redact
from memory.domain import Conversation, ConversationRecord, Run, RunRecord
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    PersistenceError,
)
from memory.index import plan
from memory.paging import Page, Place, Query, collect, count_pages
from memory.query import Criterion
from memory.repository import (
    Capabilities,
    JoinedRepository,
    Progress,
    Repository,
    RunsRead,
    SchemaStatus,
    Waiting,
    Window,
    silently,
)

if TYPE_CHECKING:
    from memory.adapters.sql.outbox import OutboxSqlRepository

T = TypeVar("T")

_ATTEMPTS: Final = 3  # at a commit: a key may be taken at the same moment
_LOST_AT_MOST: Final = 20  # connections one after the other: all in a pool have died when a server was restarted
_RECEIPTS_KEPT: Final = 24 * 3600 * 1000  # milliseconds, at least: as long as a lost answer may be asked for again
_FORGET_EVERY: Final = 500  # commits between two removals of old receipts
_PURGED_AT_ONCE: Final = 500


def open_url(url: str) -> "SqlRepository":
    """Return the repository that a sqlite or PostgreSQL URL names."""
    return SqlRepository(open_engine(url), owns_engine=True)


class _SqlCommits(Repository):
    """Reads and commits, on connections that a subclass provides."""

    capabilities: ClassVar[Capabilities] = Capabilities(joins=True)
    replicas: Sequence[str] = ()
    """For whom the outbox gets a parcel with each commit."""

    def __init__(self, dialect: Dialect) -> None:
        self._statements = Statements(dialect)

    @abstractmethod
    def _read(self, work: Callable[[Connection], T]) -> T:
        """Do something that only reads, on a connection."""

    @abstractmethod
    def _write(self, work: Callable[[DBAPICursor], T]) -> T:
        """Do something in a transaction (or a savepoint) of its own, written when this returns."""

    def _look(self, work: Callable[[DBAPICursor], T]) -> T:
        """Do something that only reads, with statements of `Statements`."""
        return self._read(lambda connection: work(_cursor(connection)))

    def _fetch(self, name: str, values: Mapping[str, object]) -> Any:
        """Return the first row that a statement finds."""
        return self._look(lambda cursor: self._statements.execute(cursor, name, values).fetchone())

    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        values = {"namespace": namespace, "id": conversation_id, "now": self.clock()}
        row = self._fetch("get", values)
        return None if row is None else Conversation.from_record(record_of(row))

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        planned, exact = fitting(*plan(query.criterion))

        def fetch(after: Place | None, limit: int) -> Sequence[ConversationRecord]:
            rows = self._read(
                lambda connection: Search(connection, namespace, planned, self.clock()).page(query.order, after, limit)
            )
            return [record_of(row) for row in rows]

        return collect(query, fetch, exact=exact)

    def count(self, namespace: str, criterion: Criterion) -> int:
        planned, exact = fitting(*plan(criterion))
        if exact:
            return self._read(lambda connection: Search(connection, namespace, planned, self.clock()).count())
        return count_pages(lambda query: self.find(namespace, query), criterion)

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

        def read(cursor: DBAPICursor) -> tuple[Any, Sequence[Any]]:
            rows = self._statements.execute(cursor, name, values).fetchall()
            return rows[0] if rows else self._statements.execute(cursor, "seen", values).fetchone(), rows

        seen, rows = self._look(read)
        runs = [Run.from_record(conversation_id, RunRecord(*row[2:])) for row in rows]
        return RunsRead(
            None if seen is None else Seen(str(seen[0]), seen[1]), tuple(reversed(runs) if window.from_end else runs)
        )

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        failure: PersistenceError | None = None
        for _ in range(_ATTEMPTS):
            try:
                # At first a new conversation is inserted without looking; whatever stands in its way is looked at then.
                careful = failure is not None
                return self._write(lambda cursor: self._writer(cursor, namespace, careful=careful).write(changes))  # noqa: B023
            except (ConflictError, NotFoundError, AlreadyExistsError, InvalidValueError) as error:
                # Refused, perhaps because it is written already: that costs a look only here, and nothing where all goes well.
                if (written := self._receipt(namespace, changes.token)) is not None:
                    return written
                if not isinstance(error, TakenError):
                    raise
                failure = error
        raise cast(PersistenceError, failure)

    def _receipt(self, namespace: str, token: str) -> Receipt | None:
        row = self._fetch("receipt", {"namespace": namespace, "token": token})
        return None if row is None else read_receipt(token, row[0])

    def _writer(self, cursor: DBAPICursor, namespace: str, *, careful: bool) -> Writer:
        return Writer(self._statements, cursor, namespace, self.clock(), careful=careful, replicas=self.replicas)

    def purge_expired(self, namespace: str) -> int:
        purged = 0
        while removed := self._write(lambda cursor: self._purge_some(cursor, namespace)):
            purged += removed
        return purged

    def _purge_some(self, cursor: DBAPICursor, namespace: str) -> int:
        values = {"namespace": namespace, "now": self.clock(), "limit": _PURGED_AT_ONCE}
        expired = self._statements.execute(cursor, "expired", values).fetchall()
        for (key,) in expired:
            remove_conversation(self._statements, cursor, key)
        self._forget_receipts(cursor, namespace)
        return len(expired)

    def _forget_receipts(self, cursor: DBAPICursor, namespace: str) -> None:
        oldest = f"{self.clock() // 1000 - _RECEIPTS_KEPT:012x}"  # a token begins with its time: memory.values.new_id
        self._statements.execute(cursor, "forget_receipts", {"namespace": namespace, "token": oldest})


class SqlRepository(_SqlCommits):
    """Conversations in sqlite or PostgreSQL, in four tables whose names begin with ``memory_``.

    No transaction is open between two calls. On sqlite a commit takes the write lock at its beginning.

    Args:
        engine: an engine of the application's, which stays its own; its pragmas and isolation are left as they are.
        owns_engine: dispose of the engine in `close`.

    >>> from sqlalchemy import create_engine
    >>> from memory import Store
    >>> store = Store(SqlRepository(create_engine("sqlite:///:memory:")))
    >>> store.migrate().is_current
    True
    """

    def __init__(self, engine: Engine, *, owns_engine: bool = False) -> None:
        check_driver(f"{engine.dialect.name}+{engine.dialect.driver}")
        super().__init__(engine.dialect)
        self.engine = engine
        # PostgreSQL: without BEGIN and ROLLBACK a read is one round trip, not three. sqlite reads so by itself.
        self._reader = (
            engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")
        )
        self._owns_engine = owns_engine
        self._commits = count(1)

    def _read(self, work: Callable[[Connection], T]) -> T:
        return _on_living_connection(lambda: self._connected(self._reader, work))

    def _look(self, work: Callable[[DBAPICursor], T]) -> T:
        if (
            self.engine.dialect.name != "sqlite"
        ):  # where a read begins a transaction, unless the connection is told not to
            return super()._look(work)
        return _on_living_connection(lambda: self._on_driver(lambda driver: work(driver.cursor())))

    def _connected(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        driver = None
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(engine.connect())
                driver = connection.connection
                return work(connection)
            except Exception as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
                reraise(error, self, engine.dialect, driver)

    def _write(self, work: Callable[[DBAPICursor], T]) -> T:
        return _on_living_connection(lambda: self._on_driver(lambda driver: self._in_transaction(driver, work)))

    def _on_driver(self, work: Callable[[PoolProxiedConnection], T]) -> T:
        # The pool's connection and the driver's transaction: SQLAlchemy's own would cost a fifth of an append (statements.py).
        driver = None
        try:
            driver = take_connection(self.engine)
            return work(driver)
        except Exception as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
            reraise(error, self, self.engine.dialect, driver)
        finally:
            if driver is not None:
                leave_connection(self.engine, driver)

    def _in_transaction(self, driver: PoolProxiedConnection, work: Callable[[DBAPICursor], T]) -> T:
        try:
            begin_writing(driver)
            result = work(driver.cursor())
        except BaseException as error:
            if not is_disconnect(error, self.engine.dialect, driver):
                driver.rollback()
            raise
        self._commit_driver(driver)
        return result

    def _commit_driver(self, driver: PoolProxiedConnection) -> None:
        try:
            driver.commit()
        except Exception as error:
            if not is_disconnect(error, self.engine.dialect, driver):
                raise
            driver.invalidate()
            raise CommitInDoubtError(f"{self}: the connection was lost at the commit") from error

    def _writer(self, cursor: DBAPICursor, namespace: str, *, careful: bool) -> Writer:
        if next(self._commits) % _FORGET_EVERY == 0:
            self._forget_receipts(cursor, namespace)
        return super()._writer(cursor, namespace, careful=careful)

    def waiting(self) -> Mapping[str, Waiting]:
        rows = self._look(lambda cursor: self._statements.execute(cursor, "waiting", {}).fetchall())
        return {replica: Waiting(change_sets, oldest) for replica, change_sets, oldest in rows}

    def with_outbox(self, replicas: Sequence[str]) -> "OutboxSqlRepository":
        from memory.adapters.sql.outbox import OutboxSqlRepository

        return OutboxSqlRepository(self, replicas)

    def schema_status(self) -> SchemaStatus:
        return self._read(schema.status)

    def is_new(self) -> bool:
        return self._owns_engine and self.engine.dialect.name == "sqlite" and self._read(schema.is_empty)

    def migrate(self, progress: Progress = silently, *, revision: str = "head") -> SchemaStatus:
        """Bring the schema up, or down, to a revision; by default to the newest."""
        progress(f"migrating to {revision}", None)
        self._connected(self.engine, lambda connection: schema.migrate(connection, revision))
        return self.schema_status()

    def joining(self, connection: object) -> "JoinedSqlRepository":
        if not isinstance(connection, Connection):
            connect = getattr(connection, "connection", None)  # a Session's: its connection in the transaction it is in
            connection = connect() if callable(connect) else connection
        if not isinstance(connection, Connection):
            raise TypeError(f"connection must be a SQLAlchemy Connection or Session, not {type(connection).__name__}")
        joined = JoinedSqlRepository(connection)
        joined.clock, joined.replicas = self.clock, self.replicas
        return joined

    def close(self) -> None:
        if self._owns_engine:
            dispose(self.engine)

    def __repr__(self) -> str:
        return f"SqlRepository({redact(self.engine.url.render_as_string(hide_password=True))})"


_Untold: TypeAlias = list[tuple[Callable[[], bool], Callable[[], None]]]
_untold: Final[WeakKeyDictionary[Connection, _Untold]] = WeakKeyDictionary()
"""For each connection what is to be done once its transaction is committed, and whether that was written after all."""


def _commit_and_tell(connection: Connection) -> None:
    """Commit here, where SQLAlchemy is about to: it tells of no moment after it. Its own commit finds nothing left to do."""
    untold = _untold[connection]
    actions = [action for is_written, action in untold if is_written()]  # not if a savepoint around it was rolled back
    untold.clear()
    if actions:
        connection.exec_driver_sql("COMMIT")
        for action in actions:
            action()


class JoinedSqlRepository(_SqlCommits, JoinedRepository):
    """Conversations inside a transaction of the application's: each commit is a savepoint in it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.dialect)
        self._connection = connection
        self._committed: Callable[[], bool] = lambda: False

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        receipt = super().commit(namespace, changes)
        self._committed = lambda: self._receipt(namespace, changes.token) is not None
        return receipt

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection = self._connection
        if connection.invalidated and connection.get_transaction() is not None:
            raise ConnectionLostError(
                f"{self}: the connection was lost; nothing was written: roll the transaction back"
            )
        driver = connection.connection
        try:
            return work(connection)
        except Exception as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
            if is_disconnect(error, connection.dialect, driver) and not connection.invalidated:
                connection.invalidate()  # so that SQLAlchemy knows, and commits nothing of the application's either
            reraise(error, self, connection.dialect, driver)

    def _write(self, work: Callable[[DBAPICursor], T]) -> T:
        def in_savepoint(connection: Connection) -> T:
            if not connection.in_transaction():
                connection.begin()
            begin_writing(connection.connection, joined=True)
            savepoint = connection.begin_nested()
            try:
                result = work(_cursor(connection))
            except BaseException as error:
                self._take_back(savepoint, error)
                raise
            savepoint.commit()
            return result

        return self._read(in_savepoint)

    def _take_back(self, savepoint: NestedTransaction, error: BaseException) -> None:
        connection = self._connection
        if connection.invalidated or is_disconnect(error, connection.dialect, connection.connection):
            return
        if not has_ended(connection.connection):
            savepoint.rollback()
            return
        try:
            reraise(error, self, connection.dialect, connection.connection)
        finally:
            connection.invalidate()  # what the application writes from here on must not be committed without the rest

    def after_commit(self, action: Callable[[], None]) -> None:
        untold = _untold.get(self._connection)
        if untold is None:  # one pair of listeners for a connection, however many units of work it sees
            untold = _untold[self._connection] = []
            event.listen(self._connection, "commit", _commit_and_tell)
            event.listen(self._connection, "rollback", lambda _: untold.clear())
        untold.append((self._committed, action))

    def __repr__(self) -> str:
        return f"JoinedSqlRepository({redact(self._connection.engine.url.render_as_string(hide_password=True))})"


def _on_living_connection(work: Callable[[], T]) -> T:
    """Do this again as long as it meets a pooled connection that the server has closed meanwhile."""
    for _ in range(_LOST_AT_MOST - 1):
        try:
            return work()
        except ConnectionLostError:
            continue
    return work()


def _cursor(connection: Connection) -> DBAPICursor:
    return connection.connection.cursor()
