"""The asynchronous store: `memory.core` has its operations, with their documentation."""

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial, wraps
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import anyio
import anyio.to_thread

from memory.aio.performing import JoinedPerformer, Performer, soon
from memory.aio.unit_of_work import Beginning, ConversationsReader, Face, RunsReader, UnitOfWork
from memory.core import connect as synchronous
from memory.core.events import Committed
from memory.core.faces import delays
from memory.core.session import Session
from memory.core.store_operations import MAX_METADATA_VALUES, StoreOperations
from memory.domain.codecs import Codec, codec_for
from memory.domain.entities import M
from memory.domain.values import Default
from memory.errors import InvalidValueError, PersistenceError

T = TypeVar("T")


class Store(Face, StoreOperations[M]):
    """Conversations and their runs in one namespace of a repository. Safe to use from several tasks and event loops.

    The arguments are those of `memory.Store`.

    Attributes:
        conversations: reads conversations without a unit of work.
        runs: reads runs without a unit of work.

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

    _publishing: set[asyncio.Future[None]]
    _in_loop: Callable[[Callable[[], object]], None]

    if not TYPE_CHECKING:  # which sees the arguments of both faces

        @wraps(StoreOperations.__init__)
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self._performer = Performer(*self.repository.concurrency)
            self._publishing = set()

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
            session = Session(self.repository, self._namespace, self._serializer, self)
            return UnitOfWork(session, self._commit, token, self._performer)
        if not hasattr(connection, "run_sync"):
            raise InvalidValueError(
                f"memory.aio joins an AsyncSession or an AsyncConnection, not a {type(connection).__name__}, which would block "
                "the event loop: memory.Store.begin joins that"
            )
        joined = await connection.run_sync(self.repository.joining)
        session = Session(joined, self._namespace, self._serializer, self)
        bound = copy(self)
        bound._in_loop = soon()  # noqa: SLF001  # it publishes in this event loop
        return UnitOfWork(session, partial(bound._commit_joined, joined), token, JoinedPerformer(connection.run_sync))  # noqa: SLF001

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
                    if not isawaitable(working := work(uow)):
                        raise InvalidValueError("run() takes an async function, whose coroutine it awaits")
                    return await working
            except PersistenceError as error:
                if not error.retryable or (delay := next(waits, None)) is None:
                    raise
                self._shared.on_retry(error)
            await sleep(delay)

    def untyped(self) -> "Store":
        """Return the same store with metadata as the dict that is stored, also if it does not fit the store's type."""
        return cast("Store", self._without_type())

    def _publish_joined(self, committed: Committed) -> None:
        # Called by SQLAlchemy, which cannot await it, in any thread. Its event loop is one of asyncio's.
        self._in_loop(partial(self._start_publishing, committed))

    def _start_publishing(self, committed: Committed) -> None:
        task = asyncio.ensure_future(self._performer.perform(self._publish(committed)))
        self._publishing.add(task)  # the loop keeps a weak reference only
        task.add_done_callback(self._publishing.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()


async def connect(
    url: str,
    *,
    metadata: type[M] | Codec[M] | None = None,
    namespace: str = "default",
    default: Default | None = None,
    max_metadata_values: int = MAX_METADATA_VALUES,
) -> Store[M]:
    """Open the store that a URL names. The arguments and errors are those of `memory.connect`."""
    codec = codec_for(metadata)  # before anything is opened
    repository = await anyio.to_thread.run_sync(synchronous.open_repository, url)
    return Store(repository, namespace, metadata=codec, default=default, max_metadata_values=max_metadata_values)
