"""Where runs are known to be: what is put back, what others have moved, and what a store says that is not so."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from griptape.artifacts import TextArtifact
from griptape.memory.structure import ConversationMemory, Run

from memory import Store, StoreUnavailableError
from memory.adapters.in_memory import InMemoryRepository
from memory.domain.entities import Conversation
from memory.domain.entities import Run as OurRun
from memory.port.changes import ChangeSet, Receipt
from memory.port.repository import Capabilities, RunsRead, Window
from tests.bridges.talking import driver_on, ids, memory_on, said, stored_ids


def store_again(memory: ConversationMemory) -> None:
    memory.conversation_memory_driver.store(memory.runs, memory.meta)


def outputs(memory: ConversationMemory) -> list[str]:
    return [run.output.to_text() for run in memory.runs]


# put back


@pytest.mark.parametrize("trimmed", ["hidden", "deleted"])
def test_an_application_may_shorten_the_runs_for_one_call(store: Store, trimmed: str) -> None:
    memory = memory_on(store, trimmed=trimmed)
    for number in range(4):
        memory.add_run(said(number))
    everything = list(memory.runs)
    for first in (2, 1, 3):
        memory.runs[:] = everything[first:]
        store_again(memory)
        assert ids(memory_on(store)) == [run.id for run in everything[first:]]
        memory.runs[:] = everything
        store_again(memory)
        assert ids(memory_on(store)) == stored_ids(store) == ["r0", "r1", "r2", "r3"]
    memory.add_run(said(4))
    assert ids(memory_on(store)) == stored_ids(store) == ["r0", "r1", "r2", "r3", "r4"]


def test_of_hidden_runs_some_may_be_put_back_and_the_others_stay_hidden(store: Store) -> None:
    memory = memory_on(store)
    for number in range(4):
        memory.add_run(said(number))
    first, *_ = memory.runs[:3]
    del memory.runs[:3]
    store_again(memory)
    first.output = TextArtifact("edited meanwhile")
    memory.runs.insert(0, first)
    memory.add_run(said(4))
    again = memory_on(store)
    assert (ids(again), again.runs[0].output.to_text()) == (["r0", "r3", "r4"], "edited meanwhile")
    assert sorted(stored_ids(store)) == ["r0", "r1", "r2", "r3", "r4"]


def test_what_others_removed_is_not_brought_back_by_putting_it_back(store: Store) -> None:
    memory = memory_on(store)
    for number in range(3):
        memory.add_run(said(number))
    first = memory.runs.pop(0)
    with store.begin() as uow:
        uow.runs.remove("c", 1)
    store_again(memory)
    memory.runs.insert(0, first)
    first.output = TextArtifact("edited")
    store_again(memory)
    assert stored_ids(store) == ["r1", "r2"]


def test_of_two_memories_of_one_driver_the_last_store_decides_and_no_run_is_stored_twice(local_store: Store) -> None:
    driver = driver_on(local_store)
    memory = ConversationMemory(conversation_memory_driver=driver)
    for number in range(3):
        memory.add_run(said(number))
    old = memory.runs.pop(0)
    store_again(memory)
    other = ConversationMemory(conversation_memory_driver=driver, autoload=False)
    other.runs[:] = [said("new"), old]
    store_again(other)
    assert ids(memory_on(local_store)) == ["rnew", "r0"]
    assert sorted(stored_ids(local_store)) == ["r0", "r1", "r2", "rnew"]
    memory.runs.insert(0, old)
    memory.add_run(said(3))
    assert ids(memory_on(local_store)) == ["r0", "r1", "r2", "r3"]
    assert sorted(stored_ids(local_store)) == ["r0", "r1", "r2", "r3", "rnew"]


def test_a_mark_that_a_later_one_has_overruled_goes_with_its_run(local_store: Store) -> None:
    memory = memory_on(local_store)
    for number in range(3):
        memory.add_run(said(number))
    everything = list(memory.runs)
    memory.runs[:] = everything[1:2]
    store_again(memory)
    memory.runs[:] = everything
    memory.add_run(said(3))
    del memory.runs[1]
    store_again(memory)
    assert ids(memory_on(local_store)) == ["r0", "r2", "r3"]


# moved by others


def test_a_run_that_others_have_moved_is_edited_where_it_is(store: Store) -> None:
    memory = memory_on(store)
    for number in range(3):
        memory.add_run(said(number))
    other = memory_on(store)
    other.runs.reverse()
    store_again(other)
    memory.runs[0].output = TextArtifact("edited")
    store_again(memory)
    again = memory_on(store)
    assert (ids(again), outputs(again)) == (["r2", "r1", "r0"], ["answer 2", "answer 1", "edited"])


def test_a_run_of_others_in_the_place_of_one_that_is_gone_is_neither_edited_nor_removed(store: Store) -> None:
    memory = memory_on(store)
    for number in range(3):
        memory.add_run(said(number))
    with store.begin() as uow:
        uow.runs.replace("c", replace(uow.runs.get("c", 1), id="theirs", output="theirs"))
    memory.runs[0].output = TextArtifact("edited")
    memory.add_run(said(3))
    assert stored_ids(store) == ["theirs", "r1", "r2", "r3"]
    assert outputs(memory_on(store))[0] == "theirs"
    del memory.runs[0]
    store_again(memory)
    assert stored_ids(store) == ["theirs", "r1", "r2", "r3"]


# said by a store without transactions


class Loose(InMemoryRepository):
    """A store whose commits are not atomic: others append within and after them; and reads may fail."""

    capabilities = Capabilities(atomic=False, detects_conflicts=False)

    def __init__(self) -> None:
        super().__init__()
        self.others_first: list[OurRun] = []
        self.others_between: list[OurRun] = []
        self.others_after: list[OurRun] = []
        self.lost_reads = 0

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        (change,) = changes.changes
        if not change.only_appends:
            return super().commit(namespace, changes)
        self._append(namespace, self.others_first)
        if self.others_between:
            parts = ChangeSet((change._replace(append=change.append[:1]),), changes.token + "1", changes.at)
            super().commit(namespace, parts)
            self._append(namespace, self.others_between)
            changes = replace(changes, changes=(change._replace(append=change.append[1:]),))
        receipt = super().commit(namespace, changes)
        if self.others_after:  # the count that is looked at after the append is that of theirs
            self._append(namespace, self.others_after)
            found = self.get(namespace, change.id)
            last = found.record.last_position if found and found.record else 0
            written = receipt.written[change.id]
            assert written is not None
            receipt = replace(receipt, written={change.id: written._replace(last_position=last)})
        return receipt

    def _append(self, namespace: str, runs: list[OurRun]) -> None:
        if runs:
            with Store(Loose.plain(self), namespace).begin() as uow:
                uow.runs.append("c", *runs)
            runs.clear()

    @staticmethod
    def plain(repository: "Loose") -> InMemoryRepository:
        plain = InMemoryRepository()
        plain.__dict__ = {name: value for name, value in vars(repository).items() if name in vars(plain)}
        return plain

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        if self.lost_reads:
            self.lost_reads -= 1
            raise StoreUnavailableError("away")
        return super().runs(namespace, conversation_id, window)


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr("memory.core.store.time.sleep", lambda _: None)
    with Store(Loose()) as store:
        yield store


def loose_repository(store: Store) -> Loose:
    assert isinstance(store.repository, Loose)
    return store.repository


def test_a_receipt_that_names_the_place_of_anothers_run_does_not_cost_that_run(loose: Store) -> None:
    memory = memory_on(loose)
    memory.add_run(said(0))
    loose_repository(loose).others_after = [OurRun("Hi", "theirs", id="theirs")]
    memory.add_run(said(1))
    memory.runs[1].output = TextArtifact("corrected")
    store_again(memory)
    assert (stored_ids(loose), outputs(memory_on(loose))) == (
        ["r0", "r1", "theirs"],
        ["answer 0", "corrected", "theirs"],
    )
    del memory.runs[1]
    store_again(memory)
    assert stored_ids(loose) == ["r0", "theirs"]


def test_a_wrong_place_that_went_unnoticed_is_found_out_before_it_is_written_to(local_store: Store) -> None:
    memory = memory_on(local_store)
    for number in range(3):
        memory.add_run(said(number))
    recorder = memory.conversation_memory_driver._recorder
    wrong = [known._replace(position=known.position + 1) for known in recorder._state.runs]  # as a store has said
    recorder._state = replace(recorder._state, runs=wrong)
    memory.runs[0].output = TextArtifact("edited")
    store_again(memory)
    assert outputs(memory_on(local_store)) == ["edited", "answer 1", "answer 2"]


@pytest.mark.parametrize("lost", [1, 5, 12, 30])
def test_a_read_that_fails_after_the_commit_does_not_write_it_twice(loose: Store, lost: int) -> None:
    memory = memory_on(loose)
    memory.add_run(said(0))
    loose_repository(loose).others_first = [OurRun("Hi", "theirs", id="theirs")]
    memory.runs.append(said(1))
    loose_repository(loose).lost_reads = lost
    for number in range(2, 6):
        memory.runs.append(said(number))
        try:
            store_again(memory)
        except StoreUnavailableError:
            continue
    assert stored_ids(loose) == ["r0", "theirs", "r1", "r2", "r3", "r4", "r5"]


def test_runs_with_one_id_are_each_known_where_they_are(loose: Store) -> None:
    memory = memory_on(loose)
    memory.add_run(said(0))
    loose_repository(loose).others_between = [OurRun("Hi", "theirs", id="r1")]
    memory.runs += [said(1, "one"), said(1, "two"), said(1, "three")]
    store_again(memory)
    for run in memory.runs[1:]:
        run.output = TextArtifact(f"{run.output.to_text()} corrected")
    store_again(memory)
    assert outputs(memory_on(loose)) == ["answer 0", "one corrected", "theirs", "two corrected", "three corrected"]


def test_runs_are_recognised_beyond_a_gap_of_any_length(local_store: Store) -> None:
    with local_store.begin() as uow:
        uow.conversations.add(Conversation("c"))
    driver_on(local_store).store([said(0), said(1)], {})
    with local_store.begin() as uow:
        uow.runs.append("c", *[OurRun("Hi", "Hello") for _ in range(1200)])
    with local_store.begin() as uow:
        uow.runs.remove("c", *range(3, 603))
    copies = [Run.from_dict(run.to_dict()) for run in (said(0), said(1))]
    memory = memory_on(local_store, last=2)
    stored = driver_on(local_store).load()[0]
    for copy, run in zip(copies, stored, strict=False):
        copy.id, copy.input, copy.output = run.id, run.input, run.output
    memory.runs[:0] = copies
    memory.add_run(said(2))
    assert [each for each in stored_ids(local_store) if each in ("r0", "r1", "r2")] == ["r0", "r1", "r2"]
