"""The commit of a change set: reads and checks the conversation, then writes its change step by step, one request per step.

The order of the steps is fixed: delete the old thread and create a new one with its first runs, replace runs, write the thread's
envelope, delete removed runs, append runs. A commit that fails keeps its remaining steps, and running it again resumes at the
first of them.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn, TypeVar

from memory.adapters.cloud.http import Http, MissingError, in_doubt_on_error
from memory.adapters.cloud.records import (
    Message,
    MessageEnvelope,
    Thread,
    ThreadEnvelope,
    alias_of,
    message_body,
    run_of,
    thread_metadata,
)
from memory.adapters.cloud.service import Placed, Service
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import LARGEST
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    CommitTooLargeError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
    Step,
)
from memory.port.changes import (
    UNKNOWN,
    ChangeSet,
    Receipt,
    Written,
    assign_positions,
    check_preconditions,
    missing_open_run,
    missing_runs,
)
from memory.port.repository import Window

T = TypeVar("T")
_INLINE: Final = 100  # runs created together with their thread, in one request
_LATE: Final = 60_000_000  # microseconds by which the time of an append may differ from its run's, see decision 0031
_MARGIN: Final = 100  # the search for a run starts this many ranks early, because others may have deleted messages


class Commit:
    """The steps that write a change set of one conversation. The constructor reads and checks; `run` writes."""

    def __init__(self, http: Http, service: Service, namespace: str, changes: ChangeSet) -> None:
        if (size := len(changes.changes)) != 1:
            text = f"this commit changes {size} conversations, and Griptape Cloud has no transactions: use a commit for each"
            raise CommitTooLargeError(text, limit=1, size=size)
        (self._change,) = changes.changes
        self._changes = changes
        self._http, self._service = http, service
        self._place, self._what = (namespace, self._change.id), f"conversation {self._change.id!r}"
        self._todo: list[tuple[Step, Callable[[], object]]] = []
        self._done: list[Step] = []
        self._is_in_doubt = False  # whether the first remaining step may already be written
        self._is_retry = False  # whether an earlier attempt may have written the current step
        self._runs = self._change.append
        self._thread: Thread  # set when the thread is found or created
        # State before the next append: the last assigned position, the number of messages, and the index that the next message
        # should get. The index is None if it cannot be predicted: runs are missing, or another writer appended or deleted some.
        self._last = self._count = 0
        self._index: int | None = 0
        self._has_read_open = False  # whether all runs that may be open were read
        try:
            self._prepare()
        except MissingError:  # the thread was deleted after it was found
            self._prepare()

    @property
    def is_started(self) -> bool:
        """Whether some steps are, or may be, written and others remain."""
        return bool(self._todo) and (bool(self._done) or self._is_in_doubt)

    def run(self) -> Receipt:
        """Write the remaining steps. Errors but `PartialCommitError` and `CommitInDoubtError` mean that nothing was written."""
        while self._todo:
            step, write = self._todo[0]
            self._is_retry, self._is_in_doubt = self._is_in_doubt, True  # an interrupt leaves it in doubt
            try:
                write()
            except PersistenceError as error:
                is_taken = isinstance(error, AlreadyExistsError)  # then no write of this commit remains in the service
                self._is_in_doubt = isinstance(error, CommitInDoubtError) or (self._is_retry and not is_taken)
                self._raise(error, step)
            self._is_in_doubt = False
            self._done.append(self._todo.pop(0)[0])
        return Receipt(self._changes.token, {self._change.id: self._written()})

    def _raise(self, error: PersistenceError, step: Step) -> NoReturn:
        """Raise the commit's error, whose message says which steps are written."""
        text = str(error)
        if isinstance(error, MissingError):
            text = f"{self._what}, or one of its runs, was removed during the commit (step {step.what!r})"
        if self._done:
            count = len(self._done) + len(self._todo)
            text = f"{text}. Of {count} steps {len(self._done)} are written, up to {self._done[-1].what!r}"
        if self._is_in_doubt:
            raise CommitInDoubtError(text) from error
        if self._done:
            text = f"{text}; to resume there, call store.commit(error.changes) in this process"
            left = tuple([step for step, _ in self._todo])
            raise PartialCommitError(text, written=tuple(self._done), unwritten=left, changes=self._changes) from error
        raise NotFoundError(text) if isinstance(error, MissingError) else error

    def _write_once(self, send: Callable[[], T], find: Callable[[], T | None], what: str) -> T:
        """Send a write, unless an earlier attempt is found to have written it."""
        found = find() if self._is_retry else None
        return self._http.write_once(send, find, what) if found is None else found

    def _prepare(self) -> None:
        change = self._change
        self._todo.clear()
        threads = self._service.find(*self._place)
        thread = threads[0] if threads and not self._service.is_expired(threads[0]) else None
        record = None if thread is None else thread.record(change.id)
        check_preconditions(change, record)
        if threads and (change.remove or change.create):
            self._plan("removed", partial(self._service.delete, threads))
        if change.create is not None:
            self._edit_runs([])  # raises if there are any: a new conversation has none
            self._runs, last = assign_positions(change, change.create.last_position)
            created = change.applied(change.create, len(self._runs), last, self._changes.at)
            open_from = min([run.position for run in self._runs if run.is_open], default=0)
            envelope = ThreadEnvelope(created, self._changes.token, self._place, open_from)
            self._plan("created", partial(self._create, envelope))
        elif thread is not None and record is not None and not change.remove:
            self._prepare_edits(thread, record)

    def _prepare_edits(self, thread: Thread, record: ConversationRecord) -> None:
        change, state = self._change, thread.state
        self._thread, self._last, self._count = thread, record.last_position, thread.count
        self._index = None if thread.missing else thread.count
        placed = self._read_runs(thread)
        kept, edited = self._edit_runs(placed)
        removed = [one for one in placed if one.position not in kept]
        for position, run in edited.items():
            self._plan(f"run at {position} replaced", partial(self._replace, kept[position].message, run))
        # A removal changes the ranks, so store the positions that are derived from them.
        for position, one in kept.items() if removed else ():
            envelope = one.message.envelope
            is_certain = envelope is not None and envelope.run.position == position
            if not (is_certain or position in edited):
                self._plan(f"position of run at {position} written", partial(self._replace, one.message, _record(one)))
        self._count -= len(removed)
        count = self._count + len(change.append)
        last = change.append[-1].position if change.gives_positions else self._last + len(change.append)
        if change.edits or change.complete or change.gives_positions or not all(map(self._is_evident, change.append)):
            after = change.applied(record, count, last, self._changes.at)
            opened = [run.position or self._last + n for n, run in enumerate(change.append, 1) if run.is_open]
            opened += [at for at, one in kept.items() if (edited[at].is_open if at in edited else one.message.is_open)]
            if state.open_from and not self._has_read_open:
                opened.append(state.open_from)
            changed = ThreadEnvelope(after, state.token, state.place, min(opened, default=0))
            self._plan("changed", partial(self._write_envelope, thread, changed))
        for one in removed:
            self._plan(f"run at {one.position} removed", partial(self._http.delete, "messages", one.message.id))
        self._plan_appends(0)

    def _is_evident(self, run: RunRecord) -> bool:
        """Whether the list of threads shows after the append all that it must: the time of the run, and that it is not open."""
        return not run.is_open and self._changes.at - _LATE <= run.created_at <= self._changes.at

    def _edit_runs(self, placed: list[Placed]) -> tuple[dict[int, Placed], dict[int, RunRecord]]:
        """Return the messages that are not removed, by position, and the runs that replace some of them."""
        change = self._change
        end = LARGEST if change.remove_after is None else change.remove_after
        kept = {one.position: one for one in placed if change.remove_before <= one.position <= end}
        edited = {run.position: run for run in change.replace_runs}
        for position in (*change.remove_runs, *edited):
            if position not in kept:
                raise missing_runs(change, position)
        for position in {*change.remove_runs} - edited.keys():
            del kept[position]
        for completion in change.complete:
            latest = {at: _record(one) for at, one in kept.items() if one.message.is_open} | edited
            waiting = [at for at, run in latest.items() if run.is_open and run.id == completion.run_id]
            if not waiting:
                raise missing_open_run(change, completion.run_id)
            edited[max(waiting)] = completion.of(latest[max(waiting)])
        return kept, edited

    def _read_runs(self, thread: Thread) -> list[Placed]:
        """Return the messages of the runs to edit and to complete, or all messages if the change removes runs."""
        change, positions = self._change, [run.position for run in self._change.replace_runs]
        if change.complete:
            positions.append(thread.state.open_from or 1)
        if change.remove_before or change.remove_runs or change.remove_after is not None:
            placed, total = self._service.messages(thread)
        elif positions:
            end = None if change.complete else max(positions) + 1
            placed, total = self._service.window(thread, Window(after=min(positions) - 1, before=end))
            missing = {one.run_id for one in change.complete} - {
                _record(one).id for one in placed if one.message.is_open
            }
            if missing and placed and placed[0].rank > 1:  # a race of two writers can have lost the mark of an open run
                placed, total = self._service.messages(thread)
        else:
            return []
        if placed and placed[-1].rank == total:
            self._count, self._index = total, placed[-1].message.index + 1
            self._last = max(self._last, placed[-1].position)
            self._has_read_open = placed[0].rank == 1 or placed[0].position <= thread.state.open_from
        return placed

    def _plan(self, what: str, write: Callable[[], object]) -> None:
        self._todo.append((Step(self._change.id, what), write))

    def _plan_appends(self, first: int) -> None:
        for number in range(first, len(self._runs)):
            what = f"run {number + 1} of {len(self._runs)} appended: {self._runs[number].id}"
            self._plan(what, partial(self._append, number))

    # threads

    def _create(self, envelope: ThreadEnvelope) -> None:
        """Create the thread together with its first runs, and plan to append the others.

        If several writers create the same conversation concurrently, exactly one succeeds: either the service refuses the others
        (A3), or the oldest thread is used and the other writers delete theirs.
        """
        token, alias = self._changes.token, alias_of(*self._place)
        metadata = thread_metadata(envelope)
        bodies = [message_body(run, token, n) for n, run in enumerate(self._runs[:_INLINE])]
        create = partial(self._service.create, alias, metadata)
        try:
            thread = self._write_once(partial(create, bodies), self._find_created, self._what)
        except InvalidValueError:
            if not bodies:
                raise
            bodies = []  # too many or too large for one request (A15)
            thread = self._write_once(partial(create, bodies), self._find_created, self._what)
        with in_doubt_on_error(f"{self._what} was created, but the check for another writer's thread failed"):
            self._thread = self._find_created() or thread
        self._count = self._index = min(self._thread.count, len(bodies))
        self._last = envelope.record.last_position
        self._plan_appends(self._count)

    def _find_created(self) -> Thread | None:
        """Return the thread that this commit created, or None if there is no thread; delete it if another writer's is older."""
        found = self._service.find(*self._place)
        self._service.delete([one for one in found[1:] if self._is_created(one)])
        if found and not self._is_created(found[0]):
            raise AlreadyExistsError(f"{self._what} already exists")
        return found[0] if found else None

    def _is_created(self, thread: Thread) -> bool:
        return thread.envelope is not None and thread.envelope.token == self._changes.token

    def _write_envelope(self, thread: Thread, envelope: ThreadEnvelope) -> None:
        """Replace the envelope that was read with a new one."""

        def find() -> Thread | None:
            now = self._service.get(thread.id)
            if now.envelope not in (envelope, thread.envelope):
                raise CommitInDoubtError(f"{self._what} was changed by another writer before or after this commit")
            return now if now.envelope == envelope else None

        update = partial(self._service.update, thread.id, thread.metadata_with(envelope))
        self._thread = self._write_once(update, find, f"the envelope of {self._what}")

    # runs

    def _replace(self, message: Message, run: RunRecord) -> None:
        sent = message.envelope or MessageEnvelope(self._changes.token, -run.position, run)
        send = partial(self._http.send, "PATCH", ("messages", message.id), message_body(run, sent.token, sent.number))
        self._http.write_once(send, None, f"the replacement of message {message.id}")

    def _append(self, number: int) -> None:
        run = self._runs[number]
        shift = 0 if run.position else self._last - self._count
        run = run._replace(position=run.position or self._last + 1)
        body = message_body(run, self._changes.token, number, shift)
        add = partial(self._service.add_message, self._thread.id, body)
        message = self._write_once(add, lambda: (found := self._find_run(number)) and found.message, f"run {run.id!r}")
        self._index = message.index + 1 if message.index == self._index else None
        self._last, self._count = max(self._last, run.position), self._count + 1

    def _find_run(self, number: int) -> Placed | None:
        """Return the message of a run if this commit has appended it."""
        placed, _ = self._service.messages(self._thread, max(1, self._count - _MARGIN))
        written = self._changes.token, number
        return next((one for one in reversed(placed) if (it := one.message.envelope) and it[:2] == written), None)

    def _written(self) -> Written | None:
        """Return the receipt's entry: the conversation's state after the last run that this commit appended."""
        if self._change.remove and self._change.create is None:
            return None
        if self._change.append and self._index is None:  # all is written: if this read fails, the position is unknown
            last = None
            with suppress(PersistenceError):
                last = self._find_run(len(self._runs) - 1)
            self._count, self._last = (last.rank, last.position) if last else (self._count, UNKNOWN)
        return Written(self._thread.state.record.version, self._thread.id, self._count, self._last)


def _record(placed: Placed) -> RunRecord:
    return run_of(placed.message, placed.position).to_record(placed.position)
