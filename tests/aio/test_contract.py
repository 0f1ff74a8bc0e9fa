"""Every store keeps the contract through the asynchronous face, too: the same suite, unchanged."""

from collections.abc import Callable, Iterator

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from memory import Store
from memory.adapters.in_memory import InMemoryRepository
from memory.port.repository import Repository
from memory.testing import RepositoryContract
from tests.aio.driving import store_class
from tests.rounds import rounds


@pytest.fixture(scope="module")
def asyncio_portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture(scope="module")
def trio_portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("trio") as portal:
        yield portal


class Asynchronous:
    @pytest.fixture
    def portal(self, asyncio_portal: BlockingPortal) -> BlockingPortal:
        return asyncio_portal

    @pytest.fixture
    def store_class(self, portal: BlockingPortal) -> Callable[[Repository, str], Store]:
        return store_class(portal)


class TestInMemory(Asynchronous, RepositoryContract):
    examples = rounds(25)

    @pytest.fixture
    def repository(self) -> Repository:
        return InMemoryRepository()


class TestInTrio(TestInMemory):
    examples = rounds(10)

    @pytest.fixture
    def portal(self, trio_portal: BlockingPortal) -> BlockingPortal:
        return trio_portal
