"""Threads as conversations: found by namespace and id, remembered by thread id, and told apart from what others made."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from memory.adapters.cloud import gaps
from memory.adapters.cloud.http import Http
from memory.adapters.cloud.messages import Messages, Read
from memory.adapters.cloud.paging import Lists
from memory.adapters.cloud.records import Thread, conversation_record
from memory.adapters.cloud.threads import Guesses, Threads
from memory.domain.records import ConversationRecord
from memory.port.forking import FreshLock

K = TypeVar("K")
V = TypeVar("V")
Place: TypeAlias = tuple[str, str]
"""The namespace and the id of a conversation."""

REMEMBERED: Final = 10_000
"""Threads whose ids are known, and commits whose receipts are."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was last seen of a conversation's thread: enough to append without asking.

    Attributes:
        thread_id: where to append.
        version, expires_at: of the conversation.
        count: how many runs there are.
        missing: how many positions have none.
        last_index: the service's index of the last one; None where only the count is known.
    """

    thread_id: str
    version: int
    expires_at: int | None
    count: int
    missing: int
    last_index: float | None = None

    @classmethod
    def of(cls, thread: Thread, count: int | None = None) -> "Known":
        """Return what a thread tells; a count that is better than its own may be given."""
        book = thread.written
        return cls(
            thread.id, book.version, book.expires_at, thread.count if count is None else count, gaps.size(book.gaps)
        )

    def seen_again(self, thread: Thread, *, believed: bool) -> "Known":
        """Return this as the thread now tells it; ``believed`` says whether its count is to be."""
        now = Known.of(thread, None if believed else self.count)
        return replace(now, last_index=self.last_index) if now.last_position == self.last_position else now

    @property
    def last_position(self) -> int:
        """The position given last."""
        return self.count + self.missing

    def with_added(self, index: float) -> "Known | None":
        """Return what is known after a message was added and got this index; None if that does not follow from this."""
        if self.last_index is None:
            # A10: from 0. Where runs were removed it tells nothing: their indices are given again, or not.
            return replace(self, count=self.count + 1, last_index=index) if index == self.count else None
        added = index - self.last_index
        if added < 1 or not float(added).is_integer():
            return None
        return replace(self, count=self.count + int(added), last_index=index)  # those between are others'


class Conversations:
    """Finds and reads conversations; what it learns on the way is shared by all who read and write through it."""

    def __init__(self, http: Http, clock: Callable[[], int]) -> None:
        self.http = http
        self.clock = clock
        lists = Lists(http)
        self.threads = Threads(http, lists)
        self.messages = Messages(http, lists)
        self.guesses = Guesses()
        self._lock = FreshLock()
        self._known: OrderedDict[Place, Known] = OrderedDict()

    def present(self, place: Place) -> Thread | None:
        """Return the thread of a conversation as it is now; None if there is none, or it has expired."""
        thread = self.thread(place)
        return None if thread is None or self.is_expired(thread) else thread

    def thread(self, place: Place) -> Thread | None:
        """Return the thread of a conversation, by its id if that is known; expired or not."""
        known = self.known(place)
        if known is not None:
            thread = self.threads.get(known.thread_id)
            if thread is not None and thread.place == place:
                self.remember(place, known.seen_again(thread, believed=bool(self.guesses.counts)))
                return thread
            self.forget(place)
        found = self.threads.find(*place)
        if not found:
            return None
        self.remember(place, Known.of(found[0]))
        return found[0]

    def is_expired(self, thread: Thread) -> bool:
        """Tell whether a thread's conversation is to be taken for none."""
        expires_at = thread.written.expires_at
        return expires_at is not None and expires_at <= self.clock()

    def record(self, thread: Thread, conversation_id: str) -> ConversationRecord:
        """Return the conversation that a thread is; its last messages are read too where the thread alone may not tell.

        Raises:
            MissingError: somebody has deleted it since.
        """
        book, guesses = thread.written, self.guesses
        trusted = guesses.believes(thread.count) and (thread.count == book.count or guesses.touches)
        if trusted and not book.hidden:
            return conversation_record(thread, conversation_id, thread.count)
        read = self.last_runs(thread)
        return conversation_record(
            thread, conversation_id, read.count, read.newest if guesses.touches is False else None
        )

    def last_runs(self, thread: Thread) -> Read:
        """Read the last of a thread's messages, and learn from them."""
        read = self.messages.window(thread, lambda total: range(max(1, total), total + 1), self.believed(thread))
        self.learn(thread, read)
        return read

    def believed(self, thread: Thread) -> int | None:
        """Return how many messages there are, as far as that is to be believed."""
        return None if self.guesses.counts is False else thread.count

    def learn(self, thread: Thread, read: Read) -> None:
        """Learn from a thread and the last of its messages."""
        if self.guesses.counts is None:
            # where they differ, somebody may have appended between the two
            again = thread if thread.count == read.total else self.threads.get(thread.id)
            if again is not None:
                self.guesses.counted(again.count, read.total)
        nobody_between = thread.count == read.total or self.guesses.counts is False
        if nobody_between and read.count != thread.written.count:
            self.guesses.touched(thread.updated_at, read.newest)

    def delete_all(self, place: Place, threads: Sequence[Thread]) -> None:
        """Delete the threads of one conversation, the one that counts last: no other is ever taken for it."""
        self.forget(place)
        for thread in reversed(threads):
            self.threads.delete(thread.id)

    # what is known of threads without asking

    def known(self, place: Place) -> Known | None:
        """Return what was last seen of a conversation's thread."""
        with self._lock:
            return self._known.get(place)

    def remember(self, place: Place, known: Known) -> None:
        """Keep what was seen of a conversation's thread."""
        with self._lock:
            put(self._known, place, known)

    def forget(self, place: Place) -> None:
        """Forget a conversation's thread: it is not what it was."""
        with self._lock:
            self._known.pop(place, None)


def put(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep a value, and forget the oldest where there are too many."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)
