"""Redis keeps the contract; all tests share a store, and are parted by their namespaces."""

from collections.abc import Iterator

import pytest
import redis as redis_py

import memory
from memory.repository import Repository
from memory.testing import RepositoryContract
from memory.values import new_id
from tests.servers import Server
from tests.servers.redis import drop_indexes


@pytest.fixture(scope="module")
def redis(redis_server: Server) -> Iterator[Repository]:
    prefix = f"contract-{new_id()}"
    with memory.connect(f"{redis_server.url}?prefix={prefix}") as store:
        yield store.repository
    with redis_py.Redis.from_url(redis_server.url) as client:
        drop_indexes(client, prefix)


class TestRedis(RepositoryContract):
    @pytest.fixture
    def repository(self, redis: Repository) -> Repository:
        return redis
