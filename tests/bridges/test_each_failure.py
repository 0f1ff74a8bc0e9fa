"""Whatever operation of a store fails, before it has its effect or after: the next `store` makes it good."""

from collections.abc import Callable
from typing import Any

import pytest

from memory import CommitInDoubtError, PersistenceError, Store, StoreUnavailableError
from memory.adapters.in_memory import InMemoryRepository
from memory.domain.entities import Run as OurRun
from memory.port.changes import ChangeSet, Receipt
from memory.port.repository import Capabilities
from tests.bridges.talking import memory_on, said, stored_ids

ERRORS: list[type[BaseException]] = [StoreUnavailableError, CommitInDoubtError, KeyboardInterrupt]


class Failing(InMemoryRepository):
    """Fails the calls from one to another, counted from 0, that the bridge makes; others append before each of its commits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.first, self.times, self.after = -1, 0, False
        self.error: type[BaseException] = StoreUnavailableError
        self.others = 0

    def fails(self, method: Callable[..., Any], *arguments: Any, commits: bool = False) -> Any:
        number, self.calls = self.calls, self.calls + 1
        if not self.first <= number < self.first + self.times:
            return method(*arguments)
        if self.after:
            method(*arguments)
        if self.error is StoreUnavailableError and self.after and commits:  # which says that nothing was written
            raise CommitInDoubtError("failed")
        if self.error is CommitInDoubtError and not commits:
            raise StoreUnavailableError("failed")
        raise self.error("failed")

    def get(self, *arguments: Any) -> Any:
        return self.fails(super().get, *arguments)

    def runs(self, *arguments: Any) -> Any:
        return self.fails(super().runs, *arguments)

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        (change,) = changes.changes
        if change.append and change.create is None and (namespace, changes.token) not in self._receipts:
            self.others += 1
            theirs = OurRun("Hi", "Hello", id=f"other{self.others}").to_record()
            append = ChangeSet(
                (type(change)(change.id, append=(theirs,)),), f"{changes.token}-{self.others}", changes.at
            )
            super().commit(namespace, append)
        receipt: Receipt = self.fails(super().commit, namespace, changes, commits=True)
        return receipt


class FailingLoosely(Failing):
    capabilities = Capabilities(atomic=False, detects_conflicts=False)


@pytest.mark.parametrize("kind", [Failing, FailingLoosely])
@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", ERRORS)
def test_no_failure_loses_a_run_or_stores_it_twice(
    monkeypatch: pytest.MonkeyPatch, kind: type[Failing], error: type[BaseException], times: int, *, after: bool
) -> None:
    monkeypatch.setattr("memory.core.faces._LONGEST_DELAY", 0.0)
    failed = 0
    for first in range(16):
        repository = kind()
        store = Store(repository)
        memory = memory_on(store)
        repository.calls, repository.first, repository.times = 0, first, times
        repository.error, repository.after = error, after
        for turn in range(4):
            for number in range(turn % 2 + 1):
                memory.runs.append(said(f"{turn}-{number}"))
            if turn == 2:
                memory.runs[0].meta = {"edited": True}
            for _ in range(2):
                try:
                    memory.conversation_memory_driver.store(memory.runs, memory.meta)
                except (PersistenceError, KeyboardInterrupt):
                    failed += 1
        repository.times = 0
        memory.add_run(said("last"))
        stored = [each for each in stored_ids(store) if not each.startswith("other")]
        assert stored == [run.id for run in memory.runs], f"after a failure of call {first}"
        again = [run for run in memory_on(store).runs if not run.id.startswith("other")]
        assert again == memory.runs  # by value: Griptape's own equality of runs compares every field
    assert failed or error is not KeyboardInterrupt
