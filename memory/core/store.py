"""`Store`: what an application opens once and begins its units of work from; and `connect`, which opens it."""

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
"""Values in one conversation's metadata, unless the store is opened with another number."""

_DOUBT_RETRIES = 10  # two seconds on average: a server comes back in that time, or another takes over
_FIRST_DELAY, _LONGEST_DELAY = 0.01, 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Committed:
    """What a handler of `Store.subscribe` is told: a change set that is written, where, and what became of it."""

    namespace: str
    changes: ChangeSet
    receipt: Receipt


Handler = Callable[[Committed], None]


@dataclass(slots=True)
class _Shared:
    """What a store and its other namespaces have in common."""

    repository: Repository
    max_metadata_values: int
    handlers: list[Handler] = field(default_factory=list)
    schema_checked: bool = False
    closed: bool = False


class Store:
    """Conversations and their runs in one namespace of a repository. Safe to use from several threads.

    Args:
        repository: where everything is kept.
        namespace: its name.
        max_metadata_values: how many values one conversation's metadata may hold, lists and dicts included. Each costs an
            index entry.

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
        """The repository everything is kept in."""
        return self._shared.repository

    @property
    def namespace_name(self) -> str:
        """The name of the namespace."""
        return self._namespace

    @property
    def max_metadata_values(self) -> int:
        """How many values one conversation's metadata may hold."""
        return self._shared.max_metadata_values

    def namespace(self, name: str) -> Self:
        """Return a store of another namespace in the same repository: nothing of one is ever seen in the other.

        Raises:
            InvalidValueError: the name cannot be one: 1 to 255 characters, no control characters.
        """
        other = copy(self)
        other._namespace = check_id(name, "the namespace")  # noqa: SLF001  # one of our own
        return other

    def namespaces(self) -> list[str]:
        """Return the names of all namespaces that have a conversation, sorted; those in which all have expired may be among them.

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
        """Begin a unit of work; as a ``with`` block it commits at the end, and rolls back when the block raises.

        Args:
            connection: a SQLAlchemy ``Connection`` or ``Session`` of the application's, for a SQL store in the same database:
                what is written becomes part of its transaction, and counts when the application commits that.

        Raises:
            SchemaError: the store's schema is not the one this code needs.
            UnsupportedError: a connection was given, and this store cannot join it.
        """
        self.ensure_ready()
        if connection is None:
            return UnitOfWork(self.repository, self._namespace, self.commit, self._check_open)
        joined = self.repository.joining(connection)
        return UnitOfWork(
            joined, self._namespace, lambda changes: self._commit_joined(joined, changes), self._check_open
        )

    def run(
        self, work: Callable[[UnitOfWork], T], retries: int = 5, sleep: Callable[[float], object] = time.sleep
    ) -> T:
        """Run a function of a unit of work, commit, and return what it returned; all of it again where that makes sense.

        Args:
            work: called with a new unit of work each time; what else it does, it may do more than once.
            retries: how often to repeat after an error that is ``retryable`` (a conflict, a store out of reach).
            sleep: waits for so many seconds between two tries: up to 10 ms at first, doubling up to 1 s, with jitter.

        Raises:
            PersistenceError: the last try's error.
        """
        for delay in _delays(retries):
            try:
                return self._run_once(work)
            except PersistenceError as error:
                if not error.retryable:
                    raise
            sleep(delay)
        return self._run_once(work)

    def _run_once(self, work: Callable[[UnitOfWork], T]) -> T:
        with self.begin() as uow:
            return work(uow)

    def commit(self, changes: ChangeSet) -> Receipt:
        """Write a change set, find out where the answer was lost, and tell the subscribers.

        Units of work do this; it is here for those who make change sets themselves (import, copy).

        Raises:
            PersistenceError: as `Repository.commit`.
        """
        self.ensure_ready()
        self._check_metadata(changes)
        receipt = self._commit_surely(changes)
        self._publish(Committed(self._namespace, changes, receipt))
        return receipt

    def _check_metadata(self, changes: ChangeSet) -> None:
        most = self._shared.max_metadata_values
        for change in changes.changes:
            text = change.metadata or (change.create.metadata if change.create else "")
            if (count := count_values(text, most)) > most:
                raise InvalidValueError(
                    f"the metadata of conversation {change.id!r} holds {count:,} values, and this store takes {most:,}: keep "
                    "large state in runs, or raise the limit: connect(..., max_metadata_values=...), or --max-metadata-values"
                )

    def _commit_surely(self, changes: ChangeSet) -> Receipt:
        with within(self.repository.timeout):
            try:
                return self.repository.commit(self._namespace, changes)
            except CommitInDoubtError:
                if (receipt := self._find_out(changes)) is not None:
                    return receipt
                raise

    def _find_out(self, changes: ChangeSet) -> Receipt | None:
        """Commit again what may be written: its token makes that safe. None: the store did not tell before the deadline."""
        for delay in _delays(_DOUBT_RETRIES):
            if delay >= remaining(inf):
                return None
            time.sleep(delay)
            try:
                return self.repository.commit(self._namespace, changes)
            except _NOT_WRITTEN:
                raise
            except PersistenceError:
                continue  # the store is not what it was, perhaps for now: that says nothing of the first commit
        return None

    def _commit_joined(self, joined: JoinedRepository, changes: ChangeSet) -> Receipt:
        self._check_metadata(changes)
        receipt = joined.commit(self._namespace, changes)
        joined.after_commit(lambda: self._publish(Committed(self._namespace, changes, receipt)))
        return receipt

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Call a handler after each commit made through this store, in any namespace, in the thread that committed.

        What a handler raises is logged and goes no further: the commit has happened.

        Returns:
            A function that ends the subscription; calling it again does nothing.
        """
        subscription = partial(handler)  # an object of its own: a handler may subscribe twice
        self._shared.handlers.append(subscription)

        def end() -> None:
            with suppress(ValueError):
                self._shared.handlers.remove(subscription)

        return end

    def _publish(self, committed: Committed) -> None:
        for handler in tuple(self._shared.handlers):
            try:
                handler(committed)
            except Exception:  # noqa: BLE001  # whatever it is, the commit has happened
                _log.exception("a subscriber failed; the commit %s is written all the same", committed.receipt.token)

    def explain(
        self,
        criterion: Criterion | None = None,
        *,
        order: str = "-updated_at",
        limit: int = 50,
        after: str | None = None,
    ) -> Explanation:
        """Answer a query as `find` does, and return how: the steps that were taken, and what each read.

        Args:
            criterion: made by `where`; all conversations, when left out.
            order: as for `find`.
            limit: the most conversations of the page, from 1.
            after: the ``cursor`` of the page before.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> print(store.explain(memory.where("customer") == "ada"))
        1. walk the order -updated_at: 0 read
        0 found
        """
        self.ensure_ready()
        return self.repository.explain(self._namespace, Query.parse(criterion, order, limit, after))

    def purge_expired(self) -> int:
        """Remove the expired conversations of this namespace, with their runs; return how many there were."""
        self.ensure_ready()
        return self.repository.purge_expired(self._namespace)

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:
        """Bring the store's schema to the one this code needs, keeping all data; return what it is then."""
        self._check_open()
        status = self.repository.migrate(progress)
        self._shared.schema_checked = status.is_current
        return status

    def schema_status(self) -> SchemaStatus:
        """Return the schema that is there and the one this code needs."""
        self._check_open()
        return self.repository.schema_status()

    def _check_open(self) -> None:
        if self._shared.closed:
            raise ClosedError(f"{self} was closed: open another with memory.connect()")

    def ensure_ready(self) -> None:
        """Check the schema at the first use, and create it in a new file of our own. Every operation does this by itself.

        Raises:
            SchemaError: the store's schema is not the one this code needs.
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
        """Release what `connect` opened; what was handed in stays open. The store and its other namespaces take no more calls."""
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
    return [random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(n, 10))) for n in range(times)]  # noqa: S311  # jitter is no secret
