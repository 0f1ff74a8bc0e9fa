"""What holds on every store: many tasks at once, and cancellation at any moment."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from memory import Conversation, Run, aio
from memory.adapters.in_memory import InMemoryRepository
from memory.core.store import Store
from memory.domain.values import new_id
from memory.errors import PersistenceError
from memory.port.repository import Repository
from memory.testing.base import Clock, Contract, Snapshot, Work, new_store, put, snapshot
from memory.testing.state_machine import EDITS
from tests.aio.driving import Driven
from tests.aio.stores import *  # noqa: F403  # fixtures
from tests.rounds import rounds

TASKS, CONVERSATIONS = 1_000, 50


class Counted:
    """Counts the calls of a repository that run at once, and the threads that they run on."""

    def __init__(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self.most_writing = self._calls = self._writing = 0
        self.threads: set[int] = set()
        self._lock = threading.Lock()
        for name in ("get", "runs", "commit"):
            monkeypatch.setattr(repository, name, self._counting(getattr(repository, name), is_write=name == "commit"))

    def _counting(self, method: Callable[..., Any], *, is_write: bool) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with self._counted(is_write):
                return method(*args)

        return call

    @contextmanager
    def _counted(self, is_write: bool) -> Iterator[None]:  # noqa: FBT001
        with self._lock:
            self._calls += 1
            self._writing += is_write
            self.most, self.most_writing = max(self.most, self._calls), max(self.most_writing, self._writing)
            self.threads.add(threading.get_ident())
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._writing -= is_write


def test_a_thousand_tasks_at_once(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    new_store(repository)
    counted = Counted(repository, monkeypatch)
    calls, writes = repository.concurrency

    async def main() -> None:
        store = aio.Store(repository, new_id())

        async def turn(number: int) -> None:
            async with store.begin() as uow:
                await uow.runs.append(str(number % CONVERSATIONS), Run(number, None))
                await uow.runs.last(str(number % CONVERSATIONS), 1)

        for number in range(CONVERSATIONS):
            async with store.begin() as uow:
                await uow.conversations.add(Conversation(str(number)))
        async with asyncio.TaskGroup() as tasks:
            for number in range(TASKS):
                tasks.create_task(turn(number))
        found = [one.run_count async for one in store.conversations.iterate()]
        assert found == [TASKS // CONVERSATIONS] * CONVERSATIONS

    asyncio.run(main())
    assert counted.most <= calls
    assert counted.most_writing <= writes
    assert len(counted.threads) <= calls


class _Cancelling(RuleBasedStateMachine):
    """Commits that are cancelled after a random number of turns of the event loop."""

    def __init__(self, repository: Repository, clock: Clock, portal: anyio.from_thread.BlockingPortal) -> None:
        super().__init__()
        reference = InMemoryRepository()
        clock.time = Clock().time
        reference.clock = clock
        self.namespace = new_id()
        self.portal = portal
        self.store = Store(repository, self.namespace)
        self.tested = aio.Store(repository, self.namespace)
        self.references = [new_store(reference).namespace(self.namespace)]
        self.store.migrate()

    @initialize(runs=st.lists(st.builds(Run, st.integers(), st.integers()), min_size=2, max_size=4))
    def put(self, runs: list[Run]) -> None:
        for name in "ab":
            put(self.store, name, {}, *runs)
            put(self.references[0], name, {}, *runs)

    @rule(works=st.lists(EDITS, min_size=1, max_size=3), turns=st.integers(0, 12))
    def commit_and_cancel(self, works: list[Work], turns: int) -> None:
        """All of it is written, or nothing: the reference does the same, if it was."""
        before = snapshot(self.store)
        uow, other = self.portal.call(self._begin), self.references[0].begin()
        for work in works:
            with suppress(PersistenceError):
                work(Driven(uow, self.portal))  # type: ignore[arg-type]
            with suppress(PersistenceError):
                work(other)
        self.portal.call(self._commit_and_cancel, uow, turns)
        after = snapshot(self.store)
        if after == before:
            assert uow.receipt is None or not uow.receipt.written or _is_unchanged(other, self.references[0], before)
        else:
            other.commit()
            assert uow.receipt is not None

    async def _begin(self) -> aio.UnitOfWork:
        uow: aio.UnitOfWork = await self.tested.begin()
        return uow

    async def _commit_and_cancel(self, uow: aio.UnitOfWork, turns: int) -> None:
        task = asyncio.ensure_future(uow.commit())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        with suppress(asyncio.CancelledError, PersistenceError):
            task.result()

    @invariant()
    def the_same_is_kept(self) -> None:
        assert snapshot(self.store) == snapshot(self.references[0])


def _is_unchanged(other: Any, reference: Store, before: Snapshot) -> bool:
    """Whether the commit wrote something that leaves everything as it was."""
    other.commit()
    return snapshot(reference) == before


class TestCancelling(Contract):
    examples = rounds(4)

    @pytest.fixture
    def repository(self, repository: Repository) -> Repository:
        return repository

    def test_a_cancelled_commit_has_written_all_or_nothing(self, repository: Repository, clock: Clock) -> None:
        with anyio.from_thread.start_blocking_portal("asyncio") as portal:
            machine: Any = partial(_Cancelling, repository, clock, portal)
            run_state_machine_as_test(machine, settings=self.profile())
