"""Whatever is done to the runs in memory: what is stored is what is loaded, and what others added is kept."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from attrs import evolve
from griptape.artifacts import TextArtifact
from griptape.memory.structure import ConversationMemory, Run
from hypothesis import given, settings
from hypothesis import strategies as st

import memory as package
from memory import Store
from tests.bridges.talking import driver_on, memory_on, said, stored_ids
from tests.rounds import rounds

Step = Callable[[list[Run], int, int], None]


def put_in(runs: list[Run], at: int, number: int) -> None:
    runs.insert(at % (len(runs) + 1), said(number))


def append(runs: list[Run], _: int, number: int) -> None:
    runs.append(said(number))


def take_out(runs: list[Run], at: int, _: int) -> None:
    if runs:
        del runs[at % len(runs)]


def trim(runs: list[Run], at: int, _: int) -> None:
    del runs[: at % (len(runs) + 1)]


def edit(runs: list[Run], at: int, number: int) -> None:
    if runs:
        runs[at % len(runs)].output = TextArtifact(f"edited {number}")


def edit_inside(runs: list[Run], at: int, number: int) -> None:
    if runs:
        runs[at % len(runs)].output.meta["edited"] = number


def put_in_place(runs: list[Run], at: int, number: int) -> None:
    if runs:
        runs[at % len(runs)] = evolve(runs[at % len(runs)], meta={"n": number})


def make_anew(runs: list[Run], _: int, __: int) -> None:
    runs[:] = [evolve(run) for run in runs]


def swap(runs: list[Run], at: int, number: int) -> None:
    if runs:
        one, other = at % len(runs), number % len(runs)
        runs[one], runs[other] = runs[other], runs[one]


STEPS: list[Step] = [put_in, append, append, take_out, trim, edit, edit_inside, put_in_place, make_anew, swap]
steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 20), st.booleans(), st.booleans()), max_size=25)


def loaded_on(store: Store) -> ConversationMemory:
    """Return a memory that the driver has met: one whose runs are all gone at its first `store` is taken for a new one."""
    memory = memory_on(store)
    memory.conversation_memory_driver.store(memory.runs, memory.meta)
    return memory


@settings(max_examples=rounds(40))
@given(steps, st.integers(0, 6))
def test_what_is_stored_is_what_is_loaded(steps: list[tuple[Step, int, bool, bool]], begin: int) -> None:
    with package.connect("memory://") as store:
        first = memory_on(store)
        first.runs.extend(said(f"begin{number}") for number in range(begin))
        first.conversation_memory_driver.store(first.runs, {})
        memory = loaded_on(store)
        for number, (step, at, stores, restarts) in enumerate(steps):
            step(memory.runs, at, number)
            if stores:
                memory.conversation_memory_driver.store(memory.runs, memory.meta)
            if stores and restarts:
                memory = loaded_on(store)
        memory.conversation_memory_driver.store(memory.runs, memory.meta)
        assert memory_on(store).runs == memory.runs
        before = store.repository.get("default", "c")
        memory.conversation_memory_driver.store(memory.runs, memory.meta)
        assert store.repository.get("default", "c") == before


@settings(max_examples=rounds(30))
@given(steps, st.sampled_from(["hidden", "deleted"]), st.sampled_from([None, 2]))
def test_what_others_add_meanwhile_is_kept(
    steps: list[tuple[Step, int, bool, bool]], trimmed: str, last: int | None
) -> None:
    with package.connect("memory://") as store:
        other = driver_on(store)
        others: list[Run] = []
        names = count()
        memory = memory_on(store, trimmed=trimmed, last=last)
        for number, (step, at, stores, adds) in enumerate(steps):
            step(memory.runs, at, number)
            if adds:
                others.append(said(f"other{next(names)}"))
                other.store(others, {})
            if stores:
                memory.conversation_memory_driver.store(memory.runs, memory.meta)
        memory.conversation_memory_driver.store(memory.runs, memory.meta)
        stored = stored_ids(store)
        assert [name for name in stored if name.startswith("rother")] == [run.id for run in others]
        assert {run.id for run in memory.runs} <= set(stored)


# applications that take runs out and put them back


@dataclass
class Holder:
    """An application that keeps what it takes out of its memory's runs."""

    memory: ConversationMemory
    name: str = ""
    out: list[Run] = field(default_factory=list)
    names: "count[int]" = field(default_factory=count)

    def new(self) -> Run:
        return said(f"{self.name}{next(self.names)}")

    def append(self, _: int, __: int) -> None:
        self.memory.runs.append(self.new())

    def add(self, _: int, __: int) -> None:
        """Add one as Griptape does, with ``max_runs``: it stores too."""
        before = list(self.memory.runs)
        self.memory.add_run(self.new())
        self.out += [run for run in before if run not in self.memory.runs]

    def put_in(self, at: int, _: int) -> None:
        self.memory.runs.insert(at % (len(self.memory.runs) + 1), self.new())

    def take_out(self, at: int, other: int) -> None:
        first, last = sorted(each % (len(self.memory.runs) + 1) for each in (at, other))
        self.out += self.memory.runs[first:last]
        del self.memory.runs[first:last]

    def trim(self, at: int, _: int) -> None:
        self.take_out(0, at)

    def clear(self, _: int, __: int) -> None:
        self.take_out(0, len(self.memory.runs))

    def put_back(self, which: int, at: int) -> None:
        if self.out:
            run = self.out.pop(which % len(self.out))
            self.memory.runs.insert(at % (len(self.memory.runs) + 1), run)

    def put_back_in_front(self, how_many: int, _: int) -> None:
        back = self.out[-1 - how_many % 4 :]
        del self.out[-1 - how_many % 4 :]
        self.memory.runs[:0] = back

    def show_others_for_one_call(self, first: int, last: int) -> None:
        everything = list(self.memory.runs)
        first, last = sorted(each % (len(everything) + 1) for each in (first, last))
        self.memory.runs[:] = everything[first:last]
        self.store()
        self.memory.runs[:] = everything

    def edit_and_put_back(self, which: int, number: int) -> None:
        if self.out:
            self.out[which % len(self.out)].output = TextArtifact(f"edited {number}")
            self.put_back(which, number)

    def drop(self, which: int, _: int) -> None:
        if self.out:
            del self.out[which % len(self.out)]

    def swap(self, one: int, other: int) -> None:
        swap(self.memory.runs, one, other)

    def shuffle(self, by: int, _: int) -> None:
        runs = self.memory.runs
        runs[:] = runs[by % (len(runs) + 1) :] + runs[: by % (len(runs) + 1)]

    def restart(self, _: int, __: int) -> None:
        """Go on with copies, as a Structure that is made from its own JSON does; those are found by what the store has."""
        self.store()
        self.memory.runs[:] = [evolve(run) for run in self.memory.runs]
        self.store()

    def store(self) -> None:
        self.memory.conversation_memory_driver.store(self.memory.runs, self.memory.meta)


