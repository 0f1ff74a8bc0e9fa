"""Redis keeps the contract; all tests share a store, and are parted by their namespaces."""

from collections.abc import Iterator

import pytest

import memory
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.rounds import rounds
from tests.servers import Server
from tests.servers.redis import fresh_prefix


@pytest.fixture(scope="module")
def redis(redis_server: Server) -> Iterator[Repository]:
    with fresh_prefix(redis_server) as url, memory.connect(url) as store:
        yield store.repository


class TestRedis(RepositoryContract):
    examples = rounds(50)

    @pytest.fixture
    def repository(self, redis: Repository) -> Repository:
        return redis
