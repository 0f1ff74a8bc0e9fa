"""Conversations inside a transaction of the application's."""

from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, NestedTransaction, event

from memory.adapters.sql.connections import check_file, is_in_transaction, prepare
from memory.adapters.sql.engine import begin_writing
from memory.adapters.sql.errors import ConnectionLostError, is_disconnect, reraise
from memory.adapters.sql.operations import SqlCommits
from memory.port.changes import ChangeSet, Receipt
from memory.port.repository import JoinedRepository
from memory.port.urls import redact

T = TypeVar("T")

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


class JoinedSqlRepository(SqlCommits, JoinedRepository):
    """Conversations inside a transaction of the application's: each commit is a savepoint in it."""

    def __init__(self, connection: Connection) -> None:
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
        try:
            prepare(connection)
            return work(connection)
        except Exception as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
            reraise(error, self, connection.dialect, connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        def in_savepoint(connection: Connection) -> T:
            begin_writing(connection, joined=True)
            savepoint = connection.begin_nested()
            try:
                result = work(connection)
                check_file(connection)
            except BaseException as error:
                self._take_back(savepoint, error)
                raise
            savepoint.commit()
            return result

        return self._read(in_savepoint)

    def _take_back(self, savepoint: NestedTransaction, error: BaseException) -> None:
        connection = self._connection
        if is_disconnect(error, connection.dialect, connection):
            return
        if connection.dialect.name != "sqlite" or is_in_transaction(connection):
            savepoint.rollback()
            return
        # sqlite has rolled back the whole transaction by itself, as it may when the disk is full.
        try:
            reraise(error, self, connection.dialect, connection)
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
