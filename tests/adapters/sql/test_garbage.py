"""An error leaves no open cursor for the garbage collector, and the collector, whenever it runs, stops nobody."""

import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from memory import (
    AlreadyExistsError,
    ConflictError,
    Conversation,
    InvalidValueError,
    PersistenceError,
    Run,
    Store,
)
from memory.adapters.sql import SqlRepository
from memory.domain.records import ConversationRecord, RunRecord
from memory.port.changes import Change, ChangeSet, ExpectedVersion
from memory.port.repository import Window
from tests.adapters.sql.test_races import at_once
from tests.rounds import rounds

RECORD = ConversationRecord("c", "{}", 1, "", 0, 0, 1, 1, None)
RUN = RunRecord(0, "r", "1", "2", "{}", 1)


@contextmanager
def no_open_cursor() -> Iterator[None]:
    """Fail if the block leaves an open cursor of sqlite's that only the garbage collector finds.

    What SQLAlchemy makes of an expression or an error is garbage too, and harmless: the cursors in it are closed.
    """
    gc.disable()
    gc.freeze()  # what was there before is not looked through
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [found for found in gc.garbage if isinstance(found, sqlite3.Cursor) and is_open(found)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


def is_open(cursor: sqlite3.Cursor) -> bool:
    try:
        cursor.fetchone()
    except sqlite3.ProgrammingError:
        return False
    return True


def refused(work: Callable[[], object], kind: type[PersistenceError]) -> None:
    try:
        work()
    except kind:
        return
    pytest.fail(f"no {kind.__name__}")


def test_a_refused_commit_leaves_no_open_cursor(store: Store) -> None:
    repository = store.repository
    repository.commit("n", ChangeSet((Change("c", create=RECORD, append=(RUN,)),)))
    refusals: list[tuple[Change, type[PersistenceError]]] = [
        (Change("c", create=RECORD), AlreadyExistsError),
        (Change("c", expected=ExpectedVersion("1", 7), metadata="{}"), ConflictError),
        (Change("c", after=7, append=(RUN,)), ConflictError),
        (Change("c", append=(RUN._replace(position=1),)), InvalidValueError),
    ]
    for change, kind in refusals:
        with no_open_cursor():
            refused(lambda change=change: repository.commit("n", ChangeSet((change,))), kind)  # type: ignore[misc]


def test_a_failing_statement_leaves_no_open_cursor(store: Store) -> None:
    repository = store.repository
    assert isinstance(repository, SqlRepository)
    with repository.engine.begin() as connection:
        for table in ("conversations", "runs", "metadata", "commits"):
            connection.execute(text(f"ALTER TABLE memory_{table} RENAME TO gone_{table}"))
    works: list[Callable[[], object]] = [
        lambda: repository.commit("n", ChangeSet((Change("c", create=RECORD, append=(RUN,)),))),
        lambda: repository.get("n", "c"),
        lambda: repository.runs("n", "c", Window()),
        repository.namespaces,
    ]
    for work in works:
        refused(work, PersistenceError)
        with no_open_cursor():
            refused(work, PersistenceError)


def test_threads_that_get_or_create_do_not_stall_while_the_collector_runs(store: Store) -> None:
    """A collector that finds another thread's cursor waits for that one's connection, which may wait for this thread's lock."""
    times = rounds(25)

    def work(thread: int) -> None:
        for n in range(times):
            try:
                with store.begin() as uow:
                    uow.conversations.add(Conversation(f"c{n}"))
            except AlreadyExistsError:
                pass
            with store.begin() as uow:
                uow.runs.append(f"c{n}", Run(thread, None))

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        at_once(*[lambda thread=thread: work(thread) for thread in range(8)])
    finally:
        gc.set_threshold(*before)
    with store.begin() as uow:
        assert [found.run_count for found in uow.conversations.iterate()] == [8] * times
