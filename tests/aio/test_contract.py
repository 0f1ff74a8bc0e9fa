"""Every store keeps the contract through the asynchronous face, too: the same suite, unchanged."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from memory import Store
from memory.port.repository import Repository
from tests.aio.driving import store_class
from tests.contract import test_cloud, test_dynamodb, test_in_memory, test_postgresql, test_redis, test_sqlite
from tests.contract.test_dynamodb import dynamodb
from tests.contract.test_postgresql import postgresql
from tests.contract.test_redis import redis
from tests.contract.test_sqlite import file, in_memory
from tests.rounds import rounds

__all__ = ["dynamodb", "file", "in_memory", "postgresql", "redis"]  # fixtures of the classes below


@pytest.fixture(scope="module")
def asyncio_portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture(scope="module")
def trio_portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("trio") as portal:
        yield portal


class Asynchronous:
    examples: ClassVar[int] = rounds(2)

    @pytest.fixture
    def store_class(self, asyncio_portal: BlockingPortal) -> Callable[[Repository, str], Store]:
        return store_class(asyncio_portal)


class TestInMemory(Asynchronous, test_in_memory.TestInMemory):
    examples = rounds(5)


class TestInTrio(test_in_memory.TestInMemory):
    examples: ClassVar[int] = rounds(2)

    @pytest.fixture
    def store_class(self, trio_portal: BlockingPortal) -> Callable[[Repository, str], Store]:
        return store_class(trio_portal)


class TestSqliteFile(Asynchronous, test_sqlite.TestSqliteFile):
    pass


class TestSqliteInMemory(Asynchronous, test_sqlite.TestSqliteInMemory):
    pass


class TestPostgresql(Asynchronous, test_postgresql.TestPostgresql):
    pass


class TestRedis(Asynchronous, test_redis.TestRedis):
    pass


class TestDynamoDb(Asynchronous, test_dynamodb.TestDynamoDb):
    pass


class TestCloud(Asynchronous, test_cloud.TestCloud):
    pass
