"""Threads: the service's operations on them, and the conversations that they are."""

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final

from memory.adapters.cloud.aliases import alias_of, place_of
from memory.adapters.cloud.errors import MissingError
from memory.adapters.cloud.http import Fields, Http
from memory.adapters.cloud.messages import Messages
from memory.adapters.cloud.records import Thread, read_thread, run_of
from memory.domain.values import LARGEST
from memory.port.changes import ExpectedVersion
from memory.port.repository import RunsRead, Window

_AGE: Final = attrgetter("created_at", "id")  # of several threads of one conversation the oldest is used (A3)


class Threads:
    """Finds, creates, changes and deletes threads. It remembers nothing: every operation begins with the thread as it is now."""

    def __init__(self, http: Http, clock: Callable[[], int]) -> None:
        self.messages = Messages(http)
        self._http = http
        self._clock = clock

    def find(self, namespace: str, conversation_id: str) -> list[Thread]:
        """Return the threads of a conversation: several, if the service lets two have one alias. The first is used."""
        aliases = [alias_of(namespace, conversation_id)]
        if place_of(conversation_id) == (namespace, conversation_id):  # another program may have chosen the bare id
            aliases.append(conversation_id)
        for alias in dict.fromkeys(aliases):
            found = [one for one in self.all(alias=alias) if one.alias == alias]  # the filter may find more (A7)
            if found:
                return sorted(found, key=_AGE)
        return []

    def present(self, namespace: str, conversation_id: str) -> Thread | None:
        """Return the thread of a conversation; None if there is none or it has expired."""
        found = self.find(namespace, conversation_id)
        return found[0] if found and not self.is_expired(found[0]) else None

    def is_expired(self, thread: Thread) -> bool:
        return thread.state.record.is_expired(self._clock())

    def all(self, **filters: str) -> Iterator[Thread]:
        """Yield every thread that passes the filters once: one request for each page of 100."""
        seen: set[str] = set()
        for page in self._http.pages(("threads",), filters):
            for thread in map(read_thread, page.items):
                if thread.id not in seen:  # a new thread moves the others to the next page
                    seen.add(thread.id)
                    yield thread

    def conversations(self, namespace: str) -> dict[str, Thread]:
        """Return the threads of a namespace's conversations by their ids, expired ones too; of several, the one in use."""
        found: dict[str, Thread] = {}
        for thread in self.all():
            if (place := thread.place) is not None and place[0] == namespace:
                found[place[1]] = min(found.get(place[1], thread), thread, key=_AGE)
        return found

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        thread = self.present(namespace, conversation_id)
        if thread is None:
            return RunsRead(None, ())
        seen = ExpectedVersion(thread.id, thread.state.record.version)
        if window.limit == 0:
            return RunsRead(seen, ())
        try:
            placed, total = self.messages.window(thread, window)
        except MissingError:  # somebody deleted the thread since
            return RunsRead(None, ())
        end = LARGEST + 1 if window.before is None else window.before
        placed = [one for one in placed if window.after < one.position < end]
        if window.limit is not None:
            placed = placed[-window.limit :] if window.from_end else placed[: window.limit]
        runs = tuple([run_of(one.message, one.position) for one in placed])
        return RunsRead(seen, runs, total + thread.missing)

    def get(self, thread_id: str) -> Thread | None:
        try:
            return read_thread(self._http.send("GET", ("threads", thread_id)), thread_id)
        except MissingError:
            return None

    def create(self, alias: str, metadata: Fields, messages: list[Fields]) -> Thread:
        body = {"name": alias, "alias": alias, "metadata": metadata} | ({"messages": messages} if messages else {})
        return read_thread(self._http.send("POST", ("threads",), body))

    def update(self, thread_id: str, metadata: Fields) -> Thread:
        return read_thread(self._http.send("PATCH", ("threads", thread_id), {"metadata": metadata}), thread_id)

    def delete(self, threads: Sequence[Thread]) -> None:
        """Delete threads of one conversation; the one in use goes last, so that no other ever takes its place."""
        for thread in reversed(threads):
            self._http.delete("threads", thread.id)
