"""The whole server is killed: what was acknowledged is there when it comes back."""

from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

import memory
from memory import CommitInDoubtError, Conversation, PersistenceError, Run, Store, StoreUnavailableError
from memory.adapters.sql import SqlRepository
from tests.adapters.sql.checking import assert_consistent
from tests.servers import KillableServer


@pytest.fixture
def store(killable_postgres: KillableServer) -> Iterator[Store]:
    with memory.connect(killable_postgres.url) as store:
        store.migrate()
        store.run(lambda uow: uow.conversations.add(Conversation("c")) if not uow.conversations.count() else None)
        yield store


class Writer(Thread):
    """Appends until it meets an error, which it keeps."""

    def __init__(self, store: Store, begun_after: int) -> None:
        super().__init__()
        self.acknowledged = begun_after
        self.has_begun = Event()
        self.error: PersistenceError | None = None
        self._store = store

    def run(self) -> None:
        try:
            while True:
                with self._store.begin() as uow:
                    uow.runs.append("c", Run(self.acknowledged + 1, None))
                self.acknowledged += 1
                if self.acknowledged % 20 == 0:
                    self.has_begun.set()
        except PersistenceError as error:
            self.error = error
        finally:
            self.has_begun.set()


def test_what_was_acknowledged_survives_the_servers_death(killable_postgres: KillableServer, store: Store) -> None:
    assert isinstance(store.repository, SqlRepository)
    acknowledged = 0
    for _ in range(3):
        writer = Writer(store, acknowledged)
        writer.start()
        assert writer.has_begun.wait(30)
        killable_postgres.kill()
        writer.join(30)
        killable_postgres.restart()
        assert isinstance(writer.error, StoreUnavailableError | CommitInDoubtError)
        with store.begin() as uow:
            runs = uow.runs.list("c")
        assert [run.position for run in runs] == list(range(1, len(runs) + 1))
        assert writer.acknowledged <= len(runs) <= writer.acknowledged + 1
        if isinstance(writer.error, StoreUnavailableError):
            assert len(runs) == writer.acknowledged, "an error that says nothing was written"
        store.repository.engine.dispose()
        assert_consistent(store.repository.engine)
        acknowledged = len(runs)
    assert acknowledged >= 60


def test_a_server_that_is_down_is_unavailable_until_it_is_back(killable_postgres: KillableServer, store: Store) -> None:
    with store.begin() as uow:
        before = uow.conversations.get("c").run_count
    killable_postgres.kill()
    try:
        works: list[Callable[[], object]] = [
            lambda: store.begin().conversations.get("c"),
            lambda: store.run(lambda uow: uow.runs.append("c", Run("lost", None)), retries=1),
            store.begin().conversations.count,
            store.migrate,
            memory.connect(killable_postgres.url).begin,
        ]
        for work in works:
            with pytest.raises(StoreUnavailableError) as caught:
                work()
            assert caught.value.__cause__ is not None
    finally:
        killable_postgres.restart()
    with store.begin() as uow:
        uow.runs.append("c", Run("again", None))
    with store.begin() as uow:
        assert uow.conversations.get("c").run_count == before + 1
