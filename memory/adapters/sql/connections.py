"""The connections of an engine: how each is prepared, which one is kept between operations, and how they survive a fork."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from threading import Event, get_ident
from typing import Any, Final, cast
from weakref import WeakSet

from sqlalchemy import URL, Connection, Dialect, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, Pool, QueuePool, SingletonThreadPool

from memory.adapters.sql.errors import FileGoneError
from memory.errors import ConfigurationError, StoreUnavailableError
from memory.port.deadlines import remaining
from memory.port.forking import ForkAware, watch

_STEPS: Final = 100_000
"""Instructions of sqlite's virtual machine between two checks of the deadline: some milliseconds. An append takes a thousand."""

_FILE: Final = "memory_file"
"""The key in a connection's ``info`` for the path and the identity of its sqlite file; None for other connections."""

# An engine has its own dialect, and shares it with the engines that `execution_options` makes from it.
_listening: Final[WeakSet[Dialect]] = WeakSet()
_opened: Final[WeakSet[Dialect]] = WeakSet()  # sqlite: their file was opened before
_left_open: Final[set[str]] = set()
"""Files that the parent process had open when it forked this process."""
_held: Final[set[str]] = set()  # files that stay open between operations
_of_the_parent: Final[list[Pool]] = []  # kept forever: to close them would remove the log that the parent writes to


class Connections(ForkAware):
    """Lends the connections of an engine to one operation at a time.

    If the engine was made for a sqlite file here, the connection that was used last is kept outside the pool: to check it in and
    out would take a sixth of an append's time. Reads and writes share it, because a write on another connection would empty its
    cache.

    After a fork, each process uses its own connections; those of PostgreSQL remain the parent's. sqlite records the locks of a
    process in memory, which the child inherits without the kernel's locks: if the file were open, the child would lose commits.
    A fork therefore waits for the operations of other threads, and closes the file.
    """

    def __init__(self, engine: Engine, timeout: float, *, keeps: bool) -> None:
        self._engine = engine
        self._timeout = timeout
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._file = file_of(engine.url) if self._is_sqlite else None
        self._keeps = keeps and self._file is not None
        self._kept: list[Connection] = []
        self._inside: set[int] = set()  # threads
        self._gate: Event | None = None
        self._forker = 0
        self._leaves_open = False
        in_memory = self._is_sqlite and (engine.url.database or ":memory:") == ":memory:"
        self._is_for_one_thread = in_memory and isinstance(engine.pool, SingletonThreadPool)
        self._thread = 0
        if in_memory and isinstance(engine.pool, NullPool):
            raise ConfigurationError(f"{engine.url}: each connection has a database of its own. {_IN_MEMORY}")
        if engine.dialect not in _listening:
            _listening.add(engine.dialect)
            event.listen(engine, "do_connect", _connecting)
            event.listen(engine, "connect", partial(_connected, engine.dialect), insert=True)
            event.listen(engine, "close", _closing)
        watch(self)

    def enter(self) -> bool:
        """Begin an operation, once no fork is in progress. Return whether it is the outermost of its thread: it calls `leave`."""
        me = get_ident()
        if me in self._inside:
            return False
        self._inside.add(me)  # before the gate is read, because a fork closes the gate before it reads this set
        while (gate := self._gate) is not None and self._forker != me:
            self._inside.discard(me)
            gate.wait(remaining(self._timeout))
            if remaining(1) <= 0:
                raise StoreUnavailableError(f"{self._engine.url}: a fork took too long; nothing was written")
            self._inside.add(me)
        if self._is_for_one_thread:
            self._thread = self._thread or me
            if self._thread != me:
                self._inside.discard(me)
                raise ConfigurationError(f"{self._engine.url}: each thread has a database of its own. {_IN_MEMORY}")
        return True

    def leave(self) -> None:
        self._inside.discard(get_ident())

    def take(self, engine: Engine) -> Connection:
        """Return a connection that nobody else uses, of this engine or of one that shares its pool."""
        try:
            return self._kept.pop()
        except IndexError:
            return engine.connect()

    def give_back(self, connection: Connection) -> None:
        """End its transaction, and keep it for whoever comes next, or give it to the pool."""
        try:
            if self._keeps and not self._kept and not connection.invalidated:
                connection.rollback()
                self._kept.append(connection)
            else:
                connection.close()
        except BaseException:
            # A signal handler's: until the garbage collector ran, the connection would keep sqlite's lock.
            connection.invalidate()
            raise

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()

    def close_idle(self) -> None:
        """Close the idle connections. Only a `QueuePool` knows which ones are idle."""
        self.close()
        if isinstance(self._engine.pool, QueuePool):
            self._engine.dispose()

    def before_fork(self) -> None:
        if not self._is_sqlite:
            return
        self._forker, self._gate = get_ident(), Event()
        deadline = time.monotonic() + self._timeout
        while self._inside - {self._forker} and time.monotonic() < deadline:
            time.sleep(0.001)
        if self._file is not None:
            self.close()
            self._leaves_open = bool(self._inside) or _is_used(self._engine.pool)
            self.close_idle()

    def after_fork_in_parent(self) -> None:
        if (gate := self._gate) is not None:
            self._gate = None
            gate.set()

    def after_fork_in_child(self) -> None:
        self._gate = None
        self._inside &= {get_ident()}
        _left_open.update(_held)
        if self._is_sqlite and self._file is None:
            return  # a database in memory: the child has its own copy
        pool = self._engine.pool
        if self._file is not None and (self._leaves_open or _is_used(pool, idle_too=True)):
            _left_open.add(os.path.realpath(self._file))
        _of_the_parent.append(pool)
        self._engine.dispose(close=False)


