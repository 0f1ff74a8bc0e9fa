"""Shared by all classes of the contract: fixtures, helpers, and snapshots of the stored state."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from memory.core.events import Committed
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import Json, encode, new_id
from memory.errors import CommitTooLargeError
from memory.port.changes import Receipt
from memory.port.repository import Repository

Action: TypeAlias = Callable[[], object]
Work: TypeAlias = Callable[[UnitOfWork], object]
T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., object])


_making: dict[str, Callable[[Repository, str], Store]] = {"store": Store}


class Clock:
    """A clock, in microseconds since 1970, that only moves when a test advances it."""

    def __init__(self) -> None:
        self.time = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.time

    def advance(self, microseconds: int = 1_000_000) -> None:
        """Advance the clock, by one second by default."""
        self.time += microseconds


class Snapshot(NamedTuple):
    """Everything stored in a namespace, as strings and numbers, so that values of different types never compare as equal."""

    conversations: tuple[ConversationRecord, ...]
    runs: dict[str, tuple[RunRecord, ...]]


def requires(capability: str, *, by_chance: bool = False) -> Callable[[Test], Test]:
    """Expect a test to fail on a store without this capability, a field of `Capabilities`.

    If it passes, that is an error, unless ``by_chance`` says that it only fails if threads meet.
    """

    def mark(test: Test) -> Test:
        test.__dict__["requires"] = capability, not by_chance
        return test

    return mark


class Contract:
    """The fixtures of every class of the contract."""

    examples: ClassVar[int] = 50
    """The number of random examples for each property."""

    @pytest.fixture
    def repository(self) -> Iterator[Repository]:
        """Yield the repository to test. Subclasses define this fixture, and no other."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `repository`")

    @pytest.fixture
    def store_class(self) -> Callable[[Repository, str], Store]:
        """Return what makes a store of a repository and a namespace. `memory.aio` tests its face with another one."""
        return Store

    @pytest.fixture(autouse=True)
    def _store_class(
        self, store_class: Callable[[Repository, str], Store], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Repository, str], Store]:
        monkeypatch.setitem(_making, "store", store_class)
        return store_class

    @pytest.fixture
    def store(self, repository: Repository) -> Store:
        return new_store(repository)

    @pytest.fixture
    def clock(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(repository, "clock", clock)
        return clock

    @pytest.fixture(autouse=True)
    def _capabilities(self, request: pytest.FixtureRequest, repository: Repository) -> None:
        capability, strict = getattr(request.function, "requires", (None, True))
        if capability and not getattr(repository.capabilities, capability):
            reason = f"{repository!r} does not have the capability {capability!r}"
            request.applymarker(pytest.mark.xfail(reason=reason, strict=strict))

    def profile(self) -> settings:
        """Return the hypothesis settings: the same examples in each run, and no deadline for slow stores."""
        return settings(
            max_examples=self.examples,
            stateful_step_count=20,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )

    def for_all(self, strategy: SearchStrategy[T], holds: Callable[[T], None]) -> None:
        """Test a property, given as a function with assertions, with examples of the strategy."""

        @self.profile()
        @given(strategy)
        def holds_for(example: T) -> None:
            holds(example)

        holds_for()


def new_store(repository: Repository) -> Store:
    """Create the schema, and return a store in a new namespace."""
    store = _making["store"](repository, new_id())
    store.migrate()
    return store


def sibling(store: Store) -> Store:
    """Return a store in a new namespace of the same repository."""
    return store.namespace(new_id())


def run(text: Json = "in", output: Json = "out") -> Run:
    """Return a run."""
    return Run(text, output)


BLIND_WRITES: tuple[Work, ...] = (
    lambda uow: uow.runs.append("a", run()),
    lambda uow: uow.runs.append("a", run(), after=2),
    lambda uow: uow.runs.replace("a", replace(run(), position=1)),
    lambda uow: uow.runs.remove("a", 1),
    lambda uow: uow.runs.remove("a", before=2),
    lambda uow: uow.runs.clear("a"),
    lambda uow: uow.conversations.remove("a"),
)
"""Every kind of write to the conversation a, with two runs, by a unit of work that has read nothing of it."""


def put(store: Store, conversation_id: str, metadata: dict[str, Json] | None = None, *runs: Run) -> Conversation:
    """Commit a new conversation with these runs. Return the committed object."""
    conversation = Conversation(conversation_id, metadata)
    with store.begin() as uow:
        uow.conversations.add(conversation)
        uow.runs.append(conversation_id, *runs)
    return conversation


def put_all(store: Store, conversations: Mapping[str, dict[str, Json]]) -> None:
    """Commit new conversations with their metadata: in one commit, or in as few as the store's `Capabilities` allow."""
    try:
        with store.begin() as uow:
            for conversation_id, metadata in conversations.items():
                uow.conversations.add(Conversation(conversation_id, metadata))
    except CommitTooLargeError:
        if len(conversations) == 1:
            raise
        items, middle = list(conversations.items()), len(conversations) // 2
        put_all(store, dict(items[:middle]))
        put_all(store, dict(items[middle:]))


def do(store: Store, *works: Work) -> None:
    """Run functions in one unit of work, and commit it."""
    with store.begin() as uow:
        for work in works:
            work(uow)


def read(store: Store, conversation_id: str) -> Conversation:
    """Return a conversation from the store."""
    return store.begin().conversations.get(conversation_id)


def read_runs(store: Store, conversation_id: str) -> list[Run]:
    """Return the runs of a conversation from the store."""
    return store.begin().runs.list(conversation_id)


def committed(store: Store, work: Work) -> Committed:
    """Run a function in a unit of work, and return its commit, so that the test can replay the change set."""
    commits: list[Committed] = []
    unsubscribe = store.subscribe(commits.append)
    try:
        do(store, work)
    finally:
        unsubscribe()
    return commits[0]


def text_of(value: Json) -> str:
    """Return a value as text. Texts are equal only if the values are equal and of the same types throughout."""
    return encode(value, "value")


def states(conversations: list[Conversation]) -> tuple[ConversationRecord, ...]:
    """Return the records of conversations, for comparison between stores: without incarnations, which differ between stores."""
    return tuple([_state(conversation) for conversation in conversations])


def _state(conversation: Conversation) -> ConversationRecord:
    record = conversation.record
    assert record is not None, f"{conversation!r} is not stored"
    return record._replace(metadata=text_of(conversation.metadata), incarnation="")


def run_states(runs: list[Run]) -> tuple[RunRecord, ...]:
    """Return the records of runs, in which values of different types never compare as equal."""
    return tuple([run.to_record(run.position or 0) for run in runs])


def outcome_of(receipt: Receipt) -> dict[str, tuple[int, int, int] | None]:
    """Return the version, number of runs and last position of each conversation in a receipt."""
    return {
        conversation_id: written and (written.version, written.run_count, written.last_position)
        for conversation_id, written in receipt.written.items()
    }


def snapshot(store: Store) -> Snapshot:
    """Return everything stored in the store's namespace."""
    uow = store.begin()
    conversations = uow.conversations.find(order="id", limit=1_000).items
    return Snapshot(
        states(list(conversations)),
        {conversation.id: run_states(uow.runs.list(conversation.id)) for conversation in conversations},
    )


@contextmanager
def unchanged(*stores: Store) -> Iterator[None]:
    """Assert that the block changes nothing in these stores."""
    before = [snapshot(store) for store in stores]
    yield
    assert [snapshot(store) for store in stores] == before


def walk(store: Store, criterion: Criterion | None = None, *, order: str = "id", limit: int = 50) -> list[Conversation]:
    """Find conversations page by page, and return all. Assert that every page but the last is full."""
    pages = []
    cursor = None
    while True:
        page = store.begin().conversations.find(criterion, order=order, limit=limit, after=cursor)
        pages.append(page)
        if (cursor := page.cursor) is None:
            break
    sizes = [len(page) for page in pages]
    assert all(size == limit for size in sizes[:-1]), f"only the last page may not be full: {sizes}, limit {limit}"
    assert len(pages) == 1 or 0 < sizes[-1] <= limit, f"a cursor led to a page of {sizes[-1]} conversations"
    return [conversation for page in pages for conversation in page]
