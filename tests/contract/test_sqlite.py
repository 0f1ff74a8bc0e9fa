"""sqlite keeps the contract, in a file and in memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import memory
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.rounds import rounds


class TestSqliteFile(RepositoryContract):
    examples = rounds(50)

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Iterator[Repository]:
        with memory.connect(f"sqlite:///{tmp_path}/contract.db") as store:
            yield store.repository


class TestSqliteInMemory(RepositoryContract):
    examples = rounds(10)  # the SQL is that of a file; its connections are others

    @pytest.fixture
    def repository(self) -> Iterator[Repository]:
        with memory.connect("sqlite://") as store:
            yield store.repository
