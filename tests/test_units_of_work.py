"""What a unit of work does above every repository, which no adapter can change: `memory.testing` tests what adapters can."""

import pickle
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest

import memory
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import where
from memory.domain.entities import Conversation, Run
from memory.errors import AlreadyExistsError, ClosedError, ConflictError, InvalidValueError, NotFoundError
from memory.port.repository import Repository
from memory.testing.base import (
    Action,
    Clock,
    Contract,
    Work,
    do,
    put,
    put_all,
    read,
    read_runs,
    run,
    sibling,
    unchanged,
    walk,
)


class TestUnitsOfWork(Contract):
    @pytest.fixture(params=["memory://", "sqlite://"])
    def repository(self, request: pytest.FixtureRequest) -> Iterator[Repository]:
        with memory.connect(request.param) as store:
            yield store.repository

    def test_block_rolls_back_on_an_error(self, store: Store) -> None:
        """A block that raises, or is rolled back, writes nothing, and the exception is propagated."""
        put(store, "a", {"n": 1}, run())
        with unchanged(store):
            with pytest.raises(ZeroDivisionError):
                do(store, _change_everything, _fail)
            with store.begin() as uow:
                _change_everything(uow)
                uow.rollback()
            _change_everything(store.begin())

    def test_what_is_no_conversation_is_not_removed(self, store: Store) -> None:
        """None is what `find_one` returns if nothing matches: it is not taken for all conversations."""
        put(store, "a")
        with store.begin() as uow, pytest.raises(InvalidValueError, match="was nothing found"):
            uow.conversations.remove(uow.conversations.find_one(where("x") == 1))  # type: ignore[arg-type]
        assert store.conversations.count() == 1

    def test_one_text_is_no_list_of_ids(self, store: Store) -> None:
        for method in (store.conversations.get_many, lambda ids: store.runs.last_of(ids, 1)):
            with pytest.raises(InvalidValueError, match="as in \\['abc'\\]"):
                method("abc")

    def test_a_default_of_the_applications_stays_as_it_is(self, store: Store) -> None:
        default: dict[str, Any] = {"tags": []}
        with store.begin() as uow:
            uow.conversations.get_or_create("a", default).metadata["tags"].append("x")
        assert default == {"tags": []}
        assert read(store, "a").metadata == {"tags": ["x"]}

    def test_an_async_function_is_no_work_for_a_synchronous_store(self, store: Store) -> None:
        async def work(uow: UnitOfWork) -> None:
            raise AssertionError(uow)

        with pytest.raises(InvalidValueError, match=r"memory\.aio"):
            store.run(cast(Any, work))

    def test_a_page_can_be_copied_and_pickled(self, store: Store) -> None:
        put(store, "a")
        page = store.conversations.find(limit=1)
        copied = deepcopy(page), pickle.loads(pickle.dumps(page))
        assert [[one.id for one in each] for each in copied] == [["a"]] * 2

    @pytest.mark.parametrize("value", ["no", 2, None])
    def test_a_run_is_open_or_not(self, store: Store, value: Any) -> None:
        """Another value would be read as a damaged record."""
        with store.begin() as uow, pytest.raises(InvalidValueError, match="must be a bool"):
            uow.runs.append("a", Run("q", "a", is_open=value))
        with store.begin() as uow, pytest.raises(InvalidValueError, match="must be a bool"):
            uow.runs.complete("a", "r", output="a", is_final=value)

    @pytest.mark.parametrize("order", ["metadata.n", "-metadata.n"])
    def test_an_iteration_ends_although_its_loop_moves_the_conversations(self, store: Store, order: str) -> None:
        put_all(store, {f"c{n:03}": {"n": n} for n in range(250)})
        step = -1_000 if order.startswith("-") else 1_000
        reached = []
        for one in store.conversations.iterate(order=order):
            reached.append(one.id)
            do(store, lambda uow, one=one: uow.conversations.get(one.id).metadata.update(n=one.metadata["n"] + step))  # type: ignore[misc]
        assert sorted(reached) == [f"c{n:03}" for n in range(250)]

    def test_commit_inside_the_block(self, store: Store) -> None:
        """A commit inside the block is permanent, whatever follows; later changes are checked against it."""

        def work(uow: UnitOfWork) -> None:
            uow.conversations.add(conversation := Conversation("a", {"n": 1}))
            uow.commit()
            conversation.metadata["n"] = 2
            uow.runs.append("a", run())
            uow.commit()
            conversation.metadata["n"] = 3

        with pytest.raises(ZeroDivisionError):
            do(store, work, _fail)
        stored = read(store, "a")
        assert (stored.metadata, stored.version, stored.run_count) == ({"n": 2}, 2, 1)

    def test_ended_unit_of_work_raises(self, store: Store) -> None:
        """Every operation of an ended unit of work raises ClosedError."""
        put(store, "a")
        with store.begin() as uow:
            pass
        uses: tuple[Work, ...] = (
            lambda uow: uow.commit(),
            lambda uow: uow.conversations.get("a"),
            lambda uow: uow.conversations.add(Conversation("b")),
            lambda uow: uow.conversations.find(),
            lambda uow: uow.conversations.count(),
            lambda uow: uow.runs.list("a"),
            lambda uow: uow.runs.append("a", run()),
        )
        for use in uses:
            with pytest.raises(ClosedError):
                use(uow)

    def test_nothing_to_write_writes_nothing(self, store: Store, clock: Clock) -> None:
        """Reading a conversation, or changing it and changing it back, changes neither its version nor updated_at."""
        put(store, "a", {"n": 1}, run())
        clock.advance()
        with unchanged(store), store.begin() as uow:
            conversation = uow.conversations.get("a")
            uow.runs.list("a")
            conversation.metadata["n"] = 2
            conversation.metadata["n"] = 1
            conversation.metadata = dict(conversation.metadata)
            conversation.expires_at = None

    def test_pending_changes_are_visible(self, store: Store) -> None:
        """`get` and `runs` return pending changes; `find` and `count` only what is committed."""
        put(store, "a", {"n": 1}, *(run(n) for n in range(1, 6)))
        uow = store.begin()
        uow.conversations.get("a").metadata["n"] = 2
        uow.conversations.add(added := Conversation("b", {"n": 1}))
        uow.runs.remove("a", 1, 3)
        uow.runs.replace("a", replace(run("new"), position=4))
        uow.runs.append("a", run("pending"))
        uow.runs.append("b", run("first"))
        assert uow.conversations.get("b") is added
        assert uow.conversations.get("a").metadata == {"n": 2}
        assert [one.input for one in uow.runs.list("a")] == [2, "new", 5, "pending"]
        assert [one.input for one in uow.runs.last("a", 3)] == ["new", 5, "pending"]
        assert [one.input for one in uow.runs.first("a", 2)] == [2, "new"]
        assert [one.input for one in uow.runs.list("a", after=2, before=5)] == ["new"]
        assert [(one.input, one.position) for one in uow.runs.list("b")] == [("first", None)]
        assert uow.conversations.count(where("n") == 2) == 0
        assert uow.conversations.count(where("n") == 1) == 1
        assert [one.id for one in uow.conversations.find()] == ["a"]
        uow.conversations.remove("a")
        assert "a" not in uow.conversations
        assert uow.runs.list("a") == []
        assert uow.conversations.count() == 1

    def test_the_same_object_for_the_same_id(self, store: Store) -> None:
        """`get`, `find` and `iterate` return the same object for a conversation; another unit of work has its own."""
        put(store, "a", {"n": 1})
        uow = store.begin()
        conversation = uow.conversations.get("a")
        conversation.metadata["n"] = 2
        assert uow.conversations.get("a") is conversation
        assert uow.conversations.find().items[0] is conversation
        assert next(uow.conversations.iterate()) is conversation
        assert read(store, "a").metadata == {"n": 1}

    def test_impossible_positions_are_rejected(self, store: Store) -> None:
        """A position below 1, or above the highest, raises InvalidValueError."""
        for impossible in (0, -1, 2**53, 2**70):
            with pytest.raises(InvalidValueError):
                store.begin().runs.get("a", impossible)

    def test_adding_what_was_read_is_rejected(self, store: Store) -> None:
        """Adding a conversation under an id that this unit of work has read raises AlreadyExistsError at once."""
        put(store, "a", {"n": 1}, run())
        uow = store.begin()
        uow.conversations.get("a")
        with unchanged(store), pytest.raises(AlreadyExistsError, match="'a'"):
            uow.conversations.add(Conversation("a"))

    def test_adding_after_a_failed_get_conflicts(self, store: Store) -> None:
        """Adding a conversation that get did not find raises ConflictError if it was added since, so that Store.run retries."""
        tries = []

        def get_or_create(uow: UnitOfWork) -> None:
            tries.append("a" in uow.conversations)
            if not tries[-1]:
                uow.conversations.add(Conversation("a", {"by": "me"}))
                if len(tries) == 1:
                    put(store, "a", {"by": "another"})
            uow.runs.append("a", run(1))

        store.run(get_or_create, sleep=lambda _: None)
        assert (tries, read(store, "a").metadata, len(read_runs(store, "a"))) == ([False, True], {"by": "another"}, 1)

    def test_added_and_removed_conversation_is_not_written(self, store: Store) -> None:
        """A conversation that one unit of work adds and removes is never written, nor are its runs."""
        with unchanged(store), store.begin() as uow:
            uow.conversations.add(Conversation("a"))
            uow.runs.append("a", run())
            uow.conversations.remove("a")
            assert "a" not in uow.conversations
            assert uow.runs.list("a") == []

    def test_append_before_add(self, store: Store) -> None:
        """Runs appended before their conversation is added are written with it."""
        with store.begin() as uow:
            uow.runs.append("a", run(1))
            uow.conversations.add(Conversation("a"))
            uow.runs.append("a", run(2))
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(1, 1), (2, 2)]

    def test_changes_while_iterating(self, store: Store) -> None:
        """A change during a step of iterate is written, and a later one too if the application still holds the object."""
        for name in "abc":
            put(store, name, {"n": 1})
        with store.begin() as uow:
            for conversation in uow.conversations.iterate(order="id"):
                if conversation.id == "a":
                    conversation.metadata["n"] = 2
            conversation.metadata["n"] = 3
        assert [(one.id, one.metadata, one.version) for one in walk(store)] == [
            ("a", {"n": 2}, 2),
            ("b", {"n": 1}, 1),
            ("c", {"n": 3}, 2),
        ]

    def test_edits_of_runs_in_one_unit_of_work(self, store: Store) -> None:
        """The last of several edits of a run applies; a run that was removed cannot be replaced."""
        put(store, "a", None, run(1), run(2), run(3))
        with store.begin() as uow:
            uow.runs.replace("a", replace(run("x"), position=1))
            uow.runs.replace("a", replace(run("y"), position=1))
            uow.runs.replace("a", replace(run("z"), position=2))
            uow.runs.remove("a", 2)
            with pytest.raises(NotFoundError):
                uow.runs.replace("a", replace(run("z"), position=2))
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(1, "y"), (3, 3)]
        assert read(store, "a").version == 2

    def test_contradicting_conditions_of_appends(self, store: Store) -> None:
        """Two appends in one unit of work with different after= cannot both succeed, and raise InvalidValueError."""
        put(store, "a", None, run(1))
        with store.begin() as uow:
            uow.runs.append("a", run(2), after=1)
            with pytest.raises(InvalidValueError):
                uow.runs.append("a", run(3), after=2)
        assert [one.input for one in read_runs(store, "a")] == [1, 2]

    def test_clearing_runs_also_drops_the_condition_of_an_append(self, store: Store) -> None:
        """Runs appended with after= and cleared in the same unit of work cause no conflict."""
        put(store, "a", None, run(1))
        with store.begin() as uow:
            uow.runs.append("a", run(2), after=7)
            uow.runs.clear("a")
            uow.runs.append("a", run(3), after=1)
        assert [(one.position, one.input) for one in read_runs(store, "a")] == [(2, 3)]

    def test_run_repeats_the_work(self, store: Store) -> None:
        """Store.run repeats the work after a conflict, up to its number of retries, and returns the work's result."""
        put(store, "a", {"n": 0})
        tries: list[int] = []

        def work(uow: UnitOfWork) -> str:
            conversation = uow.conversations.get("a")
            tries.append(cast(int, conversation.metadata["n"]))
            conversation.metadata["n"] = tries[-1] + 1
            if len(tries) < 3:
                with store.begin() as other:
                    other.conversations.get("a").metadata["n"] = 10 * len(tries)
            return f"try {len(tries)}"

        assert store.run(work, sleep=lambda _: None) == "try 3"
        assert (tries, read(store, "a").metadata) == ([0, 10, 20], {"n": 21})
        tries.clear()
        with pytest.raises(ConflictError):
            store.run(work, retries=1, sleep=lambda _: None)
        with pytest.raises(NotFoundError):
            store.run(lambda uow: uow.conversations.get("missing"), sleep=lambda _: None)

    def test_invalid_pages_are_rejected(self, store: Store) -> None:
        """A limit below 1, an unknown order, a cursor of another order and an invalid cursor raise InvalidValueError."""
        put(store, "a")
        put(store, "b")
        conversations = store.begin().conversations
        cursor = conversations.find(order="id", limit=1).cursor
        impossible: tuple[Action, ...] = (
            lambda: conversations.find(limit=0),
            lambda: conversations.find(order="metadata"),
            lambda: conversations.find(order="-updated_at", after=cursor),
            lambda: conversations.find(order="id", after="'; drop table conversations; --"),
            lambda: conversations.find(order="id", after=""),
            lambda: conversations.find(order="id", after=f"{cursor}"[:-8]),
        )
        for find in impossible:
            with pytest.raises(InvalidValueError):
                find()

    def test_given_values_are_copied(self, store: Store) -> None:
        """Mutating a value after it was passed to the store does not change what is stored."""
        listed: list[Any] = ["a"]
        metadata: dict[str, Any] = {"list": listed}
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", metadata))
            uow.runs.append("a", run(listed, listed))
            listed.append("changed after append")
        metadata["b"] = "changed after the commit"
        assert [(run.input, run.output) for run in read_runs(store, "a")] == [(["a"], ["a"])]
        assert read(store, "a").metadata == {"list": ["a", "changed after append"]}

    def test_invalid_values_are_rejected(self, store: Store) -> None:
        """A value that is not JSON raises an error that names its path, and nothing is written."""
        put(store, "a")
        cycle: list[object] = []
        cycle.append(cycle)
        for odd in (float("nan"), float("inf"), b"", (1,), {1: 2}, {1}, datetime.now(UTC), 10**5000, cycle):
            metadata: dict[str, Any] = {"customer": ["", odd]}
            with store.begin() as uow, pytest.raises(InvalidValueError, match=r"metadata\.customer\[1\]"):
                uow.conversations.add(Conversation(metadata=metadata))
            with store.begin() as uow, pytest.raises(InvalidValueError, match=r"input\.customer\[1\]"):
                uow.runs.append("a", run(metadata))
            with pytest.raises(InvalidValueError, match=r"metadata\.customer\[1\]"), store.begin() as uow:
                uow.conversations.get("a").metadata.update(metadata)
        assert [(one.id, one.metadata, one.version) for one in store.begin().conversations.find()] == [("a", {}, 1)]
        assert read_runs(store, "a") == []

    def test_invalid_ids_are_rejected(self, store: Store) -> None:
        """An empty id, a too long one, control characters and lone surrogates are rejected before they reach the store."""
        for bad in ("", "x" * 2049, "a\x00", "a\n", "\ud800"):
            with pytest.raises(InvalidValueError):
                Conversation(bad)
            with pytest.raises(InvalidValueError):
                read(store, bad)
            with pytest.raises(InvalidValueError):
                sibling(store).namespace(bad)

    def test_ids_that_cannot_be_are_not_compared(self) -> None:
        """A criterion refuses to compare ids with characters that no id has."""
        for impossible in ("\ud800", "\x00"):
            with pytest.raises(InvalidValueError):
                assert where.id > impossible

    def test_timestamps_out_of_range_are_rejected(self, store: Store) -> None:
        """A timestamp outside the years 1 to 9999 in UTC is rejected, because it could not be read again."""
        beyond = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
        with store.begin() as uow:
            with pytest.raises(InvalidValueError):
                uow.conversations.add(Conversation("a", expires_at=beyond))
            uow.conversations.add(Conversation("b"))
            with pytest.raises(InvalidValueError):
                uow.runs.append("b", Run("", "", created_at=beyond))
            with pytest.raises(InvalidValueError):
                uow.runs.append("b", Run("", "", created_at=datetime.now()))  # noqa: DTZ005  # a naive datetime must be rejected
        assert [one.id for one in store.begin().conversations.find()] == ["b"]


def _fail(_: UnitOfWork) -> None:
    raise ZeroDivisionError


def _change_everything(uow: UnitOfWork) -> None:
    uow.conversations.get("a").metadata["n"] = 2
    uow.runs.append("a", run())
    uow.runs.remove("a", 1)
    uow.conversations.add(Conversation("b"))
    uow.runs.append("b", run())
