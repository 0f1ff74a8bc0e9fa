"""Writes that may be answered by nothing, or by nonsense: each is looked for before it is sent again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from memory.adapters.cloud.conversations import Conversations, Place
from memory.adapters.cloud.http import Fields, MissingError, TakenError, doubting
from memory.adapters.cloud.marks import Book
from memory.adapters.cloud.names import alias_of
from memory.adapters.cloud.records import Message, Thread, thread_metadata
from memory.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
)

_MARGIN: Final = 100
"""Ranks before the one expected that are looked through as well: others may have deleted messages meanwhile."""


class Added(NamedTuple):
    """A message of one's own, with its run's position and how many runs there are up to it: whatever others add after it."""

    message: Message
    position: int
    run_count: int


class Writer:
    """Adds messages, keeps bookkeeping and makes threads, each once."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._http = conversations.http
        self._threads = conversations.threads
        self._messages = conversations.messages

    # messages

    def add(self, thread_id: str, body: Fields, run: tuple[str, int], since: int) -> Message:
        """Add the message of a run.

        Args:
            thread_id: where.
            body: the message.
            run: the token and number that its mark has.
            since: how many messages there were before, at least.

        Raises:
            MissingError: there is no such thread.
        """

        def look() -> Message | None:
            found = self.added(thread_id, run[0], since).get(run[1])
            return None if found is None else found.message

        what = f"run {body['metadata']['run_id']!r}"
        return self._http.surely(lambda: self._messages.add(thread_id, body), look, what)

    def added(self, thread_id: str, token: str, since: int) -> dict[int, Added]:
        """Return the messages that a change set has added, by the numbers of their runs."""
        thread = self._threads.get(thread_id)
        if thread is None:
            raise MissingError(f"there is no thread {thread_id}")
        read = self._messages.window(
            thread,
            lambda total: range(max(1, min(since, total) - _MARGIN), total + 1),
            self._conversations.believed(thread),
        )
        self._conversations.learn(thread, read)
        found: dict[int, Added] = {}
        for number, (position, message) in enumerate(read.placed, 1):
            mark = message.mark
            if mark is not None and mark.token == token:
                copies = sum(copy.index > message.index for copy in read.copies)
                run_count = read.count - copies - (len(read.placed) - number)
                found[mark.number] = Added(message, position, run_count)
        return found

    # threads

    def keep(self, thread: Thread, book: Book, what: str) -> Thread:
        """Put this bookkeeping in the place of what the thread had when it was read.

        Raises:
            ConflictError: somebody else has put other bookkeeping there.
            NotFoundError: the thread is gone.
        """
        metadata = thread_metadata(thread, book)

        def look() -> Thread | None:
            now = self._threads.get(thread.id)
            if now is None:
                raise NotFoundError(f"{what} was removed meanwhile")
            if now.book == thread.book:
                return None
            if now.book == book or _closed_by(book, thread.book, now.book):
                return replace(now, book=book)  # whatever others have made of it since
            raise ConflictError(f"{what} was changed meanwhile: read it again and repeat the work")

        try:
            kept = self._http.surely(
                lambda: self._threads.update(thread.id, metadata), look, f"the bookkeeping of {what}"
            )
        except MissingError as error:
            raise NotFoundError(f"{what} was removed meanwhile") from error
        if kept.book != book:
            raise _not_kept(what)
        return kept

    def make(self, place: Place, book: Book, messages: list[Fields]) -> tuple[Thread, int]:
        """Make the thread of a conversation; return it, and how many of the messages were made with it.

        Of several that make one at the same moment, one does: the service says so (A3), or the oldest thread counts and the
        others are deleted by those who made them.

        Raises:
            AlreadyExistsError: somebody else has made it.
        """
        alias, what = alias_of(*place), f"conversation {place[1]!r}"
        metadata = thread_metadata(None, book)

        def make(first: list[Fields]) -> Thread:
            try:
                return self._http.surely(
                    lambda: self._threads.create(alias, metadata, first), lambda: self._mine(place, book), what
                )
            except TakenError as error:
                self._threads.unique = True
                with doubting(f"{error}; whether that is this one could not be found out"):
                    mine = self._mine(place, book)
                if mine is not None:
                    return mine
                raise AlreadyExistsError(f"{what} exists already") from error

        try:
            thread = make(messages)
        except InvalidValueError:
            if not messages:
                raise
            messages = []  # A15: too many, or too much, for one request
            thread = make([])
        if not _same(thread.book, book):
            raise _not_kept(what)
        with doubting(f"{what} is made; whether it is the only one could not be found out"):
            return self._the_only_one(place, thread, book), len(messages)

    def _mine(self, place: Place, book: Book) -> Thread | None:
        """Return the thread that this bookkeeping was made with; None if there is no thread of the conversation.

        Raises:
            AlreadyExistsError: there is one, of somebody else's.
        """
        found = self._threads.find(*place)
        mine = next((thread for thread in found if _same(thread.book, book)), None)
        if found and mine is None:
            raise AlreadyExistsError(f"conversation {place[1]!r} exists already")
        return mine

    def _the_only_one(self, place: Place, thread: Thread, book: Book) -> Thread:
        """Return the thread if it is the one that counts; delete it, and say so, if somebody else's is."""
        if self._threads.unique:
            return thread
        found = self._threads.find(*place)
        self.delete_twins(found, book.outcomes[-1].token)
        if not found or found[0].id == thread.id:
            return thread
        if _same(found[0].book, book):  # sent twice, and the first came after all
            return found[0]
        raise AlreadyExistsError(f"conversation {place[1]!r} exists already")

    def delete_twins(self, threads: Sequence[Thread], token: str) -> None:
        """Delete those of a conversation's threads that a change set has made and that do not count: all but the first."""
        for other in threads[1:]:
            if other.book is not None and other.book.outcome(token) is not None:
                self._threads.delete(other.id)


def _same(book: Book | None, made_with: Book) -> bool:
    """Tell whether a thread was made by the change set that this bookkeeping is of, whatever was written to it since."""
    return book is not None and book.outcome(made_with.outcomes[-1].token) is not None


def _closed_by(book: Book, before: Book | None, now: Book | None) -> bool:
    """Tell whether the change set that this bookkeeping closes is closed now: it was written, and others have gone on from it."""
    closes = {one.token for one in book.outcomes} - {one.token for one in (before.outcomes if before else ())}
    return now is not None and any(now.outcome(token) is not None for token in closes)


def _not_kept(what: str) -> CorruptRecordError:
    return CorruptRecordError(f"the service did not keep the metadata of {what} as it was given")
