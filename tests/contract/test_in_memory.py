"""The reference keeps the contract."""

import pytest

from memory.adapters.in_memory import InMemoryRepository
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from memory.testing.planning import Planning


class TestInMemory(Planning, RepositoryContract):
    @pytest.fixture
    def repository(self) -> Repository:
        return InMemoryRepository()
