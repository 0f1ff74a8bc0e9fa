"""The two faces have the same operations, arguments and documentation; each refuses what is the other's."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable
from inspect import Parameter, iscoroutinefunction, signature
from pathlib import Path
from types import FunctionType
from typing import Any

import anyio
import pytest

import memory
from memory import ClosedError, Conversation, InvalidValueError, Run, aio, where
from memory.adapters.in_memory import InMemoryRepository
from memory.aio import unit_of_work as asynchronous
from memory.core import faces, store, unit_of_work
from memory.core.events import Committed
from memory.port.paging import Page

PAIRS: list[tuple[type, type]] = [
    (memory.Store, aio.Store),
    (memory.UnitOfWork, aio.UnitOfWork),
    (store.ConversationsReader, asynchronous.ConversationsReader),
    (store.RunsReader, asynchronous.RunsReader),
    (unit_of_work.Conversations, asynchronous.Conversations),
    (unit_of_work.Runs, asynchronous.Runs),
    (Page, asynchronous.Page),
]
WRITTEN_TWICE = {"begin", "run", "next"}
"""The methods that both faces define by themselves. All others have one definition."""


def public(face: type) -> dict[str, Any]:
    names = [name for name in dir(face) if not name.startswith("_")]
    return {name: getattr(face, name) for name in names if isinstance(getattr(face, name), FunctionType)}


def parameters(function: Any) -> list[tuple[str, object, object]]:
    return [
        (each.name, each.kind, "its own" if each.name == "sleep" else each.default)
        for each in signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("synchronous", "other"), PAIRS, ids=lambda face: face.__name__)
def test_the_faces_are_equal(synchronous: type, other: type) -> None:
    ours, theirs = public(synchronous), public(other)
    assert ours.keys() == theirs.keys()
    for name, method in theirs.items():
        assert parameters(method) == parameters(ours[name]), name
        assert method.__doc__, name
        assert name in WRITTEN_TWICE or method.__doc__ == ours[name].__doc__, name


def test_a_store_is_opened_with_the_same_arguments() -> None:
    assert parameters(aio.Store) == parameters(memory.Store)
    assert parameters(aio.connect) == parameters(memory.connect)
    assert iscoroutinefunction(aio.connect)


def test_every_operation_is_awaited() -> None:
    async def main() -> None:
        uow = await aio.Store(InMemoryRepository()).begin()
        await uow.conversations.add(Conversation("a", {"n": 1}))
        await uow.runs.append("a", Run("q", "a"), Run("q", "b"))
        await uow.commit()
        assert [run.output async for run in uow.runs.iterate("a")] == ["a", "b"]
        page = await uow.conversations.find(where("n") == 1, limit=1)
        assert [one.id for one in page] == ["a"]
        assert list(await page.next()) == []
        await uow.runs.remove("a", 1)
        await uow.rollback()
        assert len(await uow.runs.list("a")) == 2

    anyio.run(main)


def test_a_forgotten_await_loses_nothing() -> None:
    async def main() -> None:
        opened = aio.Store(InMemoryRepository())
        async with opened.begin() as uow:
            with pytest.warns(RuntimeWarning, match=r"'WritingConversations.add' was never awaited"):
                uow.conversations.add(Conversation("a"))  # type: ignore[unused-coroutine]
        assert await opened.conversations.exists("a")
        with pytest.warns(RuntimeWarning, match=r"'ReadingConversations.exists' was never awaited"):
            opened.conversations.exists("a")  # type: ignore[unused-coroutine]

    anyio.run(main)


@pytest.mark.anyio
async def test_work_that_is_not_asynchronous_is_refused() -> None:
    work: Any = repr
    async with await aio.connect("memory://") as opened:
        with pytest.raises(InvalidValueError, match="takes an async function"):
            await opened.run(work)


def test_a_store_is_used_in_several_event_loops(anyio_backend: str) -> None:
    opened = aio.Store(InMemoryRepository())

    async def add(conversation_id: str) -> None:
        async with opened.begin() as uow:
            await uow.conversations.add(Conversation(conversation_id))

    for name in "ab":
        anyio.run(add, name, backend=anyio_backend)
    threads = [threading.Thread(target=anyio.run, args=(add, name)) for name in "cd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert anyio.run(opened.conversations.count) == 4


def test_the_threads_end_with_the_store() -> None:
    before = set(threading.enumerate())

    async def main() -> None:
        async with await aio.connect("memory://") as opened:
            await opened.conversations.count()

    asyncio.run(main())
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_a_closed_store_says_so() -> None:
    async def main() -> None:
        async with await aio.connect("memory://") as opened:
            uow = await opened.begin()
        for call in (opened.conversations.count(), opened.namespace("b").schema_status(), uow.conversations.get("a")):
            with pytest.raises(ClosedError, match="was closed"):
                await call
        with pytest.raises(ClosedError, match="was closed"):
            await opened.begin()
        with pytest.raises(ClosedError, match="was closed"):
            [one async for one in opened.conversations.iterate()]
        await opened.close()  # again

    anyio.run(main)


def test_a_synchronous_session_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(InvalidValueError, match=r"AsyncSession .* not a object.* memory.Store.begin joins that"):
            await aio.Store(InMemoryRepository()).begin(connection=object())

    anyio.run(main)


def test_a_synchronous_store_refuses_an_asynchronous_subscriber() -> None:
    async def subscriber(committed: Committed) -> None: ...

    with pytest.raises(InvalidValueError, match=r"memory\.aio"):
        memory.Store(InMemoryRepository()).subscribe(subscriber)


def test_every_kind_of_subscriber_is_called() -> None:
    called: list[str] = []

    class Callable:
        async def __call__(self, committed: Committed) -> None:
            called.append("object")

    async def function(_: Committed) -> None:
        assert await opened.conversations.exists("a")  # a subscriber may use the store
        called.append("coroutine function")

    def returning(committed: Committed) -> Awaitable[None]:
        return function(committed)

    def plain(_: Committed) -> None:
        called.append("function in the loop" if threading.current_thread() is main_thread else "function")

    async def failing(_: Committed) -> None:
        raise ZeroDivisionError

    repository = InMemoryRepository()
    repository.concurrency = (1, 1)  # a subscriber does not wait for the connection that it holds
    opened, main_thread = aio.Store(repository), threading.current_thread()

    async def main() -> None:
        for subscriber in (failing, Callable(), function, returning, plain):
            opened.subscribe(subscriber)
        async with opened.begin() as uow:
            await uow.conversations.add(Conversation("a"))

    logging.getLogger("memory").setLevel(logging.CRITICAL)
    try:
        anyio.run(main)
    finally:
        logging.getLogger("memory").setLevel(logging.NOTSET)
    assert called == ["object", "coroutine function", "coroutine function", "function"]


def test_blocking_the_event_loop_is_logged_once_for_each_place(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "_warned", set())
    opened = memory.Store(InMemoryRepository())

    async def main() -> None:
        for _ in range(2):
            opened.conversations.count()
            list(opened.conversations.iterate())

    opened.conversations.count()
    assert caplog.records == []
    asyncio.run(main())
    here = Path(__file__).name
    assert [record.name for record in caplog.records] == ["memory.aio"] * 2
    assert all(
        here in record.getMessage() and "memory.aio.connect()" in record.getMessage() for record in caplog.records
    )
    asyncio.run(asyncio.to_thread(opened.conversations.count))
    assert len(caplog.records) == 2


def test_kinds_of_parameters_are_compared() -> None:
    """The comparison of the faces notices a difference."""
    assert parameters(lambda a, *, b=1: (a, b)) != parameters(lambda a, b=1: (a, b))
    assert parameters(lambda a: a) == [("a", Parameter.POSITIONAL_OR_KEYWORD, Parameter.empty)]


FORKING = """
import os, anyio, sys
from memory import Conversation, aio
from memory.adapters.in_memory import InMemoryRepository

