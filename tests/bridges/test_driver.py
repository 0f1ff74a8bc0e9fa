"""The contract of a memory driver, on every store: what is stored is loaded, whole, in order, and nobody's run is lost."""

from collections.abc import Callable
from typing import Any

import pytest
from griptape.artifacts import JsonArtifact, ListArtifact, TextArtifact
from griptape.memory.structure import ConversationMemory, Run

from memory import Conversation, NotFoundError, Store
from memory import Run as OurRun
from memory.bridges.griptape.artifacts import to_json
from memory.formats.griptape import SHOWN_FROM
from memory.testing.base import do, put
from tests.bridges.talking import driver_on, ids, memory_on, said, stored_ids
from tests.copying import interfering, objects


def test_a_conversation_that_is_not_there_is_empty_and_is_not_made_by_looking(store: Store) -> None:
    assert driver_on(store).load() == ([], {})
    with store.begin() as uow, pytest.raises(NotFoundError):
        uow.conversations.get("c")


def test_what_was_stored_is_loaded_by_another_driver(store: Store) -> None:
    runs = [
        said(1, meta={"user": "ada"}),
        said(2, meta={}),
        Run(input=ListArtifact([TextArtifact("a")]), output=JsonArtifact([1])),
    ]
    driver_on(store).store(runs, {"customer": "ada", "n": [1, {"x": None}]})
    loaded, metadata = driver_on(store).load()
    assert [run.to_dict() for run in loaded] == [run.to_dict() for run in runs]
    assert metadata == {"customer": "ada", "n": [1, {"x": None}]}


def test_each_turn_appends_its_run_and_leaves_the_others_as_they_are(store: Store) -> None:
    memory = memory_on(store)
    for number in range(5):
        memory.add_run(said(number))
    with store.begin() as uow:
        conversation = uow.conversations.get("c")
        assert [(run.position, run.id) for run in uow.runs.list("c")] == [(n + 1, f"r{n}") for n in range(5)]
    assert (conversation.version, conversation.run_count) == (1, 5)
    assert ids(memory_on(store)) == ids(memory)


def test_storing_the_same_again_writes_nothing(store: Store) -> None:
    memory = memory_on(store)
    memory.add_run(said(1))
    written: list[object] = []
    store.subscribe(written.append)
    memory.conversation_memory_driver.store(memory.runs, memory.meta)
    assert written == []


def test_a_run_of_a_megabyte_stands_in_nobodys_way(store: Store) -> None:
    memory = memory_on(store)
    for number, size in enumerate((10, 1_000_000, 10)):
        memory.add_run(said(number, "x" * size, meta={"y": "y" * size}))
    loaded = memory_on(store)
    assert [run.to_dict() for run in loaded.runs] == [run.to_dict() for run in memory.runs]
    loaded.add_run(said(3))
    assert stored_ids(store) == ["r0", "r1", "r2", "r3"]


def test_two_memories_that_do_not_know_of_each_other_keep_all_runs(store: Store) -> None:
    first, second = memory_on(store), memory_on(store)
    for number in range(3):
        first.add_run(said(f"a{number}"))
        second.add_run(said(f"b{number}"))
    assert stored_ids(store) == ["ra0", "rb0", "ra1", "rb1", "ra2", "rb2"]
    assert ids(memory_on(store)) == stored_ids(store)


def test_max_runs_hides_runs_and_keeps_them(store: Store) -> None:
    memory = memory_on(store, max_runs=3)
    for number in range(6):
        memory.add_run(said(number))
    assert stored_ids(store) == [f"r{number}" for number in range(6)]
    assert ids(memory_on(store)) == ["r3", "r4", "r5"] == ids(memory)
    assert all(run.meta is None for run in memory_on(store).runs)


def test_max_runs_deletes_by_an_option_what_this_memory_had(store: Store) -> None:
    others = memory_on(store)
    memory = memory_on(store, max_runs=2, trimmed="deleted")
    memory.add_run(said(0))
    others.add_run(said("other"))
    for number in range(1, 5):
        memory.add_run(said(number))
    assert stored_ids(store) == ["rother", "r3", "r4"]
    with store.begin() as uow:
        assert uow.conversations.get("c").last_position == 6


