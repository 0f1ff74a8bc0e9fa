"""The interface that an adapter implements. Everything that is the same for all stores is implemented once, above it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

from memory.domain.values import now
from memory.errors import UnsupportedError
from memory.port.deadlines import DEFAULT_TIMEOUT, limited

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from memory.domain.criteria import Criterion
    from memory.domain.entities import Conversation, Run
    from memory.port import planner
    from memory.port.changes import ChangeSet, ExpectedVersion, Receipt
    from memory.port.outbox import Outbox, ReplicaLag
    from memory.port.paging import Page, Query

Progress: TypeAlias = Callable[[str, float | None], object]
"""Progress callback, called with a description and the completed fraction (0 to 1; None if unknown)."""


def no_progress(what: str, part: float | None) -> None:
    """A progress callback that does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store promises, as data.

    Attributes:
        atomic: a commit is written completely or not at all; if false, an error can leave a part of it.
        detects_conflicts: ``expected`` and ``after`` are checked in one step with the write; if false, just before it.
        joins: `Repository.joining` works: a unit of work can be part of the application's own transaction.
        largest_commit: the most writes in one commit, as the store counts them; None for no limit. A larger commit raises
            `CommitTooLargeError`, and nothing is written.
        idempotency_keys: the receipts of change sets with a key of the application's are kept, so that `Store.begin` takes one.
        many_conversations: one commit may change several conversations; if false, such a commit raises `CommitTooLargeError`.
    """

    atomic: bool = True
    detects_conflicts: bool = True
    joins: bool = False
    largest_commit: int | None = None
    many_conversations: bool = True
    idempotency_keys: bool = True


class Window(NamedTuple):
    """The runs of a conversation to read: of those with ``after < position < before`` the first ``limit``, or the last.

    They are returned in the order of their positions in both cases.
    """

    after: int = 0
    before: int | None = None
    limit: int | None = None
    from_end: bool = False


class RunsRead(NamedTuple):
    """Runs, with the version and the last position of their conversation at the same moment.

    ``seen`` is None if the conversation does not exist. ``last_position`` is that of the conversation, not of the window, and
    None if the store does not know it.
    """

    seen: ExpectedVersion | None
    runs: tuple[Run, ...]
    last_position: int | None = None


class OpenRun(NamedTuple):
    """A run that waits for its final output, and the id of its conversation."""

    conversation_id: str
    run: Run


class Forgotten(NamedTuple):
    """What `Repository.forget` did.

    Attributes:
        receipts: how many receipts it deleted.
        outbox: from how many outbox entries it took the conversations' texts.
        until: the time in microseconds since 1970 at which the store deletes the receipts that are left, None if none is left.
    """

    receipts: int = 0
    outbox: int = 0
    until: int | None = None


class SchemaStatus(NamedTuple):
    """The schema that a store has (None: none yet), and the one that this code needs (None: the store has no schema)."""

    current: str | None
    head: str | None

    @property
    def is_current(self) -> bool:
        """Whether this code can use the store without a migration."""
        return self.current == self.head

    def advice(self) -> str:
        """Return what to do about a schema that is not current."""
        if self.current is not None and self.head is not None and self.current > self.head:
            return f"the store has schema {self.current}, newer than the {self.head} of this code: upgrade conversation-memory"
        have = "no schema yet" if self.current is None else f"schema {self.current}"
        return f"the store has {have}, and this code needs {self.head}: run `memory migrate`, or call store.migrate()"


class Repository(ABC):
    """A store of conversations. Methods for features that a store does not have raise `UnsupportedError`.

    Every method treats an expired conversation (``expires_at <= clock()``) as if it and its runs did not exist; creating another
    under its id replaces it. The callers have checked and encoded ids, namespaces and values. Methods raise only errors of
    `memory.errors`. Safe to use from several threads.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    iterate_page: ClassVar[int] = 200
    """Conversations per page of an iteration: all of them, if each page would read the whole namespace again."""
    concurrency: tuple[int, int] = (10, 10)
    """How many calls can run at once without waiting for each other, on threads of their own, and how many of them can write."""
    clock: Callable[[], int] = staticmethod(now)
    """Returns the time in microseconds since 1970, for expiry. Tests may replace it."""
    timeout: float = DEFAULT_TIMEOUT
    """The most seconds for one operation, including all its requests, waits and retries: see `memory.port.deadlines`."""

    @abstractmethod
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        """Return the conversation, or None if it does not exist."""

    @abstractmethod
    def searching(self, namespace: str, criterion: Criterion) -> AbstractContextManager[planner.Search]:
        """Return a context manager that yields the `Search` with which the planner finds the conversations of a criterion."""

    @limited
    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        """Return the first ``query.limit`` conversations after ``query.after`` that match the criterion, in order.

        The page has a cursor if and only if there are more.
        """
        from memory.port import planner  # here and below: an application that imports `memory` waits for less

        with self.searching(namespace, query.criterion) as search:
            return planner.find(query, search)

    @limited
    def count(self, namespace: str, criterion: Criterion) -> int:
        """Return how many conversations match the criterion."""
        from memory.port import planner

        with self.searching(namespace, criterion) as search:
            return planner.count(criterion, search)

    @limited
    def explain(self, namespace: str, query: Query) -> planner.Explanation:
        """Run a query, and return the steps that the planner took and what each of them read."""
        from memory.port import planner

        explanation = planner.Explanation()
        with self.searching(namespace, query.criterion) as search:
            planner.find(query, search, explanation)
        return explanation

    @abstractmethod
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        """Return the runs of the window in the order of their positions, and the version at which they were read."""

    def get_many(self, namespace: str, conversation_ids: Sequence[str]) -> dict[str, Conversation]:
        """Return the conversations with these ids, by id, without those that do not exist."""
        found = {id: self.get(namespace, id) for id in conversation_ids}
        return {id: conversation for id, conversation in found.items() if conversation is not None}

    def last_runs(self, namespace: str, conversation_ids: Sequence[str], n: int) -> dict[str, RunsRead]:
        """Return the last ``n`` runs (at least 1) of each of these conversations, as `runs` would, by id."""
        return {id: self.runs(namespace, id, Window(limit=n, from_end=True)) for id in conversation_ids}

    @abstractmethod
    def open_runs(self, namespace: str, before: int | None, limit: int) -> tuple[OpenRun, ...]:
        """Return the first ``limit`` open runs, ordered by ``created_at``, `key_of` the conversation's id, and position.

        Args:
            namespace: the namespace.
            before: only those with an earlier ``created_at``, in microseconds since 1970; None for all.
            limit: the most runs to return.
        """

    def forget(self, namespace: str, conversation_ids: Collection[str]) -> Forgotten:  # noqa: ARG002  # nothing is left
        """Delete what a removed conversation leaves behind: receipts with its id, and its texts in the outbox.

        The removal itself stays in the outbox, and is delivered.
        """
        return Forgotten()

    @abstractmethod
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        """Write all changes or none. If the token was written before, write nothing and return the first receipt.

        A change whose preconditions fail (`memory.port.changes.check_preconditions`) is rejected. A change that ``edits`` a
        conversation increments its version. Its ``updated_at`` becomes ``changes.at``, unless the stored one is later. The
        other fields become what `Change.applied` computes. The receipt is kept for ``changes.receipt_kept`` microseconds.

        Raises:
            ConflictError, NotFoundError, AlreadyExistsError: as for `check_preconditions`; nothing was written.
            StoreUnavailableError: nothing was written.
            CommitInDoubtError: the response was lost. The caller may commit the same change set again to resolve the outcome.
        """

    @abstractmethod
    def namespaces(self) -> set[str]:
        """Return all namespaces with a conversation, possibly including some where all have expired."""

    @abstractmethod
    def purge_expired(self, namespace: str) -> int:
        """Delete the expired conversations and their runs; return the number of conversations."""

    def schema_status(self) -> SchemaStatus:
        """Return the schema of the store, and the one that this code needs."""
        return SchemaStatus(None, None)

    def is_new(self) -> bool:
        """Whether the schema should be created on first use: True only for an empty database that we own (a new local file)."""
        return False

    def migration_steps(self) -> list[str]:
        """Return descriptions of what `migrate` would do; none if the schema is current."""
        status = self.schema_status()
        return [] if status.is_current else [f"bring the schema from {status.current or 'none'} to {status.head}"]

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:  # noqa: ARG002  # a store without a schema has nothing to do
        """Migrate the schema to the one that this code needs, and keep all data. Return the new status. Safe at any time."""
        return self.schema_status()

    def definition(self, format: str) -> str:
        """Return the schema that `migrate` creates, in the format of a tool that can create it instead, such as ``terraform``.

        Raises:
            UnsupportedError: this store has no definition in this format.
        """
        raise UnsupportedError(f"{self} cannot be printed as {format}: only a DynamoDB table can")

    def warnings(self) -> list[str]:
        """Return warnings about settings of the server with which acknowledged writes could be lost or hidden."""
        return []

    def joining(self, connection: object) -> JoinedRepository:
        """Return a repository that reads and writes inside the application's own transaction.

        Raises:
            UnsupportedError: this store cannot join a transaction.
        """
        raise UnsupportedError(
            f"{self} cannot join {type(connection).__name__}: it has no transactions of the application's"
        )

    def with_outbox(self, replicas: Sequence[str]) -> Repository:
        """Return a repository of the same store whose commits also write, in one transaction, an outbox entry for each replica.

        Raises:
            UnsupportedError: this store has no outbox.
        """
        raise UnsupportedError(
            f"{self} has no outbox for the replicas {', '.join(replicas)}: only a SQL store can be mirrored"
        )

    def relaying(self, replica: str) -> AbstractContextManager[Outbox | None]:
        """Lock the outbox of a replica until the block or the process ends; yield None if another relay has locked it.

        What the block removes may be removed only when the block ends without an exception.

        Raises:
            UnsupportedError: this store has no outbox.
        """
        raise UnsupportedError(f"{self} has no outbox for the replica {replica}: only a SQL store can be mirrored")

    def waiting(self) -> Mapping[str, ReplicaLag]:
        """Return the lag of each replica that has entries in the outbox, by name."""
        return {}

    def close(self) -> None:  # noqa: B027  # most have nothing to release
        """Close the connections that this repository opened. Those that were passed to it stay open."""


class JoinedRepository(Repository):
    """A repository inside a transaction of the application: its writes take effect when the application commits."""

    @abstractmethod
    def after_commit(self, action: Callable[[], None]) -> None:
        """Call the action when the application's transaction is committed; never, if it is rolled back."""

    @abstractmethod
    def after_rollback(self, action: Callable[[], None]) -> None:
        """Call the action when the application's transaction is rolled back; never, if it is committed."""
