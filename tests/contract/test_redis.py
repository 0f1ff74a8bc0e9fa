"""Redis keeps the contract; all tests share a store, and are parted by their namespaces."""

from collections.abc import Iterator

import pytest

import memory
from memory.repository import Repository
from memory.testing import RepositoryContract
from memory.values import new_id
from tests.servers import Server


@pytest.fixture(scope="module")
def redis(redis_server: Server) -> Iterator[Repository]:
    with memory.connect(f"{redis_server.url}?prefix=contract-{new_id()}") as store:
        yield store.repository


class TestRedis(RepositoryContract):
    @pytest.fixture
    def repository(self, redis: Repository) -> Repository:
        return redis