def test_a_window_that_is_stored_again_leaves_alone_what_was_not_loaded(store: Store) -> None:
    full = memory_on(store)
    for number in range(6):
        full.add_run(said(number))
    for trimmed in ("hidden", "deleted"):
        memory = memory_on(store, last=3, trimmed=trimmed, max_runs=2)
        assert ids(memory) == ids(memory_on(store))[-3:]
        memory.add_run(said(trimmed))
    # r3 and r4, r5 were loaded and trimmed by the one that deletes: nothing before them
    assert stored_ids(store) == ["r0", "r1", "r2", "r3", "rhidden", "rdeleted"]
    assert ids(memory_on(store)) == stored_ids(store)


def test_edits_removals_and_insertions_are_stored(store: Store) -> None:
    memory = memory_on(store)
    for number in range(6):
        memory.add_run(said(number))
    memory.runs[1].output = TextArtifact("edited")
    memory.runs[5].output.value = "edited inside"
    memory.runs[4].meta = {"rating": 1}
    del memory.runs[2]
    memory.add_run(said(6))
    again = memory_on(store)
    assert ids(again) == ["r0", "r1", "r3", "r4", "r5", "r6"]
    assert [again.runs[at].output.value for at in (1, 4)] == ["edited", "edited inside"]
    assert again.runs[3].meta == {"rating": 1}
    memory.runs.insert(0, said("first"))
    memory.runs.reverse()
    memory.conversation_memory_driver.store(memory.runs, memory.meta)
    assert [run.to_dict() for run in memory_on(store).runs] == [run.to_dict() for run in memory.runs]


def test_an_edit_keeps_when_the_run_was_made_and_where_it_is(store: Store) -> None:
    memory = memory_on(store)
    memory.add_run(said(0))
    memory.add_run(said(1))
    with store.begin() as uow:
        before = uow.runs.get("c", 1)
    memory.runs[0] = said(0, "another answer")
    memory.conversation_memory_driver.store(memory.runs, memory.meta)
    with store.begin() as uow:
        after = uow.runs.get("c", 1)
    assert (after.created_at, after.id, after.output["value"]) == (before.created_at, "r0", "another answer")
    assert stored_ids(store) == ["r0", "r1"]


def test_edits_of_two_memories_meet(store: Store) -> None:
    first = memory_on(store)
    for number in range(3):
        first.add_run(said(number))
    second = memory_on(store)
    first.runs[0].output = TextArtifact("first")
    second.runs[2].output = TextArtifact("second")
    first.add_run(said("a"))
    second.add_run(said("b"))
    again = memory_on(store)
    assert [run.output.value for run in again.runs] == ["first", "answer 1", "second", "answer a", "answer b"]


def test_metadata_of_two_memories_meets(store: Store) -> None:
    driver_on(store).store([said(0)], {"a": 1, "b": 1, "c": 1})
    first, second = memory_on(store), memory_on(store)
    first.meta["a"] = 2
    del second.meta["b"]
    second.meta["d"] = True
    first.add_run(said(1))
    second.add_run(said(2))
    assert memory_on(store).meta == {"a": 2, "c": 1, "d": True}


def test_a_memory_that_has_not_loaded_takes_nothing_of_others_away(store: Store) -> None:
    driver_on(store).store([said(0), said(1)], {"customer": "ada"})
    blind = ConversationMemory(conversation_memory_driver=driver_on(store), autoload=False, max_runs=1)
    for number in range(2, 5):
        blind.add_run(said(number))
    again = memory_on(store)
    assert (ids(again), again.meta) == (["r0", "r1", "r4"], {"customer": "ada"})
    assert stored_ids(store) == [f"r{number}" for number in range(5)]


def test_a_memory_with_one_run_shows_the_last_one(store: Store) -> None:
    memory = memory_on(store, max_runs=1)
    for number in range(3):
        memory.add_run(said(number))
    assert ids(memory_on(store)) == ["r2"]
    assert len(stored_ids(store)) == 3


def test_clearing_a_memory_hides_its_runs(store: Store) -> None:
    memory = memory_on(store)
    memory.add_run(said(0))
    memory.add_run(said(1))
    memory.runs.clear()
    memory.conversation_memory_driver.store(memory.runs, memory.meta)
    assert (ids(memory_on(store)), stored_ids(store)) == ([], ["r0", "r1"])
    memory.add_run(said(2))
    assert ids(memory_on(store)) == ["r2"]


