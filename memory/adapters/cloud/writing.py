"""Writes that may be answered by nothing, or by nonsense: each is looked for before it is sent again."""

from collections.abc import Callable
from typing import Final, TypeVar

from memory.adapters.cloud.conversations import Conversations, Place
from memory.adapters.cloud.http import LONGEST_HANG, Fields, MissingError, TakenError, UnansweredError
from memory.adapters.cloud.marks import Book
from memory.adapters.cloud.names import alias_of
from memory.adapters.cloud.records import Message, Thread, thread_metadata
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    StoreUnavailableError,
)

T = TypeVar("T")
_MARGIN: Final = 100
"""Ranks before the one expected that are looked through as well: others may have deleted messages meanwhile."""


class Writer:
    """Adds messages, keeps bookkeeping and makes threads, each once."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._http = conversations.http
        self._threads = conversations.threads
        self._messages = conversations.messages

    def _surely(self, send: Callable[[], T], look: Callable[[], T | None], what: str) -> T:
        """Return what sending returns; where that is not known, what looking finds, or what sending again returns.

        Raises:
            CommitInDoubtError: it may have been done, or may still be.
            StoreUnavailableError: it was not done.
        """
        late, failure = 0, UnansweredError("", 0.0, late=False)
        for attempt in range(self._http.attempts):
            try:
                return send()
            except UnansweredError as error:
                failure, late = error, late + error.late
            self._http.sleep(failure.wait or self._http.delay(attempt))
            try:
                found = look()
            except StoreUnavailableError as error:
                raise CommitInDoubtError(f"{failure}; whether {what} was written could not be found out") from error
            if found is not None:
                return found
            if late >= LONGEST_HANG:
                break
        if late:
            raise CommitInDoubtError(f"{failure}; {what} is not written yet, and may still be") from failure
        raise StoreUnavailableError(f"{failure}, {self._http.attempts} times; {what} is not written") from failure

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
        return self._surely(
            lambda: self._messages.add(thread_id, body),
            lambda: self.added(thread_id, run[0], since).get(run[1]),
            f"run {body['metadata']['run_id']!r}",
        )

    def added(self, thread_id: str, token: str, since: int) -> dict[int, Message]:
        """Return the messages that a change set has added, by the numbers of their runs."""
        thread = self._threads.get(thread_id)
        if thread is None:
            raise MissingError(f"there is no thread {thread_id}")
        read = self._messages.window(
            thread,
            lambda total: range(max(1, min(since, total) - _MARGIN), total + 1),
            self._conversations.believed(thread),
        )
        marks = [(message.mark, message) for _, message in read.placed]
        return {mark.number: message for mark, message in marks if mark is not None and mark.token == token}

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
            if now.book not in (book, thread.book):
                raise ConflictError(f"{what} was changed meanwhile: read it again and repeat the work")
            return now if now.book == book else None

        try:
            kept = self._surely(lambda: self._threads.update(thread.id, metadata), look, f"the bookkeeping of {what}")
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
                return self._surely(
                    lambda: self._threads.create(alias, metadata, first), lambda: self._mine(place, book), what
                )
            except TakenError as error:
                self._threads.unique = True
                if (mine := self._mine(place, book)) is not None:
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
        for other in found[1:]:
            if _same(other.book, book):
                self._threads.delete(other.id)
        if not found or found[0].id == thread.id:
            return thread
        if _same(found[0].book, book):  # sent twice, and the first came after all
            return found[0]
        raise AlreadyExistsError(f"conversation {place[1]!r} exists already")


def _same(book: Book | None, made_with: Book) -> bool:
    """Tell whether a thread was made by the change set that this bookkeeping is of, whatever was written to it since."""
    if book is None:
        return False
    token = made_with.open or made_with.outcomes[-1].token
    return book.open == token or book.outcome(token) is not None


def _not_kept(what: str) -> CorruptRecordError:
    return CorruptRecordError(f"the service did not keep the metadata of {what} as it was given")
