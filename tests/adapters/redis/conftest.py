"""Stores for the tests of the Redis adapter, each under a prefix of its own, and redis-py's plain client beside them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import Store
from memory.adapters.redis import RedisRepository
from memory.adapters.redis.keys import Keys
from memory.domain.values import new_id
from tests.servers import Server, redis


@pytest.fixture
def prefix() -> str:
    return f"test-{new_id()}"


@pytest.fixture
def keys(prefix: str) -> Keys:
    return Keys(prefix)


@pytest.fixture
def url(redis_server: Server, prefix: str) -> Iterator[str]:
    """The URL of a store that has no index yet."""
    with redis.fresh_prefix(redis_server, prefix) as url:
        yield url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with memory.connect(url) as store:
        store.migrate()
        yield store


@pytest.fixture
def repository(store: Store) -> RedisRepository:
    assert isinstance(store.repository, RedisRepository)
    return store.repository


@pytest.fixture
def client(redis_server: Server) -> Iterator[Any]:
    with redis_py.Redis.from_url(redis_server.url) as client:
        yield client


def executed(client: Any, use: Callable[[], object]) -> dict[str, int]:
    """Return how often the server executed each command, those of scripts among them."""
    client.config_resetstat()
    use()
    stats = client.info("commandstats")
    return {name: of["calls"] for name, of in stats.items() if "config" not in name and "info" not in name}
