"""`Store`, which an application opens once and from which it begins units of work."""

import time
from collections.abc import Callable
from functools import partial
from inspect import iscoroutinefunction
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast

from memory.core.conversations import ReadingConversations
from memory.core.faces import Synchronous, delays, perform
from memory.core.runs import ReadingRuns
from memory.core.session import Session
from memory.core.store_operations import StoreOperations
from memory.core.unit_of_work import UnitOfWork
from memory.domain.entities import M
from memory.errors import InvalidValueError, PersistenceError

if TYPE_CHECKING:
    from memory.core.events import Committed

T = TypeVar("T")


class ConversationsReader(Synchronous, ReadingConversations[M]):
    """Reads conversations without a unit of work: each call returns new objects, whose changes nobody commits."""

    def __contains__(self, conversation_id: str) -> bool:
        return self.exists(conversation_id)


class RunsReader(Synchronous, ReadingRuns[M]):
    """Reads runs without a unit of work."""


class Store(Synchronous, StoreOperations[M]):
    """Conversations and their runs in one namespace of a repository. Safe to use from several threads.

    Args:
        repository: the repository that stores the conversations.
        namespace: the name of the namespace.
        metadata: the type of the metadata of conversations, as for `connect`.
        default: as for `connect`.
        max_metadata_values: the most values that one conversation's metadata may contain, including lists and dicts. Each value
            needs an index entry.

    Attributes:
        conversations: reads conversations without a unit of work.
        runs: reads runs without a unit of work.

    >>> import memory
    >>> from memory import Conversation, Run, where
    >>> store = memory.connect("memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(Conversation("support-42", metadata={"customer": "ada", "priority": 3}))
    ...     uow.runs.append("support-42", Run(input="Where is my refund?", output="It left on Monday."))
    >>> store.conversations.count(where("customer") == "ada")
    1
    """

    @property
    def conversations(self) -> ConversationsReader[M]:
        return ConversationsReader(self._reading())

    @property
    def runs(self) -> RunsReader[M]:
        return RunsReader(self._reading())

    def begin(self, *, connection: object = None, idempotency_key: str | None = None) -> UnitOfWork[M]:
        """Begin a unit of work. Used in a ``with`` block, it commits at the end, and rolls back if the block raises.

        Args:
            connection: the application's own SQLAlchemy ``Connection`` or ``Session``, for a SQL store in the same database. The
                writes become part of its transaction, and take effect when the application commits it.
            idempotency_key: a key of the application's for what it does, such as the id of a message that may be delivered twice.
                A second commit with the same key in this namespace writes nothing, and `UnitOfWork.receipt` is the first one's.
                Keys are kept for 30 days. 1 to 255 characters.

        Raises:
            SchemaError: the store's schema is not the version that this code needs.
            UnsupportedError: this store cannot join a connection, or keeps no idempotency keys.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> for attempt in range(2):
        ...     with store.begin(idempotency_key="message-7") as uow:
        ...         uow.conversations.get_or_create("support-42")
        ...         uow.runs.append("support-42", memory.Run("Where is my refund?", "It left on Monday."))
        Conversation('support-42', metadata={}, version=0, run_count=0)
        Conversation('support-42', metadata={}, version=1, run_count=1)
        >>> store.conversations.get("support-42").run_count
        1
        """
        if not self._shared.schema_checked or self._shared.closed:
            self.ensure_ready()
        token = self._token(idempotency_key)
        if connection is None:
            return UnitOfWork(Session(self.repository, self._namespace, self._serializer, self), self._commit, token)
        joined = self.repository.joining(connection)
        session = Session(joined, self._namespace, self._serializer, self)
        return UnitOfWork(session, partial(self._commit_joined, joined), token)

    def run(
        self,
        work: Callable[[UnitOfWork[M]], T],
        retries: int = 5,
        sleep: Callable[[float], object] = time.sleep,
        *,
        idempotency_key: str | None = None,
    ) -> T:
        """Call a function with a unit of work, commit, and return its result. Retry after retryable errors.

        Args:
            work: called with a new unit of work in each attempt. Its other side effects may happen more than once.
            retries: how often to retry after a ``retryable`` error (a conflict, an unavailable store).
            sleep: called with the seconds to wait between attempts: up to 10 ms at first, doubling up to 1 s, with jitter.
            idempotency_key: as for `begin`.

        Raises:
            PersistenceError: the error of the last attempt.
        """
        if iscoroutinefunction(work):
            raise InvalidValueError(f"{self} cannot await {work!r}: open the store by memory.aio.connect()")
        waits = iter(delays(retries))
        while True:
            try:
                with self.begin(idempotency_key=idempotency_key) as uow:
                    return work(uow)
            except PersistenceError as error:
                if not error.retryable or (delay := next(waits, None)) is None:
                    raise
                self._shared.on_retry(error)
            sleep(delay)

    def untyped(self) -> "Store":
        """Return the same store with metadata as the dict that is stored, also if it does not fit the store's type."""
        return cast("Store", self._without_type())

    def _publish_joined(self, committed: "Committed") -> None:
        perform(self._publish(committed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
