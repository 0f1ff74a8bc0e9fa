"""DynamoDB keeps the contract, on Amazon's own emulator; all tests share a table, and are parted by their namespaces.

Shards spread lists and index entries, which finding, counting, listing and purging read: those parts are played on a table in
shards too. A conversation and its runs are where they are without shards.
"""

from collections.abc import Iterator

import pytest

import memory
from memory.domain.values import new_id
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.expiry import Expiry
from memory.testing.open_runs import OpenRuns
from memory.testing.ordering import Namespaces, Pages, Times
from memory.testing.planning import Planning
from memory.testing.queries import Queries
from memory.testing.random_queries import RandomQueries
from tests.rounds import rounds
from tests.servers import Server


@pytest.fixture(scope="module")
def dynamodb(dynamodb_server: Server) -> Iterator[Repository]:
    with memory.connect(f"dynamodb://contract-{new_id()}?endpoint={dynamodb_server.url}") as store:
        yield store.repository


@pytest.fixture(scope="module")
def sharded(dynamodb_server: Server) -> Iterator[Repository]:
    with memory.connect(f"dynamodb://contract-{new_id()}?endpoint={dynamodb_server.url}&shards=3") as store:
        yield store.repository


class TestDynamoDb(RepositoryContract):
    examples = rounds(8)  # each of many requests

    @pytest.fixture
    def repository(self, dynamodb: Repository) -> Repository:
        return dynamodb


class TestDynamoDbInShards(Planning, Times, Pages, Namespaces, Expiry, OpenRuns, Queries, RandomQueries):
    """The part of the contract in which it matters how many partitions a list is spread over.

    The limits of the planner, and of what is read at once, are so small that every way is taken.
    """

    examples = rounds(5)
    # All pairs of values: they are compared in each shard as without shards, or by Python.
    test_equality = test_comparison_of_numbers = test_comparison_of_strings = None  # type: ignore[assignment]

    @pytest.fixture
    def repository(self, sharded: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
        for name, limit in (("DynamoDbSearch.drive_limit", 3), ("DynamoDbSearch.walk_limit", 40)):
            monkeypatch.setattr(f"memory.adapters.dynamodb.searching.{name}", limit)
        for name, limit in (("_FEW", 1), ("_HEADS_AT_ONCE", 20), ("_WALKED_AT_ONCE", 10)):
            monkeypatch.setattr(f"memory.adapters.dynamodb.searching.{name}", limit)
        return sharded
