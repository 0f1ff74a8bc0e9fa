"""`SqlRepository`: conversations in a relational database."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection, SingletonThreadPool, StaticPool

from memory.adapters.sql import schema
from memory.adapters.sql.connections import Connections, check_file, is_in_transaction, prepare, with_cursor
from memory.adapters.sql.engine import begin_writing, check_driver, open_engine
from memory.adapters.sql.errors import ConnectionLostError, FileGoneError, is_disconnect, reraise
from memory.adapters.sql.joining import JoinedSqlRepository
from memory.adapters.sql.operations import SqlCommits
from memory.adapters.sql.outbox import SqlOutbox, locked
from memory.errors import CommitInDoubtError, UnsupportedError
from memory.port.deadlines import DEFAULT_TIMEOUT, limited, remaining
from memory.port.outbox import Outbox, ReplicaLag
from memory.port.repository import Progress, SchemaStatus, no_progress
from memory.port.urls import redact

T = TypeVar("T")

_LOST_AT_MOST: Final = 20  # connections one after the other: all in a pool have died when a server was restarted


def open_url(url: str) -> "SqlRepository":
    """Return the repository that a sqlite or PostgreSQL URL names."""
    engine, timeout = open_engine(url)
    return SqlRepository(engine, owns_engine=True, timeout=timeout)


class SqlRepository(SqlCommits):
    """Conversations in sqlite or PostgreSQL, in tables whose names begin with ``memory_``.

    No transaction is open between two calls. On sqlite a commit takes the write lock at its beginning.

    Args:
        engine: an engine of the application's, which stays its own; its pragmas and isolation are left as they are.
        owns_engine: dispose of the engine in `close`.
        timeout: the seconds that one operation may take. To wait for a connection, and for other writers of a sqlite file, is
            up to the engine's ``pool_timeout`` and ``connect_args={"timeout": ...}``.

    >>> from sqlalchemy import create_engine
    >>> from memory import Store
    >>> store = Store(SqlRepository(create_engine("sqlite:///:memory:")))
    >>> store.migrate().is_current
    True
    """

    def __init__(self, engine: Engine, *, owns_engine: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        check_driver(f"{engine.dialect.name}+{engine.dialect.driver}")
        super().__init__(engine.dialect, engine.get_execution_options().get("schema_translate_map"))
        self.engine = engine
        self.timeout = timeout
        # PostgreSQL: without BEGIN and ROLLBACK a read is one round trip, not three. sqlite reads so by itself. A migration
        # must see what another one made while it waited for the lock.
        self._reader = engine if self._is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._migrator = engine if self._is_sqlite else engine.execution_options(isolation_level="READ COMMITTED")
        self._connections = Connections(engine, timeout, keeps=owns_engine)
        self._is_shared = isinstance(engine.pool, (SingletonThreadPool, StaticPool))
        self._owns_engine = owns_engine

    @property
    def url(self) -> URL:
        return self.engine.url

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._operate(lambda: self._connected(self._reader, work))

    def _look(self, work: Callable[[DBAPICursor], T]) -> T:
        if not self._is_sqlite:  # its driver begins a transaction to read, unless it is told not to
            return super()._look(work)
        return self._operate(lambda: self._on_driver(lambda driver: with_cursor(driver, work)))

    def _write(self, work: Callable[[DBAPICursor], T]) -> T:
        try:
            return self._operate(lambda: self._on_driver(lambda driver: self._in_transaction(driver, work)))
        except FileGoneError:
            self._connections.close_idle()
            raise

    def _operate(self, work: Callable[[], T]) -> T:
        """Run one operation, which a fork waits for; repeat it while pooled connections turn out to be closed by the server."""
        is_outermost = self._connections.enter()
        try:
            for _ in range(_LOST_AT_MOST - 1):
                try:
                    return work()
                except ConnectionLostError:
                    if remaining(1) <= 0:
                        raise
            return work()
        finally:
            if is_outermost:
                self._connections.leave()

    def _connected(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        driver = None
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(engine.connect())
                driver = connection.connection
                prepare(driver, engine.dialect)
                return work(connection)
            except BaseException as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
                reraise(error, self, engine.dialect, driver)

    def _on_driver(self, work: Callable[[PoolProxiedConnection], T]) -> T:
        # The pool's connection and the driver's transaction: SQLAlchemy's own would cost a fifth of an append (statements.py).
        driver = None
        try:
            driver = self._connections.take()
            prepare(driver, self.engine.dialect)
            return work(driver)
        except BaseException as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
            reraise(error, self, self.engine.dialect, driver)
        finally:
            if driver is not None:
                self._connections.give_back(driver)

    def _in_transaction(self, driver: PoolProxiedConnection, work: Callable[[DBAPICursor], T]) -> T:
        if self._is_shared and is_in_transaction(driver):
            raise UnsupportedError(
                f"{self}: a transaction of the application's is open on the only connection that its pool has: "
                "join it by begin(connection=...)"
            )
        if not self._is_sqlite:
            return self._in_postgresql(driver, work)
        try:
            begin_writing(driver)
            result = with_cursor(driver, work)
            check_file(driver)
            driver.commit()
        except BaseException:  # also what a signal raises between the last statement and the commit
            if driver.is_valid:
                driver.rollback()
            raise
        return result

    def _in_postgresql(self, driver: PoolProxiedConnection, work: Callable[[DBAPICursor], T]) -> T:
        from memory.adapters.sql.postgresql import transaction

        is_done = False
        try:
            with transaction(driver.driver_connection):
                result = with_cursor(driver, work)
                is_done = True
        except Exception as error:
            if is_done and is_disconnect(error, self.engine.dialect, driver):
                driver.invalidate()
                raise CommitInDoubtError(f"{self}: the connection was lost at the commit") from error
            raise
        return result

    @limited
    def waiting(self) -> Mapping[str, ReplicaLag]:
        rows = self._look(lambda cursor: self._statements.execute(cursor, "waiting", {}).fetchall())
        return {replica: ReplicaLag(change_sets, oldest) for replica, change_sets, oldest in rows}

    def with_outbox(self, replicas: Sequence[str]) -> Self:
        other = copy(self)
        other.replicas = tuple(replicas)
        return other

    @contextmanager
    def relaying(self, replica: str) -> Iterator[Outbox | None]:
        with locked(self._reader, replica, self._write, self) as do:
            yield None if do is None else SqlOutbox(self._statements, do, replica, self.timeout)

    @limited
    def schema_status(self) -> SchemaStatus:
        return self._read(schema.status)

    @limited
    def is_new(self) -> bool:
        return self._owns_engine and self._is_sqlite and self._read(schema.is_empty)

    def migrate(self, progress: Progress = no_progress, *, revision: str = "head") -> SchemaStatus:
        """Bring the schema up, or down, to a revision; by default to the newest."""
        progress(f"migrating to {revision}", None)
        self._operate(lambda: self._connected(self._migrator, lambda connection: schema.migrate(connection, revision)))
        return self.schema_status()

    def joining(self, connection: object) -> JoinedSqlRepository:
        if not isinstance(connection, Connection):
            connect = getattr(connection, "connection", None)  # a Session's: its connection in the transaction it is in
            connection = connect() if callable(connect) else connection
        if not isinstance(connection, Connection):
            raise TypeError(f"connection must be a SQLAlchemy Connection or Session, not {type(connection).__name__}")
        joined = JoinedSqlRepository(connection)
        joined.clock, joined.replicas, joined.timeout = self.clock, self.replicas, self.timeout
        return joined

    def close(self) -> None:
        self._connections.close()
        if self._owns_engine:
            self.engine.dispose()

    def __repr__(self) -> str:
        return f"SqlRepository({redact(self.engine.url.render_as_string(hide_password=True))})"
