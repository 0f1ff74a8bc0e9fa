"""Stores to copy from and to, and others who write to them meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import memory
from memory import (
    Store,
)
from memory.domain.records import ConversationRecord, RunRecord
from memory.port.changes import Change, ChangeSet
from memory.port.repository import RunsRead, Window
from memory.testing.base import read, read_runs


def objects() -> Store:
    return memory.connect("memory://")


def edited(number: int, store: Store, conversation_id: str = "a") -> None:
    with store.begin() as uow:
        uow.conversations.get(conversation_id).metadata["edited"] = number


@contextmanager
def interfering(store: Store, interfere: Callable[[int], object]) -> Iterator[None]:
    """Call a function with 1, 2, 3 ... before runs are read from the store."""
    original, number = store.repository.runs, 0

    def runs(namespace: str, conversation_id: str, window: Window) -> RunsRead:
        nonlocal number
        number += 1
        interfere(number)
        return original(namespace, conversation_id, window)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.repository, "runs", runs)
        yield


def tamper(
    store: Store,
    record: Callable[[ConversationRecord], ConversationRecord] = lambda record: record,
    runs: Callable[[tuple[RunRecord, ...]], tuple[RunRecord, ...]] = lambda runs: runs,
) -> None:
    """Put something else in the place of conversation a."""
    stored = read(store, "a").record
    assert stored is not None
    records = tuple([one.to_record(one.position or 0) for one in read_runs(store, "a")])
    change = Change("a", remove=True, create=record(stored), append=runs(records))
    store.commit(ChangeSet.of([change], stored.updated_at))
