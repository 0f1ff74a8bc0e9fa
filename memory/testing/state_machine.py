"""Random units of work run against the repository and the in-memory reference, which must behave the same."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from memory.adapters.in_memory import InMemoryRepository
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import where
from memory.domain.entities import PENDING, Conversation, Run
from memory.domain.values import Json, new_id, to_datetime
from memory.errors import CommitTooLargeError, PersistenceError
from memory.port.changes import ChangeSet, Receipt
from memory.port.repository import Repository
from memory.testing.base import Clock, Contract, Work, do, new_store, outcome_of, put, run_states, snapshot, text_of

if TYPE_CHECKING:
    from memory.core.events import Committed

_START = Clock().time
_SECOND = 1_000_000

_ids = st.sampled_from("aabc")  # c does not exist at first
_units = st.sampled_from([0, 1])
_positions = st.integers(1, 4)
_contents: st.SearchStrategy[Json] = st.sampled_from([None, 1, 1.0, True, "", "text", [1], {"k": "\ud83d"}])
_metadata = st.dictionaries(st.sampled_from(["k", "n"]), _contents, max_size=2)
_runs = st.builds(Run, _contents, _contents | st.just(PENDING), _metadata, id=st.sampled_from("xyz"))
_criteria = st.sampled_from([None, where("k") == 1, where("k").exists(), ~(where("n") == "text"), where.run_count >= 1])
_orders = st.sampled_from(["id", "-id", "created_at", "-created_at", "updated_at", "-last_run_at"])
_lifetimes = st.sampled_from([None, timedelta(seconds=1), timedelta(seconds=3)])
_expiries = st.none() | st.integers(0, 4).map(lambda seconds: to_datetime(_START + seconds * _SECOND))


def _add(conversation_id: str, metadata: dict[str, Json], uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation(conversation_id, dict(metadata)))


def _change(conversation_id: str, attribute: str, value: object, uow: UnitOfWork) -> None:
    setattr(uow.conversations.get(conversation_id), attribute, dict(value) if isinstance(value, dict) else value)


def _remove_as_read(conversation_id: str, uow: UnitOfWork) -> None:
    uow.conversations.remove(uow.conversations.get(conversation_id))


def _replace_run(conversation_id: str, position: int, run: Run, uow: UnitOfWork) -> None:
    uow.runs.replace(conversation_id, replace(run, position=position))


def _doing(operation: Callable[..., object], *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Work]:
    return st.tuples(*arguments).map(lambda chosen: partial(operation, *chosen))


def _edits(ids: st.SearchStrategy[str]) -> st.SearchStrategy[Work]:
    return st.one_of(
        _doing(_add, ids, _metadata),
        _doing(_change, ids, st.just("metadata"), _metadata),
        _doing(_change, ids, st.just("expires_at"), _expiries),
        _doing(_change, ids, st.just("expires_after"), _lifetimes),
        _doing(_remove_as_read, ids),
        ids.map(lambda id_: lambda uow: uow.conversations.remove(id_)),
        st.tuples(ids, _runs, st.none() | st.integers(2, 5)).map(
            lambda chosen: lambda uow: uow.runs.append(chosen[0], chosen[1], after=chosen[2])
        ),
        st.tuples(ids, st.lists(_runs, max_size=3)).map(
            lambda chosen: lambda uow: uow.runs.append(chosen[0], *chosen[1])
        ),
        _doing(_replace_run, ids, _positions, _runs),
        st.tuples(ids, _positions).map(lambda chosen: lambda uow: uow.runs.remove(*chosen)),
        st.tuples(ids, _positions).map(lambda chosen: lambda uow: uow.runs.remove(chosen[0], before=chosen[1])),
        st.tuples(ids, _positions).map(lambda chosen: lambda uow: uow.runs.remove(chosen[0], after=chosen[1])),
        ids.map(lambda id_: lambda uow: uow.runs.clear(id_)),
        ids.map(lambda id_: lambda uow: uow.conversations.remove(id_, force=True)),
        st.tuples(ids, st.sampled_from("xyz"), _contents, st.booleans()).map(
            lambda chosen: lambda uow: uow.runs.complete(chosen[0], chosen[1], output=chosen[2], is_final=chosen[3])
        ),
    )


EDITS: Final[st.SearchStrategy[Work]] = _edits(_ids)
"""Edits of the conversations a, b and c; some are valid, some are rejected."""

_EDITS_OF_ONE: Final = _ids.flatmap(lambda id_: st.lists(_edits(st.just(id_)), min_size=1, max_size=3))

_reads: st.SearchStrategy[Work] = st.one_of(
    _ids.map(lambda id_: lambda uow: uow.conversations.get(id_)),
    st.tuples(_ids, st.integers(0, 3)).map(lambda chosen: lambda uow: uow.runs.last(*chosen)),
    st.tuples(_ids, st.integers(0, 3)).map(lambda chosen: lambda uow: uow.runs.first(*chosen)),
    st.tuples(_ids, _positions).map(lambda chosen: lambda uow: [uow.runs.get(*chosen)]),
    st.tuples(_criteria, _orders).map(lambda chosen: lambda uow: uow.conversations.find(chosen[0], order=chosen[1])),
    _criteria.map(lambda criterion: lambda uow: uow.conversations.count(criterion)),
    st.integers(1, 3).map(lambda n: lambda uow: [run for runs in uow.runs.last_of("abc", n).values() for run in runs]),
    st.just(lambda uow: list(uow.conversations.get_many("abc").values())),
    st.just(lambda uow: [one.run for one in uow.runs.open()]),
)


class _OneConversation(InMemoryRepository):
    """The reference for a store whose commits change one conversation each."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        if len(changes.changes) > 1:
            raise CommitTooLargeError("a commit changes one conversation", limit=1, size=len(changes.changes))
        return super().commit(namespace, changes)


