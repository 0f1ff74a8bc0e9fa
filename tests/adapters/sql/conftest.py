"""Databases for the tests of the SQL adapter."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import memory
from memory import Store
from tests.servers import postgres

BOTH = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.needs("postgres"))]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a file that is not there yet."""
    return f"sqlite:///{tmp_path}/conversations.db"


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database of each kind."""
    found: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return found


@pytest.fixture(scope="module", params=BOTH)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of each kind for the tests of one file, which part by namespace, or only read."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path_factory.mktemp('shared')}/conversations.db"
        if request.param == "postgresql":
            url = stack.enter_context(postgres.fresh_database(request.getfixturevalue("postgres_server")))
        store = stack.enter_context(memory.connect(url))
        store.migrate()
        yield store


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A store with its schema, in each kind of database."""
    with memory.connect(url) as store:
        store.migrate()
        yield store
