"""The fixtures that the contract tests its stores with, for tests of all of them: ``repository`` is each in turn."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from memory.adapters.cloud import GriptapeCloudRepository
from memory.adapters.in_memory import InMemoryRepository
from memory.port.repository import Repository
from tests.contract.test_dynamodb import dynamodb
from tests.contract.test_postgresql import postgresql
from tests.contract.test_redis import redis
from tests.contract.test_sqlite import file, in_memory

__all__ = ["cloud", "dynamodb", "file", "in_memory", "objects", "postgresql", "redis", "repository"]

_NEEDS = {"postgresql": "postgres", "redis": "redis", "dynamodb": "dynamodb"}
_NAMES = ["objects", "file", "in_memory", "postgresql", "redis", "dynamodb", "cloud"]


@pytest.fixture
def objects() -> Repository:
    return InMemoryRepository()


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Iterator[Repository]:
    host = request.getfixturevalue("cloud_server").host
    with closing(GriptapeCloudRepository(host, "key-of-org-a")) as repository:
        yield repository


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.needs(_NEEDS[name]) if name in _NEEDS else ()) for name in _NAMES]
)
def repository(request: pytest.FixtureRequest) -> Repository:
    repository: Repository = request.getfixturevalue(request.param)
    return repository
