"""The threads of the service: each operation of the contract on them, whichever way its unknowns turn out."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from memory.adapters.cloud.http import Fields, Http, MissingError
from memory.adapters.cloud.names import aliases_of
from memory.adapters.cloud.paging import Lists
from memory.adapters.cloud.records import Thread, read_thread
from memory.errors import CorruptRecordError
from memory.port.repository import Progress

PATH: Final = "/api/threads"


class Threads:
    """Finds, makes, changes and deletes threads.

    Attributes:
        unique: whether the service has refused a second thread of an alias (A3); None while it had no reason to.
    """

    def __init__(self, http: Http, lists: Lists) -> None:
        self._http = http
        self._lists = lists
        self.unique: bool | None = None

    def find(self, namespace: str, conversation_id: str) -> list[Thread]:
        """Return the threads of a conversation, the one that counts first.

        There can be several where the service does not keep aliases apart: then the oldest is the conversation, to all.
        """
        for alias in aliases_of(namespace, conversation_id):
            found: dict[str, Thread] = {}
            for page in self._lists.pages(PATH, "threads", {"alias": alias}):
                threads = map(read_thread, page.items)
                found |= {thread.id: thread for thread in threads if thread.alias == alias}  # the filter may find more
            if found:
                return sorted(found.values(), key=lambda thread: thread.age)
        return []

    def all(self, prefix: str | None, progress: Progress) -> Iterator[Thread]:
        """Yield every thread once, page by page."""
        seen: set[str] = set()
        looked_at = 0
        for page in self._lists.pages(PATH, "threads", {"starts_with": prefix} if prefix else {}):
            for thread in map(read_thread, page.items):
                if thread.id not in seen:  # one made meanwhile moves others to the next page
                    seen.add(thread.id)
                    yield thread
            looked_at += len(page.items)
            total = max(page.total, looked_at, 1)
            progress(f"{looked_at} of {total} threads", looked_at / total)

    def get(self, thread_id: str) -> Thread | None:
        """Return a thread as it is now."""
        try:
            return _same(thread_id, self._http.get(_at(thread_id)))
        except MissingError:
            return None

    def create(self, alias: str, metadata: Fields, messages: list[Fields]) -> Thread:
        """Make a thread, once at most; its name is its alias, so that a prefix filter may be of either."""
        body = {"name": alias, "alias": alias, "metadata": metadata} | ({"messages": messages} if messages else {})
        return read_thread(self._http.send("POST", PATH, body))

    def update(self, thread_id: str, metadata: Fields) -> Thread:
        """Put this metadata in the place of what is there, once at most."""
        return _same(thread_id, self._http.send("PATCH", _at(thread_id), {"metadata": metadata}))

    def delete(self, thread_id: str) -> None:
        """Delete a thread, with its messages; it may be gone already."""
        try:
            self._http.surely(
                lambda: self._http.send("DELETE", _at(thread_id)), None, f"the removal of thread {thread_id}"
            )
        except MissingError:
            return


_NONES: Final = 3
"""So many threads that were said to be empty, and were, make another believed to be."""

_SAME_MOMENT: Final = 100_000
"""Microseconds that two times of one request may differ by."""


class Guesses:
    """What is learned of the service from what it answers; None while nothing has told yet. Shared by all threads.

    Attributes:
        counts: ``message_count`` is the number of messages (A12).
        touches: a message that is added moves its thread's ``updated_at``.
    """

    def __init__(self) -> None:
        self.counts: bool | None = None
        self.touches: bool | None = None
        self._nones = 0

    def believes(self, count: int) -> bool:
        """Tell whether a thread's count of messages need not be looked after."""
        return bool(self.counts) or (self.counts is None and count == 0 and self._nones >= _NONES)

    def counted(self, said: int, true: int) -> None:
        """Learn from a count of messages; one that is right about none tells little."""
        if said or true:
            self.counts = said == true if self.counts is None else self.counts
        else:
            self._nones += 1

    def touched(self, updated_at: int, newest: int) -> None:
        """Learn from a thread's time and that of its newest message."""
        if updated_at < newest - _SAME_MOMENT:
            self.touches = False
        elif self.touches is None:
            self.touches = True


def _at(thread_id: str) -> str:
    return f"{PATH}/{quote(thread_id, safe='')}"


def _same(thread_id: str, fields: Fields) -> Thread:
    """Return the thread that was asked for."""
    thread = read_thread(fields)
    if thread.id != thread_id:
        raise CorruptRecordError(f"the service was asked for thread {thread_id}, and answered with {thread.id}")
    return thread
