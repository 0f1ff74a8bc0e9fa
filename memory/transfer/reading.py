"""One state of a conversation: its record with all the runs that belong to it, whatever others write meanwhile.

Whoever reads a whole conversation reads it here: export, copy, comparison, bridges.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import Final, NamedTuple, TypeVar, cast

from memory.core.store import Store
from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import check_id, compact
from memory.errors import ConflictError, CorruptRecordError
from memory.port.changes import ExpectedVersion
from memory.port.repository import Window
from memory.transfer.batching import Cost, batches

T = TypeVar("T")

RECORD_SIZE: Final = 200
"""Characters that a conversation has without runs and metadata, and a run without its texts."""

_WINDOW: Final = 200  # runs that are read at a time
_TRIES: Final = 20


class Whole(NamedTuple):
    """A conversation as it was at one moment; its runs can be read once."""

    record: ConversationRecord
    runs: Iterator[RunRecord]


@contextmanager
def read_whole(
    store: Store, conversation_id: str, found: ConversationRecord | None = None, *, last: int | None = None
) -> Iterator[Whole | None]:
    """Read a conversation with all its runs, as they were at one moment; None if there is none, or it has expired.

    The runs are read before anything is returned, and read again if the conversation was changed meanwhile. Those that do not
    fit into one commit are kept in a temporary file: memory is constant.

    Args:
        store: where it is.
        conversation_id: which.
        found: its record, if it was read a moment ago.
        last: only so many of its runs, the last ones.

    Raises:
        ConflictError: it was changed faster than it could be read.
        CorruptRecordError: it cannot be read, or has not as many runs as its record says.
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
    """Read all runs, then give them: the first in memory, the others from a file."""
    parts = run_batches(runs)
    first = next(parts, [])
    with SpooledTemporaryFile(1) as rest:  # a file from its first byte on: most conversations need none
        for part in parts:
            rest.writelines([compact(run).encode() + b"\n" for run in part])
            part.clear()  # before the next one is read
        rest.seek(0)
        yield chain(first, (RunRecord(*json.loads(line)) for line in rest))


def _last(store: Store, record: ConversationRecord, number: int) -> Iterator[RunRecord]:
    if number and record.last_position:
        window = Window(before=record.last_position + 1, limit=min(number, record.last_position), from_end=True)
        yield from [run.to_record(cast(int, run.position)) for run in runs_in(store, record, window)]


def get_record(store: Store, conversation_id: str) -> ConversationRecord | None:
    """Return what a store keeps of a conversation itself; None if there is none, or it has expired."""
    store.begin()  # which checks the schema, and makes a new file's
    found = store.repository.get(store.namespace_name, check_id(conversation_id, "the conversation's id"))
    return None if found is None else found.record


def runs_of(store: Store, record: ConversationRecord) -> Iterator[RunRecord]:
    """Yield the runs that a conversation had when its record was read, in constant memory; not those appended since.

    Raises:
        ConflictError: it is not that version any more: what was yielded belongs to none.
        CorruptRecordError: there are not as many runs as the record says.
    """
    after = count = 0
    while after < record.last_position:
        runs = runs_in(store, record, Window(after=after, before=record.last_position + 1, limit=_WINDOW))
        yield from [run.to_record(cast(int, run.position)) for run in runs]
        count += len(runs)
        after = cast(int, runs[-1].position) if len(runs) == _WINDOW else record.last_position
    if count != record.run_count or not store.repository.capabilities.detects_conflicts:
        # A store that does not read the version in one step with the runs may have read both of two states.
        now = get_record(store, record.id)
        if now is None or version_of(now) != version_of(record) or (count != record.run_count and now != record):
            raise _changed(record)
    if count != record.run_count:
        raise CorruptRecordError(
            f"conversation {record.id!r} has {count:,} runs and says that it has {record.run_count:,}"
        )


def runs_in(store: Store, record: ConversationRecord, window: Window) -> tuple[Run, ...]:
    """Return the runs of a window, if the conversation is the one that the record describes, in the same version.

    Raises:
        ConflictError: it is another one, or was changed since.
    """
    read = store.repository.runs(store.namespace_name, record.id, window)
    if read.seen != version_of(record):
        raise _changed(record)
    return read.runs


def _changed(record: ConversationRecord) -> ConflictError:
    return ConflictError(f"conversation {record.id!r} was changed while it was read: read it again")


def version_of(record: ConversationRecord) -> ExpectedVersion:
    """Return which version of the conversation the record tells of."""
    return ExpectedVersion(record.incarnation, record.version)


def retry_on_conflict(work: Callable[[], T]) -> T:
    """Do work on what others write at the same time, again where they came in between.

    Raises:
        ConflictError: they did each time.
    """
    for _ in range(_TRIES - 1):
        try:
            return work()
        except ConflictError:
            continue
    return work()


def run_batches(runs: Iterable[RunRecord]) -> Iterator[list[RunRecord]]:
    """Divide runs into what one commit takes each time."""
    return batches(runs, run_cost)


def run_cost(run: RunRecord) -> Cost:
    """Return how much a run adds to a commit."""
    return Cost(RECORD_SIZE + len(run.input) + len(run.output) + len(run.metadata))
