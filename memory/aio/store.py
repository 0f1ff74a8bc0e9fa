"""The asynchronous store: `memory.core` has its operations, with their documentation."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread

from memory.aio.performing import JoinedPerformer, Performer
from memory.aio.unit_of_work import Beginning, ConversationsReader, Face, RunsReader, UnitOfWork
from memory.core import connect as synchronous
from memory.core.events import Committed
from memory.core.identity_map import Session
from memory.core.store import MAX_METADATA_VALUES, StoreOperations, delays
from memory.domain.codecs import UNTYPED, Codec
from memory.domain.entities import M
from memory.errors import InvalidValueError, PersistenceError
from memory.port.repository import Repository

T = TypeVar("T")


class Store(Face, StoreOperations[M]):
    """Conversations and their runs in one namespace of a repository. It belongs to one event loop; its tasks share it.

    The arguments are those of `memory.Store`.

    >>> import anyio
    >>> from memory import Conversation, aio, where
    >>> async def main() -> None:
    ...     async with await aio.connect("memory://") as store:
    ...         async with store.begin() as uow:
    ...             await uow.conversations.add(Conversation("support-42", metadata={"customer": "ada"}))
    ...         print(await store.conversations.count(where("customer") == "ada"))
    >>> anyio.run(main)
    1
    """

    def __init__(
        self,
        repository: Repository,
        namespace: str = "default",
        *,
        codec: Codec[M] = UNTYPED,  # type: ignore[assignment]  # the default of M is dict
        max_metadata_values: int = MAX_METADATA_VALUES,
    ) -> None:
        super().__init__(repository, namespace, codec=codec, max_metadata_values=max_metadata_values)
        self._performer = Performer(*repository.concurrency)
        self._publishing: set[asyncio.Task[None]] = set()

    @property
    def conversations(self) -> ConversationsReader[M]:
        return ConversationsReader(self._reading(), self._performer)

    @property
    def runs(self) -> RunsReader[M]:
        return RunsReader(self._reading(), self._performer)

    def begin(self, *, connection: object = None, idempotency_key: str | None = None) -> Beginning[M]:
        """Begin a unit of work in an ``async with`` block: it commits at the end, and rolls back if the block raises.

        The arguments and errors are those of `memory.Store.begin`; ``connection`` is an ``AsyncSession`` or ``AsyncConnection``.
        """
        return Beginning(partial(self._begin, connection, idempotency_key))

    async def _begin(self, connection: Any, idempotency_key: str | None) -> UnitOfWork[M]:
        await self.ensure_ready()
        token = self._token(idempotency_key)
        if connection is None:
            session = Session(self.repository, self._namespace, self._codec, self)
            return UnitOfWork(session, self._commit, token, self._performer)
        if not hasattr(connection, "run_sync"):
            raise InvalidValueError(
                f"memory.aio joins an AsyncSession or an AsyncConnection, not a {type(connection).__name__}: "
                "join that by memory.Store.begin"
            )
        joined = await connection.run_sync(self.repository.joining)
        session = Session(joined, self._namespace, self._codec, self)
        return UnitOfWork(session, partial(self._commit_joined, joined), token, JoinedPerformer(connection.run_sync))

    async def run(
        self,
        work: Callable[[UnitOfWork[M]], Awaitable[T]],
        retries: int = 5,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        *,
        idempotency_key: str | None = None,
    ) -> T:
        """Await a function with a unit of work, commit, and return its result. Retry after retryable errors.

        The arguments and errors are those of `memory.Store.run`.
        """
        waits = iter(delays(retries))
        while True:
            try:
                async with self.begin(idempotency_key=idempotency_key) as uow:
                    return await work(uow)
            except PersistenceError as error:
                if not error.retryable or (delay := next(waits, None)) is None:
                    raise
                self._shared.on_retry(error)
            await sleep(delay)

    def _publish_joined(self, committed: Committed) -> None:
        task = asyncio.get_running_loop().create_task(self._performer.perform(self._publish(committed)))
        self._publishing.add(task)  # the loop keeps a weak reference only
        task.add_done_callback(self._publishing.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def connect(
    url: str, *, namespace: str = "default", max_metadata_values: int = MAX_METADATA_VALUES
) -> Store[dict[str, Any]]:
    """Open the store that a URL names. The arguments and errors are those of `memory.connect`."""
    open_it = partial(synchronous.open_repository, url)
    return Store(await anyio.to_thread.run_sync(open_it), namespace, max_metadata_values=max_metadata_values)
