"""A mirrored store keeps the contract; and whatever the contract has done to it, its replica ends equal."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

import memory
from memory import Store
from memory.comparing import verify
from memory.mirroring import MirroredStore
from memory.repository import Repository
from memory.testing import RepositoryContract
from memory.values import new_id
from tests.mirroring.comparing import namespaces_of
from tests.servers import Server, postgres
from tests.servers.redis import drop_indexes


class _Mirrored(RepositoryContract):
    examples = 25  # each is written three times

    @pytest.fixture
    def primary(self, tmp_path: Path) -> Iterator[Store]:
        with memory.connect(f"sqlite:///{tmp_path}/primary.db") as store:
            yield store

    @pytest.fixture
    def replica(self) -> Iterator[Store]:
        with memory.connect("memory://") as store:
            yield store

    @pytest.fixture
    def repository(self, primary: Store, replica: Store) -> Iterator[Repository]:
        store = MirroredStore(primary, [replica])
        replica.repository.clock = lambda: store.repository.clock()  # noqa: PLW0108  # the test sets another one
        yield store.repository
        namespaces = namespaces_of(store)
        assert [done.failure for done in store.relay()] == [None]
        assert store.lag()[repr(replica.repository)].change_sets == 0
        for name in namespaces:
            assert list(verify(primary.namespace(name), replica.namespace(name))) == []


class TestMirrorOfSqlite(_Mirrored):
    pass


@pytest.fixture(scope="module")
def postgresql(postgres_server: Server) -> Iterator[Store]:
    with postgres.fresh_database(postgres_server) as url, memory.connect(url) as store:
        store.migrate()
        yield store


class TestMirrorOfPostgresql(_Mirrored):
    @pytest.fixture
    def primary(self, postgresql: Store) -> Store:
        return postgresql


@pytest.fixture(scope="module")
def redis(redis_server: Server) -> Iterator[Store]:
    prefix = f"mirror-{new_id()}"
    with memory.connect(f"{redis_server.url}?prefix={prefix}") as store:
        store.migrate()
        yield store
    with redis_py.Redis.from_url(redis_server.url) as client:
        drop_indexes(client, prefix)


class TestMirrorInRedis(_Mirrored):
    @pytest.fixture
    def replica(self, redis: Store) -> Store:
        return redis
