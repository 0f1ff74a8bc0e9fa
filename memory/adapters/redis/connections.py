"""The connections of a store that is opened by its URL: so many at most, for which one waits within the operation's deadline.

redis-py's BlockingConnectionPool loses a place for good when a signal interrupts it (at 47 of 285 random moments, 8.1.0). Here
a place is an object: wherever an interrupt drops it, it comes back.
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
    """A place for a connection: in the queue, or with the connection that has it."""

    __slots__ = ("_queue",)

    def __init__(self, queue: "ref[SimpleQueue[_Place]]") -> None:
        self._queue = queue

    def __del__(self) -> None:
        if (queue := self._queue()) is not None:
            queue.put(_Place(self._queue))


class _Limited:
    """A kind of connection that takes what is left to an operation, for each step of connecting."""

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
        """Do without another."""


# The stubs that come with redis-om know of neither property.
_PLAIN: Final[Any] = type("Connection", (_Limited, redis.Connection), {})
_SECURE: Final[Any] = type("SSLConnection", (_Limited, redis.SSLConnection), {})


def client_of(url: str, timeout: float, **settings: Any) -> Any:
    """Return a client of the server of a URL without options."""
    from_url: Any = redis.Redis.from_url  # likewise
    return from_url(
        url,
        connection_class=_SECURE if url.startswith("rediss:") else _PLAIN,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        # With them a pool would not notice that the server has closed a connection meanwhile.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        socket_timeout=timeout,
        **settings,
    )


class Connections:
    """A pool of so many connections, made as a client of `client_of` makes its own."""

    def __init__(self, client: Any, timeout: float, most: int = MAX_CONNECTIONS) -> None:
        self._kind = client.connection_pool.connection_class
        self.connection_kwargs = client.connection_pool.connection_kwargs
        self._timeout, self._most = timeout, most
        self.reset()

    def reset(self) -> None:
        """Begin anew, without the connections that there are: those of the process that forked."""
        self._idle: deque[Any] = deque()
        self.places: SimpleQueue[_Place] = SimpleQueue()
        for _ in range(self._most):
            self.places.put(_Place(ref(self.places)))

    def get_connection(self) -> Any:
        """Return a connection that is ready, the one used last if there is one."""
        try:
            place = self.places.get(timeout=remaining(self._timeout))
        except Empty:
            raise ConnectionError("no connection got free")  # noqa: B904  # what it came of stays its context
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
        """Take a connection back."""
        place, connection.place = connection.place, None
        self._idle.append(connection)
        self.places.put(place)

    def disconnect(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().disconnect()


def _is_stale(connection: Any) -> bool:
    """Whether the server has closed a connection, or says something that nobody asked for."""
    try:
        return bool(connection.can_read())
    except (ConnectionError, TimeoutError, OSError):
        return True
