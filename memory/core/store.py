"""`Store`, which an application opens once and from which it begins units of work."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from memory.core.conversations import NEWEST_FIRST, ReadingConversations
from memory.core.events import Committed
from memory.core.faces import Notify, Sleep, Steps, Synchronous, Write, delays, operation, perform
from memory.core.identity_map import Session
from memory.core.retention import RetentionOperations
from memory.core.runs import ReadingRuns
from memory.core.unit_of_work import UnitOfWork
from memory.core.upgrading import OnCorrupt, Upgrade
from memory.domain.codecs import UNTYPED, Codec, Serializer, codec_for
from memory.domain.criteria import Criterion
from memory.domain.entities import M
from memory.domain.values import Default, check_id, count_values
from memory.errors import (
    AlreadyExistsError,
    ClosedError,
    CommitInDoubtError,
    ConfigurationError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
    SchemaError,
    StoreUnavailableError,
    UnsupportedError,
)
from memory.port.changes import ChangeSet, Receipt
from memory.port.deadlines import remaining, within
from memory.port.paging import Query
from memory.port.planner import Explanation
from memory.port.repository import JoinedRepository, Progress, Repository, SchemaStatus, no_progress

T = TypeVar("T")
_log = logging.getLogger("memory")

_NOT_WRITTEN = (AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError, PartialCommitError)
"""Errors from replaying a change set that prove it was not written, or was written in part."""

MAX_METADATA_VALUES: Final = 10_000
"""The default limit of values in one conversation's metadata."""

_DOUBT_RETRIES = 10  # two seconds on average, enough for a server to restart or to fail over
_RETRIES = 5  # of one step of a long operation

Handler = Callable[[Committed], Any]


def _log_retry(error: PersistenceError) -> None:
    level = logging.INFO if isinstance(error, ConflictError) else logging.WARNING
    _log.log(level, "retrying after %s: %s", type(error).__name__, str(error))  # a handler may keep its arguments


@dataclass(slots=True)
class _Shared:
    """State shared by a store and its other namespaces."""

    repository: Repository
    max_metadata_values: int
    handlers: list[Handler] = field(default_factory=list)
    on_retry: Callable[[PersistenceError], object] = _log_retry
    schema_checked: bool = False
    closed: bool = False


