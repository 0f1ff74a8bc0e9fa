"""URLs, options, and clients that an application has already."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import ConfigurationError, Conversation, Run, Store, where
from memory.adapters.redis import RedisRepository
from tests.servers import Server


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis:///0",
        "redis://host:port",
        "redis://host:0",
        "redis://host/zero",
        "redis://host/1",
        "redis://host?db=1",
        "redis://host?timeout=0",
        "redis://host?timeout=inf",
        "redis://host?timeout=soon",
        "redis://host?max_connections=0",
        "redis://host?prefix=",
        "redis://host?prefix=a%20b",
        "redis://host?prefix={a}",
        "redis://host?prefix=*",
        "redis://host?retries=3",
        "redis://host?ssl_ca_certs=/ca.pem",
        "rediss://host?ssl_check_hostname=maybe",
    ],
)
def test_impossible_urls(url: str) -> None:
    with pytest.raises(ConfigurationError):
        memory.connect(url)


def test_options_of_a_url() -> None:
    with memory.connect(
        "rediss://ada:se%2Fcret@example.com:6380/0?prefix=app&timeout=2.5&max_connections=7"
        "&client_name=app&ssl_ca_certs=/ca.pem&ssl_check_hostname=false"
    ) as store:
        assert isinstance(store.repository, RedisRepository)
        pool = store.repository._pool
        settings = pool.connection_kwargs
        assert isinstance(pool, redis_py.BlockingConnectionPool)
        assert issubclass(pool.connection_class, redis_py.SSLConnection)
        assert (settings["username"], settings["password"], settings["host"], settings["port"]) == (
            "ada",
            "se/cret",
            "example.com",
            6380,
        )
        assert store.repository.timeout == 2.5
        assert (settings["client_name"], settings["ssl_ca_certs"], settings["ssl_check_hostname"]) == (
            "app",
            "/ca.pem",
            False,
        )
        assert pool.max_connections == 7
        assert repr(store.repository) == "RedisRepository(example.com:6380, prefix='app')"


def test_every_option_is_documented() -> None:
    from memory.adapters.redis.repository import _OPTIONS

    documentation = (Path(__file__).parents[3] / "docs/redis.md").read_text("utf-8")
    assert [name for name in _OPTIONS if f"`{name}`" not in documentation] == []


@pytest.fixture(params=[{}, {"decode_responses": True}, {"max_connections": 1}])
def own_client(request: pytest.FixtureRequest, redis_server: Server) -> Iterator[Any]:
    with redis_py.Redis.from_url(redis_server.url, **request.param) as client:
        yield client


def test_a_client_the_application_has(own_client: Any, prefix: str) -> None:
    """Whatever it decodes; it stays open, and works as before."""
    store = Store(RedisRepository(own_client, prefix=prefix))
    store.migrate()
    with store.begin() as uow:
        uow.conversations.add(Conversation("é😀", {"é": "😀\ud83d"}))
        uow.runs.append("é😀", Run("é", ["😀"]), Run(1, 2))
    with store.begin() as uow:
        assert uow.conversations.find(where("é") == "😀\ud83d").items[0].id == "é😀"
        assert [run.input for run in uow.runs.last("é😀", 2)] == ["é", 1]
        uow.conversations.get("é😀").metadata = {}
    store.close()
    assert own_client.ping() is True


def test_clients_that_will_not_do() -> None:
    make: Any = redis_py.Redis
    for settings, said in (({"db": 1}, "database 0"), ({"protocol": 2}, "protocol=3")):
        with make(**settings) as client, pytest.raises(ConfigurationError, match=said):
            RedisRepository(client)

    class RedisCluster:
        """As redis-py's: no pool of its own."""

    with pytest.raises(ConfigurationError, match="cluster"):
        RedisRepository(RedisCluster())


def test_a_sentinel_or_blocking_pool_is_used_as_it_is(redis_server: Server, prefix: str) -> None:
    pool: Any = redis_py.BlockingConnectionPool.from_url(redis_server.url, max_connections=2, timeout=1)
    store = Store(RedisRepository(redis_py.Redis(connection_pool=pool), prefix=prefix))
    store.migrate()
    for n in range(10):
        with store.begin() as uow:
            uow.conversations.add(Conversation(f"c{n}"))
    assert store.begin().conversations.count() == 10
    pool.disconnect()


def test_two_stores_in_one_process(redis_server: Server, prefix: str) -> None:
    one, two = (memory.connect(f"{redis_server.url}?prefix={prefix}-{n}") for n in (1, 2))
    with one, two:
        for store in (one, two):
            store.migrate()
        with one.begin() as uow:
            uow.conversations.add(Conversation("a"))
        assert (one.begin().conversations.count(), two.begin().conversations.count()) == (1, 0)


def test_what_the_settings_of_a_server_mean(store: Store, client: Any) -> None:
    assert isinstance(store.repository, RedisRepository)
    good = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    before = client.config_get(*good)
    try:
        for name, value in (
            ("appendonly", "no"),
            ("appendfsync", "everysec"),
            ("appendfsync", "no"),
            ("maxmemory-policy", "allkeys-lru"),
        ):
            for setting in (good | {name: value}).items():
                client.config_set(*setting)
            (warning,) = store.repository.warnings()
            assert warning.startswith(f"{name} is {value}: ")
        for setting in good.items():
            client.config_set(*setting)
        assert store.repository.warnings() == []
    finally:
        for setting in before.items():
            client.config_set(*setting)
