from collections.abc import Iterator
from contextlib import closing

import pytest

from memory import Store
from memory.adapters.dynamodb import DynamoDbRepository
from memory.domain.values import new_id
from tests.servers import Server


@pytest.fixture
def table_name(dynamodb_server: Server) -> str:
    """A table for each test: some look at all of it."""
    name = f"adapter-{new_id()}"
    with closing(DynamoDbRepository(name, endpoint=dynamodb_server.url)) as repository:
        repository.migrate()
    return name


@pytest.fixture
def repository(table_name: str, dynamodb_server: Server) -> Iterator[DynamoDbRepository]:
    with closing(DynamoDbRepository(table_name, endpoint=dynamodb_server.url)) as repository:
        yield repository


@pytest.fixture
def other(table_name: str, dynamodb_server: Server) -> Iterator[DynamoDbRepository]:
    """The same table, as another process has it."""
    with closing(DynamoDbRepository(table_name, endpoint=dynamodb_server.url)) as repository:
        yield repository


@pytest.fixture
def namespace() -> str:
    return new_id()


@pytest.fixture
def store(repository: DynamoDbRepository, namespace: str) -> Store:
    store = Store(repository, namespace)
    store.begin()  # looks at the schema, once
    return store


@pytest.fixture
def other_store(other: DynamoDbRepository, namespace: str) -> Store:
    store = Store(other, namespace)
    store.begin()
    return store


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.adapters.dynamodb.errors._FIRST_DELAY", 0.001)
    monkeypatch.setattr("memory.adapters.dynamodb.errors._LONGEST_DELAY", 0.002)
    monkeypatch.setattr("memory.core.store._FIRST_DELAY", 0)
