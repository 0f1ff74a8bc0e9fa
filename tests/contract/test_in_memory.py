"""The reference keeps the contract."""

import pytest

from memory.adapters.in_memory import InMemoryRepository
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.rounds import rounds


class TestInMemory(RepositoryContract):
    examples = rounds(50)

    @pytest.fixture
    def repository(self) -> Repository:
        return InMemoryRepository()