store = aio.Store(InMemoryRepository())

async def add(name):
    async with store.begin() as uow:
        await uow.conversations.add(Conversation(name))
    return await store.conversations.count()

assert anyio.run(add, "parent") == 1
if (child := os.fork()) == 0:
    os._exit(0 if anyio.run(add, "child") == 2 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert anyio.run(add, "again") == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_store_is_used_on_both_sides_of_a_fork() -> None:
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING], check=True, timeout=60)


def test_a_long_operation_is_cancelled_at_its_checkpoint(anyio_backend: str) -> None:
    written: list[int] = []

    def steps(scope: anyio.CancelScope) -> faces.Steps[None]:
        for number in range(5):
            yield faces.Write(written.append, number)
            if number == 2:
                scope.cancel()
                yield faces.Write(written.append, 20)  # what belongs together is finished
            yield faces.Checkpoint()

    async def main() -> None:
        opened = aio.Store(InMemoryRepository())
        with anyio.CancelScope() as scope:
            await opened._perform(steps(scope))
        assert scope.cancelled_caught

    anyio.run(main, backend=anyio_backend)
    assert written == [0, 1, 2, 20]


def test_a_task_is_cancelled_at_a_checkpoint() -> None:
    written: list[int] = []

    def steps(task: "asyncio.Task[object]") -> faces.Steps[None]:
        for number in range(5):
            yield faces.Write(written.append, number)
            if number == 2:
                task.cancel()
                yield faces.Write(written.append, 20)
            yield faces.Checkpoint()

    async def main() -> None:
        opened = aio.Store(InMemoryRepository())
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(asyncio.CancelledError):
            await opened._perform(steps(task))

    asyncio.run(main())
    assert written == [0, 1, 2, 20]
