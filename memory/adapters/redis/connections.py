"""The connections of a store that was opened by URL: redis-py's, extended to respect the deadline of the operation."""

from collections.abc import Mapping
from queue import Empty
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from memory.errors import ConfigurationError
from memory.port.deadlines import remaining

SHORTEST: Final = 0.001
"""The shortest socket timeout in seconds. A timeout of zero would make the socket non-blocking."""

_CONNECT_TIMEOUT: Final = 5.0  # seconds for each address of a host, so that the next address is tried in time
_SENTINEL_TIMEOUT: Final = 1.0  # seconds for each Sentinel, for the same reason
_SENTINEL_PORT: Final = 26379
_FORMS: Final = (
    "this is not the URL of a Redis server: write redis://user:password@host:6379, rediss:// with TLS, "
    "unix:///path/of/the/socket, or redis+sentinel://host:26379,other:26379/service"
)


class _Pool(redis.BlockingConnectionPool):
    """A pool that waits for a connection, and connects, until the deadline of the operation.

    The methods replace redis-py's, which also record metrics; that took as long as packing, sending and parsing a command.
    """

    def __init__(self, *, timeout: float, **settings: Any) -> None:
        self._seconds = timeout
        super().__init__(timeout=timeout, **settings)

    def get_connection(self, command_name: object = None, *keys: object, **options: object) -> Any:  # noqa: ARG002  # deprecated in redis-py
        pool: Any = self  # the type stubs that redis-om installs describe an older version
        try:
            connection = pool.pool.get(timeout=remaining(self._seconds)) or pool.make_connection()
        except Empty:
            raise ConnectionError("no connection became free in time: raise max_connections or timeout") from None
        try:
            if connection.is_connected and _is_stale(connection):
                connection.disconnect()
            if not connection.is_connected:
                connection.socket_timeout = max(SHORTEST, remaining(self._seconds))
                connection.socket_connect_timeout = min(_CONNECT_TIMEOUT, connection.socket_timeout)
                connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        pool: Any = self
        if not pool.owns_connection(connection):  # the primary has changed since
            connection.disconnect()
            connection = None
        pool.pool.put_nowait(connection)


def _is_stale(connection: Any) -> bool:
    """Whether the server has closed a connection, or sent unexpected data."""
    try:
        return bool(connection.can_read())
    except (ConnectionError, TimeoutError, OSError):
        return True


class _SentinelPool(SentinelConnectionPool, _Pool):
    """A blocking pool of connections to the primary that Sentinel reports."""


def client_of(url: str, timeout: float, options: Mapping[str, Any]) -> Any:
    """Return a client for a URL without its options. Its connections respect the deadline of the store's operation."""
    try:
        located, sentinels, service = _locate(url)
    except ValueError:  # its message may contain a part of the password
        raise ConfigurationError(_FORMS) from None
    is_tls = located.get("connection_class") is redis.SSLConnection
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    credentials = {name: value for name, value in options.items() if name.startswith("sentinel_")}
    for names, is_used, needed in (
        (tls, is_tls, "TLS, that is rediss://"),
        (credentials, sentinels, "redis+sentinel://"),
    ):
        if names and not is_used:
            raise ConfigurationError(f"{', '.join(sorted(names))}: these options need {needed}")
    settings = {
        **{name: value for name, value in options.items() if name not in credentials},
        **located,
        "timeout": timeout,
        "protocol": 3,
        "retry": Retry(NoBackoff(), 0),
        # While they are enabled, the pool does not notice that the server has closed a connection.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if not sentinels:
        return redis.Redis(connection_pool=_Pool(**settings))
    settings.pop("connection_class", None)  # Sentinel has its own
    waits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), min(timeout, _SENTINEL_TIMEOUT))
    own = {name.removeprefix("sentinel_"): value for name, value in credentials.items()}
    own |= {**waits, **tls, "ssl": is_tls, "retry": Retry(NoBackoff(), 0)}
    manager: Any = Sentinel(sentinels, sentinel_kwargs=own)
    return manager.master_for(service, connection_pool_class=_SentinelPool, ssl=is_tls, **settings)


def _locate(url: str) -> tuple[dict[str, Any], list[tuple[str, int]], str]:
    """Return redis-py's settings for a URL, the addresses of its Sentinels and the service name, or raise `ValueError`."""
    scheme, _, rest = url.partition("://")
    family, _, kind = scheme.replace("valkey", "redis", 1).partition("+")
    if kind == "sentinel":
        credentials, at, place = rest.rpartition("@")
        hosts, service, database = [*place.rstrip("/").split("/"), "0"][:3]
        located, _, _ = _locate(f"{family}://{credentials}{at}{hosts.partition(',')[0]}/{database}")
        sentinels = [urlsplit(f"//{host}") for host in hosts.split(",")]
        del located["host"]
        located.pop("port", None)
        return located, [(f"{one.hostname or ''}", one.port or _SENTINEL_PORT) for one in sentinels], unquote(service)
    located = parse_url(f"{family}://{rest}")
    parts = urlsplit(f"{family}://{rest}")
    is_path = family == "unix" and not kind and bool(parts.path.strip("/"))
    is_host = family != "unix" and not kind and bool(parts.hostname) and (parts.path.strip("/") or "0").isdecimal()
    if parts.port == 0 or not (is_path or is_host):
        raise ValueError(scheme)
    return located, [], ""


def close(pool: Any) -> None:
    """Close the connections of a pool, including those to Sentinels."""
    pool.disconnect()
    if isinstance(pool, SentinelConnectionPool):
        cast(Any, pool).sentinel_manager.close()


def place_of(pool: Any) -> str:
    """Return the address that a pool connects to, as shown in error messages."""
    if isinstance(pool, SentinelConnectionPool):
        sentinels = [place_of(sentinel.connection_pool) for sentinel in cast(Any, pool).sentinel_manager.sentinels]
        return f"{pool.service_name} of Sentinel {', '.join(sentinels)}"
    settings = pool.connection_kwargs
    return settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
