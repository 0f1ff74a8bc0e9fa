"""Changes of many conversations: found page by page, and committed in batches beside writers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol, Self, TypeVar

from memory.core.faces import Checkpoint, Steps, Write
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation
from memory.errors import CommitTooLargeError, ConflictError, NotFoundError
from memory.port.changes import Change, ChangeSet, ExpectedVersion, Receipt
from memory.port.paging import Query
from memory.port.repository import Repository

T = TypeVar("T")

_MOST_CONVERSATIONS: Final = 100  # of one commit
_MOST_RUNS: Final = 5_000  # that one commit removes, unless they are of one conversation


class StoreSteps(Protocol):
    """What the operations need of their store."""

    @property
    def repository(self) -> Repository: ...
    @property
    def namespace_name(self) -> str: ...
    def namespace(self, name: str) -> Self: ...
    def ready(self) -> Steps[None]: ...
    def _commit(self, changes: ChangeSet) -> Steps[Receipt]: ...
    def persist(self, steps: Callable[[], Steps[T]]) -> Steps[T]: ...


def stores_of(store: StoreSteps, *, all_namespaces: bool) -> Steps[list[StoreSteps]]:
    """Return the store, or one for each of its namespaces."""
    yield from store.ready()
    if not all_namespaces:
        return [store]
    names: set[str] = yield from ask(store, store.repository.namespaces)
    return [store.namespace(name) for name in sorted(names)]


def ask(store: StoreSteps, call: Callable[[], T]) -> Steps[T]:
    """Call the port, and again if the store was unavailable."""

    def steps() -> Steps[T]:
        result: T = yield call
        return result

    return (yield from store.persist(steps))


def each_page(
    store: StoreSteps, criterion: Criterion, act: Callable[[Sequence[Conversation]], Steps[None]]
) -> Steps[None]:
    """Act on each page of the conversations that match, in the order of their ids, in which nothing moves.

    Between pages, the operation may be cancelled.
    """
    repository, cursor = store.repository, None
    while True:
        yield Checkpoint()
        query = Query.parse(criterion, "id", repository.iterate_page, cursor)
        page = yield from ask(store, partial(repository.find, store.namespace_name, query))
        yield from act(page.items)
        if (cursor := page.cursor) is None:
            return


def purge(store: StoreSteps) -> Steps[int]:
    """Purge a namespace, and return how many conversations had expired. Before it, the operation may be cancelled."""
    yield Checkpoint()
    purged: int = yield Write(store.repository.purge_expired, store.namespace_name)
    return purged


class Batched(NamedTuple):
    """A change to commit in a batch, and how many runs it removes."""

    change: Change
    runs: int = 0


class Batches:
    """Commits changes in one namespace, in batches that the store takes."""

    def __init__(self, store: StoreSteps) -> None:
        self._store = store
        self._most = _MOST_CONVERSATIONS if store.repository.capabilities.many_conversations else 1

    def commit(self, wanted: list[Batched]) -> Steps[list[Batched]]:
        """Commit those that do not conflict with what others wrote meanwhile, and return them."""
        done: list[Batched] = []
        rest = wanted
        while rest:
            size = self._fitting(rest)
            batch, rest = rest[:size], rest[size:]
            changes = ChangeSet.of([one.change for one in batch], self._store.repository.clock())
            try:
                yield from self._store.persist(partial(self._store._commit, changes))  # noqa: SLF001  # as a unit of work does
            except CommitTooLargeError:
                if size == 1:
                    raise
                self._most = size // 2
                rest = batch + rest
            except (ConflictError, NotFoundError) as error:
                others = [one for one in batch if one.change.id != error.conversation_id]
                if len(others) == size:
                    raise
                rest = others + rest
            else:
                done += batch
        return done

    def _fitting(self, wanted: list[Batched]) -> int:
        """Return how many of the changes one commit takes."""
        runs = 0
        for size, one in enumerate(wanted[: self._most]):
            runs += one.runs
            if size and runs > _MOST_RUNS:
                return size
        return min(len(wanted), self._most)


def version_of(conversation: Conversation) -> ExpectedVersion:
    """Return the version of a conversation that was found."""
    record = conversation.record
    assert record is not None  # it was found in a store  # noqa: S101
    return ExpectedVersion(record.incarnation, record.version)
