"""The connections of a store that was opened by its URL: a limited number, for which threads wait within their deadline.

redis-py's BlockingConnectionPool loses a place for good when a signal handler raises inside it (at 47 of 285 random moments,
8.1.0), and waits for a fixed time. Here a place is an object that returns to the queue wherever an interrupt drops it.
"""

from collections import deque
from queue import Empty, SimpleQueue
from typing import Any, Final
from weakref import ref

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from memory.adapters.redis.wire import SHORTEST
from memory.port.deadlines import remaining

MAX_CONNECTIONS: Final = 50

_CONNECT_TIMEOUT: Final = 5.0  # seconds for each of a host's addresses, so that the next has its turn


class _Place:
    """The right to use one connection: in the queue, or with the connection that is in use."""

    __slots__ = ("_queue",)

    def __init__(self, queue: "ref[SimpleQueue[_Place]]") -> None:
        self._queue = queue

    def __del__(self) -> None:
        if (queue := self._queue()) is not None:
            queue.put(_Place(self._queue))


class _Limited:
    """A connection whose time-outs, also those of connecting, are what is left for the operation."""

    place: _Place | None = None
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
        """Ignore the client's own."""


# The type stubs that come with redis-om know neither property.
_PLAIN: Final[Any] = type("Connection", (_Limited, redis.Connection), {})
_SECURE: Final[Any] = type("SSLConnection", (_Limited, redis.SSLConnection), {})


def client_of(url: str, timeout: float, **settings: Any) -> Any:
    """Return a client for a URL that has no options."""
    from_url: Any = redis.Redis.from_url  # the stubs again
    return from_url(
        url,
        connection_class=_SECURE if url.startswith("rediss:") else _PLAIN,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        # With them a pool does not notice that the server has closed a connection.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        socket_timeout=timeout,
        **settings,
    )


class Connections:
    """A pool of at most ``most`` connections, made like those of a client of `client_of`."""

    def __init__(self, client: Any, timeout: float, most: int = MAX_CONNECTIONS) -> None:
        self._kind = client.connection_pool.connection_class
        self.connection_kwargs = client.connection_pool.connection_kwargs
        self._timeout, self._most = timeout, most
        self.reset()

    def reset(self) -> None:
        """Forget all connections, which belong to the process that forked."""
        self._idle: deque[Any] = deque()
        self.places: SimpleQueue[_Place] = SimpleQueue()
        for _ in range(self._most):
            self.places.put(_Place(ref(self.places)))

    def get_connection(self) -> Any:
        """Return a connection that is ready, if possible the one used last."""
        try:
            place = self.places.get(timeout=remaining(self._timeout))
        except Empty:
            raise ConnectionError("no connection became free")  # noqa: B904  # its cause stays its context
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._kind(**self.connection_kwargs)
        connection.place = place
        try:
            if connection.is_connected and _is_stale(connection):
                connection.disconnect()
            connection.connect()
        except BaseException:
            connection.disconnect()
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """Return a connection to the pool."""
        place, connection.place = connection.place, None
        self._idle.append(connection)
        self.places.put(place)

    def disconnect(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().disconnect()


def _is_stale(connection: Any) -> bool:
    """Whether the server has closed a connection, or sent something unasked."""
    try:
        return bool(connection.can_read())
    except (ConnectionError, TimeoutError, OSError):
        return True
