"""The operations of a store that its two faces have: `Store`, and the one of `memory.aio`."""

import logging
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeAlias, TypeVar, cast

from memory.core.conversations import NEWEST_FIRST, parse_query
from memory.core.faces import Notify, Sleep, Steps, Synchronous, Write, delays, operation
from memory.core.retention_operations import RetentionOperations
from memory.core.session import Session
from memory.domain.codecs import UNTYPED, Codec, Serializer, codec_for
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
from memory.port.repository import JoinedRepository, Progress, Repository, SchemaStatus, no_progress

if TYPE_CHECKING:
    from memory.core.events import Committed
    from memory.core.upgrading import OnCorrupt
    from memory.domain.criteria import Criterion
    from memory.port.planner import Explanation

T = TypeVar("T")
_log = logging.getLogger("memory")

_NOT_WRITTEN = (AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError, PartialCommitError)
"""Errors from replaying a change set that prove it was not written, or was written in part."""

MAX_METADATA_VALUES: Final = 10_000
"""The default limit of values in one conversation's metadata."""

_DOUBT_RETRIES = 10  # two seconds on average, enough for a server to restart or to fail over
_RETRIES = 5  # of one step of a long operation

Handler: TypeAlias = "Callable[[Committed], Any]"


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
        if type(cast(object, repository)) is str:
            raise ConfigurationError("a Store takes a repository: for a URL, write memory.connect(url)")
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
            yield from self._publish(self._committed(changes, receipt))
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
            joined.after_commit(partial(self._publish_joined, self._committed(changes, receipt)))
        return receipt

    def _publish_joined(self, committed: "Committed") -> None:
        """Call the handlers after a commit of the application's own transaction."""
        raise NotImplementedError

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Call a handler after each commit through this store, in any namespace, in the thread of the commit.

        Exceptions of a handler are logged and not propagated, because the commit is already written. If the unit of work joined
        a transaction of the application's, the handler is called after its commit, when the connection is back in the pool.

        Args:
            handler: called with a `Committed`, whose ``events`` say what happened. A store of `memory.aio` awaits a coroutine
                function, and calls any other one on a thread.

        Returns:
            A function that ends the subscription. Calling it again has no effect.

        Raises:
            InvalidValueError: the handler is a coroutine function, and the store is not one of `memory.aio`.
        """
        if isinstance(self, Synchronous) and iscoroutinefunction(handler):
            raise InvalidValueError(
                f"{self} cannot await the handler {handler!r}: open the store by memory.aio.connect()"
            )
        subscription = partial(handler)  # a distinct object, because a handler may subscribe twice
        self._shared.handlers.append(subscription)

        def end() -> None:
            with suppress(ValueError):
                self._shared.handlers.remove(subscription)

        return end

    def _committed(self, changes: ChangeSet, receipt: Receipt) -> "Committed":
        from memory.core.events import Committed  # its classes take a while to define

        return Committed(self._namespace, changes, receipt, self._serializer.codec)

    def _publish(self, committed: "Committed") -> Steps[None]:
        for handler in tuple(self._shared.handlers):
            try:
                yield Notify(handler, committed)
            except Exception:  # noqa: BLE001  # the commit is already written
                _log.exception("a subscriber failed after the commit %s, which is written", committed.receipt.token)

    @operation
    def explain(
        self,
        criterion: "Criterion | None" = None,
        *,
        order: str = NEWEST_FIRST,
        limit: int = 50,
        after: str | None = None,
    ) -> "Steps[Explanation]":
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
        query = parse_query(criterion, order, limit, after)
        explanation: Explanation = yield partial(self.repository.explain, self._namespace, query)
        return explanation

    @operation
    def upgrade_metadata(self, *, all_namespaces: bool = False, on_corrupt: "OnCorrupt | None" = None) -> Steps[int]:
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
        from memory.core.batches import stores_of  # both only when they are needed
        from memory.core.upgrading import Upgrading

        upgraded = 0
        for store in (yield from stores_of(self, all_namespaces=all_namespaces)):
            upgraded += yield from Upgrading(store, self._serializer, on_corrupt).run()
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
            raise ClosedError(f"{self} was closed: open a new one with connect()")

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

    def _without_type(self) -> "StoreOperations":
        other = cast("StoreOperations", copy(self))
        other._serializer = Serializer(UNTYPED, self._serializer.default)  # noqa: SLF001  # another Store
        return other

    def _reading(self) -> Session[M]:
        return Session(self.repository, self._namespace, self._serializer, self, remembers=False)

    def __repr__(self) -> str:
        return f"<Store of {self.repository!r}, namespace {self._namespace!r}>"
