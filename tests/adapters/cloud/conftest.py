"""A repository on the test server, and a way to make everything go wrong without waiting for it."""

from collections.abc import Callable, Iterator

import pytest

from memory import Store
from memory.adapters.cloud import GriptapeCloudRepository
from tests.cloud_server import CloudServer


@pytest.fixture
def connect(cloud_server: CloudServer) -> Iterator[Callable[..., GriptapeCloudRepository]]:
    """Opens repositories on the server that do not wait between two attempts; what they would have waited is in `waited`."""
    opened: list[GriptapeCloudRepository] = []

    def open_one(attempts: int = 5, **options: object) -> GriptapeCloudRepository:
        repository = GriptapeCloudRepository(cloud_server.host, "key-of-org-a", **{"timeout": 3.0, **options})  # type: ignore[arg-type]
        repository._http.sleep, repository._http.attempts = lambda _: None, attempts
        opened.append(repository)
        return repository

    yield open_one
    for repository in opened:
        repository.close()


@pytest.fixture
def repository(connect: Callable[..., GriptapeCloudRepository]) -> GriptapeCloudRepository:
    return connect()


@pytest.fixture
def store(repository: GriptapeCloudRepository) -> Store:
    return Store(repository)


@pytest.fixture
def other(connect: Callable[..., GriptapeCloudRepository]) -> Store:
    """Another process."""
    return Store(connect())
