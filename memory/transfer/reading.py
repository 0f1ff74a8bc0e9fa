"""One state of a conversation: its record with all the runs that belong to it, whatever others write meanwhile.

Export, copy, comparison and the bridges all read whole conversations through this module.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import Any, Final, NamedTuple, TypeVar, cast

from memory.core.store import Store
from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import check_conversation_id, compact
from memory.errors import ConflictError, CorruptRecordError
from memory.port.changes import ExpectedVersion
from memory.port.repository import Window
from memory.transfer.batching import Cost, batches

T = TypeVar("T")

RECORD_SIZE: Final = 200
"""Approximate size in characters of a conversation without runs and metadata, and of a run without its texts."""

_WINDOW: Final = 200  # runs that are read at a time
_TRIES: Final = 20


class Whole(NamedTuple):
    """A conversation as it was at one moment; its runs can be iterated once."""

    record: ConversationRecord
    runs: Iterator[RunRecord]


@contextmanager
def read_whole(
    store: Store[Any], conversation_id: str, found: ConversationRecord | None = None, *, last: int | None = None
) -> Iterator[Whole | None]:
    """Read a conversation with all its runs, as they were at one moment; None if it does not exist or has expired.

    The runs are read before anything is returned, and read again if the conversation was changed meanwhile. Runs that do not fit
    into one commit are buffered in a temporary file: memory is constant.

    Args:
        store: the store to read.
        conversation_id: the conversation's id.
        found: its record, if it was read a moment ago.
        last: read only this many runs, the last ones.

    Raises:
        ConflictError: it was changed faster than it could be read.
        CorruptRecordError: it cannot be read, or does not have as many runs as its record says.
        PersistenceError: the store failed.

    >>> import memory
    >>> store = memory.connect("memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    ...     uow.runs.append("support-42", memory.Run("Where is my refund?", "It left on Monday."))
    >>> with read_whole(store, "support-42") as read:
    ...     print(read.record.run_count, [run.output for run in read.runs])
    1 ['"It left on Monday."']
    """
    with ExitStack() as stack:

        def read() -> Whole | None:
            nonlocal found
            record, found = found or get_record(store, conversation_id), None
            if record is None:
                return None
            runs = runs_of(store, record) if last is None else _last(store, record, last)
            return Whole(record, stack.enter_context(_kept(runs)))

        yield retry_on_conflict(read)


@contextmanager
def _kept(runs: Iterable[RunRecord]) -> Iterator[Iterator[RunRecord]]:
    """Read all runs, then iterate over them: the first batch is in memory, the others are in a file."""
    parts = run_batches(runs)
    first = next(parts, [])
    with SpooledTemporaryFile(1) as rest:  # becomes a file at its first byte; most conversations need none
        for part in parts:
            rest.writelines([compact(run).encode() + b"\n" for run in part])
            part.clear()  # before the next one is read
        rest.seek(0)
        yield chain(first, (RunRecord(*json.loads(line)) for line in rest))


def _last(store: Store[Any], record: ConversationRecord, number: int) -> Iterator[RunRecord]:
    if number and record.last_position:
        window = Window(before=record.last_position + 1, limit=min(number, record.last_position), from_end=True)
        yield from [run.to_record(cast(int, run.position)) for run in runs_in(store, record, window)]


def get_record(store: Store[Any], conversation_id: str) -> ConversationRecord | None:
    """Return a conversation's record; None if the conversation does not exist or has expired."""
    store.ensure_ready()
    found = store.repository.get(store.namespace_name, check_conversation_id(conversation_id))
    return None if found is None else found.record


def runs_of(store: Store[Any], record: ConversationRecord) -> Iterator[RunRecord]:
    """Yield the runs that a conversation had when its record was read, without those appended since. Memory is constant.

    Raises:
        ConflictError: the conversation has another version by now; the runs yielded so far belong to no version.
        CorruptRecordError: there are not as many runs as the record says.
    """
    after = count = 0
    while after < record.last_position:
        runs = runs_in(store, record, Window(after=after, before=record.last_position + 1, limit=_WINDOW))
        yield from [run.to_record(cast(int, run.position)) for run in runs]
        count += len(runs)
        after = cast(int, runs[-1].position) if len(runs) == _WINDOW else record.last_position
    if count != record.run_count or not store.repository.capabilities.detects_conflicts:
        # A store that does not read the version and the runs in one step may have read them from two states.
        now = get_record(store, record.id)
        if now is None or version_of(now) != version_of(record) or (count != record.run_count and now != record):
            raise _changed(record)
    if count != record.run_count:
        what = f"conversation {record.id!r} has {count:,} runs"
        raise CorruptRecordError(f"{what}, but its record says {record.run_count:,}")


def runs_in(store: Store[Any], record: ConversationRecord, window: Window) -> tuple[Run, ...]:
    """Return the runs of a window; raise `ConflictError` if the conversation has another version than the record."""
    read = store.repository.runs(store.namespace_name, record.id, window)
    if read.seen != version_of(record):
        raise _changed(record)
    return read.runs


def _changed(record: ConversationRecord) -> ConflictError:
    return ConflictError(f"conversation {record.id!r} was changed while it was read: read it again")


def version_of(record: ConversationRecord) -> ExpectedVersion:
    """Return the version of the conversation that the record describes."""
    return ExpectedVersion(record.incarnation, record.version)


def retry_on_conflict(work: Callable[[], T]) -> T:
    """Call a function; call it again if it meets a conflict, up to 20 times."""
    for _ in range(_TRIES - 1):
        try:
            return work()
        except ConflictError:
            continue
    return work()


def run_batches(runs: Iterable[RunRecord]) -> Iterator[list[RunRecord]]:
    """Divide runs into batches that fit into one commit."""
    return batches(runs, run_cost)


def run_cost(run: RunRecord) -> Cost:
    """Return what a run adds to a commit."""
    return Cost(RECORD_SIZE + len(run.input) + len(run.output) + len(run.metadata))
