"""What only PostgreSQL's driver needs: waits that end at the deadline, and the reason why a connection was refused.

Imported only where PostgreSQL is used: psycopg is an extra.
"""

import re
from collections.abc import Generator
from functools import cache
from math import ceil, inf
from typing import Any, Final, TypeVar, cast

import psycopg

from memory.port.deadlines import remaining

T = TypeVar("T")

# From the text of a refusal to its SQLSTATE, or to a word of `errors` for a refusal that has none.
_REFUSALS: Final = {
    r"authentication failed|no password supplied|no pg_hba.conf entry": "28P01",
    r'role ".*" does not exist': "28000",
    r'database ".*" does not exist': "3D000",
    r"too many connections|too many clients|remaining connection slots": "53300",
    r"unsupported startup parameter": "NO_OPTION",
    r"server does not support SSL": "NO_TLS",
    r"failed to resolve host|could not translate host name": "NO_HOST",
}

_LEAST_CONNECT_TIMEOUT: Final = 2  # psycopg and libpq take less for two seconds


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


def why_refused(error: Exception) -> str | None:
    """Return the SQLSTATE of a refused connection, or one of the words above, from the text: psycopg has no code of it.

    Texts in another language than English (``lc_messages``) say nothing here.
    """
    text = str(error)
    return next((state for phrase, state in _REFUSALS.items() if re.search(phrase, text)), None)
