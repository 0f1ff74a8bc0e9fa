"""The connections of a store that was opened by its URL: redis-py's, with the deadline of the operation."""

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from memory.port.deadlines import remaining

SHORTEST: Final = 0.001
"""Seconds: the shortest time-out of a socket. Zero would make it one that does not wait at all."""

_CONNECT_TIMEOUT: Final = 5.0  # seconds for each of a host's addresses, so that the next has its turn


class _Pool(redis.BlockingConnectionPool):
    """A pool in which a thread waits for a connection until the deadline of its operation."""

    def __init__(self, *, timeout: float, **settings: Any) -> None:
        self._timeout = timeout
        super().__init__(**settings)

    @property
    def timeout(self) -> float:
        return remaining(self._timeout)

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        """Ignore the pool's own."""


def client_of(url: str, timeout: float, **settings: Any) -> Any:
    """Return a client for a URL that has no options. An operation of it ends with the deadline of the store's."""
    located = parse_url(url)
    kind = located.pop("connection_class", redis.Connection)
    pool: Any = _Pool
    return redis.Redis(
        connection_pool=pool(
            timeout=timeout,
            connection_class=_limited(kind, timeout),
            protocol=3,
            retry=Retry(NoBackoff(), 0),
            # With them a pool does not notice that the server has closed a connection.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            socket_timeout=timeout,
            **located,
            **settings,
        )
    )


def _limited(kind: Any, timeout: float) -> Any:
    """Return a kind of connection that connects within the deadline of the operation."""

    class Limited(kind):  # type: ignore[misc]  # a class of redis-py's
        def connect(self) -> None:
            if not self.is_connected:
                self.socket_timeout = max(SHORTEST, remaining(timeout))
                self.socket_connect_timeout = min(_CONNECT_TIMEOUT, self.socket_timeout)
                super().connect()

    return Limited
