"""PostgreSQL keeps the contract; all tests share a database, and are parted by their namespaces."""

from collections.abc import Iterator

import pytest

import memory
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.rounds import rounds
from tests.servers import Server, postgres


@pytest.fixture(scope="module")
def postgresql(postgres_server: Server) -> Iterator[Repository]:
    with postgres.fresh_database(postgres_server) as url, memory.connect(url) as store:
        yield store.repository


class TestPostgresql(RepositoryContract):
    examples = rounds(20)

    @pytest.fixture
    def repository(self, postgresql: Repository) -> Repository:
        return postgresql
