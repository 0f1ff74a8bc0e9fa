"""The asynchronous unit of work: `memory.core` has its operations, with their documentation."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from memory.aio.performing import Performer
from memory.core.conversations import NEWEST_FIRST, ReadingConversations, WritingConversations
from memory.core.faces import Asynchronous, Items, Steps
from memory.core.runs import ReadingRuns, WritingRuns
from memory.core.session import Session
from memory.core.unit_of_work import UnitOfWorkOperations, Write
from memory.domain.entities import Conversation, M
from memory.port import paging

if TYPE_CHECKING:
    from memory.domain.criteria import Criterion

T = TypeVar("T")


class Face(Asynchronous):
    """What the classes of this package have in common: their operations return awaitables."""

    _performer: Performer

    def _perform(self, steps: Steps[T]) -> Coroutine[Any, Any, T]:
        return self._performer.perform(steps)

    def _iterate(self, steps: Items[T]) -> AsyncGenerator[T, None]:
        return self._performer.iterate(steps)


class Page(paging.Page[T]):
    """A page whose `next` is awaited."""

    async def next(self) -> "Page[T]":  # type: ignore[override]  # the name is the same in both faces
        """Return the next page of the same query; an empty one after the last."""
        return Page(()) if self.cursor is None else await cast("Awaitable[Page[T]]", super().next())


class ConversationsReader(Face, ReadingConversations[M]):
    """Reads conversations without a unit of work: each call returns new objects, whose changes nobody commits."""

    def __init__(self, session: Session[M], performer: Performer) -> None:
        super().__init__(session)
        self._performer = performer

    def _page(self, *fields: Any) -> Page[Conversation[M]]:
        return Page(*fields)

    if TYPE_CHECKING:  # it returns a page of this face

        def find(
            self,
            criterion: "Criterion | None" = None,
            *,
            order: str = NEWEST_FIRST,
            limit: int = 50,
            after: str | None = None,
        ) -> Coroutine[Any, Any, Page[Conversation[M]]]: ...


class RunsReader(Face, ReadingRuns[M]):
    """Reads runs without a unit of work."""

    def __init__(self, session: Session[M], performer: Performer) -> None:
        super().__init__(session)
        self._performer = performer


class Conversations(ConversationsReader[M], WritingConversations[M]):
    """The conversations of a unit of work, as a collection."""


class Runs(RunsReader[M], WritingRuns[M]):
    """The runs of conversations in a unit of work."""


class UnitOfWork(Face, UnitOfWorkOperations[M]):
    """A unit of work, which writes all of its changes or none. `Store.begin` returns one.

    In an ``async with`` block it commits when the block ends without an exception. It locks nothing: the commit detects writes of
    others. It belongs to one task at a time.

    Attributes:
        conversations: the conversations, as a collection.
        runs: their runs, by conversation.
        receipt: what the last commit wrote, also after the block.
    """

    def __init__(self, session: Session[M], write: Write, token: str | None, performer: Performer) -> None:
        super().__init__(session, write, token)
        self._performer = performer
        self.conversations = Conversations(session, performer)
        self.runs = Runs(session, performer)

    async def _end(self, kind: type[BaseException] | None) -> None:
        try:
            if kind is None and not self._session.is_in_doubt:
                await self.commit()
        finally:
            self._session.end()


class Beginning(Generic[M]):
    """What `Store.begin` returns: a context manager that yields the unit of work."""

    def __init__(self, begin: Callable[[], Awaitable[UnitOfWork[M]]]) -> None:
        self._begin = begin

    async def __aenter__(self) -> UnitOfWork[M]:
        self._unit_of_work = await self._begin()
        return self._unit_of_work

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._unit_of_work._end(kind)  # noqa: SLF001  # its other half

    def __await__(self) -> Any:
        """Begin a unit of work without a block, which commits only by `UnitOfWork.commit`."""
        return self._begin().__await__()
