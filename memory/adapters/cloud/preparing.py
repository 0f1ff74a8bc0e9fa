"""What a conversation of a commit has to be read and checked for before the first write: `Preparing`."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memory.adapters.cloud import gaps
from memory.adapters.cloud.conversations import Conversations, Known
from memory.adapters.cloud.http import MissingError
from memory.adapters.cloud.marks import Outcome
from memory.adapters.cloud.messages import Read
from memory.adapters.cloud.records import Message, Texts, Thread, conversation_record
from memory.adapters.cloud.steps import Steps
from memory.adapters.cloud.writing import Added, Writer
from memory.domain.records import ConversationRecord
from memory.errors import AlreadyExistsError, NotFoundError, Step
from memory.port.changes import Change, assign_positions, check_preconditions, missing_runs


class Attempt(NamedTuple):
    """What all changes of one commit share.

    Attributes:
        namespace, token, at: where, which change set, and when.
        texts: how strings are written.
        steps: how far this repository has come with the same change set before.
        again: somebody may have begun it before.
    """

    namespace: str
    token: str
    at: int
    texts: Texts
    steps: Steps
    again: bool


class Preparing:
    """Reads one conversation of a commit, refuses what does not fit, and knows the steps it takes.

    Attributes:
        id: the conversation's.
    """

    _outcome: Outcome | None = None  # of the same change set, committed before
    _updated_at = 0  # of an edit: not before what others have read

    def __init__(self, conversations: Conversations, change: Change, attempt: Attempt) -> None:
        self.id = change.id
        self._change = change
        self._attempt = attempt
        self._steps = attempt.steps
        self._conversations = conversations
        self._writer = Writer(conversations)
        self._place = attempt.namespace, change.id
        self._in_the_way: Sequence[Thread] = ()  # to be deleted first
        self._thread: Thread | None = None
        self._known: Known | None = None
        self._read: Read | None = None  # the runs, where some are edited
        self._runs = change.append
        self._added: dict[int, Added | None] = {}  # the runs that are there already, by their numbers
        self._unplaced = False  # the count in `_known` is too low by what others have appended, perhaps

    # reading and checking

    def prepare(self) -> None:
        """Read what is needed, and refuse a change that does not fit."""
        try:
            self._prepare()
        except MissingError:  # somebody has deleted the thread between two looks: then there is none
            self._conversations.forget(self._place)
            self._thread = self._known = self._read = self._outcome = None
            self._added = {}
            if self._change.create is None:
                check_preconditions(self._change, None)  # which it does not pass
            self._prepare()
        self._steps.all.setdefault(self.id, [*self._steps_before(), *self._steps_after()])

    def _prepare(self) -> None:
        change, known = self._change, self._conversations.known(self._place)
        if change.only_appends and known is not None and not self._attempt.again:
            if known.expires_at is not None and known.expires_at <= self._conversations.clock():
                raise NotFoundError(f"there is no conversation {self.id!r}")
            self._known = known  # the append that asks nothing
        elif change.create is not None or change.remove:
            self._prepare_another()
        else:
            self._prepare_this()

    def _prepare_another(self) -> None:
        """Prepare to remove it, to make it, or both."""
        change = self._change
        threads = self._conversations.threads.find(*self._place)
        present = threads[0] if threads and not self._conversations.is_expired(threads[0]) else None
        if change.create is not None:
            self._runs = assign_positions(change, change.create.last_position)[0]
            for position in (*change.remove_runs, *[run.position for run in change.replace_runs]):
                raise missing_runs(change, position)  # a new one has none
            if present is not None and self._goes_on(present):
                return
            if self._attempt.again:  # made by this change set, perhaps, but not as the one that counts
                self._writer.delete_twins(threads, self._attempt.token)
                if threads and self._steps.doubtful == self._step("created"):
                    self._steps.doubtful = None
        removing = self._steps.removing.get(self.id)
        if removing is None:
            exactly = change.after is not None
            check_preconditions(change, None if present is None else self._record(present, exactly=exactly))
            self._in_the_way = threads
        elif left := [thread for thread in threads if thread.id in removing]:
            if present is not None:
                check_preconditions(change, self._record(present, exactly=change.after is not None))
            self._in_the_way = left
        else:  # it is gone; what is there now, somebody has made since
            self._steps.found(self._step("removed"))
            if change.create is not None and present is not None:
                raise AlreadyExistsError(f"conversation {self.id!r} was removed, and somebody has made another")

    def _prepare_this(self) -> None:
        """Prepare to edit it, or to append to it."""
        change = self._change
        self._thread = thread = self._conversations.present(self._place)
        if thread is None:
            check_preconditions(change, None)  # which it does not pass
            return
        goes_on = self._goes_on(thread)
        exactly = goes_on or change.edits or change.after is not None or change.gives_positions
        record = self._record(thread, exactly=exactly)
        self._updated_at = max(record.updated_at, self._attempt.at)
        if not goes_on:
            check_preconditions(change, record)
        self._known = Known.of(thread, record.run_count)
        if change.edits and self._outcome is None:
            self._read = self._read or self._read_runs(thread)
            self._check_runs(thread)

    def _record(self, thread: Thread, *, exactly: bool) -> ConversationRecord:
        """Return the conversation; its counts and time may be guesses unless they are to be exact."""
        if exactly:
            return self._conversations.record(thread, self.id)
        return conversation_record(thread, self.id, thread.count)

    def _goes_on(self, thread: Thread) -> bool:
        """Tell whether this change set has written something of it before, and learn what."""
        if not self._attempt.again:
            return False
        book, token = thread.written, self._attempt.token
        self._outcome = book.outcome(token)
        if self._runs and (self._outcome is not None or self._change.create is None):
            self._added = dict(self._writer.added(thread.id, token, 0))
        if self._outcome is None and self._change.replace_runs and self._change.create is None:
            self._read = self._read_runs(thread)
        if self._outcome is None and book.open != token and not self._added and not self._replaced():
            return False
        self._thread, self._known = thread, Known.of(thread)
        return True

    def _read_runs(self, thread: Thread) -> Read | None:
        """Read the runs that are edited; all of them where some are removed, for their positions to be counted anew."""
        change = self._change
        if change.remove_before or change.remove_runs or thread.written.hidden:
            return self._conversations.messages.read(thread)
        if not change.replace_runs:
            return None
        ranks = [gaps.rank_of(run.position, thread.written.gaps) for run in change.replace_runs]
        return self._conversations.messages.window(
            thread,
            lambda total: range(max(1, min(ranks)), min(total, max(ranks)) + 1),
            self._conversations.believed(thread),
        )

    def _check_runs(self, thread: Thread) -> None:
        """Refuse to edit runs that are not there."""
        change, there = self._change, set(self._by_position())
        going_on = thread.written.open == self._attempt.token
        for position in (*change.remove_runs, *(run.position for run in change.replace_runs)):
            gone = going_on and position in change.remove_runs
            if (position not in there or position < change.remove_before) and not gone:
                raise missing_runs(change, position)

    def _by_position(self) -> dict[int, Message]:
        return dict(self._read.placed) if self._read is not None else {}

    def _replaced(self) -> set[int]:
        """Return the positions whose runs this change set has replaced before: their messages have its mark."""
        marks = [(position, message.mark) for position, message in self._by_position().items()]
        token = self._attempt.token
        return {position for position, mark in marks if mark and (mark.token, mark.number) == (token, -position)}

    # steps

    def _step(self, what: str) -> Step:
        return Step(self.id, what)

    def _steps_before(self) -> Iterator[Step]:
        """Yield the steps that are done once the bookkeeping says that this change set is closed."""
        change = self._change
        if change.remove:
            yield self._step("removed")
        if change.create is not None:
            yield self._step("created")
        for run in change.replace_runs:
            yield self._step(f"run at {run.position} replaced")
        for position in self._removed():
            yield self._step(f"run at {position} removed")
        if change.edits:
            yield self._step("changed")

    def _steps_after(self) -> Iterator[Step]:
        """Yield the steps that the bookkeeping does not tell of."""
        for number in range(len(self._runs)):
            yield self._appended(number)
        if self._change.gives_positions and self._change.create is None:
            yield self._step("positions kept")

    def _appended(self, number: int) -> Step:
        return self._step(f"run {number + 1} of {len(self._runs)} appended: {self._runs[number].id}")

    def _removed(self) -> list[int]:
        """Return the positions whose runs go."""
        change = self._change
        return [
            position
            for position in self._by_position()
            if position < change.remove_before or position in change.remove_runs
        ]
