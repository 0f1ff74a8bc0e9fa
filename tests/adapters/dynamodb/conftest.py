from collections.abc import Iterator
from contextlib import closing

import pytest

from memory import Store
from memory.adapters.dynamodb import DynamoDbRepository
from memory.domain.values import new_id
from tests.servers import Server


def make_table(server: Server) -> str:
    """Create a table, and return its name."""
    name = f"adapter-{new_id()}"
    with closing(DynamoDbRepository(name, endpoint=server.url)) as repository:
        repository.migrate()
    return name


@pytest.fixture(scope="session")
def shared_table(dynamodb_server: Server) -> str:
    return make_table(dynamodb_server)


@pytest.fixture
def table_name(request: pytest.FixtureRequest, shared_table: str, dynamodb_server: Server) -> str:
    """The table that tests share, with a namespace each; a table of its own for a test whose module scans it."""
    scans = vars(request.module).keys() & {"check_tidy", "items_of"}
    return make_table(dynamodb_server) if scans else shared_table


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
    monkeypatch.setattr("memory.core.faces._FIRST_DELAY", 0)


@pytest.fixture
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all times be in the same minute: what a write costs depends on it."""
    monkeypatch.setattr("memory.adapters.dynamodb.keys.minute", lambda _: "")
