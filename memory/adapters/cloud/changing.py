"""What becomes of one conversation in a commit, step by step.

A change is written in this order, each step a request or a few:

1. another conversation in its place: the old thread is deleted, the new one made, with its first runs in the same request;
2. replaced runs, each in its message;
3. the thread's bookkeeping: version, metadata, expiry, and which messages are going: they are hidden from here on;
4. those messages are deleted, and the bookkeeping says that this is done;
5. appended runs, each a message with the token and its number in it.

Each step can be found again by the token: the same change set, committed again, goes on where it ended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final, NamedTuple

from memory.adapters.cloud import gaps
from memory.adapters.cloud.conversations import Conversations, Known
from memory.adapters.cloud.http import Fields, MissingError
from memory.adapters.cloud.marks import Book, Outcome
from memory.adapters.cloud.messages import Read
from memory.adapters.cloud.names import alias_of
from memory.adapters.cloud.records import Message, Texts, Thread, conversation_record, message_body
from memory.adapters.cloud.writing import Writer
from memory.changes import Change, Written, check, missing_runs, placed
from memory.domain import ConversationRecord, RunRecord
from memory.errors import NotFoundError, Step

_INLINE: Final = 100  # runs that are made with their thread, in one request
_INLINE_SIZE: Final = 256_000  # characters of them
_HIDDEN: Final = 100  # messages that are hidden at once, until they are deleted


class Attempt(NamedTuple):
    """What all changes of one commit share.

    Attributes:
        namespace, token, at: where, which change set, and when.
        texts: how strings are written.
        begun: this repository has tried to commit the same change set before.
        again: somebody may have.
    """

    namespace: str
    token: str
    at: int
    texts: Texts
    begun: bool
    again: bool


class Changing:
    """One conversation of a commit: `prepare` reads and checks, `write` writes.

    Attributes:
        id: the conversation's.
        steps: what is to be done, once it is prepared.
        done: what is done.
    """

    def __init__(self, conversations: Conversations, change: Change, attempt: Attempt) -> None:
        self.id = change.id
        self.steps: list[Step] = []
        self.done: list[Step] = []
        self._change = change
        self._attempt = attempt
        self._conversations = conversations
        self._writer = Writer(conversations)
        self._place = attempt.namespace, change.id
        self._in_the_way: Sequence[Thread] = ()  # to be deleted first
        self._thread: Thread | None = None
        self._known: Known | None = None
        self._read: Read | None = None  # the runs, where some are edited
        self._runs = change.append
        self._added: set[int] = set()  # numbers of the runs that are there already
        self._outcome: Outcome | None = None  # of the same change set, committed before

    # reading and checking

    def prepare(self) -> None:
        """Read what is needed, and refuse a change that does not fit."""
        change, known = self._change, self._conversations.known(self._place)
        if change.only_appends and known is not None and not self._attempt.again:
            if known.expires_at is not None and known.expires_at <= self._conversations.clock():
                raise NotFoundError(f"there is no conversation {self.id!r}")
            self._known = known  # the append that asks nothing
        elif change.create is not None or change.remove:
            self._prepare_another()
        else:
            self._prepare_this()
        self.steps = list(self._all_steps())

    def _prepare_another(self) -> None:
        """Prepare to remove it, to make it, or both."""
        change = self._change
        threads = self._conversations.threads.find(*self._place)
        present = threads[0] if threads and not self._conversations.is_expired(threads[0]) else None
        if change.create is not None:
            self._runs = placed(change, change.create.last_position)[0]
            for position in (*change.remove_runs, *[run.position for run in change.replace_runs]):
                raise missing_runs(change, position)  # a new one has none
            if present is not None and self._goes_on(present):
                return
        elif present is None and self._attempt.begun:
            self.done.append(self._step("removed"))
            return
        check(change, None if present is None else conversation_record(present, self.id, present.count))
        self._in_the_way = threads

    def _prepare_this(self) -> None:
        """Prepare to edit it, or to append to it."""
        change = self._change
        self._thread = thread = self._conversations.present(self._place)
        record: ConversationRecord | None
        if thread is not None and self._goes_on(thread):
            record = self._conversations.record(thread, self.id)
        elif thread is None or not (change.edits or change.after is not None or change.gives_positions):
            record = None if thread is None else conversation_record(thread, self.id, thread.count)
            check(change, record)
        else:
            record = self._conversations.record(thread, self.id)
            check(change, record)
        if thread is not None and record is not None:
            self._known = Known.of(thread, record.run_count)
            if change.edits and self._outcome is None:
                self._read = self._read_runs(thread)
                self._check_runs(thread)

    def _goes_on(self, thread: Thread) -> bool:
        """Tell whether this change set has written something of it before, and learn what."""
        if not self._attempt.again:
            return False
        book, token = thread.written, self._attempt.token
        self._outcome = book.outcome(token)
        if self._runs and (self._outcome is not None or self._change.create is None):
            self._added = set(self._writer.added(thread.id, token, 0))
        if self._outcome is None and book.open != token and not self._added:
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

    # steps

    def _step(self, what: str) -> Step:
        return Step(self.id, what)

    def _all_steps(self) -> Iterator[Step]:
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
        for number in range(len(self._runs)):
            yield self._appended(number)

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

    # writing

    def write(self) -> Written | None:
        """Write the change, go on where it ended; return what it made of the conversation."""
        change, thread = self._change, self._thread
        if self._in_the_way:
            self._conversations.delete_all(self._place, self._in_the_way)
            if change.remove:
                self.done.append(self._step("removed"))
        if self._outcome is not None:  # all but the appended runs
            self.done += self.steps[: -len(self._runs) or None]
        elif change.create is not None:
            self._make(change.create)
        elif change.edits and thread is not None:
            self._edit(thread)
        if self._known is None:
            return None
        for number, run in enumerate(self._runs):
            if number not in self._added:
                self._append(number, run)
            self.done.append(self._appended(number))
        if change.gives_positions and change.create is None and thread is not None:
            self._keep_positions(thread)
        return self._written()

    def _written(self) -> Written | None:
        known, outcome = self._known, self._outcome
        if known is None:
            return None
        self._conversations.remember(self._place, known)
        if outcome is not None:
            return Written(outcome.version, known.thread_id, outcome.run_count, outcome.last_position)
        return Written(known.version, known.thread_id, known.count, known.last_position)

    def _make(self, record: ConversationRecord) -> None:
        """Make the conversation, with as many of its runs as one request may take."""
        token, runs = self._attempt.token, self._runs
        last = max([record.last_position, *[run.position for run in runs]])
        record = self._change.applied(record, len(runs), last, self._attempt.at)
        book = Book(
            version=record.version,
            created_at=record.created_at,
            updated_at=record.updated_at,
            expires_at=record.expires_at,
            text=record.metadata,
            count=len(runs),
            gaps=gaps.between([run.position for run in runs], last),
            place=self._place if "*" in alias_of(*self._place) else None,
        ).closed(token, len(runs), last)
        bodies = [self._body(number, run, run.position) for number, run in enumerate(runs[:_INLINE])]
        sizes = accumulate([len(body["input"]) + len(body["output"]) for body in bodies])
        bodies = [body for body, size in zip(bodies, sizes, strict=True) if size <= _INLINE_SIZE]
        thread, made = self._writer.make(self._place, book, bodies)
        self.done.append(self._step("created"))
        if thread.count == made:
            self._added = set(range(made))
            self._conversations.guesses.counted(thread.count, made)
        else:  # A16: it was made in part; or A12: that is not what message_count counts
            self._added = set(self._writer.added(thread.id, token, 0))
            self._conversations.guesses.counted(thread.count, len(self._added))
        self._known = Known.of(thread, len(self._added))
        self._conversations.remember(self._place, self._known)

    def _edit(self, thread: Thread) -> None:
        """Replace runs, then keep the new bookkeeping, and delete the messages of runs that go."""
        change, book, token = self._change, thread.written, self._attempt.token
        messages = self._by_position()
        for run in change.replace_runs:
            self._conversations.messages.replace(
                messages[run.position].id, self._body(-run.position, run, run.position)
            )
            self.done.append(self._step(f"run at {run.position} replaced"))
        book = replace(
            book,
            version=book.version + (book.open != token),
            updated_at=self._attempt.at,
            expires_at=change.expiry(book.expires_at),
            text=book.text if change.metadata is None else change.metadata,
        )
        count = self._known.count if self._known is not None else 0
        if self._read is not None and self._read.whole:
            thread, book = self._remove_runs(thread, book, self._read)
            count = len(self._read.placed) - len(self._removed())
        final = count + len(self._runs)
        book = replace(book, count=final, hidden=())
        book = book.closed(token, final, final + gaps.size(book.gaps))
        self._thread = self._writer.keep(thread, book, f"conversation {self.id!r}")
        self.done.append(self._step("changed"))
        self._known = Known.of(self._thread, count)
        self._conversations.remember(self._place, self._known)

    def _remove_runs(self, thread: Thread, book: Book, read: Read) -> tuple[Thread, Book]:
        """Hide and delete the messages of runs that go, of copies, and what an earlier commit has left hidden."""
        removed = set(self._removed())
        last = max([read.count + gaps.size(book.gaps), *[one.position for one in read.placed]])
        kept = [one.position for one in read.placed if one.position not in removed]
        going: list[tuple[int | None, Message]] = [(None, message) for message in (*read.hidden, *read.copies)]
        going += [(position, message) for position, message in read.placed if position in removed]
        for begin in range(0, len(going), _HIDDEN):
            chunk, later = going[begin : begin + _HIDDEN], going[begin + _HIDDEN :]
            still = sorted([*kept, *[position for position, _ in later if position is not None]])
            hidden = tuple([message.id for _, message in chunk])
            book = replace(book, gaps=gaps.between(still, last), hidden=hidden, open=self._attempt.token)
            thread = self._writer.keep(thread, book, f"conversation {self.id!r}")
            self.done += [self._step(f"run at {position} removed") for position, _ in chunk if position is not None]
            for _, message in chunk:
                self._conversations.messages.delete(message.id)
        return thread, replace(book, gaps=gaps.between(kept, last))

    def _append(self, number: int, run: RunRecord) -> None:
        """Append a run: one request, where all goes well."""
        known = self._known_thread()
        try:
            message = self._send(known, number, run)
        except MissingError as error:  # the thread that was known is gone: another may be in its place
            self._conversations.forget(self._place)
            thread = None if self.done else self._conversations.present(self._place)
            if thread is None:
                raise NotFoundError(f"there is no conversation {self.id!r}") from error
            known = Known.of(thread)
            message = self._send(known, number, run)
        after = known.with_added(message.index)
        if after is not None and known.count:
            self._conversations.guesses.counted(known.count, known.count)  # index and message_count agree
        self._known = after or self._seen_anew(known)
        self._conversations.remember(self._place, self._known)

    def _known_thread(self) -> Known:
        if self._known is None:
            raise NotFoundError(f"there is no conversation {self.id!r}")
        return self._known

    def _send(self, known: Known, number: int, run: RunRecord) -> Message:
        position = run.position or known.last_position + 1
        return self._writer.add(
            known.thread_id, self._body(number, run, position), (self._attempt.token, number), known.count
        )

    def _seen_anew(self, known: Known) -> Known:
        """Return how many runs there are now that the index of one's own does not tell."""
        thread = self._conversations.threads.get(known.thread_id)
        if thread is None:
            return replace(known, count=known.count + 1)
        read = self._conversations.last_runs(thread)
        return replace(Known.of(thread, read.count), last_index=read.placed[-1].message.index if read.placed else None)

    def _keep_positions(self, thread: Thread) -> None:
        """Keep the gaps that given positions leave."""
        now = self._conversations.threads.get(thread.id)
        if now is None:
            raise NotFoundError(f"there is no conversation {self.id!r}")
        if gaps.position_of(self._known_thread().count, now.written.gaps) == self._runs[-1].position:
            return  # there are none
        read = self._conversations.messages.read(now)  # the messages themselves have the positions
        positions = [one.position for one in read.placed]
        book = replace(
            now.written, gaps=gaps.between(positions, positions[-1]), count=read.count, updated_at=self._attempt.at
        )
        self._known = Known.of(self._writer.keep(now, book, f"conversation {self.id!r}"), read.count)

    def _body(self, number: int, run: RunRecord, position: int) -> Fields:
        return message_body(run, self._attempt.token, number, position, self._attempt.texts)