class _Side:
    """A store and its open units of work."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.units = [store.begin(), store.begin()]
        self.committed: list[Committed] = []
        store.subscribe(self.committed.append)

    def replay(self) -> Receipt | None:
        return self.store.commit(self.committed[-1].changes) if self.committed else None

    def purge(self) -> int:
        return self.store.purge_expired()


class _SideBySide(RuleBasedStateMachine):
    def __init__(self, repository: Repository, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        clock.time = _START
        reference = InMemoryRepository() if repository.capabilities.many_conversations else _OneConversation()
        reference.clock = clock
        namespace = new_id()
        self.sides = [_Side(new_store(each).namespace(namespace)) for each in (repository, reference)]

    def both(self, action: Callable[[_Side], object]) -> None:
        """Run the action on both sides; assert that both return the same or raise the same error."""
        outcomes = [_outcome(partial(action, side)) for side in self.sides]
        assert outcomes[0] == outcomes[1]

    @initialize(metadata=_metadata, runs=st.lists(_runs, min_size=2, max_size=4))
    def put(self, metadata: dict[str, Json], runs: list[Run]) -> None:
        for side in self.sides:
            put(side.store, "a", metadata, *runs)
            put(side.store, "b", metadata, *runs)

    @rule(unit=_units, operations=_EDITS_OF_ONE | st.lists(EDITS, min_size=1, max_size=3))
    def change(self, unit: int, operations: list[Work]) -> None:
        """Make some changes, and leave them pending."""
        for operation in operations:
            self.both(lambda side, operation=operation: operation(side.units[unit]))  # type: ignore[misc]

    @rule(operations=st.lists(EDITS, min_size=1, max_size=2))
    def write(self, operations: list[Work]) -> None:
        """Commit some changes in another unit of work, while these are open."""
        for operation in operations:
            self.both(lambda side, operation=operation: do(side.store, operation))  # type: ignore[misc]

    @rule(unit=_units, operation=_reads)
    def read(self, unit: int, operation: Work) -> None:
        """Read something in a unit of work, which then expects that version."""
        self.both(lambda side: operation(side.units[unit]))

    @rule(unit=_units, continues=st.booleans())
    def commit(self, unit: int, continues: bool) -> None:  # noqa: FBT001  # hypothesis draws the arguments of a rule
        """Commit, and continue with the same unit of work or with a new one."""
        self.both(lambda side: side.units[unit].commit())
        if not continues:
            for side in self.sides:
                side.units[unit] = side.store.begin()

    @rule(action=st.sampled_from([_Side.replay, _Side.purge, None]), seconds=st.integers(0, 2))
    def meanwhile(self, action: Callable[[_Side], object] | None, seconds: int) -> None:
        """Advance the clock, then purge, or commit the last change set again, as after a lost response."""
        self.clock.advance(seconds * _SECOND)
        if action:
            self.both(action)

    @invariant()
    def the_same_is_kept(self) -> None:
        assert snapshot(self.sides[0].store) == snapshot(self.sides[1].store)


class SameAsTheReference(Contract):
    """The repository behaves like `InMemoryRepository`."""

    def test_it_is_the_same_as_the_reference(self, repository: Repository, clock: Clock) -> None:
        """Each step of random interleaved units of work returns, raises and stores the same as in memory."""
        machine = cast("type[_SideBySide]", lambda: _SideBySide(repository, clock))  # hypothesis only calls it
        run_state_machine_as_test(machine, settings=self.profile())


def _outcome(action: Callable[[], object]) -> object:
    """Return the action's result in comparable form, or the type of the error that it raised."""
    try:
        result = action()
    except PersistenceError as error:
        return type(error)
    if isinstance(result, Receipt):
        return outcome_of(result)
    if isinstance(result, Conversation):
        return _seen(result)
    if isinstance(result, list) and all(isinstance(one, Run) for one in result):
        return run_states(result)
    return result if result is None or isinstance(result, int) else [_seen(one) for one in result]  # type: ignore[attr-defined]


def _seen(conversation: Conversation) -> object:
    record = conversation.record
    at = record and (record.created_at, record.updated_at, record.last_run_at, record.expires_after)
    counts = conversation.version, conversation.run_count, conversation.last_position
    return conversation.id, text_of(conversation.metadata), conversation.expires_at, counts, at
