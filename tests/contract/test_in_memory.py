"""The reference keeps the contract."""

import pytest

from memory.adapters.in_memory import InMemoryRepository
from memory.port.repository import Repository
from memory.testing import RepositoryContract


class TestInMemory(RepositoryContract):
    @pytest.fixture
    def repository(self) -> Repository:
        return InMemoryRepository()
