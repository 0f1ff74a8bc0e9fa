"""The asynchronous face's loop: it performs the calls of an operation on worker threads, and awaits them.

Cancellation: a call that reads is abandoned, and its answer is discarded. From an operation's first `Write` on, everything is
awaited to its end, and the cancellation is delivered afterwards, so that a commit is never left half done or unknown.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import sniffio

from memory.core.faces import Call, Item, Items, Sleep, Steps, Write
from memory.errors import ConfigurationError

T = TypeVar("T")


class Performer:
    """Performs the calls of one store, on as many worker threads as the store has connections.

    Args:
        reads: the calls that may run at once.
        writes: the writes among them.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._limiters: tuple[object, anyio.CapacityLimiter, anyio.CapacityLimiter] | None = None

    async def perform(self, steps: Steps[T]) -> T:
        """Perform the calls of an operation, and return its result."""
        with _Shield() as shield:
            try:
                call = next(steps)
                while True:
                    if isinstance(call, Write):
                        shield.begin()
                    try:
                        result = await shield.wait(self._call(call))
                    except BaseException as error:  # noqa: BLE001  # the operation handles it, or raises it again
                        call = steps.throw(error)
                    else:
                        call = steps.send(result)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    async def iterate(self, steps: Items[T]) -> AsyncIterator[T]:
        """Yield the items of an iteration, and perform the calls between them."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Item):
                    yield step.value
                    step = next(steps)
                    continue
                try:
                    result = await self._call(step)
                except BaseException as error:  # noqa: BLE001  # as in `perform`
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return
        finally:
            steps.close()

    async def _call(self, call: Call) -> Any:
        if isinstance(call, Sleep):
            await anyio.sleep(call.seconds)
            return None
        if inspect.iscoroutinefunction(call):  # a subscriber of the application's
            return await call()
        reads, writes = self._of_this_loop()
        writing = isinstance(call, Write)
        result = await anyio.to_thread.run_sync(
            call, limiter=writes if writing else reads, abandon_on_cancel=not writing
        )
        return await result if inspect.isawaitable(result) else result

    def _of_this_loop(self) -> tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]:
        loop = anyio.lowlevel.current_token()
        if self._limiters is None:
            self._limiters = loop, anyio.CapacityLimiter(self._reads), anyio.CapacityLimiter(self._writes)
        used_in, reads, writes = self._limiters
        if used_in != loop:
            raise ConfigurationError(
                "this store was used in another event loop: open one with aio.connect() in each loop"
            )
        return reads, writes


class JoinedPerformer(Performer):
    """Performs the calls inside a transaction of the application's: in the greenlet of SQLAlchemy's ``run_sync``."""

    def __init__(self, run_sync: Callable[[Callable[[Any], Any]], Awaitable[Any]]) -> None:
        super().__init__(1, 1)
        self._run_sync = run_sync

    async def _call(self, call: Call) -> Any:
        return await self._run_sync(lambda _: call())


class _Shield:
    """Protects what it waits for from cancellation, once it has begun. `anyio.CancelScope` does so for scopes of anyio and trio.

    A task of asyncio can also be cancelled directly (``task.cancel()``, ``asyncio.timeout``), against which no scope helps.
    """

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._cancelled: BaseException | None = None

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(self, *raised: Any) -> bool | None:
        try:
            if self._cancelled is not None and raised[1] is None:
                raise self._cancelled
        finally:
            self._scope.__exit__(*raised)
        return None

    def begin(self) -> None:
        self._scope.shield = True

    async def wait(self, call: Any) -> Any:
        if not self._scope.shield or sniffio.current_async_library() != "asyncio":
            return await call
        import asyncio

        task = asyncio.ensure_future(call)
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as cancelled:
                if task.cancelled():
                    raise
                self._cancelled = cancelled
            except BaseException:  # noqa: BLE001  # the result below raises it
                break
        return task.result()