Act = Callable[[Holder, int, int], None]
ACTS: list[Act] = [
    Holder.append,
    Holder.add,
    Holder.put_in,
    Holder.take_out,
    Holder.trim,
    Holder.clear,
    Holder.put_back,
    Holder.put_back,
    Holder.put_back_in_front,
    Holder.put_back_in_front,
    Holder.show_others_for_one_call,
    Holder.edit_and_put_back,
    Holder.drop,
    Holder.swap,
    Holder.shuffle,
    Holder.restart,
]
FRONT: list[Act] = [Holder.append, Holder.trim, Holder.clear, Holder.put_back_in_front, Holder.drop]
modes = st.sampled_from(["hidden", "deleted"])
sizes = st.sampled_from([None, None, 1, 3])


def acts(of: list[Act], most: int = 20) -> st.SearchStrategy[list[tuple[Act, int, int, bool]]]:
    return st.lists(st.tuples(st.sampled_from(of), st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=most)


@settings(max_examples=rounds(40))
@given(acts(ACTS), modes, sizes)
def test_runs_may_be_taken_out_and_put_back_in_any_way(
    steps: list[tuple[Act, int, int, bool]], trimmed: str, max_runs: int | None
) -> None:
    with package.connect("memory://") as store:
        memory_on(store).conversation_memory_driver.store([], {})
        holder = Holder(memory_on(store, max_runs, trimmed=trimmed))
        for act, one, other, stores in steps:
            act(holder, one, other)
            if stores:
                holder.store()
                assert memory_on(store).runs == holder.memory.runs
        holder.store()
        assert memory_on(store).runs == holder.memory.runs
        assert len(set(stored_ids(store))) == len(stored_ids(store))
        before = store.repository.get("default", "c")
        holder.store()
        assert store.repository.get("default", "c") == before


@settings(max_examples=rounds(10))
@given(acts(FRONT), st.integers(1, 5))
def test_what_was_taken_out_at_the_front_is_stored_once_whatever_is_put_back_there(
    steps: list[tuple[Act, int, int, bool]], begin: int
) -> None:
    with package.connect("memory://") as store:
        holder = Holder(memory_on(store))
        holder.memory.runs.extend(holder.new() for _ in range(begin))
        holder.store()
        for act, one, other, _ in steps:
            act(holder, one, other)
            holder.store()
            assert memory_on(store).runs == holder.memory.runs
        assert sorted(stored_ids(store)) == sorted(f"r{number}" for number in range(next(holder.names)))


@settings(max_examples=rounds(40))
@given(acts(ACTS, 12), acts(ACTS, 12), modes, sizes, st.sampled_from([None, 0, 2]), st.integers(0, 3))
def test_two_memories_that_take_out_and_put_back_keep_each_others_runs(  # noqa: PLR0917  # all are drawn
    first: list[tuple[Act, int, int, bool]],
    second: list[tuple[Act, int, int, bool]],
    trimmed: str,
    max_runs: int | None,
    last: int | None,
    begin: int,
) -> None:
    with package.connect("memory://") as store:
        driver_on(store).store([said(f"begin{number}") for number in range(begin)], {})
        holders = [Holder(memory_on(store, max_runs, trimmed=trimmed, last=last), name) for name in ("a", "b")]
        for at in range(max(len(first), len(second))):
            for holder, steps in zip(holders, (first, second), strict=True):
                for act, one, other_one, stores in steps[at : at + 1]:
                    act(holder, one, other_one)
                    if stores:
                        holder.store()
        for holder in holders:
            holder.store()
        stored = stored_ids(store)
        for holder in holders:
            own = [run.id for run in holder.memory.runs if not run.id.startswith("rbegin")]
            assert [each for each in stored if each in own] == own
        mine = [each for each in stored if not each.startswith("rbegin")]
        assert len(set(mine)) == len(mine)
