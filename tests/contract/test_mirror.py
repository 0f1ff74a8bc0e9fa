"""A mirrored store keeps the contract; and whatever the contract has done to it, its replica ends equal.

A mirror finds and counts with its primary's own code, which the primary's contract test has asked already; one pair is asked
all the same.
"""

from collections.abc import Iterator

import pytest

import memory
from memory import Store
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.base import Contract
from memory.transfer.mirroring import MirroredStore
from memory.transfer.verifying import verify
from tests.contract.writing import WritingContract
from tests.mirroring.comparing import namespaces_of
from tests.rounds import rounds
from tests.servers import Server, postgres
from tests.servers.redis import fresh_prefix


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with memory.connect(f"sqlite:///{tmp_path_factory.mktemp('contract')}/primary.db") as store:
        yield store


class _Mirrored(Contract):
    examples = rounds(8)  # each is written three times

    @pytest.fixture
    def primary(self, sqlite: Store) -> Store:
        return sqlite

    @pytest.fixture
    def replica(self) -> Iterator[Store]:
        with memory.connect("memory://") as store:
            yield store

    @pytest.fixture
    def repository(self, primary: Store, replica: Store) -> Iterator[Repository]:
        store = MirroredStore(primary, {"replica": replica})
        replica.repository.clock = lambda: store.repository.clock()  # noqa: PLW0108  # the test sets another one
        yield store.repository
        namespaces = namespaces_of(store)
        assert [done.failure for done in store.relay()] == [None]
        assert store.lag()["replica"].change_sets == 0
        for name in namespaces:
            assert list(verify(primary.namespace(name), replica.namespace(name))) == []


class TestMirrorOfSqlite(_Mirrored, RepositoryContract):
    pass


@pytest.fixture(scope="module")
def postgresql(postgres_server: Server) -> Iterator[Store]:
    with postgres.fresh_database(postgres_server) as url, memory.connect(url) as store:
        store.migrate()
        yield store


class TestMirrorOfPostgresql(_Mirrored, WritingContract):
    @pytest.fixture
    def primary(self, postgresql: Store) -> Store:
        return postgresql


@pytest.fixture(scope="module")
def redis(redis_server: Server) -> Iterator[Store]:
    with fresh_prefix(redis_server) as url, memory.connect(url) as store:
        store.migrate()
        yield store


class TestMirrorInRedis(_Mirrored, WritingContract):
    @pytest.fixture
    def replica(self, redis: Store) -> Store:
        return redis
