"""What a driver was given last by `store` is what `load` returns, and what others appended since."""

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from griptape.artifacts import TextArtifact
from griptape.drivers.memory.conversation import BaseConversationMemoryDriver
from hypothesis import given, settings
from hypothesis import strategies as st

import memory as package
from memory import Store
from memory.bridges.griptape.artifacts import to_json
from tests.bridges.talking import driver_on, said, stored_ids
from tests.rounds import rounds

if TYPE_CHECKING:
    from griptape.memory.structure import Run


def loaded(driver: BaseConversationMemoryDriver) -> list[str]:
    return [run.id for run in driver.load()[0]]


# runs


def test_after_a_store_of_no_runs_none_are_loaded(store: Store) -> None:
    driver = driver_on(store)
    driver.store([said(1)], {"k": 1})
    driver.store([], {})
    assert driver.load() == driver_on(store).load() == ([], {})
    driver.store([said(2)], {})
    assert loaded(driver) == loaded(driver_on(store)) == ["r2"]


def test_a_driver_that_loaded_and_stores_no_runs_clears_what_it_loaded(store: Store) -> None:
    driver_on(store).store([said(1), said(2)], {"k": 1})
    driver = driver_on(store)
    driver.load()
    driver.store([], {})
    assert driver_on(store).load() == ([], {})


def test_runs_that_share_nothing_with_those_before_take_their_place(store: Store) -> None:
    driver = driver_on(store)
    driver.store([said(1), said(2)], {})
    driver.store([said(3)], {})
    assert loaded(driver) == ["r3"]


@pytest.mark.parametrize("trimmed", ["hidden", "deleted"])
def test_a_clear_keeps_what_others_appended_since(store: Store, trimmed: str) -> None:
    driver, other = driver_on(store, trimmed=trimmed), driver_on(store)
    first = [said(1), said(2)]
    driver.store(first, {})
    other.load()
    other.store([*first, said("other")], {})
    driver.store([], {})
    assert loaded(driver) == ["rother"]
    assert stored_ids(store) == (["r1", "r2", "rother"] if trimmed == "hidden" else ["rother"])


@pytest.mark.parametrize("trimmed", ["hidden", "deleted"])
def test_a_clear_keeps_what_others_appended_between_its_runs(store: Store, trimmed: str) -> None:
    driver, other = driver_on(store, trimmed=trimmed), driver_on(store)
    runs = [said(1)]
    for number in (2, 3):
        driver.store(runs, {})
        other.store([said(f"other{each}") for each in range(2, number + 1)], {})
        runs.append(said(number))
    driver.store(runs, {})
    driver.store([], {})
    assert loaded(driver_on(store)) == ["rother2", "rother3"]
    driver.store(runs, {})
    assert [name for name in loaded(driver_on(store)) if "other" not in name] == ["r1", "r2", "r3"]
    assert len(loaded(driver)) == len(stored_ids(store)) == 5


def test_a_driver_that_has_not_loaded_clears_only_what_it_stored(store: Store) -> None:
    driver_on(store).store([said("other")], {"other": 1})
    driver = driver_on(store)
    driver.store([said(1)], {"k": 1})
    driver.store([], {})
    assert driver_on(store).load() == (driver.load()[0], {"other": 1})
    assert loaded(driver) == ["rother"]


def test_a_window_that_is_cleared_shows_what_it_left_out(store: Store) -> None:
    driver_on(store).store([said(number) for number in range(4)], {})
    window = driver_on(store, last=2)
    assert loaded(window) == ["r2", "r3"]
    window.store([], {})
    assert (loaded(window), stored_ids(store)) == (["r0", "r1"], ["r0", "r1", "r2", "r3"])


def test_the_trimming_of_one_driver_hides_no_run_of_another(store: Store) -> None:
    driver = driver_on(store)
    runs = [said(1)]
    driver.store(runs, {})
    driver_on(store).store([said("other")], {})
    for number in (2, 3, 4):
        runs = [*runs[-1:], said(number)]
        driver.store(runs, {})
    assert loaded(driver_on(store)) == ["rother", "r3", "r4"]
    assert len(stored_ids(store)) == 5


def test_what_was_loaded_from_others_and_is_missing_now_is_removed(store: Store) -> None:
    driver = driver_on(store)
    driver.store([said(1)], {})
    driver_on(store).store([said("other")], {})
    runs, metadata = driver.load()
    driver.store(runs[:1], metadata)
    assert loaded(driver) == ["r1"]


