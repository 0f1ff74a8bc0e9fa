"""The outbox of a SQL store: its entries are written in the transaction of each commit, and one relay at a time delivers them."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from memory.adapters.sql import statements
from memory.adapters.sql.connections import file_of, holding, prepare
from memory.adapters.sql.errors import reraise
from memory.adapters.sql.statements import Executor
from memory.port.deadlines import limited, within
from memory.port.forking import FreshLock
from memory.port.outbox import Outbox, OutboxEntry, load
from memory.port.repository import Repository

T = TypeVar("T")
Do: TypeAlias = Callable[[Callable[[Connection], Any]], Any]

_in_memory: Final[WeakKeyDictionary[Engine, FreshLock]] = WeakKeyDictionary()
"""Locks of databases in memory: their relays are in this process, and one lock for all replicas is enough."""


@contextmanager
def locked(engine: Engine, replica: str, write: Do, where: Repository) -> Iterator[Do | None]:
    """Lock the outbox of a replica until the block, or the process, ends; yield None if another relay has locked it.

    ``write`` runs a function of a connection on sqlite, in its own transaction. On PostgreSQL the block is one transaction.
    """
    if engine.dialect.name == "sqlite":
        with ExitStack() as stack:
            yield write if _lock_sqlite(stack, engine, replica, where) else None
    else:
        with _transaction(engine, where) as do:
            if do(partial(_lock_postgresql, replica=replica)):
                yield do
                return
        yield None


def _lock_sqlite(stack: ExitStack, engine: Engine, replica: str, where: Repository) -> bool:
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


def _lock_postgresql(connection: Connection, replica: str) -> bool:
    """Take an advisory lock that ends with the transaction, and let the transaction be idle for as long as a delivery takes."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    schema = schemas.get(None)  # each schema has its own outbox
    key = int.from_bytes(_digest(f"{schema} {replica}" if schema else replica)[:8], signed=True)
    never = sa.func.set_config("idle_in_transaction_session_timeout", "0", sa.true())
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key), never)))


@contextmanager
def _transaction(engine: Engine, where: Repository) -> Iterator[Do]:
    """Begin a transaction that the end of the block commits; if the block fails, or the connection is lost, it is rolled back.

    PgBouncer keeps a transaction on one connection of the server, but a session only with ``pool_mode=session``.
    """
    connection: Connection | None = None

    def do(work: Callable[[Any], T]) -> T:
        with within(where.timeout):
            try:
                return work(connection)
            except BaseException as error:  # noqa: BLE001  # `reraise` raises each again, translated or unchanged
                reraise(error, where, engine.dialect, connection)

    connection = do(lambda _: engine.connect())
    try:
        do(prepare)
        yield do
        do(Connection.commit)
    finally:
        do(Connection.close)


class SqlOutbox(Outbox):
    """The outbox of one replica; ``do`` runs a function of a connection and translates the driver's errors."""

    def __init__(self, do: Do, replica: str, timeout: float) -> None:
        self._do = do
        self._replica = replica
        self.timeout = timeout

    @limited
    def first(self, limit: int) -> list[OutboxEntry]:
        rows = self._do(
            lambda connection: Executor(connection).execute(
                statements.OUTBOX_ENTRIES, replica=self._replica, limit=limit
            )
        )
        return [OutboxEntry(number, namespace, load(changes)) for number, namespace, changes in rows]

    @limited
    def remove(self, entries: Iterable[OutboxEntry]) -> None:
        numbers = [(entry.number,) for entry in entries]
        self._do(lambda connection: Executor(connection).execute_many(statements.REMOVE_OUTBOX_ENTRY, numbers))


def _digest(replica: str) -> bytes:
    return hashlib.sha256(f"memory relay {replica}".encode()).digest()
