"""Conversations inside a transaction of the application's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, RootTransaction, event
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from memory.adapters.sql.connections import check_file, is_in_transaction, prepare
from memory.adapters.sql.engine import begin_writing
from memory.adapters.sql.errors import ConnectionLostError, driver_error, is_disconnect, reraise
from memory.adapters.sql.operations import SqlCommits
from memory.errors import ClosedError, TransactionAbortedError
from memory.port.changes import ChangeSet, Receipt
from memory.port.repository import JoinedRepository
from memory.port.urls import redact

if TYPE_CHECKING:  # slow to import; an application with sessions has done so
    from sqlalchemy.orm import Session, SessionTransaction

T = TypeVar("T")

THREAD: Final = "memory subscribers"
"""The name of the threads that call subscribers after the commit of a `Connection`."""

_SAVEPOINT: Final = "memory_commit"
_ENDED: Final = "after_transaction_end"
_ABORTED: Final = ("40", "25P02")
"""SQLSTATEs of an aborted transaction: the class of deadlocks and serialization failures; a statement failed before."""

SchemaMap: TypeAlias = Mapping[str | None, str | None]
_Action: TypeAlias = Callable[[], None]

_committed: "Final[WeakKeyDictionary[Session, list[_Action]]]" = WeakKeyDictionary()
"""The actions of transactions that are committed, and whose connections are not back in the pool yet."""


@dataclass(slots=True)
class _Pending:
    """The actions at the end of a connection's transaction; those after a commit with a function that tells if it was written.

    ``session`` is the session that will commit the transaction and give the connection back; None if the application does.
    """

    session: "Session | None"
    after_commit: list[tuple[Callable[[], bool], _Action]] = field(default_factory=list)
    after_rollback: list[_Action] = field(default_factory=list)
    savepoints: dict[str, int] = field(default_factory=dict)
    """How many actions after a rollback there were when each of the application's savepoints began."""

    def beginning_savepoint(self, _: Connection, name: str) -> None:
        self.savepoints[name] = len(self.after_rollback)

    def rolling_back_savepoint(self, _: Connection, name: str, __: None) -> None:
        self._take_back(self.savepoints.get(name, 0))

    def committing(self, connection: Connection) -> None:
        """Commit, and have the actions called. SQLAlchemy has no event after a commit; its own COMMIT, later, has no effect."""
        actions = [action for is_written, action in self.after_commit if is_written()]  # a savepoint may be rolled back
        self.after_commit.clear()
        self.after_rollback.clear()
        if actions:
            if connection.dialect.name != "sqlite" or is_in_transaction(connection):  # else a savepoint was all of it
                connection.exec_driver_sql("COMMIT")
            if self.session is not None:
                _committed.setdefault(self.session, []).extend(actions)
            elif isinstance(connection.engine.pool, (SingletonThreadPool, StaticPool)):
                _call(actions)  # another thread would use this connection too, or another database
            else:
                # Nothing says when the connection is back in the pool. The thread waits for one, and nobody waits for the thread.
                Thread(target=copy_context().run, args=(_call, actions), name=THREAD).start()

    def rolling_back(self, _: Connection) -> None:
        self.after_commit.clear()
        self._take_back(0)

    def _take_back(self, first: int) -> None:
        """Call the actions after a rollback from this one on, the last one first."""
        actions, self.after_rollback[first:] = self.after_rollback[first:][::-1], []
        _call(actions)


def _call(actions: Sequence[_Action]) -> None:
    for action in actions:
        action()


def _session_ended(session: "Session", transaction: "SessionTransaction") -> None:
    """Call the actions of a session's transaction: it is committed, and its connections are back in the pool."""
    if transaction.parent is None:
        _call(_committed.pop(session, ()))


_pending: Final[WeakKeyDictionary[Connection, _Pending]] = WeakKeyDictionary()


