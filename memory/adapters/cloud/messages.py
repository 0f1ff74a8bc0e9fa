"""The messages of a thread as runs at positions: read by their ranks, in whatever order the service lists them (A4, A10)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote

from memory.adapters.cloud import gaps
from memory.adapters.cloud.http import Fields, Http, MissingError
from memory.adapters.cloud.marks import RUN_ID
from memory.adapters.cloud.paging import Lists, Page
from memory.adapters.cloud.records import Message, Thread, read_message
from memory.errors import CorruptRecordError, NotFoundError

_READS: Final = 3  # of a whole list, when messages are deleted while it is read


class Placed(NamedTuple):
    """A message, and the position of the run it is."""

    position: int
    message: Message


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a thread's messages.

    Attributes:
        placed: the runs, by position.
        copies: of messages that were sent twice; each takes a position.
        hidden: messages that are being deleted: runs no more.
        total: how many messages the service says there are.
        whole: whether that was all of them.
    """

    placed: tuple[Placed, ...]
    copies: tuple[Message, ...]
    hidden: tuple[Message, ...]
    total: int
    whole: bool

    @property
    def count(self) -> int:
        """How many positions are taken."""
        return len(self.placed) + len(self.copies) if self.whole else self.total

    @property
    def newest(self) -> int:
        """The time of the newest message read, by the service's clock."""
        return max([placed.message.created_at for placed in self.placed], default=0)


class Messages:
    """Reads, adds, changes and deletes messages; learns in which direction the service lists them."""

    def __init__(self, http: Http, lists: Lists) -> None:
        self._http = http
        self._lists = lists
        self._descending: bool | None = None
        self._sorted = True

    def read(self, thread: Thread) -> Read:
        """Read all messages of a thread."""
        found: dict[str, Message] = {}
        total = 0
        for _ in range(_READS):
            found.clear()
            totals: list[int] = []
            for page in self._lists.pages(_of(thread.id), "messages", {}):
                found |= {message.id: message for message in self._messages(thread.id, page)}
                totals.append(page.total)
            total = totals[-1]
            if min(totals) == totals[0] and len(found) >= total:
                break  # none was deleted meanwhile: that would have moved others to a page that was read before
        ordered = sorted(found.values(), key=lambda message: message.index)
        return _placed(enumerate(ordered, 1), thread, total, whole=True)

    def window(self, thread: Thread, ranks: Callable[[int], range], total: int | None) -> Read:
        """Read the messages of some ranks, and perhaps others; all there are where that is not possible.

        Args:
            thread: whose messages.
            ranks: returns which ranks, from 1, out of so many messages.
            total: how many messages there are thought to be; None: the first page is to tell.
        """
        if thread.written.hidden or (total is not None and total <= self._lists.largest):
            return self.read(thread)
        if total is None or self._lists.first is None:
            page = next(self._lists.pages(_of(thread.id), "messages", {}))
            self._messages(thread.id, page)
            total = page.total
        for _ in range(2):  # a first look may teach how this service lists
            wanted = ranks(total)
            if not wanted:
                return Read((), (), (), total, whole=False)
            if not self._sorted or total <= self._lists.largest:
                break
            read, total = self._window(thread, wanted, total)
            if read is not None:
                return read
        return self.read(thread)

    def _window(self, thread: Thread, wanted: range, total: int) -> tuple[Read | None, int]:
        """Read the pages that hold the window; None, and how many messages there are, if they do not turn out to."""
        first, last = wanted[0], wanted[-1]
        descending = bool(self._descending)
        begin, end = (total - last, total - first + 1) if descending else (first - 1, last)
        size, numbers = self._lists.covering(begin, end)
        ranked: dict[int, Message] = {}
        now = total
        for number in numbers:
            page = self._lists.page(_of(thread.id), "messages", {}, number + (self._lists.first or 0), size)
            messages, now = self._messages(thread.id, page), page.total
            if page.size != size or now < total:
                return None, now
            for offset, message in enumerate(messages, number * size):
                ranked[now - offset if descending else offset + 1] = message
        if self._descending is not descending or not self._sorted or not ranked.keys() >= set(wanted):
            return None, total
        read = _placed(sorted(ranked.items()), thread, now, whole=False)
        # A copy takes a place that the window lacks then; a shift means that others have deleted messages before it.
        by_rank = [gaps.position_of(rank, thread.written.gaps) for rank in sorted(ranked)]
        return (read if [one.position for one in read.placed] == by_rank else None), now

    def _messages(self, thread_id: str, page: Page) -> list[Message]:
        """Return the messages of a page, and learn from their order."""
        messages = [read_message(item, thread_id) for item in page.items]
        indices = [message.index for message in messages]
        if len(indices) > 1 and self._sorted:
            rising = sorted(indices)
            if indices == rising:
                descending = False
            elif indices == rising[::-1]:
                descending = True
            else:
                self._sorted = False
                return messages
            self._sorted = self._descending in (None, descending)
            self._descending = descending
        return messages

    def add(self, thread_id: str, body: Fields) -> Message:
        """Add a message, once at most."""
        return read_message(self._http.send("POST", _of(thread_id), body), thread_id)

    def replace(self, message: Message, body: Fields) -> Message:
        """Put other content in a message's place."""

        def send() -> Message:
            replaced = read_message(self._http.send("PATCH", _at(message.id), body), message.thread_id)
            if replaced.id != message.id:
                raise CorruptRecordError(f"the service was sent message {message.id}, and answered with {replaced.id}")
            return replaced

        what = f"run {body['metadata'][RUN_ID]!r}"
        try:
            return self._http.surely(send, None, what)
        except MissingError as error:
            raise NotFoundError(f"the run in whose place {what} was to be is gone") from error

    def delete(self, message_id: str) -> None:
        """Delete a message; it may be gone already."""
        try:
            self._http.surely(
                lambda: self._http.send("DELETE", _at(message_id)), None, f"the removal of message {message_id}"
            )
        except MissingError:
            return


def _placed(ranked: Iterable[tuple[int, Message]], thread: Thread, total: int, *, whole: bool) -> Read:
    """Give each message its position: by its rank, or the higher one that its writer knew, and never one twice."""
    book = thread.written
    placed: list[Placed] = []
    copies: list[Message] = []
    hidden: list[Message] = []
    sent: set[tuple[str, int]] = set()
    last = 0
    for rank, message in ranked:
        if message.id in book.hidden:
            hidden.append(message)
            continue
        mark = message.mark
        last = max(gaps.position_of(rank - len(hidden), book.gaps), mark.position if mark else 0, last + 1)
        if mark is not None and (mark.token, mark.number) in sent:
            copies.append(message)
            continue
        if mark is not None:
            sent.add((mark.token, mark.number))
        placed.append(Placed(last, message))
    return Read(tuple(placed), tuple(copies), tuple(hidden), total, whole)


def _of(thread_id: str) -> str:
    return f"/api/threads/{quote(thread_id, safe='')}/messages"


def _at(message_id: str) -> str:
    return f"/api/messages/{quote(message_id, safe='')}"
