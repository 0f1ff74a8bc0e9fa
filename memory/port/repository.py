"""The port: what an adapter must do. All that is the same for all stores is done above it, once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.values import now
from memory.errors import UnsupportedError
from memory.port import planner
from memory.port.changes import ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.outbox import Outbox, ReplicaLag
from memory.port.paging import Page, Query

Progress: TypeAlias = Callable[[str, float | None], object]
"""Is told what is being done, and which part of it is done, from 0 to 1; None where that cannot be known."""


def no_progress(what: str, part: float | None) -> None:
    """Tell nobody: the `Progress` of those who do not watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store promises, as data.

    Attributes:
        atomic: a commit is written completely or not at all; where false, an error can leave a part of it.
        detects_conflicts: ``expected`` and ``after`` are checked in one step with the write; where false, just before it.
        joins: `Repository.joining` works: a unit of work can be part of the application's own transaction.
        largest_commit: how many writes one commit may consist of, as the store counts them; None for no limit. A larger one is
            refused by `CommitTooLargeError` before anything is written.
        many_conversations: one commit may change several conversations; where false, such a commit is refused likewise.
    """

    atomic: bool = True
    detects_conflicts: bool = True
    joins: bool = False
    largest_commit: int | None = None
    many_conversations: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which runs of a conversation: ``after < position < before``; of those the first ``limit``, or the last.

    They come in the order of their positions either way.
    """

    after: int = 0
    before: int | None = None
    limit: int | None = None
    from_end: bool = False