class StoreOperations(RetentionOperations, Generic[M]):
    """The operations of a store that both faces have."""

    def __init__(
        self,
        repository: Repository,
        namespace: str = "default",
        *,
        metadata: type[M] | Codec[M] | None = None,
        default: Default | None = None,
        max_metadata_values: int = MAX_METADATA_VALUES,
    ) -> None:
        self._shared = _Shared(repository, max_metadata_values)
        self._namespace = check_id(namespace, "the namespace")
        self._serializer = Serializer(codec_for(metadata), default)

    @property
    def repository(self) -> Repository:
        return self._shared.repository

    @property
    def namespace_name(self) -> str:
        return self._namespace

    @property
    def serializer(self) -> Serializer[M]:
        return self._serializer

    @property
    def max_metadata_values(self) -> int:
        return self._shared.max_metadata_values

    def namespace(self, name: str) -> Self:
        """Return a store for another namespace of the same repository. Namespaces are isolated from each other.

        Raises:
            InvalidValueError: the name is not valid: it needs 1 to 255 characters, and no control characters.
        """
        other = copy(self)
        other._namespace = check_id(name, "the namespace")  # noqa: SLF001  # another Store
        return other

    @operation
    def namespaces(self) -> Steps[list[str]]:
        """Return the sorted names of all namespaces with a conversation, possibly including some where all have expired.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> for name in ("tenant-b", "tenant-a"):
        ...     with store.namespace(name).begin() as uow:
        ...         uow.conversations.add(memory.Conversation("support-42"))
        >>> store.namespaces()
        ['tenant-a', 'tenant-b']
        """
        yield from self.ready()
        return sorted((yield self.repository.namespaces))

    @operation
    def commit(self, changes: ChangeSet) -> Steps[Receipt]:
        """Write a change set, resolve its outcome if the response is lost, and notify the subscribers.

        Units of work call this. Call it yourself only for change sets that you make yourself, as import and copy do.

        Raises:
            PersistenceError: as for `Repository.commit`.
        """
        return self._commit(changes)

    def _commit(self, changes: ChangeSet) -> Steps[Receipt]:
        yield from self.ready()
        self._check_metadata(changes)
        receipt = yield from self._write(changes)
        if self._shared.handlers and not (receipt.repeated and changes.is_keyed):
            yield from self._publish(Committed(self._namespace, changes, receipt, self._serializer.codec))
        return receipt

    def _check_metadata(self, changes: ChangeSet) -> None:
        most = self._shared.max_metadata_values
        for change in changes.changes:
            text = change.metadata or (change.create.metadata if change.create else "")
            if (count := count_values(text, most)) > most:
                raise InvalidValueError(
                    f"the metadata of conversation {change.id!r} has {count:,} values, but the limit is {most:,}: keep large "
                    "state in runs, or raise the limit: connect(..., max_metadata_values=...), or --max-metadata-values",
                    conversation_id=change.id,
                )
            if text:
                self._serializer.check(text, change.id)  # it may come from an import or a copy

    def _write(self, changes: ChangeSet) -> Steps[Receipt]:
        commit = Write(self.repository.commit, self._namespace, changes)
        with within(self.repository.timeout):
            try:
                receipt: Receipt = yield commit
            except CommitInDoubtError as doubt:
                resolved = yield from self._resolve_doubt(commit, changes, doubt)
                if resolved is None:
                    raise
                return resolved
        return receipt

    def _resolve_doubt(
        self, commit: Callable[[], Receipt], changes: ChangeSet, doubt: CommitInDoubtError
    ) -> Steps[Receipt | None]:
        """Commit again a change set that may be written; its token makes that safe. Return None if the deadline passes first."""
        token = changes.token
        for delay in delays(_DOUBT_RETRIES):
            if delay >= remaining(inf):
                break
            self._shared.on_retry(doubt)
            yield Sleep(delay)
            try:
                receipt: Receipt = yield commit
            except _NOT_WRITTEN as refusal:
                _log.warning("the commit %s was refused when it was repeated: %s", token, str(refusal))
                raise
            except PersistenceError:
                continue  # this error does not tell whether the first commit was written
            else:
                _log.warning("the commit %s is written", token)
                is_ours = receipt.written.keys() == {change.id for change in changes.changes}
                return replace(receipt, repeated=not is_ours)  # another commit can have had the same idempotency key
        _log.error("it is unknown whether the commit %s is written", token)
        return None

    def persist(self, steps: Callable[[], Steps[T]]) -> Steps[T]:
        """Perform one step of a long operation. Repeat it while the store is unavailable, a few times."""
        for delay in delays(_RETRIES):
            try:
                return (yield from steps())
            except StoreUnavailableError as error:
                self._shared.on_retry(error)
            yield Sleep(delay)
        return (yield from steps())

    def _commit_joined(self, joined: JoinedRepository, changes: ChangeSet) -> Steps[Receipt]:
        self._check_metadata(changes)
        receipt: Receipt = yield Write(joined.commit, self._namespace, changes)
        if self._shared.handlers and not receipt.repeated:  # otherwise the application's commit has nothing to find out
            joined.after_commit(
                partial(self._publish_joined, Committed(self._namespace, changes, receipt, self._serializer.codec))
            )
        return receipt

    def _publish_joined(self, committed: Committed) -> None:
        """Call the handlers after a commit of the application's own transaction."""
        raise NotImplementedError

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Call a handler after each commit through this store, in any namespace, in the thread of the commit.

        Exceptions of a handler are logged and not propagated, because the commit is already written. If the unit of work joined
        a transaction of the application's, the handler is called after its commit, when the connection is back in the pool.

        Args:
            handler: called with a `Committed`, whose ``events`` say what happened.

        Returns:
            A function that ends the subscription. Calling it again has no effect.
        """
        subscription = partial(handler)  # a distinct object, because a handler may subscribe twice
        self._shared.handlers.append(subscription)

        def end() -> None:
            with suppress(ValueError):
                self._shared.handlers.remove(subscription)

        return end

    def _publish(self, committed: Committed) -> Steps[None]:
        for handler in tuple(self._shared.handlers):
            try:
                yield Notify(handler, committed)
            except Exception:  # noqa: BLE001  # the commit is already written
                _log.exception("a subscriber failed after the commit %s, which is written", committed.receipt.token)

    @operation
    def explain(
        self,
        criterion: Criterion | None = None,
        *,
        order: str = NEWEST_FIRST,
        limit: int = 50,
        after: str | None = None,
    ) -> Steps[Explanation]:
        """Run a query as `find` does, and return the steps that the planner took, with the number of reads of each.

        Args:
            criterion: made with `where`; default: all conversations.
            order: as for `find`.
            limit: the most conversations in the page, at least 1.
            after: the ``cursor`` of the previous page.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> print(store.explain(memory.where("customer") == "ada"))
        1. walk the order -last_run_at: 0 read
        0 found
        """
        yield from self.ready()
        query = Query.parse(criterion, order, limit, after)
        explanation: Explanation = yield partial(self.repository.explain, self._namespace, query)
        return explanation

    @operation
    def upgrade_metadata(self, *, all_namespaces: bool = False, on_corrupt: OnCorrupt | None = None) -> Steps[int]:
        """Rewrite the metadata that the current version of its type would write differently. Return how many changed.

        Reading upgrades each conversation too, but queries match what is stored. Others may write meanwhile. If it is
        interrupted, call it again. A rewrite is an edit: the version of the conversation and ``updated_at`` change.

        Args:
            all_namespaces: those of all namespaces of the store; by default those of this one.
            on_corrupt: called with the error for each conversation whose metadata does not fit the type; by default it is raised.

        Raises:
            ConfigurationError: the store was opened without a type: see `connect`.
            CorruptRecordError: metadata does not fit the type.
        """
        if not self._serializer.is_typed:
            raise ConfigurationError(f"{self} has no type of metadata: open it by connect(url, metadata=...)")
        yield from self.ready()
        upgraded = 0
        names = sorted((yield self.repository.namespaces)) if all_namespaces else [self._namespace]
        for name in names:
            commit = self.namespace(name)._commit  # noqa: SLF001  # another Store
            upgraded += yield from Upgrade(self.repository, name, self._serializer, commit, on_corrupt).run()
        return upgraded

    @operation
    def migrate(self, progress: Progress = no_progress) -> Steps[SchemaStatus]:
        """Migrate the store's schema to the version that this code needs, and keep all data. Return the new status."""
        self.check_open()
        status: SchemaStatus = yield Write(self.repository.migrate, progress)
        self._shared.schema_checked = status.is_current
        return status

    @operation
    def schema_status(self) -> Steps[SchemaStatus]:
        """Return the version of the store's schema and the version that this code needs."""
        self.check_open()
        status: SchemaStatus = yield self.repository.schema_status
        return status

    def check_open(self) -> None:
        """Raise `ClosedError` if the store was closed."""
        if self._shared.closed:
            raise ClosedError(f"{self} was closed: open a new one with memory.connect()")

    def ready(self) -> Steps[None]:
        """Check the schema on first use, and create it in a new local file. Every operation does this first."""
        self.check_open()
        if self._shared.schema_checked:
            return
        is_new = yield self.repository.is_new
        status = yield Write(self.repository.migrate) if is_new else self.repository.schema_status
        if not status.is_current:
            raise SchemaError(status.advice())
        self._shared.schema_checked = True

    @operation
    def ensure_ready(self) -> Steps[None]:
        """Check the schema, and create it in a new local file, as the first operation would do.

        Raises:
            SchemaError: the store's schema is not the version that this code needs.
            ClosedError: the store was closed.
        """
        return self.ready()

    @operation
    def close(self) -> Steps[None]:
        """Close the store and its other namespaces, and the connections that `connect` opened. Yours stay open."""
        if not self._shared.closed:
            self._shared.closed = True
            yield Write(self.repository.close)

    def _token(self, idempotency_key: str | None) -> str | None:
        """Return the token of a unit of work with this key."""
        if idempotency_key is None:
            return None
        if not self.repository.capabilities.idempotency_keys:
            raise UnsupportedError(f"{self.repository} keeps no receipts, and cannot take an idempotency key")
        return ChangeSet.keyed(check_id(idempotency_key, "the idempotency key"))

    def _reading(self) -> Session[M]:
        return Session(self.repository, self._namespace, self._serializer, self, remembers=False)

    def __repr__(self) -> str:
        return f"<Store of {self.repository!r}, namespace {self._namespace!r}>"


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
        other = cast("Store", copy(self))
        other._serializer = Serializer(UNTYPED, self._serializer.default)  # noqa: SLF001  # another Store
        return other

    def _publish_joined(self, committed: Committed) -> None:
        perform(self._publish(committed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
