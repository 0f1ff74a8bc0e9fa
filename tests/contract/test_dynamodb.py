"""DynamoDB keeps the contract, on Amazon's own emulator; all tests share a table, and are parted by their namespaces."""

from collections.abc import Iterator

import pytest

import memory
from memory.domain.values import new_id
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.planning import Planning
from tests.servers import Server


@pytest.fixture(scope="module")
def dynamodb(dynamodb_server: Server) -> Iterator[Repository]:
    with memory.connect(f"dynamodb://contract-{new_id()}?endpoint={dynamodb_server.url}") as store:
        yield store.repository


@pytest.fixture(scope="module")
def sharded(dynamodb_server: Server) -> Iterator[Repository]:
    with memory.connect(f"dynamodb://contract-{new_id()}?endpoint={dynamodb_server.url}&shards=3") as store:
        yield store.repository


class TestDynamoDb(Planning, RepositoryContract):
    @pytest.fixture
    def repository(self, dynamodb: Repository) -> Repository:
        return dynamodb


class TestDynamoDbInShards(RepositoryContract):
    examples = 10

    @pytest.fixture
    def repository(self, sharded: Repository) -> Repository:
        return sharded
