"""An `aio.Store` behind the synchronous interface, so that the contract suite can test it unchanged."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from inspect import isasyncgen, isawaitable
from typing import Any, Self, cast

import anyio.to_thread
from anyio.from_thread import BlockingPortal

import memory
from memory import aio
from memory.aio.unit_of_work import Beginning, ConversationsReader, Face, Page
from memory.port.repository import Repository


class Driven:
    """An object of `memory.aio` whose operations are awaited in the event loop of a portal."""

    def __init__(self, target: Any, portal: BlockingPortal) -> None:
        self._target, self._portal = target, portal

    def __getattr__(self, name: str) -> Any:
        return self._adapt(getattr(self._target, name))

    def __repr__(self) -> str:
        return repr(self._target)

    def _adapt(self, value: Any) -> Any:
        if isinstance(value, Beginning):
            return DrivenUnitOfWork(value, self._portal)
        if isinstance(value, ConversationsReader):
            return DrivenConversations(value, self._portal)
        if isinstance(value, aio.Store):
            return DrivenStore(value, self._portal)
        if isinstance(value, Face):
            return Driven(value, self._portal)
        if isinstance(value, Page):
            return memory.Page(value.items, value.cursor, lambda **_: self._finish(value.next()))
        if isasyncgen(value):
            return self._iterate(value)
        if isawaitable(value):
            return self._finish(value)
        return self._method(value) if callable(value) and not isinstance(value, type) else value

    def _method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._adapt(method(*args, **kwargs))

    def _finish(self, awaitable: Awaitable[Any]) -> Any:
        async def finish() -> Any:
            return await awaitable

        return self._adapt(self._portal.call(finish))

    def _iterate(self, iterator: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self._portal.call(iterator.__anext__)
            except StopAsyncIteration:
                return


class DrivenConversations(Driven):
    def __contains__(self, conversation_id: str) -> bool:
        return bool(self.exists(conversation_id))


class DrivenUnitOfWork(Driven):
    def __init__(self, beginning: Beginning[Any], portal: BlockingPortal) -> None:
        super().__init__(portal.call(beginning.__aenter__), portal)
        self._beginning = beginning

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._portal.call(self._beginning.__aexit__, *raised)


class DrivenStore(Driven):
    def run(self, work: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Any:
        async def working(uow: aio.UnitOfWork) -> Any:
            return await anyio.to_thread.run_sync(work, Driven(uow, self._portal))

        if sleep := kwargs.get("sleep"):

            async def sleeping(seconds: float) -> None:
                sleep(seconds)

            kwargs["sleep"] = sleeping
        return self._finish(self._target.run(working, *args, **kwargs))


def store_class(portal: BlockingPortal) -> Callable[[Repository, str], memory.Store]:
    """Return what makes a store for the contract suite."""
    return lambda repository, namespace: cast(memory.Store, DrivenStore(aio.Store(repository, namespace), portal))
