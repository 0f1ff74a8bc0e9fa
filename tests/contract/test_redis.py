"""Redis keeps the contract; all tests share a store, and are parted by their namespaces."""

from collections.abc import Iterator

import pytest

import memory
from memory.adapters.redis import searching
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.ordering import Pages
from memory.testing.planning import Planning
from memory.testing.queries import Queries
from memory.testing.random_queries import RandomQueries
from tests.rounds import rounds
from tests.servers import Server
from tests.servers.redis import fresh_prefix


@pytest.fixture(scope="module")
def redis(redis_server: Server) -> Iterator[Repository]:
    with fresh_prefix(redis_server) as url, memory.connect(url) as store:
        yield store.repository


class TestRedis(RepositoryContract):
    examples = rounds(20)

    @pytest.fixture
    def repository(self, redis: Repository) -> Repository:
        return redis


class TestEveryWay(Planning, Queries, RandomQueries, Pages):
    """Limits so small that queries take every way there is: several parts, too many in one, few, and more than that."""

    examples = rounds(10)

    @pytest.fixture
    def repository(self, redis: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
        monkeypatch.setattr(searching.Search, "drive_limit", 2)
        monkeypatch.setattr(searching.Search, "walk_limit", 3)
        for name, limit in {"_FEW": 1, "_AT_ONCE": 2, "_WIDEST": 5, "_COUNTED": 3}.items():
            monkeypatch.setattr(searching, name, limit)
        return redis