class JoinedSqlRepository(SqlCommits, JoinedRepository):
    """Conversations inside a transaction of the application's: each commit is a savepoint in it.

    Args:
        connection: the application's.
        schemas: the ``schema_translate_map`` of the store's engine, for a connection without one.
        session: the session that the connection belongs to, if there is one.
    """

    def __init__(
        self, connection: Connection, schemas: SchemaMap | None = None, session: "Session | None" = None
    ) -> None:
        self._connection = connection
        self._session = session if session is not None and isinstance(session.get_bind(), Engine) else None
        self._schemas = schemas
        self._transaction: RootTransaction | None = None
        self._committed: Callable[[], bool] = lambda: False

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        receipt = super().commit(namespace, changes)
        self._committed = lambda: self._receipt(namespace, changes.token) is not None
        return receipt

    def _read(self, work: Callable[[Connection], T]) -> T:
        connection = self._connection
        self._check_transaction()
        try:
            prepare(connection)
            with self._in_schema():
                return work(connection)
        except Exception as error:  # noqa: BLE001  # each is raised again, as ours or as it is
            cause = driver_error(error)
            if str(getattr(cause, "sqlstate", "")).startswith(_ABORTED):
                connection.invalidate()  # so that what the application wrote before is not committed without the rest
                raise TransactionAbortedError(
                    f"{self}: the database aborted your transaction, and nothing of it is written: roll it back, and repeat all "
                    f"of it ({str(cause).strip():.500})"
                ) from cause
            reraise(error, self, connection.dialect, connection)

    def _check_transaction(self) -> None:
        connection = self._connection
        if self._session is not None and self._session.in_nested_transaction():
            self._session.connection()  # which sends the SAVEPOINT of a `begin_nested` that was not used yet
        current = None if connection.closed else connection.get_transaction()
        if connection.invalidated and current is not None:
            raise ConnectionLostError(
                f"{self}: the connection was lost; nothing was written: roll the transaction back"
            )
        if self._transaction is None:
            self._transaction = current or connection.begin()
        elif self._transaction is not current:
            raise ClosedError(
                f"{self}: the transaction that this unit of work joined has ended: begin another unit of work in the next one"
            )

    @contextmanager
    def _in_schema(self) -> Iterator[None]:
        """Apply the store's schemas to our statements, not to the application's. Those of its connection come first."""
        if self._schemas is None or self._connection.get_execution_options().get("schema_translate_map"):
            yield
            return
        self._connection.execution_options(schema_translate_map=self._schemas)
        try:
            yield
        finally:
            self._connection.execution_options(schema_translate_map=None)

    def _write(self, work: Callable[[Connection], T]) -> T:
        def in_savepoint(connection: Connection) -> T:
            begin_writing(connection, joined=True)
            # As text: SQLAlchemy compiles those of `begin_nested` each time, which takes as long as the append.
            connection.exec_driver_sql(f"SAVEPOINT {_SAVEPOINT}")
            try:
                result = work(connection)
                check_file(connection)
            except BaseException as error:
                self._take_back(error)
                raise
            connection.exec_driver_sql(f"RELEASE SAVEPOINT {_SAVEPOINT}")
            return result

        return self._read(in_savepoint)

    def _take_back(self, error: BaseException) -> None:
        connection = self._connection
        if is_disconnect(error, connection.dialect, connection):
            return
        if connection.dialect.name != "sqlite" or is_in_transaction(connection):
            connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            connection.exec_driver_sql(f"RELEASE SAVEPOINT {_SAVEPOINT}")
            return
        # sqlite has rolled back the whole transaction by itself, as it may when the disk is full.
        try:
            reraise(error, self, connection.dialect, connection)
        finally:
            connection.invalidate()  # what the application writes from here on must not be committed without the rest

    def after_commit(self, action: Callable[[], None]) -> None:
        self._pending().after_commit.append((self._committed, action))

    def after_rollback(self, action: Callable[[], None]) -> None:
        self._pending().after_rollback.append(action)

    def _pending(self) -> _Pending:
        """Return the actions at the end of the connection's transaction. All its units of work share one pair of listeners."""
        pending = _pending.get(self._connection)
        if pending is None:
            pending = _pending[self._connection] = _Pending(self._session)
            event.listen(self._connection, "commit", pending.committing)
            event.listen(self._connection, "rollback", pending.rolling_back)
            event.listen(self._connection, "savepoint", pending.beginning_savepoint)
            event.listen(self._connection, "rollback_savepoint", pending.rolling_back_savepoint)
            if self._session is not None and not event.contains(self._session, _ENDED, _session_ended):
                event.listen(self._session, _ENDED, _session_ended)
        return pending

    def __repr__(self) -> str:
        return f"JoinedSqlRepository({redact(self._connection.engine.url.render_as_string(hide_password=True))})"
