"""Repositories whose calls wait until the test lets them go on."""

from collections.abc import Iterator
from threading import Event

import pytest

from memory.adapters.in_memory import InMemoryRepository
from memory.domain.entities import Conversation
from memory.port.changes import ChangeSet, Receipt


class GatedRepository(InMemoryRepository):
    """The reference, in which a commit waits behind a gate, and so does a read of the conversation ``gated``."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.begun, self.ended = Event(), Event(), Event()

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        self._wait()
        try:
            return super().commit(namespace, changes)
        finally:
            self.ended.set()

    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        if conversation_id == "gated":
            self._wait()
            self.ended.set()
        return super().get(namespace, conversation_id)

    def _wait(self) -> None:
        self.begun.set()
        assert self.gate.wait(30)


@pytest.fixture
def gated() -> Iterator[GatedRepository]:
    repository = GatedRepository()
    yield repository
    repository.gate.set()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
