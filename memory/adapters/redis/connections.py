"""The connections of a store that is opened by its URL: redis-py's pool that waits, within the deadline of an operation."""

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from memory.adapters.redis.wire import SHORTEST, Pool
from memory.deadlines import remaining

_CONNECT_TIMEOUT: Final = 5.0  # seconds for each of a host's addresses, so that the next has its turn


class _Limited:
    """A kind of connection that takes what is left to an operation, for each step of connecting."""

    _socket_timeout: float

    @property
    def socket_timeout(self) -> float:
        return max(SHORTEST, remaining(self._socket_timeout))

    @socket_timeout.setter
    def socket_timeout(self, seconds: float) -> None:
        self._socket_timeout = seconds

    @property
    def socket_connect_timeout(self) -> float:
        return min(_CONNECT_TIMEOUT, self.socket_timeout)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float) -> None:
        """Do without another."""


# The stubs that come with redis-om know of neither property.
_PLAIN: Final[Any] = type("Connection", (_Limited, redis.Connection), {})
_SECURE: Final[Any] = type("SSLConnection", (_Limited, redis.SSLConnection), {})


class _Connections(redis.BlockingConnectionPool):
    """A pool in which one waits for a connection no longer than the operation may take."""

    @property
    def timeout(self) -> float:
        return remaining(self._timeout)

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._timeout = seconds


def connections(url: str, timeout: float, **settings: Any) -> Pool:
    """Return a pool of connections to the server of a URL without options."""
    pool: Any = _Connections  # the stubs that come with redis-om describe an older one
    made: Pool = pool.from_url(
        url,
        connection_class=_SECURE if url.startswith("rediss:") else _PLAIN,
        timeout=timeout,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        # With them the pool would not notice that the server has closed a connection meanwhile.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        socket_timeout=timeout,
        **settings,
    )
    return made
