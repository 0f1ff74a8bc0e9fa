"""Erasing in a mirrored store: the texts leave the outbox at once, and the replicas with the next relay."""

from pathlib import Path

import pytest

import memory
from memory import Conversation, Run, where
from memory.testing.base import put
from memory.transfer.mirroring import MirroredStore
from memory.transfer.verifying import verify

SECRET = "the secret of Ada"
OF_ADA = where("customer") == "ada"


@pytest.fixture
def store(tmp_path: Path) -> MirroredStore:
    store = memory.mirror(f"sqlite:///{tmp_path}/app.db", search=f"sqlite:///{tmp_path}/copies.db")
    store.migrate()
    put(store, "ada", {"customer": "ada", "note": SECRET}, Run(SECRET, SECRET))
    with store.begin() as uow:  # one change set with a conversation that stays
        uow.conversations.add(Conversation("ada 2", {"customer": "ada", "note": SECRET}))
        uow.conversations.add(Conversation("bob", {"customer": "bob"}))
        uow.runs.append("bob", Run("the question of Bob", "an answer"))
    return store


def waiting_texts(store: MirroredStore) -> str:
    with store.repository.relaying("search") as outbox:
        assert outbox is not None
        return repr(outbox.first(100))


def replica_of(store: MirroredStore) -> memory.Store:
    return store.replicas["search"]


def test_texts_that_wait_are_deleted_and_the_rest_is_delivered(store: MirroredStore) -> None:
    assert SECRET in waiting_texts(store)
    report = store.erase(OF_ADA, verify=True)
    assert report.is_complete
    assert report.outbox >= 2
    assert report.waiting["search"] >= 1
    waiting = waiting_texts(store)
    assert SECRET not in waiting
    assert "the question of Bob" in waiting
    (done,) = store.relay()
    assert done.failure is None
    assert list(verify(store, replica_of(store))) == []
    assert [one.id for one in replica_of(store).conversations.iterate()] == ["bob"]
    assert store.erase(OF_ADA).waiting == {}
    store.close()


def test_the_removal_reaches_a_replica_that_has_the_conversation(store: MirroredStore) -> None:
    store.relay()
    with store.begin() as uow:
        uow.runs.append("ada", Run(SECRET, SECRET))
    store.erase(OF_ADA)
    assert SECRET not in waiting_texts(store)
    assert replica_of(store).conversations.count(OF_ADA) == 2
    store.relay()
    assert replica_of(store).conversations.count(OF_ADA) == 0
    assert replica_of(store).runs.list("ada") == []
    assert list(verify(store, replica_of(store))) == []
    store.close()


def test_a_conversation_that_begins_again_after_its_erasure_reaches_the_replica(store: MirroredStore) -> None:
    store.relay()
    store.erase(OF_ADA)
    put(store, "ada", {"customer": "ada"}, Run("a new question", "an answer"))
    store.relay()
    assert list(verify(store, replica_of(store))) == []
    assert replica_of(store).runs.list("ada")[0].input == "a new question"
    store.close()


def test_a_retention_reaches_the_replica(store: MirroredStore) -> None:
    with store.begin() as uow:
        uow.runs.append("bob", *[Run(n, n) for n in range(5)])
    store.relay()
    assert store.retain(memory.Retention(keep_last=2)).trimmed == 1
    store.relay()
    assert list(verify(store, replica_of(store))) == []
    assert replica_of(store).conversations.get("bob").run_count == 2
    store.close()