class RunsRead(NamedTuple):
    """Runs, and the state of the conversation they were read with: all of one moment.

    ``seen`` is None where there is no conversation; ``last_position`` is that of the conversation, not of the window, and None
    where it is not known.
    """

    seen: ExpectedVersion | None
    runs: tuple[Run, ...]
    last_position: int | None = None


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The schema a store has (None: none yet) and the one this code writes (None: the store needs none)."""

    current: str | None
    head: str | None

    @property
    def is_current(self) -> bool:
        """Whether the code can work with the store as it is."""
        return self.current == self.head

    def advice(self) -> str:
        """Say what to do about a schema that is not current."""
        if self.current is not None and self.head is not None and self.current > self.head:
            return f"the store has schema {self.current}, newer than the {self.head} of this code: upgrade conversation-memory"
        have = "no schema yet" if self.current is None else f"schema {self.current}"
        return f"the store has {have}, and this code needs {self.head}: run `memory migrate`, or call store.migrate()"


class Repository(ABC):
    """One store of conversations, whatever keeps it. What a store does not have raises `UnsupportedError`.

    An expired conversation (``expires_at <= clock()``) is to every method as if it were not there, and so are its runs; making
    another under its id replaces it. Ids, namespaces and values come checked and encoded. Only errors of `memory.errors` leave
    a method. Safe to use from several threads.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    iterate_page: ClassVar[int] = 200
    """Conversations that an iteration reads at a time; all of them where each page would read the whole namespace again."""
    clock: Callable[[], int] = staticmethod(now)
    """The time in microseconds since 1970, for expiry; a test may set another."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds that one operation may take, with all its requests, waits and retries: `memory.port.deadlines`."""

    @abstractmethod
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        """Return the conversation, None if there is none."""

    @abstractmethod
    def searching(self, namespace: str, criterion: Criterion) -> AbstractContextManager[planner.Search]:
        """Return a context manager that gives the planner what this store can do to find a criterion's conversations."""

    @limited
    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        """Return the first ``query.limit`` conversations after ``query.after`` that match the criterion, in order.

        The page has a cursor if and only if there are more.
        """
        with self.searching(namespace, query.criterion) as search:
            return planner.find(query, search)

    @limited
    def count(self, namespace: str, criterion: Criterion) -> int:
        """Return how many conversations match the criterion."""
        with self.searching(namespace, criterion) as search:
            return planner.count(criterion, search)

    @limited
    def explain(self, namespace: str, query: Query) -> planner.Explanation:
        """Answer a query and return how: the steps that the planner took, and what each read."""
        explanation = planner.Explanation()
        with self.searching(namespace, query.criterion) as search:
            planner.find(query, search, explanation)
        return explanation

    @abstractmethod
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        """Return the runs of the window, by position, and the version they were read at."""

    @abstractmethod
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        """Write all changes, or none; a token that was written before writes nothing and returns its receipt again.

        Each change is refused as `memory.port.changes.check_preconditions` says. A change that ``edits`` a conversation
        increments its version. Its ``updated_at`` becomes ``changes.at``, unless what is stored is later: times never go back.

        Raises:
            ConflictError, NotFoundError, AlreadyExistsError: as `check_preconditions` says; nothing was written.
            StoreUnavailableError: nothing was written.
            CommitInDoubtError: the answer was lost. The caller may commit the same change set again to find out.
        """

    @abstractmethod
    def namespaces(self) -> set[str]:
        """Return all namespaces that have a conversation; those in which all have expired may be among them."""

    @abstractmethod
    def purge_expired(self, namespace: str) -> int:
        """Remove expired conversations with their runs; return how many there were."""

    def schema_status(self) -> SchemaStatus:
        """Return the schema that is there and the one this code needs."""
        return SchemaStatus(None, None)

    def is_new(self) -> bool:
        """Tell whether the first use is to make the schema: nothing is there, and nobody else has a say (a new local file)."""
        return False

    def migration_steps(self) -> list[str]:
        """Return in words what `migrate` would do; nothing where the schema is current."""
        status = self.schema_status()
        return [] if status.is_current else [f"bring the schema from {status.current or 'none'} to {status.head}"]

    def migrate(self, progress: Progress = no_progress) -> SchemaStatus:  # noqa: ARG002  # a store without a schema has nothing to do
        """Bring the schema to the one this code needs, keeping all data; return what it is then. Safe to call at any time."""
        return self.schema_status()

    def definition(self, format: str) -> str:
        """Return what `migrate` creates, in a format of a tool that creates it instead, such as ``terraform``.

        Raises:
            UnsupportedError: this store has no such thing.
        """
        raise UnsupportedError(f"{self} cannot be printed as {format}: only a DynamoDB table can")

    def warnings(self) -> list[str]:
        """Return what about the server's settings could lose, or hide, what it has acknowledged."""
        return []

    def joining(self, connection: object) -> "JoinedRepository":
        """Return a repository that reads and writes inside the application's own transaction.

        Raises:
            UnsupportedError: this store has no such thing.
        """
        raise UnsupportedError(
            f"{self} cannot join {type(connection).__name__}: it has no transactions of the application's"
        )

    def with_outbox(self, replicas: Sequence[str]) -> "Repository":
        """Return a repository of the same store whose commits also write, in one transaction, an outbox entry for each replica.

        Raises:
            UnsupportedError: this store has no such thing.
        """
        raise UnsupportedError(
            f"{self} has no outbox for the replicas {', '.join(replicas)}: only a SQL store can be mirrored"
        )

    def relaying(self, replica: str) -> AbstractContextManager["Outbox | None"]:
        """Lock the outbox of a replica until the block or the process ends; yield None if another relay has locked it.

        Raises:
            UnsupportedError: as `with_outbox`.
        """
        raise UnsupportedError(f"{self} has no outbox for the replica {replica}: only a SQL store can be mirrored")

    def waiting(self) -> Mapping[str, ReplicaLag]:
        """Return the lag of each replica that has entries in the outbox, by name."""
        return {}

    def close(self) -> None:  # noqa: B027  # most have nothing to release
        """Release what this repository opened itself; what was handed to it stays open."""


class JoinedRepository(Repository):
    """A repository inside a transaction of the application's: what it writes counts when the application commits."""

    @abstractmethod
    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this once the application's transaction is committed; forget it if it is rolled back."""

    @abstractmethod
    def after_rollback(self, action: Callable[[], None]) -> None:
        """Do this once the application's transaction is rolled back; forget it if it is committed."""
