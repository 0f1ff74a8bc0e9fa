"""`SqlRepository`: conversations in a relational database."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Final, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.pool import QueuePool, SingletonThreadPool, StaticPool

from memory.adapters.sql import schema as migrations
from memory.adapters.sql import statements
from memory.adapters.sql.connections import Connections, check_file, is_in_transaction, prepare
from memory.adapters.sql.engine import begin_writing, check_driver, in_schema, open_engine
from memory.adapters.sql.errors import ConnectionLostError, FileGoneError, driver_error, is_disconnect, reraise
from memory.adapters.sql.joining import JoinedSqlRepository
from memory.adapters.sql.operations import SqlCommits
from memory.adapters.sql.outbox import SqlOutbox, locked
from memory.errors import CommitInDoubtError, InvalidValueError, UnsupportedError
from memory.port.deadlines import DEFAULT_TIMEOUT, limited, remaining
from memory.port.outbox import Outbox, ReplicaLag
from memory.port.repository import Progress, SchemaStatus, no_progress
from memory.port.urls import redact

T = TypeVar("T")

_LOST_AT_MOST: Final = 20  # connections in a row: after a restart of the server, all in the pool are lost


def open_url(url: str) -> "SqlRepository":
    """Return the repository that a sqlite or PostgreSQL URL names."""
    engine, timeout = open_engine(url)
    return SqlRepository(engine, owns_engine=True, timeout=timeout)


class SqlRepository(SqlCommits):
    """Conversations in sqlite or PostgreSQL, in tables whose names begin with ``memory_``.

    No transaction is open between two calls. On sqlite a commit takes the write lock at its beginning.

    Args:
        engine: an engine of the application's, which stays its own; its pragmas and isolation are left as they are.
        schema: the schema of the tables, for PostgreSQL; None for the connection's ``search_path``. An engine with a
            ``schema_translate_map`` of its own does not need it.
        owns_engine: dispose of the engine in `close`.
        timeout: the seconds that one operation may take. To wait for a connection, and for other writers of a sqlite file, is
            up to the engine's ``pool_timeout`` and ``connect_args={"timeout": ...}``.

    >>> from sqlalchemy import create_engine
    >>> from memory import Store
    >>> store = Store(SqlRepository(create_engine("sqlite:///:memory:")))
    >>> store.migrate().is_current
    True
    """

    def __init__(
        self,
        engine: Engine,
        *,
        schema: str | None = None,
        owns_engine: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        check_driver(f"{engine.dialect.name}+{engine.dialect.driver}")
        self.engine = engine = in_schema(engine, schema)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self.timeout = timeout
        self._for_writing = self._autocommit = engine
        if not self._is_sqlite:
            self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
            if not owns_engine:
                # Under a stricter default of the database, or of the engine, most concurrent appends would be refused, and a
                # migration would not see what another one made while it waited for the lock.
                self._for_writing = engine.execution_options(isolation_level="READ COMMITTED")
        self._connections = Connections(engine, timeout, keeps=owns_engine)
        self._is_shared = isinstance(engine.pool, (SingletonThreadPool, StaticPool))
        self._owns_engine = owns_engine
        self.concurrency = _concurrency(engine)

    @property
    def _reader(self) -> Engine:
        """The engine to read by: without BEGIN and ROLLBACK, a read takes one round trip, not three.

        If the application listens to "begin", for instance to ``SET LOCAL`` a tenant, its listener needs a transaction.
        """
        return self._for_writing if self.engine.dispatch.begin else self._autocommit

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._operate(self._reader, work)

    def _write(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._operate(self._for_writing, lambda connection: self._in_transaction(connection, work))
        except FileGoneError:
            self._connections.close_idle()
            raise

    def _operate(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        """Run one operation, for which a fork waits. Repeat it if the server has closed the pooled connection."""
        is_outermost = self._connections.enter()
        try:
            for _ in range(_LOST_AT_MOST - 1):
                try:
                    return self._connected(engine, work)
                except ConnectionLostError:
                    if remaining(1) <= 0:
                        raise
            return self._connected(engine, work)
        finally:
            if is_outermost:
                self._connections.leave()

    def _connected(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        connection = None
        try:
            connection = self._connections.take(engine)
            prepare(connection)
            return work(connection)
        except BaseException as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
            reraise(error, self, engine.dialect, connection)
        finally:
            if connection is not None:
                self._connections.give_back(connection)

    def _in_transaction(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        if self._is_shared and is_in_transaction(connection):
            raise UnsupportedError(
                f"{self}: a transaction of the application's is open on the only connection that its pool has: "
                "join it by begin(connection=...)"
            )
        begin_writing(connection)
        result = work(connection)
        check_file(connection)
        try:
            connection.commit()
        except Exception as error:
            if not self._is_sqlite and is_disconnect(error, self.engine.dialect, connection):
                raise CommitInDoubtError(f"{self}: the connection was lost at the commit") from driver_error(error)
            raise
        return result

    @limited
    def waiting(self) -> Mapping[str, ReplicaLag]:
        rows = self._fetch(statements.REPLICA_LAGS)
        return {replica: ReplicaLag(change_sets, oldest) for replica, change_sets, oldest in rows}

    def with_outbox(self, replicas: Sequence[str]) -> Self:
        other = copy(self)
        other.replicas = tuple(replicas)
        return other

    @contextmanager
    def relaying(self, replica: str) -> Iterator[Outbox | None]:
        with locked(self._for_writing, replica, self._write, self) as do:
            yield None if do is None else SqlOutbox(do, replica, self.timeout)

    @limited
    def schema_status(self) -> SchemaStatus:
        return self._read(migrations.status)

    @limited
    def is_new(self) -> bool:
        return self._owns_engine and self._is_sqlite and self._read(migrations.is_empty)

    def migrate(self, progress: Progress = no_progress, *, revision: str = "head") -> SchemaStatus:
        """Bring the schema up, or down, to a revision; by default to the newest."""
        progress(f"migrating to {revision}", None)
        self._operate(self._for_writing, lambda connection: migrations.migrate(connection, revision))
        return self.schema_status()

    def joining(self, connection: object) -> JoinedSqlRepository:
        if hasattr(connection, "run_sync"):
            kind = type(connection).__name__
            raise InvalidValueError(
                f"an {kind} is joined by memory.aio.Store.begin; or inside run_sync, which passes the Connection or Session "
                "behind it: await session.run_sync(lambda session: work(store.begin(connection=session)))"
            )
        session = None
        if not isinstance(connection, Connection):
            from sqlalchemy.orm import Session, scoped_session  # imported already, if there is one

            if isinstance(connection, scoped_session):
                connection = connection()
            if not isinstance(connection, Session):
                kind = type(connection).__name__
                raise TypeError(f"connection must be a SQLAlchemy Connection or Session, not {kind}")
            session, connection = connection, connection.connection()  # in the transaction that it is in
        schemas = self.engine.get_execution_options().get("schema_translate_map")
        joined = JoinedSqlRepository(connection, schemas, session)
        joined.clock, joined.replicas, joined.timeout = self.clock, self.replicas, self.timeout
        return joined

    def close(self) -> None:
        self._connections.close()
        if self._owns_engine:
            self.engine.dispose()

    def __repr__(self) -> str:
        return f"SqlRepository({redact(self.engine.url.render_as_string(hide_password=True))})"


def _concurrency(engine: Engine) -> tuple[int, int]:
    """Return how many connections the engine's pool has, and how many of them can write at once."""
    pool, connections = engine.pool, SqlRepository.concurrency[0]
    if isinstance(pool, (SingletonThreadPool, StaticPool)):
        connections = 1
    elif isinstance(pool, QueuePool) and pool.size() and pool._max_overflow >= 0:  # noqa: SLF001  # otherwise it has no limit
        connections = pool.size() + pool._max_overflow  # noqa: SLF001
    return connections, 1 if engine.dialect.name == "sqlite" else connections
