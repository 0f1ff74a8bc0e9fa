"""Databases for the tests of the SQL adapter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import memory
from memory import Store

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


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A store with its schema, in each kind of database."""
    with memory.connect(url) as store:
        store.migrate()
        yield store
