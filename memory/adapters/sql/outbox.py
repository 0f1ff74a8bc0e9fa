"""The outbox of a SQL store: parcels written in the transaction of each commit, and handed to one relay at a time."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from threading import Lock
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPICursor

from memory.adapters.sql.engine import reraise
from memory.adapters.sql.repository import SqlRepository
from memory.adapters.sql.statements import Statements
from memory.outbox import load
from memory.repository import Outbox, OutboxRepository, Parcel

T = TypeVar("T")
_Do: TypeAlias = Callable[[Callable[[DBAPICursor], Any]], Any]

_in_memory: Final[WeakKeyDictionary[Engine, Lock]] = WeakKeyDictionary()
"""The relays of databases in memory: they are in this process, and one for all replicas will do."""


class OutboxSqlRepository(SqlRepository, OutboxRepository):
    """A SQL repository whose commits leave a parcel for each replica. The engine is the primary's, and stays open."""

    def __init__(self, primary: SqlRepository, replicas: Sequence[str]) -> None:
        super().__init__(primary.engine)
        self.replicas = tuple(replicas)
        self.clock = primary.clock
        self._primary = primary

    def is_new(self) -> bool:
        return self._primary.is_new()

    @contextmanager
    def relaying(self, replica: str) -> Iterator[Outbox | None]:
        lock = self._lock_sqlite if self.engine.dialect.name == "sqlite" else self._lock_postgresql
        with ExitStack() as stack:
            do = lock(stack, replica)
            yield None if do is None else _Parcels(self._statements, do, replica)

    def _lock_sqlite(self, stack: ExitStack, replica: str) -> _Do | None:
        """Lock another database beside this one: a lock of sqlite's ends with its process, and works on every system."""
        file = self.engine.url.database
        if file in (None, "", ":memory:"):
            lock = _in_memory.setdefault(self.engine, Lock())
            if not lock.acquire(blocking=False):
                return None
            stack.callback(lock.release)
            return self._write
        try:
            beside = sqlite3.connect(f"{file}-relay-{_digest(replica).hex()[:8]}", timeout=0, isolation_level=None)
            stack.enter_context(closing(beside)).execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                return None
            reraise(error, self, self.engine.dialect, None)
        return self._write

    def _lock_postgresql(self, stack: ExitStack, replica: str) -> _Do | None:
        """Take an advisory lock. All is done on its connection: should that die, and another relay begin, this one ends."""
        key = int.from_bytes(_digest(replica)[:8], signed=True)
        do = stack.enter_context(self._one_connection())
        if not do(lambda cursor: cursor.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()[0]):
            return None
        stack.callback(do, lambda cursor: cursor.execute("SELECT pg_advisory_unlock(%s)", [key]))
        return do

    @contextmanager
    def _one_connection(self) -> Iterator[_Do]:
        driver = None
        with ExitStack() as stack:
            try:
                driver = stack.enter_context(self._reader.connect()).connection
            except Exception as error:  # noqa: BLE001  # `reraise` raises each again, as ours or as it is
                reraise(error, self, self.engine.dialect, driver)

            def do(work: Callable[[DBAPICursor], T]) -> T:
                try:
                    return work(driver.cursor())
                except Exception as error:  # noqa: BLE001  # likewise
                    reraise(error, self, self.engine.dialect, driver)

            yield do


class _Parcels(Outbox):
    """The parcels for one replica; ``do`` does something with a cursor of a connection, and makes the errors ours."""

    def __init__(self, statements: Statements, do: _Do, replica: str) -> None:
        self._statements = statements
        self._do = do
        self._replica = replica

    def parcels(self, limit: int) -> list[Parcel]:
        values = {"replica": self._replica, "limit": limit}
        rows = self._do(lambda cursor: self._statements.execute(cursor, "parcels", values).fetchall())
        return [Parcel(number, namespace, load(changes)) for number, namespace, changes in rows]

    def delivered(self, parcels: Iterable[Parcel]) -> None:
        numbers = [(parcel.number,) for parcel in parcels]
        self._do(partial(self._statements.execute_many, name="remove_parcel", rows=numbers))


def _digest(replica: str) -> bytes:
    return hashlib.sha256(f"memory relay {replica}".encode()).digest()
