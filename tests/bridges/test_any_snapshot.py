"""Whatever is done to the runs in memory: what is stored is what is loaded, and what others added is kept."""

from collections.abc import Callable
from itertools import count

from attrs import evolve
from griptape.artifacts import TextArtifact
from griptape.memory.structure import ConversationMemory, Run
from hypothesis import given, settings
from hypothesis import strategies as st

import memory as package
from memory import Store
from tests.bridges.talking import driver_on, memory_on, said, stored_ids

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


def contents(memory: ConversationMemory) -> list[dict[str, object]]:
    return [run.to_dict() for run in memory.runs]


def loaded_on(store: Store) -> ConversationMemory:
    """Return a memory that the driver has met: one whose runs are all gone at its first `store` is taken for a new one."""
    memory = memory_on(store)
    memory.conversation_memory_driver.store(memory.runs, memory.meta)
    return memory


@settings(max_examples=120, deadline=None)
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
        assert contents(memory_on(store)) == contents(memory)
        before = store.repository.get("default", "c")
        memory.conversation_memory_driver.store(memory.runs, memory.meta)
        assert store.repository.get("default", "c") == before


@settings(max_examples=80, deadline=None)
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
