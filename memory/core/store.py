"""`Store`, which an application opens once and from which it begins units of work."""

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from math import inf
from types import TracebackType
from typing import Final, Self, TypeVar

from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import Criterion
from memory.domain.values import check_id, count_values
from memory.errors import (
    AlreadyExistsError,
    ClosedError,
    CommitInDoubtError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
    SchemaError,
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
_FIRST_DELAY, _LONGEST_DELAY = 0.01, 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed change set, as handlers of `Store.subscribe` receive it: its namespace, its changes and its receipt."""

    namespace: str
    changes: ChangeSet
    receipt: Receipt


Handler = Callable[[Committed], None]


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


class Store:
    """Conversations and their runs in one namespace of a repository. Safe to use from several threads.

    Args:
        repository: the repository that stores the conversations.
        namespace: the name of the namespace.
        max_metadata_values: the most values that one conversation's metadata may contain, including lists and dicts. Each value
            needs an index entry.

    >>> import memory
    >>> from memory import Conversation, Run, where
    >>> store = memory.connect("memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(Conversation("support-42", metadata={"customer": "ada", "priority": 3}))
    ...     uow.runs.append("support-42", Run(input="Where is my refund?", output="It left on Monday."))
    >>> with store.begin() as uow:
    ...     uow.conversations.count(where("customer") == "ada")
    1
    """

    def __init__(
        self, repository: Repository, namespace: str = "default", *, max_metadata_values: int = MAX_METADATA_VALUES
    ) -> None:
        self._shared = _Shared(repository, max_metadata_values)
        self._namespace = check_id(namespace, "the namespace")

    @property
    def repository(self) -> Repository:
        return self._shared.repository

    @property
    def namespace_name(self) -> str:
        return self._namespace

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

    def namespaces(self) -> list[str]:
        """Return the sorted names of all namespaces with a conversation, possibly including some where all have expired.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> for name in ("tenant-b", "tenant-a"):
        ...     with store.namespace(name).begin() as uow:
        ...         uow.conversations.add(memory.Conversation("support-42"))
        >>> store.namespaces()
        ['tenant-a', 'tenant-b']
        """
        self.ensure_ready()
        return sorted(self.repository.namespaces())

    def begin(self, *, connection: object = None) -> UnitOfWork:
        """Begin a unit of work. Used in a ``with`` block, it commits at the end, and rolls back if the block raises.

        Args:
            connection: the application's own SQLAlchemy ``Connection`` or ``Session``, for a SQL store in the same database. The
                writes become part of its transaction, and take effect when the application commits it.

        Raises:
            SchemaError: the store's schema is not the version that this code needs.
            UnsupportedError: this store cannot join a connection.
        """
        self.ensure_ready()
        if connection is None:
            return UnitOfWork(self.repository, self._namespace, self.commit, self._check_open)
        joined = self.repository.joining(connection)
        return UnitOfWork(joined, self._namespace, partial(self._commit_joined, joined), self._check_open)

    def run(
        self, work: Callable[[UnitOfWork], T], retries: int = 5, sleep: Callable[[float], object] = time.sleep
    ) -> T:
        """Call a function with a unit of work, commit, and return its result. Retry after retryable errors.

        Args:
            work: called with a new unit of work in each attempt. Its other side effects may happen more than once.
            retries: how often to retry after a ``retryable`` error (a conflict, an unavailable store).
            sleep: called with the seconds to wait between attempts: up to 10 ms at first, doubling up to 1 s, with jitter.

        Raises:
            PersistenceError: the error of the last attempt.
        """
        delays = iter(_delays(retries))
        while True:
            try:
                with self.begin() as uow:
                    return work(uow)
            except PersistenceError as error:
                if not error.retryable or (delay := next(delays, None)) is None:
                    raise
                self._shared.on_retry(error)
            sleep(delay)

    def commit(self, changes: ChangeSet) -> Receipt:
        """Write a change set, resolve its outcome if the response is lost, and notify the subscribers.

        Units of work call this. Call it yourself only for change sets that you make yourself, as import and copy do.

        Raises:
            PersistenceError: as for `Repository.commit`.
        """
        self.ensure_ready()
        self._check_metadata(changes)
        receipt = self._commit(changes)
        self._publish(Committed(self._namespace, changes, receipt))
        return receipt

    def _check_metadata(self, changes: ChangeSet) -> None:
        most = self._shared.max_metadata_values
        for change in changes.changes:
            text = change.metadata or (change.create.metadata if change.create else "")
            if (count := count_values(text, most)) > most:
                raise InvalidValueError(
                    f"the metadata of conversation {change.id!r} has {count:,} values, but the limit is {most:,}: keep large "
                    "state in runs, or raise the limit: connect(..., max_metadata_values=...), or --max-metadata-values"
                )

    def _commit(self, changes: ChangeSet) -> Receipt:
        with within(self.repository.timeout):
            try:
                return self.repository.commit(self._namespace, changes)
            except CommitInDoubtError as doubt:
                if (receipt := self._resolve_doubt(changes, doubt)) is not None:
                    return receipt
                raise

    def _resolve_doubt(self, changes: ChangeSet, doubt: CommitInDoubtError) -> Receipt | None:
        """Commit again a change set that may be written; its token makes that safe. Return None if the deadline passes first."""
        for delay in _delays(_DOUBT_RETRIES):
            if delay >= remaining(inf):
                break
            self._shared.on_retry(doubt)
            time.sleep(delay)
            try:
                receipt = self.repository.commit(self._namespace, changes)
            except _NOT_WRITTEN as refusal:
                _log.warning("the commit %s was refused when it was repeated: %s", changes.token, str(refusal))
                raise
            except PersistenceError:
                continue  # this error does not tell whether the first commit was written
            else:
                _log.warning("the commit %s is written", changes.token)
                return receipt
        _log.error("it is unknown whether the commit %s is written", changes.token)
        return None

    def _commit_joined(self, joined: JoinedRepository, changes: ChangeSet) -> Receipt:
        self._check_metadata(changes)
        receipt = joined.commit(self._namespace, changes)
        if self._shared.handlers:  # otherwise the application's commit has nothing to find out
            joined.after_commit(lambda: self._publish(Committed(self._namespace, changes, receipt)))
        return receipt

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Call a handler after each commit through this store, in any namespace, in the thread of the commit.

        Exceptions of a handler are logged and not propagated, because the commit is already written.

        Returns:
            A function that ends the subscription. Calling it again has no effect.
        """
        subscription = partial(handler)  # a distinct object, because a handler may subscribe twice
        self._shared.handlers.append(subscription)

        def end() -> None:
            with suppress(ValueError):
                self._shared.handlers.remove(subscription)

        return end

    def _publish(self, committed: Committed) -> None:
        for handler in tuple(self._shared.handlers):
            try:
                handler(committed)
            except Exception:  # noqa: BLE001  # the commit is already written
                _log.exception("a subscriber failed after the commit %s, which is written", committed.receipt.token)

    def explain(
        self,
        criterion: Criterion | None = None,
        *,
        order: str = "-updated_at",
        limit: int = 50,
        after: str | None = None,
    ) -> Explanation:
        """Run a query as `find` does, and return the steps that the planner took, with the number of reads of each.

        Args:
            criterion: made with `where`; default: all conversations.
            order: as for `find`.
            limit: the most conversations in the page, at least 1.
            after: the ``cursor`` of the previous page.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> print(store.explain(memory.where("customer") == "ada"))
        1. walk the order -updated_at: 0 read
        0 found
        """
        self.ensure_ready()
        return self.repository.explain(self._namespace, Query.parse(criterion, order, limit, after))

    def purge_expired(self) -> int:
        """Delete the expired conversations of this namespace and their runs. Return the number of conversations."""
        self.ensure_ready()
        return self.repository.purge_expired(self._namespace)

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Migrate the store's schema to the version that this code needs, and keep all data. Return the new status."""
        self._check_open()
        status = self.repository.migrate(progress)
        self._shared.schema_checked = status.is_current
        return status

    def schema_status(self) -> SchemaStatus:
        """Return the version of the store's schema and the version that this code needs."""
        self._check_open()
        return self.repository.schema_status()

    def _check_open(self) -> None:
        if self._shared.closed:
            raise ClosedError(f"{self} was closed: open a new one with memory.connect()")

    def ensure_ready(self) -> None:
        """Check the schema on first use, and create it in a new local file. Every operation calls this.

        Raises:
            SchemaError: the store's schema is not the version that this code needs.
            ClosedError: the store was closed.
        """
        self._check_open()
        if self._shared.schema_checked:
            return
        status = self.repository.migrate() if self.repository.is_new() else self.repository.schema_status()
        if not status.is_current:
            raise SchemaError(status.advice())
        self._shared.schema_checked = True

    def close(self) -> None:
        """Close the store and its other namespaces, and the connections that `connect` opened. Yours stay open."""
        if not self._shared.closed:
            self._shared.closed = True
            self.repository.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store of {self.repository!r}, namespace {self._namespace!r}>"


def _delays(times: int) -> list[float]:
    return [random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))) for n in range(times)]  # noqa: S311  # jitter needs no secure random numbers