def test_loading_twice_does_not_store_twice(store: Store) -> None:
    memory = memory_on(store)
    memory.add_run(said(0))
    memory.add_run(said(1))
    memory.load_runs()
    memory.add_run(said(2))
    assert stored_ids(store) == ["r0", "r1", "r2"]


def test_ids_may_repeat(store: Store) -> None:
    memory = memory_on(store)
    memory.add_run(said(1, "one"))
    memory.add_run(said(1, "two"))
    same = said(2)
    memory.add_run(same)
    memory.add_run(same)
    assert [run.output.value for run in memory_on(store).runs] == ["one", "two", "answer 2", "answer 2"]
    memory.runs[1].output.value = "TWO"
    memory.add_run(said(1, "three"))
    assert [run.output.value for run in memory_on(store).runs] == ["one", "TWO", "answer 2", "answer 2", "three"]


def test_runs_made_anew_from_their_own_json_are_known_again(store: Store) -> None:
    memory = memory_on(store)
    for number in range(4):
        memory.add_run(said(number))
    copies = [Run.from_dict(run.to_dict()) for run in memory.runs]
    again = memory_on(store, last=2)
    again.runs[:0] = copies  # as a Structure that is made from its own JSON has them
    again.add_run(said(4))
    assert stored_ids(store) == ["r0", "r1", "r2", "r3", "r4"]
    blind = ConversationMemory(conversation_memory_driver=driver_on(store), autoload=False, runs=copies)
    blind.add_run(said(5))
    assert stored_ids(store) == ["r0", "r1", "r2", "r3", "r4", "r5"]


def test_what_others_removed_is_not_brought_back(store: Store) -> None:
    memory = memory_on(store)
    for number in range(3):
        memory.add_run(said(number))
    with store.begin() as uow:
        uow.runs.remove("c", 2)
    memory.runs[1].output = TextArtifact("edited")
    memory.add_run(said(3))
    assert stored_ids(store) == ["r0", "r2", "r3"]
    with store.begin() as uow:
        uow.conversations.remove("c")
    memory.add_run(said(4))
    assert stored_ids(store) == ["r4"]
    memory.runs[0].output = TextArtifact("edited")
    memory.add_run(said(5))
    assert stored_ids(store) == ["r4", "r5"]


def test_a_conversation_made_anew_by_others_is_continued(store: Store) -> None:
    memory = memory_on(store, max_runs=2)
    for number in range(3):
        memory.add_run(said(number))
    with store.begin() as uow:
        uow.conversations.remove("c")
    with store.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"new": True}))
        uow.runs.append("c", OurRun("Hi", "Hello", id="theirs"))
    memory.add_run(said(3))
    assert stored_ids(store) == ["theirs", "r3"]
    assert [run.output.to_text() for run in memory_on(store).runs] == ["Hello", "answer 3"]


def test_runs_of_other_programs_are_loaded_as_texts(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))
        uow.runs.append("c", OurRun("Hi", {"role": "assistant", "parts": [1]}, {"k": 1}, id="theirs"))
    memory = memory_on(store)
    run = memory.runs[0]
    assert (run.id, run.meta, run.input.value, run.output.to_text()) == (
        "theirs",
        {"k": 1},
        "Hi",
        '{"role": "assistant", "parts": [1]}',
    )
    memory.add_run(said(1))
    with store.begin() as uow:
        assert uow.runs.get("c", 1).output == {"role": "assistant", "parts": [1]}


def test_every_edit_of_a_long_conversation_is_stored(local_store: Store) -> None:
    memory = memory_on(local_store)
    memory.runs.extend(said(number, meta={"n": {}}) for number in range(5_000))
    memory.add_run(said("last"))
    memory.runs[0].output.value = "edited inside"
    memory.runs[1].output = TextArtifact("another")
    memory.runs[2].meta = {"n": 1}
    memory.runs[3] = said("3b")
    memory.runs[4].input.meta["k"] = [1]
    memory.runs[2_500].meta["n"]["deep"] = True
    memory.add_run(said("more"))
    again = memory_on(local_store)
    assert list(map(to_json, again.runs)) == list(map(to_json, memory.runs))
    with local_store.begin() as uow:
        assert uow.runs.get("c", 1).output["value"] == "edited inside"
        assert uow.conversations.get("c").run_count == 5_002


