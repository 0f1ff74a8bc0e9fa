"""What the classes of the contract have in common: the store they play with, and whole states to compare."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from memory.core.store import Committed, Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import Json, encode, new_id
from memory.port.changes import Receipt
from memory.port.repository import Repository

Action: TypeAlias = Callable[[], object]
Work: TypeAlias = Callable[[UnitOfWork], object]
T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., object])


class Clock:
    """A clock that stands still until it is moved on; it tells microseconds since 1970."""

    def __init__(self) -> None:
        self.time = 1_700_000_000_000_000

    def __call__(self) -> int:
        """Return the time."""
        return self.time

    def advance(self, microseconds: int = 1_000_000) -> None:
        """Move the clock on, by a second when nothing is said."""
        self.time += microseconds


class Snapshot(NamedTuple):
    """All that is kept in a namespace, as texts and numbers: nothing passes for equal that is of another type."""

    conversations: tuple[ConversationRecord, ...]
    runs: dict[str, tuple[RunRecord, ...]]


def requires(capability: str, *, by_chance: bool = False) -> Callable[[Test], Test]:
    """Expect a test to fail on a store without this capability, a field of `Capabilities`.

    If it passes there, that is an error, unless ``by_chance`` says that it fails only when threads meet.
    """

    def mark(test: Test) -> Test:
        test.__dict__["requires"] = capability, not by_chance
        return test

    return mark


class Contract:
    """The fixtures of every class of the contract."""

    examples: ClassVar[int] = 50
    """How many random examples each property is tried with."""

    @pytest.fixture
    def repository(self) -> Iterator[Repository]:
        """Yield the repository to test: the one fixture that a subclass writes."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `repository`")

    @pytest.fixture
    def store(self, repository: Repository) -> Store:
        """Return a store in a namespace of its own."""
        return new_store(repository)

    @pytest.fixture
    def clock(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Return the clock of the repository: it moves when the test says so."""
        clock = Clock()
        monkeypatch.setattr(repository, "clock", clock)
        return clock

    @pytest.fixture(autouse=True)
    def _capabilities(self, request: pytest.FixtureRequest, repository: Repository) -> None:
        capability, strict = getattr(request.function, "requires", (None, True))
        if capability and not getattr(repository.capabilities, capability):
            reason = f"{repository!r} does not promise the capability {capability!r}"
            request.applymarker(pytest.mark.xfail(reason=reason, strict=strict))

    def profile(self) -> settings:
        """Return how properties are tried: the same examples each time, however slow the store."""
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
        """Try a property, which is a function that asserts, with examples of the strategy."""

        @self.profile()
        @given(strategy)
        def holds_for(example: T) -> None:
            holds(example)

        holds_for()


def new_store(repository: Repository) -> Store:
    """Return a store in a new namespace, its schema made."""
    store = Store(repository, new_id())
    store.migrate()
    return store


def beside(store: Store) -> Store:
    """Return a store in another new namespace of the same repository."""
    return store.namespace(new_id())


def run(text: Json = "in", output: Json = "out") -> Run:
    """Return a run."""
    return Run(text, output)


def put(store: Store, conversation_id: str, metadata: dict[str, Json] | None = None, *runs: Run) -> Conversation:
    """Commit a new conversation with these runs, and return it as the unit of work left it."""
    conversation = Conversation(conversation_id, metadata)
    with store.begin() as uow:
        uow.conversations.add(conversation)
        uow.runs.append(conversation_id, *runs)
    return conversation


def put_all(store: Store, conversations: Mapping[str, dict[str, Json]]) -> None:
    """Commit new conversations with their metadata: in one commit where the store takes that, else in one each."""
    capabilities = store.repository.capabilities
    together = capabilities.many_conversations and capabilities.largest_commit is None
    for group in [conversations] if together else [{id_: metadata} for id_, metadata in conversations.items()]:
        with store.begin() as uow:
            for conversation_id, metadata in group.items():
                uow.conversations.add(Conversation(conversation_id, metadata))


def do(store: Store, *works: Work) -> None:
    """Do some work in one unit of work, and commit it."""
    with store.begin() as uow:
        for work in works:
            work(uow)


def read(store: Store, conversation_id: str) -> Conversation:
    """Return a conversation as it is stored."""
    return store.begin().conversations.get(conversation_id)


def read_runs(store: Store, conversation_id: str) -> list[Run]:
    """Return the runs of a conversation as they are stored."""
    return store.begin().runs.list(conversation_id)


def committed(store: Store, work: Work) -> Committed:
    """Do some work in a unit of work, and return what its commit wrote, to be written again."""
    told: list[Committed] = []
    unsubscribe = store.subscribe(told.append)
    try:
        do(store, work)
    finally:
        unsubscribe()
    return told[0]


def text_of(value: Json) -> str:
    """Return the one text of a value: equal only for values that are equal and of the same types throughout."""
    return encode(value, "value")


def states(conversations: list[Conversation]) -> tuple[ConversationRecord, ...]:
    """Return conversations to be compared between stores: all but the incarnation, which is each store's own."""
    return tuple([_state(conversation) for conversation in conversations])


def _state(conversation: Conversation) -> ConversationRecord:
    record = conversation.record
    assert record is not None, f"{conversation!r} is not stored"
    return record._replace(metadata=text_of(conversation.metadata), incarnation="")


def run_states(runs: list[Run]) -> tuple[RunRecord, ...]:
    """Return runs to be compared: with positions, and values told from equal ones of other types."""
    return tuple([run.to_record(run.position or 0) for run in runs])


def outcome_of(receipt: Receipt) -> dict[str, tuple[int, int, int] | None]:
    """Return what a receipt says became of each conversation: version, number of runs, last position."""
    return {
        conversation_id: written and (written.version, written.run_count, written.last_position)
        for conversation_id, written in receipt.written.items()
    }


def snapshot(store: Store) -> Snapshot:
    """Return all that is kept in the store's namespace."""
    uow = store.begin()
    conversations = uow.conversations.find(order="id", limit=1_000).items
    return Snapshot(
        states(list(conversations)),
        {conversation.id: run_states(uow.runs.list(conversation.id)) for conversation in conversations},
    )


@contextmanager
def unchanged(*stores: Store) -> Iterator[None]:
    """Assert that the block leaves all that is kept as it was."""
    before = [snapshot(store) for store in stores]
    yield
    assert [snapshot(store) for store in stores] == before


def walk(store: Store, criterion: Criterion | None = None, *, order: str = "id", limit: int = 50) -> list[Conversation]:
    """Return all conversations found, page by page; assert that every page but the last is full."""
    pages = []
    cursor = None
    while True:
        page = store.begin().conversations.find(criterion, order=order, limit=limit, after=cursor)
        pages.append(page)
        if (cursor := page.cursor) is None:
            break
    sizes = [len(page) for page in pages]
    assert all(size == limit for size in sizes[:-1]), f"a page before the last is not full: {sizes}, of {limit} each"
    assert len(pages) == 1 or 0 < sizes[-1] <= limit, f"there was a cursor to a page of {sizes[-1]}"
    return [conversation for page in pages for conversation in page]
