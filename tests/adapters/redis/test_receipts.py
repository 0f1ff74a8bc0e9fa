"""Receipts: what a commit returns that was written before, and what `forget` deletes."""

from typing import Any

import pytest

from memory import Conversation, CorruptRecordError, Run, Store
from memory.adapters.redis import repository
from memory.adapters.redis.keys import Keys
from memory.domain.records import RunRecord
from memory.port.changes import Change, ChangeSet
from memory.port.repository import Forgotten

RUN = RunRecord(0, "id", '"x"', '"x"', "{}", 1)


def add(store: Store, *names: str) -> None:
    with store.begin() as uow:
        for name in names:
            uow.conversations.add(Conversation(name))


def receipts(client: Any, keys: Keys, namespace: str = "default") -> set[bytes]:
    return set(client.scan_iter(f"{keys.receipt(namespace, '')}*"))


@pytest.mark.parametrize("runs", [1, 2])
def test_only_a_repeated_commit_says_so(store: Store, runs: int) -> None:
    """Of the script for one run, and of the general one; also after the conversation is gone."""
    add(store, "a")
    changes = ChangeSet((Change("a", append=(RUN,) * runs),))
    first = store.repository.commit("default", changes)
    second = store.repository.commit("default", changes)
    store.repository.commit("default", ChangeSet((Change("a", remove=True),)))
    third = store.repository.commit("default", changes)
    assert first == second == third
    assert (first.repeated, second.repeated, third.repeated) == (False, True, True)


def test_forget(store: Store, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """It deletes the receipts with a conversation, among those of others too, in its namespace alone, however many there are."""
    monkeypatch.setattr(repository, "_SCANNED_AT_ONCE", 7)
    long = "ü/*" * 300
    for one in (store, store.namespace("default*"), store.namespace("default/x")):
        add(one, "a", "b", long)
        for _ in range(30):
            for name in ("a", "b", long):
                with one.begin() as uow:
                    uow.runs.append(name, Run(1, 1))
    assert store.repository.forget("default", ["a", long, "missing"]) == Forgotten(61)
    assert len(receipts(client, keys)) == 30
    assert {len(receipts(client, keys, other)) for other in ("default*", "default/x")} == {91}
    assert store.repository.forget("default", ["a", long]) == Forgotten(0)


def test_a_receipt_that_cannot_be_read_is_not_passed_over(store: Store, client: Any, keys: Keys) -> None:
    add(store, "a")
    client.set(keys.receipt("default", "t"), "{")
    with pytest.raises(CorruptRecordError, match="receipt"):
        store.repository.forget("default", ["a"])
