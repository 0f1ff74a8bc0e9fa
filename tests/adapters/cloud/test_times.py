"""What a plain append leaves out of the thread: the time of the last run, a sliding expiry, and which runs are open."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import memory
from memory import PENDING, Conversation, NotFoundError, Run, Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.domain.values import to_datetime
from memory.testing.base import Clock, committed, do, put, read, read_runs, run, states
from tests.cloud_server import CloudServer

MINUTE = 60_000_000


@pytest.fixture
def clock(repository: GriptapeCloudRepository, cloud_server: CloudServer) -> Clock:
    """The clock of the application and of the service."""
    repository.clock = cloud_server.service.clock = clock = Clock()
    return clock


@pytest.fixture
def reference(clock: Clock) -> Store:
    store = memory.connect("memory://")
    store.repository.clock = clock
    return store


def test_appends_move_the_expiry(store: Store, reference: Store, clock: Clock, cloud_server: CloudServer) -> None:
    """As in the reference, without a request more: the expiry follows from the time of the thread."""
    lasting = timedelta(microseconds=10)
    for each in (store, reference):
        do(each, lambda uow: uow.conversations.add(Conversation("a", {"n": 1}, expires_after=lasting)))
    for _ in range(4):
        clock.advance(7)
        before = len(cloud_server.requests)
        one = Run("in", "out", created_at=to_datetime(clock.time))
        do(store, lambda uow, one=one: uow.runs.append("a", one))  # type: ignore[misc]
        assert [request.method for request in cloud_server.requests[before:]] == ["GET", "POST"]
        do(reference, lambda uow, one=one: uow.runs.append("a", replace(one)))  # type: ignore[misc]
        assert states([read(store, "a")]) == states([read(reference, "a")])
        clock.advance(2)
        for each in (store, reference):  # an edit does not move it
            do(each, lambda uow: uow.conversations.get("a").metadata.update(n=clock.time))
        assert states([read(store, "a")]) == states([read(reference, "a")])
    clock.advance(7)
    assert store.purge_expired() == 0
    assert "a" in store.conversations
    clock.advance(1)
    assert "a" not in store.conversations
    with pytest.raises(NotFoundError):
        do(store, lambda uow: uow.runs.append("a", run()))
    assert store.purge_expired() == 1


@pytest.mark.parametrize(
    ("age", "error"), [(0, 0), (MINUTE, MINUTE), (MINUTE + 1, 0), (10**12, 0), (-1, 0), (-(10**12), 0)]
)
def test_the_time_of_the_last_run_is_a_minute_off_at_most(store: Store, clock: Clock, age: int, error: int) -> None:
    clock.time -= 10**13
    put(store, "a")
    clock.time += 10**13
    created_at = to_datetime(clock.time - age)
    do(store, lambda uow: uow.runs.append("a", Run("in", "out", created_at=created_at)))
    exact = created_at + timedelta(microseconds=error)
    assert read(store, "a").last_run_at == exact
    assert [one.last_run_at for one in store.conversations.find()] == [exact]
    clock.advance()
    with store.begin() as uow:
        uow.conversations.get("a").metadata["pinned"] = True
    assert read(store, "a").last_run_at == exact


def test_what_earlier_versions_wrote_is_read(store: Store, cloud_server: CloudServer) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1}, expires_at=to_datetime(4 * 10**15)))
        uow.runs.append("a", Run("in", {"k": 1}, {"m": 1}))
    before, runs = read(store, "a"), read_runs(store, "a")
    (thread,) = cloud_server.service.threads.values()
    format, record, token, place, _ = envelope_of(thread)
    thread.metadata["conversation_memory"] = json.dumps([format, record[:9], token, place])
    format, token, number, one, *others = envelope_of(thread.messages[0])
    thread.messages[0].metadata["conversation_memory"] = json.dumps([format, token, number, one[:6], *others])
    found = read(store, "a")
    assert (found.metadata, found.expires_at, found.version) == (before.metadata, before.expires_at, 1)
    assert (found.expires_after, found.last_run_at) == (None, found.updated_at)
    assert read_runs(store, "a") == runs
    assert list(store.runs.open()) == []
    with store.begin() as uow:
        uow.conversations.get("a").metadata["n"] = 2
        uow.runs.append("a", Run("in", PENDING, id="open"))
    do(store, lambda uow: uow.runs.complete("a", "open", output="out"))
    assert [(one.output, one.is_open) for one in read_runs(store, "a")] == [({"k": 1}, False), ("out", False)]


@pytest.mark.parametrize("mark", [0, 120])
def test_a_run_is_completed_though_its_mark_is_lost(store: Store, cloud_server: CloudServer, mark: int) -> None:
    """As after a race of two writers: `open` does not list the run, and `complete` finds it."""
    put(store, "a", None, *[Run(n, PENDING if n in (1, 120) else "out", id=str(n)) for n in range(1, 121)])
    (thread,) = cloud_server.service.threads.values()
    *others, first = envelope_of(thread)
    assert first == 1
    thread.metadata["conversation_memory"] = json.dumps([*others, mark])
    assert [one.position for _, one in store.runs.open()] == ([120] if mark else [])
    do(store, lambda uow: uow.runs.complete("a", "1", output="out"))
    assert [one.position for _, one in store.runs.open()] == [120]


def test_messages_that_others_delete_hide_no_open_run(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, *[run(n) for n in range(129)])
    do(store, lambda uow: uow.runs.append("a", Run(130, PENDING, id="open")))
    (thread,) = cloud_server.service.threads.values()
    del thread.messages[7:9]
    assert [(id, one.position) for id, one in store.runs.open()] == [("a", 130)]
    do(store, lambda uow: uow.runs.complete("a", "open", output="out"))
    assert read_runs(store, "a")[-1].output == "out"
    assert list(store.runs.open()) == []


def test_the_last_open_runs_of_long_conversations(
    store: Store, connect: Callable[..., GriptapeCloudRepository], cloud_server: CloudServer
) -> None:
    """The mark is that of the first run that may be open, whatever is done to the others."""
    put(store, "a", None, *[Run(n, PENDING if n in (3, 150) else "out", id=str(n)) for n in range(1, 160)])
    (thread,) = cloud_server.service.threads.values()
    steps: list[tuple[Callable[[Any], object], list[int], int]] = [
        (lambda uow: uow.runs.append("a", Run("in", PENDING, id="160")), [3, 150, 160], 3),
        (lambda uow: uow.runs.replace("a", Run("in", PENDING, id="2", position=2)), [2, 3, 150, 160], 2),
        (lambda uow: uow.runs.complete("a", "3", output="it", is_final=False), [2, 3, 150, 160], 2),
        (lambda uow: uow.runs.complete("a", "2", output="it"), [3, 150, 160], 3),
        (lambda uow: uow.runs.remove("a", before=10), [150, 160], 150),
        (lambda uow: uow.runs.remove("a", after=155), [150], 150),
        (lambda uow: uow.runs.replace("a", Run("in", "out", position=150)), [], 0),
    ]
    for work, positions, first in steps:
        do(store, work)
        assert sorted(one.position or 0 for _, one in Store(connect()).runs.open()) == positions
        assert envelope_of(thread)[-1] == first


def test_a_change_set_that_was_written_is_repeated(store: Store) -> None:
    put(store, "a", None, Run("in", PENDING, id="open"))
    commit = committed(store, lambda uow: uow.runs.complete("a", "open", output="out"))
    assert not commit.receipt.repeated
    assert store.commit(commit.changes).repeated


def envelope_of(one: Any) -> list[Any]:
    """Return the envelope of a thread or a message of the server."""
    return list(json.loads(one.metadata["conversation_memory"]))
