"""Threads that append, edit, remove and make anew at random, each remembering what it was told: the end must fit all of it."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import cast

import pytest

from memory import AlreadyExistsError, ConflictError, Conversation, NotFoundError, Run, Store, UnitOfWork
from tests.attacks.conftest import KINDS
from tests.rounds import rounds

THREADS = 4
OPERATIONS = 15  # of each thread


@dataclass
class Told:
    """What one thread was told is written."""

    appended: dict[int, Run] = field(default_factory=dict)  # to "stays", by position, as replaced last
    removed: set[int] = field(default_factory=set)
    edits: int = 0
    counted: int = 0
    comings: list[tuple[str, int]] = field(default_factory=list)  # to "goes": incarnation and position of a run
    goings: list[tuple[str, int]] = field(
        default_factory=list
    )  # incarnation that was removed, and its last position seen


class Racer:
    """One thread's operations."""

    def __init__(self, store: Store, number: int) -> None:
        self.store, self.number, self.told, self.chance = store, number, Told(), random.Random(number)

    def run(self) -> Told:
        for turn in range(rounds(OPERATIONS)):
            self.chance.choice((self.append, self.append, self.count, self.replace, self.remove, self.come, self.go))(
                turn
            )
        return self.told

    def append(self, turn: int) -> None:
        runs = [Run([self.number, turn, n], "") for n in range(self.chance.randint(1, 3))]
        with self.store.begin() as uow:
            uow.runs.append("stays", *runs)
            written = uow.commit().written["stays"]
        assert written is not None
        for position, run in enumerate(runs, written.last_position - len(runs) + 1):
            self.told.appended[position] = replace(run, position=position)

    def count(self, _: int) -> None:
        def work(uow: UnitOfWork) -> None:
            metadata = uow.conversations.get("stays").metadata
            metadata["count"] = cast(int, metadata["count"]) + 1

        self.store.run(work, retries=1_000, sleep=lambda _: None)
        self.told.counted += 1
        self.told.edits += 1

    def replace(self, turn: int) -> None:
        for position in self.own():
            run = replace(self.told.appended[position], output=turn)
            with self.store.begin() as uow:
                uow.runs.replace("stays", run)
            self.told.appended[position] = run
            self.told.edits += 1

    def remove(self, _: int) -> None:
        for position in self.own():
            with self.store.begin() as uow:
                uow.runs.remove("stays", position)
            del self.told.appended[position]
            self.told.removed.add(position)
            self.told.edits += 1

    def own(self) -> list[int]:
        return self.chance.sample(sorted(self.told.appended), k=1) if self.told.appended else []

    def come(self, turn: int) -> None:
        with suppress(AlreadyExistsError), self.store.begin() as uow:
            uow.conversations.add(Conversation("goes"))
        with suppress(NotFoundError), self.store.begin() as uow:
            uow.runs.append("goes", Run([self.number, turn], ""))
            written = uow.commit().written["goes"]
            assert written is not None
            self.told.comings.append((written.incarnation, written.last_position))

    def go(self, _: int) -> None:
        with suppress(NotFoundError, ConflictError), self.store.begin() as uow:
            conversation = uow.conversations.get("goes")
            record = conversation.record
            assert record is not None
            uow.conversations.remove(conversation)
            uow.commit()
            self.told.goings.append((record.incarnation, record.last_position))


def raced(store: Store) -> list[Told]:
    with store.begin() as uow:
        uow.conversations.add(Conversation("stays", {"count": 0}))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda number: Racer(store, number).run(), range(THREADS)))


@pytest.mark.parametrize("url", KINDS[:-1], indirect=True)  # Griptape Cloud looks for conflicts just before a write
def test_the_end_fits_what_every_thread_was_told(store: Store) -> None:
    told = raced(store)
    uow = store.begin()
    stays, runs = uow.conversations.get("stays"), uow.runs.list("stays")
    given = sorted(chain.from_iterable((*one.appended, *one.removed) for one in told))
    assert given == list(range(1, len(given) + 1))  # each position once
    expected = {position: run for one in told for position, run in one.appended.items()}
    assert {run.position: (run.input, run.output) for run in runs} == {
        position: (run.input, run.output) for position, run in expected.items()
    }
    assert (stays.metadata["count"], stays.version) == (
        sum(one.counted for one in told),
        1 + sum(one.edits for one in told),
    )
    assert (stays.run_count, stays.last_position) == (len(runs), len(given))
    assert list(lost(store, told)) == []


def lost(store: Store, told: list[Told]) -> Iterator[tuple[str, int]]:
    """Yield each acknowledged run of "goes" that is not there, unless whoever removed it had seen it."""
    uow = store.begin()
    seen = {gone: position for one in told for gone, position in one.goings}
    there = set(_there(uow))
    for incarnation, position in chain.from_iterable(one.comings for one in told):
        if (incarnation, position) not in there and position > seen.get(incarnation, 0):
            yield incarnation, position


def _there(uow: UnitOfWork) -> Iterator[tuple[str, int | None]]:
    if "goes" in uow.conversations and (record := uow.conversations.get("goes").record):
        yield from ((record.incarnation, run.position) for run in uow.runs.list("goes"))
