"""The outbox of a SQL store: its entries are written in the transaction of each commit, and one relay at a time delivers them."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from memory.adapters.sql import statements
from memory.adapters.sql.connections import file_of, holding, prepare
from memory.adapters.sql.errors import Place, reraise
from memory.errors import PersistenceError, StoreUnavailableError
from memory.port.deadlines import limited
from memory.port.forking import FreshLock
from memory.port.outbox import Outbox, OutboxEntry, load

T = TypeVar("T")
Do: TypeAlias = Callable[[Callable[[Connection], Any]], Any]

_in_memory: Final[WeakKeyDictionary[Engine, FreshLock]] = WeakKeyDictionary()
"""Locks of databases in memory: their relays are in this process, and one lock for all replicas is enough."""


@contextmanager
def locked(engine: Engine, replica: str, write: Do, where: Place) -> Iterator[Do | None]:
    """Lock the outbox of a replica until the block, or the process, ends; yield None if another relay has locked it.

    ``engine`` commits each statement by itself; ``write`` runs a function of a connection on sqlite, in its own transaction.
    """
    with ExitStack() as stack:
        if engine.dialect.name == "sqlite":
            yield write if _lock_sqlite(stack, engine, replica, where) else None
        else:
            connection, do = stack.enter_context(_one_connection(engine, where))
            yield do if _lock_postgresql(stack, connection, do, replica) else None


def _lock_sqlite(stack: ExitStack, engine: Engine, replica: str, where: Place) -> bool:
    """Lock a database file beside this one: sqlite releases its locks when the process ends, on every system."""
    file = file_of(engine.url)
    if file is None:
        lock = _in_memory.setdefault(engine, FreshLock())
        if not lock.acquire(blocking=False):
            return False
        stack.callback(lock.release)
        return True
    path = f"{file}-relay-{_digest(replica).hex()[:8]}"
    stack.enter_context(holding(path))
    try:
        beside = sqlite3.connect(path, timeout=0, isolation_level=None)
        stack.enter_context(closing(beside)).execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        reraise(error, where, engine.dialect, None)
    return True


def _lock_postgresql(stack: ExitStack, connection: Connection, do: Do, replica: str) -> bool:
    """Take an advisory lock. All statements use its connection: if it is lost, and the lock with it, this relay ends."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    schema = schemas.get(None)  # each schema has its own outbox
    key = int.from_bytes(_digest(f"{schema} {replica}" if schema else replica)[:8], signed=True)

    def unlock() -> None:
        try:
            do(lambda connection: connection.scalar(sa.select(sa.func.pg_advisory_unlock(key))))
        except PersistenceError:
            connection.invalidate()  # the lock ends with it

    if not do(lambda connection: connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key)))):
        return False
    stack.callback(unlock)
    return True


@contextmanager
def _one_connection(engine: Engine, where: Place) -> Iterator[tuple[Connection, Do]]:
    connection = None
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(engine.connect())
            prepare(connection)
        except Exception as error:  # noqa: BLE001  # `reraise` raises each again, translated or unchanged
            reraise(error, where, engine.dialect, connection)

        def do(work: Callable[[Connection], T]) -> T:
            if connection.invalidated:
                raise StoreUnavailableError(f"{where}: the connection that locked the outbox is lost")
            try:
                return work(connection)
            except BaseException as error:  # noqa: BLE001  # as above
                reraise(error, where, engine.dialect, connection)

        yield connection, do


class SqlOutbox(Outbox):
    """The outbox of one replica; ``do`` runs a function of a connection and translates the driver's errors."""

    def __init__(self, do: Do, replica: str, timeout: float) -> None:
        self._do = do
        self._replica = replica
        self.timeout = timeout

    @limited
    def first(self, limit: int) -> list[OutboxEntry]:
        values = {"replica": self._replica, "limit": limit}
        rows = self._do(lambda connection: statements.execute(connection, statements.OUTBOX_ENTRIES, values).all())
        return [OutboxEntry(number, namespace, load(changes)) for number, namespace, changes in rows]

    @limited
    def remove(self, entries: Iterable[OutboxEntry]) -> None:
        numbers = [(entry.number,) for entry in entries]
        self._do(lambda connection: statements.execute_many(connection, statements.REMOVE_OUTBOX_ENTRY, numbers))

    @limited
    def rename(self, replica: str) -> int:
        values = {"old": self._replica, "replica": replica}
        return int(
            self._do(lambda connection: statements.execute(connection, statements.RENAME_REPLICA, values).rowcount)
        )


def _digest(replica: str) -> bytes:
    return hashlib.sha256(f"memory relay {replica}".encode()).digest()
