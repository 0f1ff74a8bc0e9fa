"""The service's operations on threads and messages, and the mapping from threads to conversations."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple

from memory.adapters.cloud.http import Fields, Http, Page
from memory.adapters.cloud.records import Message, Thread, alias_of, place_of, read_message, read_thread
from memory.errors import StoreUnavailableError
from memory.port.repository import Window

_READS: Final = 3  # attempts to read a list from which messages are being deleted
_AGE: Final = attrgetter("created_at", "id")  # if a conversation has several threads, the oldest is used (A3)


class Placed(NamedTuple):
    """A message with its rank in the thread (from 1) and the position of its run."""

    rank: int
    position: int
    message: Message


class Service:
    """The threads and messages of an organization. Nothing is cached: every operation reads the current thread first."""

    def __init__(self, http: Http, clock: Callable[[], int]) -> None:
        self._http = http
        self._clock = clock

    def find(self, namespace: str, conversation_id: str) -> list[Thread]:
        """Return the threads of a conversation, the one in use first: several, if the service allows duplicate aliases."""
        aliases = [alias_of(namespace, conversation_id)]
        if place_of(conversation_id) == (namespace, conversation_id):  # another program may use the unquoted id
            aliases.append(conversation_id)
        for alias in dict.fromkeys(aliases):
            found = [one for one in self.all(alias=alias) if one.alias == alias]  # the filter may match more (A7)
            if found:
                return sorted(found, key=_AGE)
        return []

    def present(self, namespace: str, conversation_id: str) -> Thread | None:
        """Return the thread of a conversation, or None if it does not exist or has expired."""
        found = self.find(namespace, conversation_id)
        return found[0] if found and not self.is_expired(found[0]) else None

    def is_expired(self, thread: Thread) -> bool:
        return thread.record("").is_expired(self._clock())

    def all(self, **filters: str) -> Iterable[Thread]:
        """Return all threads that match the filters, 100 per request."""
        return _threads(self._http.pages(("threads",), filters))

    def conversations(self, namespace: str, pages: Iterable[Page] | None = None) -> dict[str, Thread]:
        """Return the thread in use of each conversation in a namespace, by conversation id. Expired ones are included."""
        found: dict[str, Thread] = {}
        for thread in self.all() if pages is None else _threads(pages):
            if (place := thread.place) is not None and place[0] == namespace:
                found[place[1]] = min(found.get(place[1], thread), thread, key=_AGE)
        return found

    def present_of(self, namespace: str, conversation_ids: Sequence[str]) -> dict[str, Thread]:
        """Return the threads of those conversations that exist: from the list of all threads, if that is fewer requests."""
        pages = self._http.pages(("threads",), {})
        first = next(pages)
        if first.total <= len(conversation_ids) * self._http.page_size:
            found = self.conversations(namespace, chain([first], pages))
        else:
            found = {id: threads[0] for id in conversation_ids if (threads := self.find(namespace, id))}
        return {id: found[id] for id in conversation_ids if id in found and not self.is_expired(found[id])}

    def messages(self, thread: Thread, begin: int = 1, end: int | None = None) -> tuple[list[Placed], int]:
        """Read at least the messages with ``begin <= rank < end``; return them and the total number of messages.

        If the service does not list messages by ascending index (A4), all messages are read.
        """
        skip = max(0, begin - 2) // self._http.page_size  # includes the preceding message, to verify the order
        for _ in range(_READS):
            found: dict[str, Message] = {}
            pages: list[Page] = []
            for page in self._http.pages(("threads", thread.id, "messages"), {}, skip):
                pages.append(page)
                found |= {one.id: one for one in (read_message(item, thread.id) for item in page.items)}
                if end is not None and page.end >= end - 1:
                    break
            offset, stop, total = pages[0].begin, pages[-1].end, pages[-1].total
            ordered = sorted(found.values(), key=attrgetter("index"))
            is_whole = offset == 0 and stop >= total
            is_part = ordered == list(found.values()) and total >= thread.count
            if offset + len(found) == stop and (is_whole or is_part):
                return _place(ordered, offset, thread.missing), total
            skip, end = 0, None  # messages were deleted during the read, or are not in order
        raise StoreUnavailableError(f"messages of thread {thread.id} were deleted during {_READS} attempts to read it")

    def window(self, thread: Thread, window: Window) -> tuple[list[Placed], int]:
        """Read at least the messages of a window of runs; the caller drops the others."""
        total, limit = thread.count, window.limit
        if limit is not None and window.from_end and window.before is None:
            return self.messages(thread, max(1, total + 1 - limit))
        if total <= self._http.page_size or thread.missing:  # with missing runs, a position does not determine the page
            return self.messages(thread)
        # At least the last message is read: its position shows whether another program has deleted messages.
        begin, end = min(window.after + 1, total), total + 1 if window.before is None else min(window.before, total + 1)
        if limit is not None:
            begin, end = (max(begin, end - limit), end) if window.from_end else (begin, min(end, begin + limit))
        placed, total = self.messages(thread, begin, end) if begin < end else ([], total)
        if any(one.position != one.rank for one in placed):  # another program has deleted messages
            return self.messages(thread)
        return placed, total

    def add_message(self, thread_id: str, body: Fields) -> Message:
        return read_message(self._http.send("POST", ("threads", thread_id, "messages"), body), thread_id)

    def get(self, thread_id: str) -> Thread:
        """Return a thread; raise `MissingError` if it does not exist."""
        return read_thread(self._http.send("GET", ("threads", thread_id)))

    def create(self, alias: str, metadata: Fields, messages: list[Fields]) -> Thread:
        body = {"name": alias, "alias": alias, "metadata": metadata} | ({"messages": messages} if messages else {})
        return read_thread(self._http.send("POST", ("threads",), body))

    def update(self, thread_id: str, metadata: Fields) -> Thread:
        return read_thread(self._http.send("PATCH", ("threads", thread_id), {"metadata": metadata}))

    def delete(self, threads: Sequence[Thread]) -> None:
        """Delete the threads of one conversation; the one in use comes last, so that no other thread replaces it."""
        for thread in reversed(threads):
            self._http.delete("threads", thread.id)


def _threads(pages: Iterable[Page]) -> Iterable[Thread]:
    """Return the threads of a list; duplicates, which new threads cause, are dropped."""
    return {one.id: one for page in pages for one in map(read_thread, page.items)}.values()


def _place(ordered: list[Message], offset: int, missing: int) -> list[Placed]:
    """Return messages with the strictly ascending positions of their runs; a run whose position is taken gets the next one.

    ``offset`` messages precede them, and ``missing`` positions of the conversation have no run.
    """
    placed, last = list[Placed](), 0
    for rank, message in enumerate(ordered, offset + 1):
        envelope = message.envelope
        position = max(envelope.run.position, rank + envelope.shift) if envelope else rank + missing
        last = max(position, last + 1)
        placed.append(Placed(rank, last, message))
    return placed
