"""A cancelled task has written all or nothing, however it is cancelled, and nobody receives what was meant for it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Any

import anyio
import pytest
from anyio import to_thread

from memory import ConflictError, Conversation, Run, aio
from memory.adapters.in_memory import InMemoryRepository
from memory.core.events import Committed
from memory.errors import CommitInDoubtError, PersistenceError
from memory.port.changes import ChangeSet, Receipt
from tests.aio.conftest import GatedRepository

Work = Callable[[], Awaitable[object]]


async def add(store: aio.Store, conversation_id: str = "a") -> None:
    async with store.begin() as uow:
        await uow.conversations.add(Conversation(conversation_id))


def wait_for(event: Event) -> Awaitable[bool]:
    return to_thread.run_sync(event.wait, 30)


async def by_task(work: Work, begun: Event, then: Callable[[], object]) -> bool:
    """Cancel the task, as a server does whose client has gone; return whether it ended as cancelled."""
    task = asyncio.ensure_future(work())
    assert await wait_for(begun)
    task.cancel()
    await asyncio.sleep(0)
    then()
    await asyncio.wait([task])
    return task.cancelled()


async def by_task_twice(work: Work, begun: Event, then: Callable[[], object]) -> bool:
    task = asyncio.ensure_future(work())
    assert await wait_for(begun)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    then()
    await asyncio.wait([task])
    return task.cancelled()


async def by_timeout(work: Work, begun: Event, then: Callable[[], object]) -> bool:
    async def expire(timeout: asyncio.Timeout) -> None:
        assert await wait_for(begun)
        timeout.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        then()

    async with asyncio.TaskGroup() as tasks:
        try:
            async with asyncio.timeout(None) as timeout:
                tasks.create_task(expire(timeout))
                await work()
        except TimeoutError:
            return True
    return False


async def by_scope(work: Work, begun: Event, then: Callable[[], object]) -> bool:
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                assert await wait_for(begun)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
                then()

            tasks.start_soon(cancel)
            await work()
    return scope.cancelled_caught


async def by_group(work: Work, begun: Event, then: Callable[[], object]) -> bool:
    """Fail beside it, in one task group."""

    async def fail() -> None:
        assert await wait_for(begun)
        asyncio.get_running_loop().call_later(0.01, then)
        raise ZeroDivisionError

    async def to_its_end() -> None:
        await work()

    tasks = []
    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            tasks.append(group.create_task(to_its_end()))
            group.create_task(fail())
    return tasks[0].cancelled()


IN_ASYNCIO = [by_task, by_task_twice, by_timeout, by_scope, by_group]
EACH = [pytest.param("asyncio", way, id=f"asyncio-{way.__name__}") for way in IN_ASYNCIO]
EACH.append(pytest.param("trio", by_scope, id="trio-by_scope"))
each_way = pytest.mark.parametrize(("backend", "cancelled"), EACH)


@each_way
def test_a_commit_that_has_begun_is_awaited_to_its_end(backend: str, cancelled: Any, gated: GatedRepository) -> None:
    async def main() -> None:
        store = aio.Store(gated)
        committed: list[Committed] = []
        store.subscribe(committed.append)
        assert await cancelled(partial(add, store), gated.begun, gated.gate.set)
        assert gated.ended.is_set()  # the task did not end before
        assert await store.conversations.exists("a")
        assert len(committed) == 1

    anyio.run(main, backend=backend)


@each_way
def test_an_asynchronous_subscriber_is_awaited_to_its_end(backend: str, cancelled: Any) -> None:
    begun, told = Event(), []

    async def main() -> None:
        store, gate = aio.Store(InMemoryRepository()), anyio.Event()

        async def subscriber(committed: Committed) -> None:
            begun.set()
            await gate.wait()
            told.append(committed)

        store.subscribe(subscriber)
        store.subscribe(told.append)
        assert await cancelled(partial(add, store), begun, gate.set)
        assert len(told) == 2

    anyio.run(main, backend=backend)


@each_way
def test_a_read_is_abandoned_at_once(backend: str, cancelled: Any, gated: GatedRepository) -> None:
    async def main() -> None:
        store = aio.Store(gated)
        assert await cancelled(partial(store.conversations.exists, "gated"), gated.begun, lambda: None)
        assert not gated.ended.is_set()  # the task did not wait for it
        assert not await store.conversations.exists("other")  # nor does anybody receive its answer
        gated.gate.set()

    anyio.run(main, backend=backend)


@each_way
def test_an_abandoned_read_counts_as_long_as_it_runs(backend: str, cancelled: Any, gated: GatedRepository) -> None:
    gated.concurrency = (1, 1)

    async def main() -> None:
        store = aio.Store(gated)
        assert await cancelled(partial(store.conversations.exists, "gated"), gated.begun, lambda: None)
        with anyio.move_on_after(0.05) as waited:
            await store.conversations.exists("other")  # the only connection is not free
        assert waited.cancelled_caught
        gated.gate.set()
        assert not await store.conversations.exists("other")

    anyio.run(main, backend=backend)


@each_way
def test_a_commit_that_waits_for_its_turn_writes_nothing(backend: str, cancelled: Any, gated: GatedRepository) -> None:
    gated.concurrency = (2, 1)

    async def main() -> None:
        store, waiting = aio.Store(gated), Event()

        async def second() -> None:
            assert await wait_for(gated.begun)
            waiting.set()
            await add(store, "b")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(add, store, "a")
            assert await cancelled(second, waiting, gated.gate.set)
        assert await store.conversations.exists("a")
        assert not await store.conversations.exists("b")

    anyio.run(main, backend=backend)


@each_way
def test_a_commit_in_doubt_is_resolved_before_the_cancellation(backend: str, cancelled: Any) -> None:
    class InDoubt(GatedRepository):
        answers = 0

        def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
            receipt = super().commit(namespace, changes)
            self.answers += 1
            if self.answers < 3:
                raise CommitInDoubtError("the answer was lost")
            return receipt

    repository = InDoubt()

    async def main() -> None:
        store = aio.Store(repository)
        assert await cancelled(partial(add, store), repository.begun, repository.gate.set)
        assert repository.answers == 3

    anyio.run(main, backend=backend)


@each_way
def test_a_failed_commit_that_was_cancelled_is_not_retried(backend: str, cancelled: Any) -> None:
    class Conflicting(GatedRepository):
        attempts = 0

        def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
            self.attempts += 1
            self._wait()
            raise ConflictError("someone else was faster")

    repository = Conflicting()

    async def main() -> None:
        store = aio.Store(repository)

        async def work(uow: aio.UnitOfWork) -> None:
            await uow.conversations.add(Conversation("a"))

        assert await cancelled(partial(store.run, work), repository.begun, repository.gate.set)
        assert repository.attempts == 1

    anyio.run(main, backend=backend)


@each_way
def test_the_unit_of_work_knows_what_a_cancelled_commit_wrote(
    backend: str, cancelled: Any, gated: GatedRepository
) -> None:
    async def main() -> None:
        uow = await aio.Store(gated).begin()
        conversation = Conversation("a")
        await uow.conversations.add(conversation)
        assert await cancelled(uow.commit, gated.begun, gated.gate.set)
        assert uow.receipt is not None
        assert conversation.version == 1
        await uow.commit()  # there is nothing left to write
        assert conversation.version == 1

    anyio.run(main, backend=backend)


def test_a_commit_survives_the_end_of_its_event_loop(gated: GatedRepository) -> None:
    """`asyncio.run` cancels the tasks that are left, those of a commit too: and waits for them."""
    store, tasks = aio.Store(gated), []

    async def main() -> None:
        tasks.append(asyncio.ensure_future(add(store)))
        assert await wait_for(gated.begun)
        asyncio.get_running_loop().call_later(0.01, gated.gate.set)

    asyncio.run(main())
    assert gated.ended.is_set()
    assert asyncio.run(store.conversations.exists("a"))


def test_a_scope_that_was_cancelled_before_writes_nothing(anyio_backend: str) -> None:
    async def main() -> None:
        store = aio.Store(InMemoryRepository())
        with anyio.CancelScope() as scope:
            async with store.begin() as uow:
                await uow.conversations.add(Conversation("a"))
                scope.cancel()
        assert scope.cancelled_caught
        assert not await store.conversations.exists("a")

    anyio.run(main, backend=anyio_backend)


def test_closing_in_a_cancelled_scope_closes(anyio_backend: str) -> None:
    class Closing(InMemoryRepository):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with aio.Store(repository):
                scope.cancel()
                await anyio.lowlevel.checkpoint()

    repository = Closing()
    anyio.run(main, backend=anyio_backend)
    assert repository.is_closed


def test_an_iteration_can_be_left(anyio_backend: str) -> None:
    async def main() -> None:
        store = aio.Store(InMemoryRepository())
        async with store.begin() as uow:
            await uow.conversations.add(Conversation("a"))
            await uow.runs.append("a", *[Run(n, n) for n in range(300)])
        iterating = store.runs.iterate("a")
        async for run in iterating:
            if run.position == 250:
                break
        await iterating.aclose()
        assert [run async for run in iterating] == []
        assert len([run async for run in store.runs.iterate("a")]) == 300

    anyio.run(main, backend=anyio_backend)


def test_an_error_of_the_store_is_raised_where_it_is_awaited(anyio_backend: str) -> None:
    class Failing(InMemoryRepository):
        def get(self, namespace: str, conversation_id: str) -> Conversation | None:
            raise PersistenceError("no")

    async def main() -> None:
        store = aio.Store(Failing())
        with pytest.raises(PersistenceError, match="no"):
            await store.conversations.get("a")

    anyio.run(main, backend=anyio_backend)
