"""The loop of the asynchronous face: it performs the calls of an operation on worker threads, and awaits them.

Cancellation: a call that reads is abandoned, and its answer is discarded. From the moment an operation's first `Write` has begun,
everything is awaited to the end, or to the next `Checkpoint` of a long operation. The cancellation is delivered then, so that a
commit is never left half done or unknown.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from memory.core.faces import Call, Checkpoint, Item, Items, Notify, Sleep, Steps, Write
from memory.port.forking import ForkAware, watch

T = TypeVar("T")


class Performer:
    """Performs the calls of one store, on as many worker threads as the store has connections. Any event loop may use it.

    Args:
        calls: the calls that may run at once.
        writes: those of them that may write.
    """

    def __init__(self, calls: int, writes: int) -> None:
        self._workers = _Workers(calls, writes)

    async def perform(self, steps: Steps[T]) -> T:
        """Perform the calls of an operation, and return its result."""
        with _Protection() as protection:
            try:
                call = next(steps)
                while True:
                    try:
                        result = await self._perform(call, protection)
                    except BaseException as error:  # noqa: BLE001  # the operation handles it, or raises it again
                        call = steps.throw(error)
                    else:
                        call = steps.send(result)
            except StopIteration as end:
                if protection.has_begun:
                    await anyio.lowlevel.checkpoint_if_cancelled()
                return end.value  # type: ignore[no-any-return]

    async def iterate(self, steps: Items[T]) -> AsyncGenerator[T]:
        """Yield the items of an iteration, and perform the calls between them."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Item):
                    yield step.value
                    step = next(steps)
                    continue
                try:
                    with _Protection() as protection:
                        result = await self._perform(step, protection)
                except BaseException as error:  # noqa: BLE001  # as in `perform`
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return
        finally:
            steps.close()

    async def _perform(self, call: Call, protection: "_Protection") -> Any:
        if isinstance(call, Sleep):
            return await protection.awaited(anyio.sleep(call.seconds))
        if isinstance(call, Checkpoint):
            return await protection.end()
        if isinstance(call, Notify):
            return await protection.awaited(_notify(call))
        return await self._call(call, protection)

    async def _call(self, call: Call, protection: "_Protection") -> Any:
        """Perform a call of the port."""
        return await protection.in_thread(call, self._workers)


class JoinedPerformer(Performer):
    """Performs the calls inside a transaction of the application's: in the greenlet of SQLAlchemy's ``run_sync``."""

    def __init__(self, run_sync: Callable[[Callable[[Any], Any]], Awaitable[Any]]) -> None:
        self._run_sync = run_sync

    async def _call(self, call: Call, protection: "_Protection") -> Any:
        protection.has_begun = protection.has_begun or isinstance(call, Write)
        return await protection.awaited(self._run_sync(lambda _: call()))


async def _notify(call: Call) -> Any:
    """Call a subscriber: in this loop if it is a coroutine function, otherwise on a thread that is not one of the store's."""
    result = call() if inspect.iscoroutinefunction(call) else await anyio.to_thread.run_sync(call)
    return await result if inspect.isawaitable(result) else result


class _Workers(ForkAware):
    """The worker threads of a store: each runs one call at a time, on a connection of its own."""

    def __init__(self, calls: int, writes: int) -> None:
        self._calls, self._writes = calls, writes
        self.after_fork_in_child()
        watch(self)

    def after_fork_in_child(self) -> None:
        self._writing = ThreadPoolExecutor(self._writes, "memory")
        shared = self._calls == self._writes
        self._reading = self._writing if shared else ThreadPoolExecutor(self._calls - self._writes, "memory")

    def submit(self, call: Call, *, is_write: bool) -> "Future[Any]":
        executor = self._writing if is_write else self._reading
        return executor.submit(copy_context().run, call)


class _Protection:
    """Protects an operation from cancellation, once it has begun to write.

    A scope protects it from a cancellation by a scope, of anyio or trio. A task of asyncio can also be cancelled by itself
    (``task.cancel()``, ``asyncio.timeout``), whatever its scopes: such a cancellation is kept, and raised at the end.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self._kept: BaseException | None = None
        self._cancelled_class = anyio.get_cancelled_exc_class()
        self._in_asyncio = self._cancelled_class is asyncio.CancelledError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept is not None:
            raise self._kept

    async def end(self) -> None:
        """End the protection, and deliver a cancellation that came meanwhile."""
        self.has_begun = False
        kept, self._kept = self._kept, None
        if kept is not None:
            raise kept
        await anyio.lowlevel.checkpoint()

    async def in_thread(self, call: Call, workers: _Workers) -> Any:
        """Perform a call on a worker thread."""
        is_write = isinstance(call, Write)
        if not self.has_begun:
            await anyio.lowlevel.checkpoint_if_cancelled()
        done, in_loop = anyio.Event(), soon()
        future = workers.submit(call, is_write=is_write)
        future.add_done_callback(lambda _: in_loop(done.set))
        try:
            if not self.has_begun:
                await done.wait()
        except self._cancelled_class as cancelled:
            if future.cancel() or not is_write:  # it has not begun, or its answer is discarded
                raise
            self._kept = cancelled
        self.has_begun = self.has_begun or is_write
        await self._to_end(future, done)
        try:
            return future.result()
        finally:
            del future  # which has the error, which has this frame

    async def awaited(self, awaitable: Awaitable[Any]) -> Any:
        """Await something in this event loop."""
        if not self.has_begun:
            return await awaitable
        if not self._in_asyncio:
            with anyio.CancelScope(shield=True):
                return await awaitable
        task, done = asyncio.ensure_future(awaitable), anyio.Event()
        task.add_done_callback(lambda _: done.set())
        await self._to_end(task, done)
        return task.result()

    async def _to_end(self, future: "Future[Any] | asyncio.Future[Any]", done: anyio.Event) -> None:
        while not future.done():
            with anyio.CancelScope(shield=True):
                try:
                    await done.wait()
                except self._cancelled_class as cancelled:
                    self._kept = cancelled


def soon() -> Callable[[Callable[[], object]], None]:
    """Return a function that calls another one in this event loop, from any thread; after the loop's end it does nothing."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        schedule: Callable[..., object] = asyncio.get_running_loop().call_soon_threadsafe
    else:
        import trio

        schedule = trio.lowlevel.current_trio_token().run_sync_soon

    def call(function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits
            schedule(function)

    return call