_IN_MEMORY: Final = (
    "Use memory.connect('sqlite://'), or create_engine('sqlite://', poolclass=StaticPool, "
    "connect_args={'check_same_thread': False})"
)


def file_of(url: URL) -> str | None:
    """Return the path of the file in a sqlite URL; None for a database in memory."""
    name = url.database or ""
    if name in ("", ":memory:") or name.startswith("file::memory:") or url.query.get("mode") == "memory":
        return None
    return name.removeprefix("file:").removeprefix("//")


@contextmanager
def holding(path: str) -> Iterator[None]:
    """Record a sqlite file that stays open between operations. Raise `ConfigurationError` if it was open during a fork."""
    path = os.path.realpath(path)
    _check_not_left_open(path)
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)


def _is_used(pool: Pool, *, idle_too: bool = False) -> bool:
    if not isinstance(pool, QueuePool):
        return not isinstance(pool, NullPool)
    return pool.checkedout() > 0 or (idle_too and pool.checkedin() > 0)


def _check_not_left_open(path: str) -> None:
    if path in _left_open:
        raise ConfigurationError(
            f"{path} was in use when the process forked, and sqlite would lose commits of a process that continues to use it: "
            "end transactions and relays before the fork, or start processes by multiprocessing's 'spawn'"
        )


def _connecting(dialect: Dialect, _: object, arguments: list[Any], options: dict[str, Any]) -> None:
    if dialect.name != "sqlite":
        from memory.adapters.sql.postgresql import say_how_to_connect

        say_how_to_connect(options)
    elif arguments and arguments[0] != ":memory:" and not options.get("uri"):
        path = os.path.realpath(arguments[0])
        _check_not_left_open(path)
        if dialect in _opened and _identity(path) is None:
            raise ConfigurationError(
                f"{path} was deleted while it was open, and is not created again: restore it, or open a new store"
            )


def _connected(dialect: Dialect, connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_FILE] = None
    if isinstance(connection, sqlite3.Connection):
        connection.set_progress_handler(_is_late, _STEPS)
        if path := connection.execute("PRAGMA database_list").fetchone()[2]:
            record.info[_FILE] = path, _identity(path)
            _opened.add(dialect)
    elif dialect.name != "sqlite":
        from memory.adapters.sql.postgresql import limit

        limit(connection)


def _closing(connection: object, _: ConnectionPoolEntry) -> None:
    """Release sqlite's lock: if an interrupt left a cursor open, closing the connection alone would keep it."""
    if isinstance(connection, sqlite3.Connection) and connection.in_transaction:
        connection.rollback()


def prepare(connection: Connection) -> None:
    """Prepare a connection that the application opened before it passed the engine to us."""
    if _FILE not in connection.info:
        fairy = connection.connection
        _connected(connection.dialect, fairy.driver_connection, cast(ConnectionPoolEntry, fairy))
        if connection.dialect.name == "sqlite" and connection.info[_FILE] is None:  # that of aiosqlite, too
            path = connection.exec_driver_sql("PRAGMA database_list").scalars(2).first()
            connection.info[_FILE] = (path, _identity(path)) if path else None


def check_file(connection: Connection) -> None:
    """Raise `FileGoneError` if the file was deleted, or if another file has its name: nobody would find the commit again."""
    if (file := connection.info[_FILE]) is not None:
        path, identity = file
        if _identity(path) != identity:
            connection.invalidate()
            raise FileGoneError(f"{path} {FileGoneError.what}")


def is_in_transaction(connection: Connection) -> bool:
    """Return whether a sqlite connection is inside a transaction."""
    driver: Any = connection.connection.driver_connection
    return connection.dialect.name == "sqlite" and driver.in_transaction


def _is_late() -> bool:
    return remaining(inf) <= 0


def _identity(path: str) -> tuple[int, int] | None:
    """Return the device and inode of a file: another file may take its name."""
    try:
        found = os.stat(path)  # noqa: PTH116  # before each commit: a Path costs as much again
    except OSError:
        return None
    return found.st_dev, found.st_ino