def test_a_turn_reads_nothing_and_writes_one_run(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_on(local_store)
    memory.runs.extend(said(number) for number in range(500))
    memory.add_run(said("first"))
    calls: list[Any] = []
    repository = local_store.repository

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append((name, *arguments[1:]))
            return method(*arguments)

        return call

    for name in ("get", "runs", "commit"):
        monkeypatch.setattr(repository, name, watched(name, getattr(repository, name)))
    memory.add_run(said("second"))
    ((name, changes),) = calls
    assert (name, len(changes.changes), len(changes.changes[0].append)) == ("commit", 1, 1)
    assert changes.changes[0].only_appends


def test_the_mark_of_hidden_runs_is_in_the_run_and_costs_no_edit(local_store: Store) -> None:
    memory = memory_on(local_store, max_runs=2)
    for number in range(4):
        memory.add_run(said(number))
    with local_store.begin() as uow:
        assert uow.conversations.get("c").version == 1
        marks = [run.metadata.get(SHOWN_FROM, {}).get("position") for run in uow.runs.list("c")]
        assert marks == [None, None, 2, 3]


def test_a_long_conversation_is_loaded_from_its_mark(local_store: Store) -> None:
    long = memory_on(local_store)
    long.runs.extend(said(number) for number in range(700))
    long.add_run(said("last"))
    assert ids(memory_on(local_store)) == ids(long)
    short = memory_on(local_store, max_runs=400)
    short.add_run(said("more"))
    assert ids(memory_on(local_store)) == ids(short)
    assert len(ids(memory_on(local_store, last=10))) == 10


def test_what_has_no_json_is_kept_as_text(local_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    from griptape.artifacts import GenericArtifact

    memory = memory_on(local_store)
    memory.meta = {"when": object, 1: (2, 3)}
    memory.add_run(Run(input=GenericArtifact(object), output=JsonArtifact({"n": 2.5}), meta={"at": {1, 2}}))
    memory.add_run(Run(input=GenericArtifact(float("nan")), output=TextArtifact("x" * 10)))
    again = memory_on(local_store)
    assert again.runs[0].input.to_text() == str(object)
    assert again.runs[0].meta == {"at": [1, 2]}
    assert again.runs[1].input.to_text() == "nan"
    assert again.meta["when"] == str(object)
    assert "stored as text" in caplog.text


def test_hidden_runs_stay_hidden_when_the_run_with_the_mark_goes(local_store: Store) -> None:
    memory = memory_on(local_store, max_runs=2)
    for number in range(3):
        memory.add_run(said(number))
    memory.runs.pop()
    memory.conversation_memory_driver.store(memory.runs, memory.meta)
    assert (ids(memory_on(local_store)), stored_ids(local_store)) == (["r1"], ["r0", "r1"])


def test_a_memory_that_found_all_runs_hidden_can_hide_its_own(local_store: Store) -> None:
    cleared = memory_on(local_store)
    cleared.add_run(said(0))
    cleared.runs.clear()
    cleared.conversation_memory_driver.store(cleared.runs, cleared.meta)
    memory = memory_on(local_store, max_runs=1)
    memory.add_run(said(1))
    memory.add_run(said(2))
    assert ids(memory_on(local_store)) == ["r2"]


@pytest.mark.parametrize("last", [None, 1])
def test_what_is_loaded_is_all_of_one_conversation_if_another_is_made_meanwhile(last: int | None) -> None:
    store = objects()
    driver_on(store).store([said(1)], {"customer": "ada"})
    driver = driver_on(store, last=last)

    def make_another(number: int) -> None:
        if number == 1:
            do(store, lambda uow: uow.conversations.remove("c"))
            put(store, "c", {"customer": "bob"}, OurRun("his", "own"))

    with interfering(store, make_another):
        loaded, metadata = driver.load()
    assert metadata == {"customer": "bob"}
    assert [run.input.value for run in loaded] == ["his"]