@settings(max_examples=rounds(60))
@given(st.data(), st.sampled_from(["hidden", "deleted"]))
def test_any_snapshot_is_loaded_again_with_what_others_appended_since(data: st.DataObject, trimmed: str) -> None:
    with package.connect("memory://") as store:
        driver, other = driver_on(store, trimmed=trimmed), driver_on(store)
        pool = [said(number) for number in range(6)]
        others: list[Run] = []
        for number in range(data.draw(st.integers(1, 8))):
            if data.draw(st.booleans()):
                others.append(said(f"other{number}"))
                other.store(others, {})
            runs: list[Any] = data.draw(st.lists(st.sampled_from(pool), unique_by=lambda run: run.id))
            if data.draw(st.booleans()) and runs:
                edited = data.draw(st.sampled_from(runs))
                edited.output = TextArtifact(f"edited {number}")
            if data.draw(st.booleans()):
                runs = [evolve(run) for run in runs]  # known by their content
            driver.store(runs, {})
            found = driver_on(store).load()[0]
            assert [to_json(run) for run in found if "other" not in run.id] == list(map(to_json, runs))
            assert [run.id for run in found if "other" in run.id] == [run.id for run in others]


@settings(max_examples=rounds(40))
@given(st.data(), st.sampled_from(["hidden", "deleted"]))
def test_any_snapshot_of_two_drivers_that_load_first_is_loaded_again(data: st.DataObject, trimmed: str) -> None:
    with package.connect("memory://") as store:
        drivers = [driver_on(store, trimmed=trimmed) for _ in range(2)]
        names = count()
        for _ in range(data.draw(st.integers(1, 8))):
            driver = data.draw(st.sampled_from(drivers))
            runs = [*driver.load()[0], said(next(names))]
            runs = data.draw(st.permutations(runs))[: data.draw(st.integers(0, len(runs)))]
            driver.store(runs, {})
            assert list(map(to_json, driver_on(store).load()[0])) == list(map(to_json, runs))


# edits


def test_an_edit_within_any_run_is_stored(store: Store) -> None:
    driver = driver_on(store)
    runs = [said(number) for number in range(40)]
    driver.store(runs, {})
    driver_on(store).store([said("other")], {})
    runs[0].output.value = "edited"
    runs[20].input.meta["k"] = [1]
    driver.store(runs, {})
    found = driver_on(store).load()[0]
    assert [run.to_dict() for run in found] == [*[run.to_dict() for run in runs], found[-1].to_dict()]
    assert found[-1].id == "rother"


def test_an_edit_of_a_value_to_a_similar_one_is_stored(local_store: Store) -> None:
    driver = driver_on(local_store)
    run = said(1, meta={})
    values: list[Any] = [True, 1, 1.0, "1", None, "null", [], {}, {"a": None}, {"a": {}}, "{}", ["{}"]]
    for value in values:
        run.meta["k"] = value
        run.output.meta["k"] = value
        driver.store([run], {})
        ((found,), _) = driver_on(local_store).load()
        assert (found.meta, type(found.meta["k"])) == ({"k": value}, type(value))
        assert (found.output.meta, type(found.output.meta["k"])) == ({"k": value}, type(value))


# metadata


def test_a_metadata_key_that_is_missing_now_goes(store: Store) -> None:
    driver, runs = driver_on(store), [said(1)]
    driver.store(runs, {"a": 1, "b": 2})
    driver.store(runs, {"b": 3})
    assert driver.load()[1] == driver_on(store).load()[1] == {"b": 3}
    driver.store([], {})
    assert driver_on(store).load() == ([], {})


def test_metadata_keys_that_others_wrote_since_stay(store: Store) -> None:
    driver, other, runs = driver_on(store), driver_on(store), [said(1)]
    driver.store(runs, {"a": 1, "b": 2})
    other.store([said("other")], {"theirs": 1})
    driver.store(runs, {"b": 3})
    assert driver_on(store).load()[1] == {"b": 3, "theirs": 1}
    assert driver.load()[1] == {"b": 3, "theirs": 1}
    driver.store(runs, {"b": 3})  # it was loaded, and is missing now
    assert driver_on(store).load()[1] == {"b": 3}
