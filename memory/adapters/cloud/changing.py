"""What becomes of one conversation in a commit, step by step.

A change is written in this order, each step a request or a few:

1. another conversation in its place: the old thread is deleted, the new one made, with its first runs in the same request;
2. replaced runs, each in its message;
3. the thread's bookkeeping: version, metadata, expiry, and which messages are going: they are hidden from here on;
4. those messages are deleted, and the bookkeeping says that this is done;
5. appended runs, each a message with the token and its number in it.

Each step can be found again by the token: the same change set, committed again, goes on where it ended.
"""

from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Final

from memory.adapters.cloud import gaps
from memory.adapters.cloud.conversations import Known
from memory.adapters.cloud.http import Fields, MissingError, doubting
from memory.adapters.cloud.marks import Book
from memory.adapters.cloud.messages import Read
from memory.adapters.cloud.names import alias_of
from memory.adapters.cloud.preparing import Preparing
from memory.adapters.cloud.records import Message, Thread, message_body
from memory.domain.records import ConversationRecord, RunRecord
from memory.errors import NotFoundError, PersistenceError
from memory.port.changes import UNKNOWN, Written

_INLINE: Final = 100  # runs that are made with their thread, in one request
_INLINE_SIZE: Final = 256_000  # characters of them
_HIDDEN: Final = 100  # messages that are hidden at once, until they are deleted


