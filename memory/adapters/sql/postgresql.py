"""What only PostgreSQL's driver needs: waits that end at the deadline, and the reason why a connection was refused.

Imported only where PostgreSQL is used: psycopg is an extra.
"""

import os
import re
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil, inf
from traceback import clear_frames
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg import pq, waiting
from psycopg.conninfo import make_conninfo

from memory.port.deadlines import remaining

T = TypeVar("T")

NO_TLS: Final = "no TLS"
"""Instead of an SQLSTATE: the server has no TLS, and ``sslmode`` requires it."""
NO_HOST: Final = "no host"
"""Instead of an SQLSTATE: the host's name is not known."""

_LEAST_CONNECT_TIMEOUT: Final = 2  # psycopg and libpq take less for two seconds
_CODE: Final = re.compile(rb'ErrorResponse\t.* C "(\w{5})"')
_INTERVAL: Final = 0.1  # seconds between two looks at the clock


class _Limited(psycopg.Connection[Any]):
    """A connection that is closed where it would wait for the server beyond the deadline of `memory.port.deadlines`.

    Only the client can do this: a stopped server keeps no timeout of its own, and its kernel still acknowledges TCP.
    """

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        if remaining(inf) == inf:
            return super().wait(gen, *args, **options)
        try:
            return super().wait(_until_deadline(gen), *args, **options)
        except _DeadlineError:
            self.close()
            raise


class _DeadlineError(psycopg.OperationalError):
    pass


def _until_deadline(gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """Pass everything on; psycopg resumes the generator at least ten times a second."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            wanted = gen.send(ready)
            if remaining(inf) <= 0:
                raise _DeadlineError("the server did not answer before the deadline")
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what `gen` returns


@cache
def _limited(kind: Any) -> type:
    return kind if issubclass(kind, _Limited) else type(kind.__name__, (_Limited, kind), {})


def limit(connection: object) -> None:
    """Have a connection, also one that the application's engine has opened, keep the deadline."""
    if isinstance(connection, psycopg.Connection):
        connection.__class__ = _limited(cast(Any, type(connection)))


def say_how_to_connect(options: dict[str, Any]) -> None:
    """Bound the time to connect, and have texts sent as UTF-8: of a database in SQL_ASCII psycopg gives bytes."""
    options.setdefault("client_encoding", "utf8")
    if (left := remaining(inf)) < inf:
        hosts = 1 + str(options.get("host", "")).count(",")  # each of them gets the time
        wanted = max(ceil(left / hosts), _LEAST_CONNECT_TIMEOUT)
        options["connect_timeout"] = min(wanted, int(options.get("connect_timeout") or wanted))


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """Run the block in a transaction: it costs one round trip for each result that the block reads, and one for the commit.

    The results that the block does not read are awaited together with COMMIT, which the server skips after an error. At READ
    COMMITTED a statement waits for other writers, and then sees what they wrote: under a stricter default of the database, or of
    the application's engine, most concurrent appends would be refused.
    """
    autocommit = connection.autocommit
    connection.autocommit = True  # psycopg would wait for the answer to its own BEGIN
    try:
        with connection.pipeline():
            connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            yield
            connection.execute("COMMIT")
    except Exception as error:
        clear_frames(error.__traceback__)  # psycopg's generators keep what they raise, in a cycle
        if not connection.closed:
            connection.rollback()
        raise
    finally:
        if connection.info.transaction_status == pq.TransactionStatus.IDLE:
            connection.autocommit = autocommit
        else:  # an interrupt has left it amid a command
            connection.close()


def why_refused(error: Any, host: str | None) -> str | None:
    """Return the SQLSTATE of a refused connection, `NO_TLS`, `NO_HOST`, or None where the server could not be asked.

    libpq gives no code of an error at connect, but a text in the server's language: neither ``sqlstate`` and ``diag`` of
    psycopg's error nor its ``pgconn`` has one. A trace of what the server says does (from libpq 18 on), so the same
    connection is tried once more under one.
    """
    if error.pgconn is None:  # psycopg resolves the names itself; libpq was not asked
        return None if host is None or not _is_unknown(host) else NO_HOST
    known = {option.keyword.decode(): option.val.decode() for option in error.pgconn.info if option.val}
    read, write = os.pipe()  # no file: what the trace has of a password stays off the disk
    with os.fdopen(read, "rb") as log:
        try:
            os.set_blocking(write, False)
            waiting.wait_conn(_refused(make_conninfo("", **known), write), interval=_INTERVAL)
        except psycopg.Error:
            return None
        finally:
            os.close(write)
        said = log.read()
    if code := _CODE.search(said):
        return code[1].decode()
    requires = known.get("sslmode", "") in ("require", "verify-ca", "verify-full")
    return NO_TLS if requires and b"SSLResponse\t N" in said and b"StartupMessage" not in said else None


def _refused(conninfo: str, log: int) -> Generator[tuple[int, Any], Any, None]:
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        if connection.status == pq.ConnStatus.BAD:
            return
        connection.trace(log)
        while (status := connection.connect_poll()) in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
            wanted = waiting.Wait.R if status == pq.PollingStatus.READING else waiting.Wait.W
            while not (yield connection.socket, wanted):
                if remaining(inf) <= 0:
                    return
    finally:
        connection.untrace()
        connection.finish()


def _is_unknown(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
    return False
