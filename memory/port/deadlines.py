"""One deadline for a whole operation, including all its requests, waits and retries.

The methods of a repository that read or commit are decorated with `limited`. The code that they call asks `remaining` for the
time left whenever it sends a request, waits for a lock or pauses before a retry.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from math import inf
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT: Final = 30.0
"""The default ``timeout`` of one operation, in seconds."""

_deadline: ContextVar[float] = ContextVar("memory_deadline", default=inf)  # of time.monotonic()


class within:  # noqa: N801  # a context manager, as in contextlib
    """Limit a block to this many seconds. In nested blocks the earliest deadline applies.

    >>> with within(30), within(60):
    ...     remaining(5) <= 30
    True
    >>> remaining(5)
    5
    """

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._token = _deadline.set(min(_deadline.get(), time.monotonic() + self._seconds))

    def __exit__(self, *_: object) -> None:
        _deadline.reset(self._token)


def remaining(otherwise: float) -> float:
    """Return the seconds left until the deadline, at least 0; ``otherwise`` if there is no deadline."""
    deadline = _deadline.get()
    return otherwise if deadline == inf else max(0.0, deadline - time.monotonic())


class _Limited(Protocol):
    timeout: float


L = TypeVar("L", bound=_Limited)


def limited(method: Callable[Concatenate[L, P], R]) -> Callable[Concatenate[L, P], R]:
    """Limit a method of a repository to the repository's ``timeout``."""

    @wraps(method)
    def call(self: L, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with within(self.timeout):
            return method(self, *args, **kwargs)

    return call
