"""The messages of a thread as runs at positions, and the service's operations on messages."""

from functools import partial
from typing import Final, NamedTuple, TypeAlias

from memory.adapters.cloud.http import Fields, Http
from memory.adapters.cloud.records import Message, Thread, read_message
from memory.port.repository import Window

_READS: Final = 3  # of a list, if messages are deleted while it is read


class Placed(NamedTuple):
    """A message, its rank among the thread's messages (from 1), and the position of its run."""

    rank: int
    position: int
    message: Message


Read: TypeAlias = tuple[list[Placed], int]  # some of a thread's messages, in order, and how many the thread has


class Messages:
    """Reads, adds, replaces and deletes messages."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._ascending: bool | None = None  # whether messages are listed by rising index (A4); None: not seen yet

    def read(self, thread: Thread, begin: int = 1, end: int | None = None) -> Read:
        """Read the messages with the ranks from ``begin`` to before ``end``, and perhaps others.

        Where the service lists messages in another order than by rising index, that is the whole list.
        """
        if self._ascending is None and begin > self._http.page_size:
            self.read(thread, 1, 2)  # the first page shows the order
        skip = (begin - 1) // self._http.page_size if self._ascending else 0
        ordered, offset, total = list[Message](), 0, 0
        for _ in range(_READS):
            found: dict[str, Message] = {}
            offset = stop = -1
            for page in self._http.pages(("threads", thread.id, "messages"), {}, skip):
                found |= {one.id: one for one in (read_message(item, thread.id) for item in page.items)}
                offset, stop, total = page.begin if offset < 0 else offset, page.end, page.total
                if end is not None and stop >= end - 1:
                    break
            ordered = sorted(found.values(), key=lambda message: message.index)
            if len(found) > 1:
                self._ascending = self._ascending is not False and ordered == list(found.values())
            is_whole = offset == 0 and stop >= total
            if offset + len(found) == stop and (is_whole or (self._ascending and total >= thread.count)):
                break
            skip, end = 0, None  # messages were deleted meanwhile, or are not in order
        return _place(ordered, offset + 1, thread.missing), total

    def window(self, thread: Thread, window: Window) -> Read:
        """Read the messages of a window of runs, and perhaps others: the caller takes those it wants."""
        total, limit = thread.count, window.limit
        is_last = window.from_end and window.before is None and limit is not None
        if total <= self._http.page_size or (thread.missing and not is_last):
            return self.read(thread)
        begin, end = window.after + 1, total + 1 if window.before is None else min(window.before, total + 1)
        if limit is not None and window.from_end:
            begin = max(begin, end - limit) if not thread.missing else end - limit
        elif limit is not None:
            end = min(end, begin + limit)
        if begin >= end:
            return [], total
        read = self.read(thread, max(1, begin), None if is_last else end)
        if not thread.missing and any(one.position != one.rank for one in read[0]):
            return self.read(thread)  # somebody else has deleted messages: positions do not follow from ranks
        return read

    def add(self, thread_id: str, body: Fields) -> Message:
        return read_message(self._http.send("POST", ("threads", thread_id, "messages"), body), thread_id)

    def replace(self, message: Message, body: Fields) -> None:
        """Replace a message's content; raise `MissingError` if it is gone."""
        send = partial(self._http.send, "PATCH", ("messages", message.id), body)
        replaced = lambda: read_message(send(), message.thread_id, message.id)  # noqa: E731
        self._http.surely(replaced, None, f"the replacement of message {message.id}")

    def delete(self, message: Message) -> None:
        self._http.delete("messages", message.id)


def _place(ordered: list[Message], rank: int, missing: int) -> list[Placed]:
    """Return messages with the positions of their runs, which rise: of two with one position, the later moves up."""
    placed: list[Placed] = []
    last = 0
    for at, message in enumerate(ordered, rank):
        last = max(message.position(at, missing), last + 1)
        placed.append(Placed(at, last, message))
    return placed