class Changing(Preparing):
    """One conversation of a commit: `prepare` reads and checks, `write` writes.

    Every write goes through `Steps.do`: it is sent, it is kept that it is done, and only then anything else is read.
    """

    def write(self) -> Written | None:
        """Write the change, go on where it ended; return what it made of the conversation."""
        change, thread = self._change, self._thread
        if self._in_the_way:
            self._clear_the_way()
        if self._outcome is not None:  # all but the appended runs
            after = set(self._steps_after())
            self._steps.found(*[step for step in self._steps.all[self.id] if step not in after])
        elif change.create is not None:
            self._make(change.create)
        elif change.edits and thread is not None:
            self._edit(thread)
        if self._known is None:
            return None
        for number, run in enumerate(self._runs):
            if number in self._added:
                self._steps.found(self._appended(number))
            else:
                self._append(number, run)
        if self._unplaced:
            self._find_last()
        if change.gives_positions and change.create is None and thread is not None:
            self._keep_positions(thread)
        return self._written()

    def _clear_the_way(self) -> None:
        """Delete what was there; of a removal the threads are kept in mind, for another attempt to leave others alone."""

        def delete() -> None:
            self._conversations.delete_all(self._place, self._in_the_way)

        if self._change.remove:
            self._steps.removing.setdefault(self.id, frozenset([thread.id for thread in self._in_the_way]))
            self._steps.do(delete, self._step("removed"))
        else:
            delete()

    def _written(self) -> Written | None:
        """Return what became of it up to the last of one's own runs: what others appended after that is theirs."""
        known, outcome = self._known, self._outcome
        if known is None:
            return None
        own = self._added.get(len(self._runs) - 1)
        if self._unplaced:
            self._conversations.forget(self._place)
            count, last = known.count, UNKNOWN
        else:
            self._conversations.remember(self._place, known)
            count, last = (own.run_count, own.position) if own is not None else (known.count, known.last_position)
        if outcome is None:
            return Written(known.version, known.thread_id, count, last)
        if not self._runs:
            return Written(outcome.version, known.thread_id, outcome.run_count, outcome.last_position)
        between = max(0, last - outcome.last_position)  # what others appended before the last of them
        return Written(outcome.version, known.thread_id, outcome.run_count + between, last)

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
        thread, made = self._steps.do(lambda: self._writer.make(self._place, book, bodies), self._step("created"))
        if thread.count == made:
            self._added = dict.fromkeys(range(made))
            self._conversations.guesses.counted(thread.count, made)
        else:  # A16: it was made in part; or A12: that is not what message_count counts
            with doubting(f"conversation {self.id!r} is made; whether its runs are could not be found out"):
                self._added = dict(self._writer.added(thread.id, token, 0))
        self._known = Known.of(thread, len(self._added))
        self._conversations.remember(self._place, self._known)

    def _edit(self, thread: Thread) -> None:
        """Replace runs, then keep the new bookkeeping, and delete the messages of runs that go."""
        change, book, token = self._change, thread.written, self._attempt.token
        self._replace_runs()
        book = replace(
            book,
            version=book.version + (book.open != token),
            updated_at=self._updated_at,
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
        self._thread = self._steps.do(
            lambda: self._writer.keep(thread, book, f"conversation {self.id!r}"), self._step("changed")
        )
        self._known = Known.of(self._thread, count)
        self._conversations.remember(self._place, self._known)

    def _replace_runs(self) -> None:
        """Put other content in the messages of runs that are replaced, if it is not there already."""
        messages, replaced = self._by_position(), self._replaced()
        for run in self._change.replace_runs:
            step = self._step(f"run at {run.position} replaced")
            if run.position in replaced:
                self._steps.found(step)
            else:
                message, body = messages[run.position], self._body(-run.position, run, run.position)
                self._steps.do(partial(self._conversations.messages.replace, message, body), step)

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
            steps = [self._step(f"run at {position} removed") for position, _ in chunk if position is not None]
            hide = partial(self._writer.keep, thread, book, f"conversation {self.id!r}")
            thread = self._steps.do(hide, *steps)
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
            thread = None if self._steps.any_of(self.id) else self._conversations.present(self._place)
            if thread is None:
                raise NotFoundError(f"there is no conversation {self.id!r}") from error
            known = Known.of(thread)
            message = self._send(known, number, run)
        after = known.with_added(message.index)
        if after is None:
            self._unplaced = True
            after = replace(known, count=known.count + 1, last_index=message.index)
        elif known.count and not self._unplaced:
            self._conversations.guesses.counted(known.count, known.count)  # index and message_count agree
        self._known = after
        if self._unplaced:
            self._conversations.forget(self._place)
        else:
            self._conversations.remember(self._place, after)

    def _known_thread(self) -> Known:
        if self._known is None:
            raise NotFoundError(f"there is no conversation {self.id!r}")
        return self._known

    def _send(self, known: Known, number: int, run: RunRecord) -> Message:
        position = run.position or known.last_position + 1
        body, mark = self._body(number, run, position), (self._attempt.token, number)
        return self._steps.do(
            lambda: self._writer.add(known.thread_id, body, mark, known.count), self._appended(number)
        )

    def _find_last(self) -> None:
        """Find where the last of one's own runs has come to stand, which its index does not tell.

        All of them are written: whatever goes wrong here, the receipt says less, and the commit is done.
        """
        known, number = self._known_thread(), len(self._runs) - 1
        try:
            own = self._writer.added(known.thread_id, self._attempt.token, known.count - number).get(number)
        except PersistenceError:
            return
        if own is not None:
            missing = own.position - own.run_count
            self._known = replace(known, count=own.run_count, missing=missing, last_index=own.message.index)
            self._unplaced = False

    def _keep_positions(self, thread: Thread) -> None:
        """Keep the gaps that given positions leave, and the given time: the runs are a copy of older ones."""
        kept = self._step("positions kept")
        now = self._conversations.threads.get(thread.id)
        if now is None:
            raise NotFoundError(f"there is no conversation {self.id!r}")
        book, count = now.written, self._known_thread().count
        if self._unplaced or gaps.position_of(count, book.gaps) != self._runs[-1].position:
            read = self._conversations.messages.read(now)  # the messages themselves have the positions
            positions, count = [one.position for one in read.placed], read.count
            book = replace(book, gaps=gaps.between(positions, positions[-1]))
        book = replace(book, count=count, updated_at=max(book.updated_at, self._attempt.at))
        after = self._steps.do(partial(self._writer.keep, now, book, f"conversation {self.id!r}"), kept)
        self._known, self._unplaced = Known.of(after, count), False

    def _body(self, number: int, run: RunRecord, position: int) -> Fields:
        return message_body(run, self._attempt.token, number, position, self._attempt.texts)
