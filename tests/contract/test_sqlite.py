"""sqlite keeps the contract, in a file and in memory; all tests share a database of each, and are parted by their namespaces."""

from collections.abc import Iterator

import pytest

import memory
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.rounds import rounds


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with memory.connect(f"sqlite:///{tmp_path_factory.mktemp('contract')}/contract.db") as store:
        yield store.repository


@pytest.fixture(scope="module")
def in_memory() -> Iterator[Repository]:
    with memory.connect("sqlite://") as store:
        yield store.repository


class TestSqliteFile(RepositoryContract):
    examples = rounds(30)

    @pytest.fixture
    def repository(self, file: Repository) -> Repository:
        return file


class TestSqliteInMemory(RepositoryContract):
    examples = rounds(10)  # the SQL is that of a file; its connections are others

    @pytest.fixture
    def repository(self, in_memory: Repository) -> Repository:
        return in_memory
