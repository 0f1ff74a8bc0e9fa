"""Whole conversations, asynchronously: what `memory.transfer` and `memory.mirror` do, on a thread of its own."""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from threading import Semaphore
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, cast

import anyio
import anyio.from_thread
import anyio.lowlevel

import memory
from memory import transfer
from memory.aio.performing import soon
from memory.aio.store import Store
from memory.core.events import Committed
from memory.core.faces import Steps, Write
from memory.domain.criteria import Criterion
from memory.port.outbox import ReplicaLag
from memory.port.repository import Progress, SchemaStatus, no_progress
from memory.transfer import (
    Compared,
    Difference,
    NotCopied,
    OnConflict,
    ParsedConversation,
    RejectedConversation,
    Totals,
    mirroring,
)
from memory.transfer.mirroring import Relayed

S = TypeVar("S")
T = TypeVar("T")

_AHEAD: Final = 100  # steps that wait for the application before the transfer does


class _Stopped(BaseException):  # it ends a thread, and is no error
    """The application does not wait for the rest of a transfer."""


class Transfer(Generic[S, T]):
    """A transfer: await it for its result, or iterate over its steps with ``async for``; then it has its ``result``.

    If its task is cancelled, or the iteration is closed, it stops after its current commit. It can be repeated, as after any
    interruption.

    Attributes:
        result: the result, once the transfer has ended.
    """

    result: T

    def __init__(self, work: Callable[[Callable[[S], None]], T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        return self._end().__await__()

    async def _end(self) -> T:
        async for _ in self:
            pass
        return self.result

    async def __aiter__(self) -> AsyncGenerator[S]:
        steps: deque[S] = deque()
        room, in_loop, is_stopped = Semaphore(_AHEAD), soon(), False
        news = [anyio.Event()]

        def tell() -> None:
            news[0].set()

        def emit(step: S) -> None:
            room.acquire()
            if is_stopped:
                raise _Stopped
            steps.append(step)
            in_loop(tell)

        async def wait() -> None:
            await news[0].wait()
            news[0] = anyio.Event()

        executor = ThreadPoolExecutor(1, "memory")
        future = executor.submit(copy_context().run, self._work, emit)
        future.add_done_callback(lambda _: in_loop(tell))
        executor.shutdown(wait=False)
        try:
            while not future.done() or steps:
                while steps:
                    yield steps.popleft()
                    room.release()
                if not future.done():
                    await wait()
            self.result = future.result()
        finally:
            is_stopped = True
            room.release(_AHEAD)
            with anyio.CancelScope(shield=True):
                while not future.done():
                    await wait()


def copy(
    source: Store[Any],
    target: Store[Any],
    criterion: Criterion | None = None,
    *,
    all_namespaces: bool = False,
    on_conflict: OnConflict = "skip",
    delete: bool = False,
) -> Transfer[Totals | NotCopied, Totals]:
    """Copy all conversations, as `memory.transfer.copy` does. Its steps: the totals after each commit, and what was not copied.

    >>> import anyio
    >>> from memory import Conversation, aio
    >>> async def main() -> None:
    ...     source, target = await aio.connect("memory://"), await aio.connect("memory://")
    ...     async with source.begin() as uow:
    ...         await uow.conversations.add(Conversation("support-42"))
    ...     print((await aio.copy(source, target)).conversations)
    >>> anyio.run(main)
    1
    """

    def work(emit: Callable[[Totals | NotCopied], None]) -> Totals:
        return transfer.copy(
            here,
            there,
            criterion,
            all_namespaces=all_namespaces,
            on_conflict=on_conflict,
            delete=delete,
            on_not_copied=emit,
            progress=lambda totals: emit(replace(totals)),
        )

    here, there = _synchronous(source), _synchronous(target)
    return Transfer(work)


def verify(
    source: Store[Any], target: Store[Any], criterion: Criterion | None = None, *, all_namespaces: bool = False
) -> Transfer[Difference, Compared]:
    """Compare the conversations of two stores, as `memory.transfer.verify` does. Its steps are the differences."""

    def work(emit: Callable[[Difference], None]) -> Compared:
        compared = Compared()
        for difference in transfer.verify(here, there, criterion, all_namespaces=all_namespaces, compared=compared):
            emit(difference)
        return compared

    here, there = _synchronous(source), _synchronous(target)
    return Transfer(work)


def dump(
    store: Store[Any], criterion: Criterion | None = None, *, all_namespaces: bool = False, order: str = "id"
) -> Transfer[str, None]:
    """Export conversations as lines of JSON, as `memory.transfer.dump` does. Its steps are pieces of the lines."""

    def work(emit: Callable[[str], None]) -> None:
        for piece in transfer.dump(here, criterion, all_namespaces=all_namespaces, order=order):
            emit(piece)

    here = _synchronous(store)
    return Transfer(work)


def restore(
    store: Store[Any],
    lines: Iterable[ParsedConversation | RejectedConversation],
    *,
    all_namespaces: bool = False,
    on_conflict: OnConflict = "skip",
) -> Transfer[Totals | RejectedConversation, Totals]:
    """Write what `memory.transfer.read_lines` reads to a store, as `memory.transfer.restore` does.

    Its steps are the totals after each commit, and the lines that were refused. The lines are read on the transfer's thread.
    """

    def work(emit: Callable[[Totals | RejectedConversation], None]) -> Totals:
        return transfer.restore(
            there,
            lines,
            all_namespaces=all_namespaces,
            on_conflict=on_conflict,
            on_refusal=emit,
            progress=lambda totals: emit(replace(totals)),
        )

    there = _synchronous(store)
    return Transfer(work)


class MirroredStore(Store):
    """A store whose commits go to the primary, and from there to the replicas; see `mirror`."""

    def __init__(self, mirrored: mirroring.MirroredStore) -> None:
        super().__init__(mirrored.repository, mirrored.namespace_name, max_metadata_values=mirrored.max_metadata_values)
        self._mirrored = mirrored

    @property
    def replicas(self) -> Mapping[str, Store]:
        """The replicas by name, each in the namespace it was opened with."""
        return MappingProxyType(
            {
                name: Store(each.repository, each.namespace_name, max_metadata_values=each.max_metadata_values)
                for name, each in self._mirrored.replicas.items()
            }
        )

    def relay(self) -> Transfer[Relayed, list[Relayed]]:
        """Deliver what waits for the replicas, as `memory.transfer.mirroring.MirroredStore.relay` does.

        Its steps say for one replica at a time what was delivered so far.
        """
        return Transfer(lambda emit: self._mirrored.relay(lambda relayed: emit(replace(relayed))))

    async def lag(self) -> Mapping[str, ReplicaLag]:
        """Return how far each replica is behind, by name; also for names in the outbox that are not replicas of this store."""
        return await self._perform(_one(self._mirrored.lag))

    async def forget(self, replica: str) -> int:
        """Discard the change sets queued for a former replica; return how many."""
        return await self._perform(_one(partial(self._mirrored.forget, replica)))

    async def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Migrate the schemas of the primary and of all replicas; return the primary's."""
        return await self._perform(_one(partial(self._mirrored.migrate, progress)))

    async def close(self) -> None:
        """Close the stores that `mirror` opened from URLs; stores that were passed to it stay open."""
        await self._perform(_one(self._mirrored.close))


async def mirror(primary: Store | str, /, **replicas: Store | str) -> MirroredStore:
    """Return a store that keeps everything in the primary and delivers it to replicas, as `memory.mirror` does.

    >>> import anyio
    >>> from memory import Conversation, aio
    >>> async def main() -> None:
    ...     async with await aio.mirror("sqlite://", search="memory://") as store:
    ...         async with store.begin() as uow:
    ...             await uow.conversations.add(Conversation("support-42"))
    ...         print([(done.replica, done.delivered) for done in await store.relay()])
    >>> anyio.run(main)
    [('search', 1)]
    """
    stores = {name: _opened(store) for name, store in replicas.items()}
    return MirroredStore(await anyio.to_thread.run_sync(partial(memory.mirror, _opened(primary), **stores)))


def _opened(store: Store | str) -> memory.Store | str:
    return store if isinstance(store, str) else _synchronous(store)


def _one(call: Callable[[], T]) -> Steps[T]:
    return cast(T, (yield Write(call)))


def _synchronous(store: Store[Any]) -> memory.Store[Any]:
    """Return a synchronous store in the place of an asynchronous one, for use in another thread."""
    other: memory.Store[Any] = memory.Store.__new__(memory.Store)
    vars(other).update(vars(store))
    publish: Callable[[Committed], object] = partial(_publish, store, anyio.lowlevel.current_token())
    handlers = [publish] if store._shared.handlers else []  # noqa: SLF001  # the other face of the same store
    other._shared = replace(store._shared, handlers=handlers)  # noqa: SLF001
    return other


def _publish(store: Store[Any], token: anyio.lowlevel.EventLoopToken, committed: Committed) -> None:
    """Call the subscribers of an asynchronous store, in its event loop."""
    anyio.from_thread.run(store._perform, store._publish(committed), token=token)  # noqa: SLF001
