"""`GriptapeCloudRepository`: conversations as threads, runs as messages; what it reads. What it writes is in `committing`."""

import heapq
import operator
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, ClassVar, Final, TypeVar, cast

import requests

from memory.adapters.cloud import gaps
from memory.adapters.cloud.committing import write
from memory.adapters.cloud.conversations import Conversations, put
from memory.adapters.cloud.http import KEY_VARIABLE, Http, MissingError
from memory.adapters.cloud.names import prefix_of
from memory.adapters.cloud.preparing import Attempt
from memory.adapters.cloud.records import Texts, Thread, run_of
from memory.adapters.cloud.steps import Steps
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord
from memory.errors import CommitInDoubtError, ConfigurationError, NotFoundError, PartialCommitError
from memory.port.changes import ALL_RUNS, UNKNOWN, ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.forking import ForkAware, watch
from memory.port.paging import Page, Place, Query
from memory.port.repository import Capabilities, Progress, Repository, RunsRead, Window, no_progress
from memory.port.searching import collect
from memory.port.urls import options, seconds

T = TypeVar("T")
_YES_OR_NO: Final = {"yes": True, "no": False}
_ADDRESS: Final = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/[\w.~%/-]*)?")
_ABOUT_THE_KEY: Final = f"The API key is never part of it: set {KEY_VARIABLE}"


def open_url(url: str) -> "GriptapeCloudRepository":
    """Return the repository of ``griptape+https://host``, with the key that the environment names."""
    scheme, _, rest = url.partition("://")
    address = f"{scheme.partition('+')[2]}://{rest.partition('?')[0]}"
    known: dict[str, Callable[[str], object]] = {
        "timeout": _timeout,
        "texts": lambda value: {"plain": "plain", "artifact": "artifact"}[value],
        "prefix_filter": lambda value: _YES_OR_NO[value],
    }
    return GriptapeCloudRepository(address, **cast("dict[str, Any]", options(url, known)))


class _TwoThreadsError(Exception):
    """A conversation has two threads: which of them counts is known when all are read."""


class GriptapeCloudRepository(Repository, ForkAware):
    """Conversations in one organization of Griptape Cloud, or of any service of that contract.

    It has no transactions: what a commit writes becomes visible step by step, in order, and `PartialCommitError` tells which
    steps were done where not all could be. Versions are compared just before a write, not with it.

    Args:
        host: scheme, host and port: ``https://cloud.griptape.ai``.
        key: the API key; that of the environment's ``GT_CLOUD_API_KEY``, when left out.
        session: a session of the application's, with its proxies, certificates and adapters; it is not closed. In a process
            forked since, its adapters are replaced by copies, which needs them to be `requests.adapters.HTTPAdapter` itself.
        timeout: seconds that one operation may take, with all its requests, waits and retries.
        attempts: how often a request is sent at most.
        texts: how a run's string is written: ``"plain"``, or ``"artifact"``, which Griptape's own driver can load too.
        prefix_filter: let the service filter threads by the beginning of their names; only where nobody renames them.
        progress: told after each page of a query how many threads it has looked at, and which part of all that is.

    >>> GriptapeCloudRepository("https://cloud.griptape.ai", "secret")
    GriptapeCloudRepository('https://cloud.griptape.ai')
    """

    capabilities: ClassVar[Capabilities] = Capabilities(atomic=False, detects_conflicts=False)

    def __init__(
        self,
        host: str,
        key: str | None = None,
        *,
        session: requests.Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        attempts: int = 5,
        texts: Texts = "plain",
        prefix_filter: bool = False,
        progress: Progress = no_progress,
    ) -> None:
        if not _ADDRESS.fullmatch(host):  # which is not told: the key may be in it
            raise ConfigurationError(
                f"that is no address of a service: it looks like https://cloud.griptape.ai, "
                f"and as a URL griptape+https://cloud.griptape.ai. {_ABOUT_THE_KEY}"
            )
        key = os.environ.get(KEY_VARIABLE) if key is None else key
        if not key or not key.isascii() or not key.isprintable():
            raise ConfigurationError(f"there is no API key for {host}: set {KEY_VARIABLE}")
        self.timeout = timeout
        self._http = Http(host.rstrip("/"), key, session, timeout=timeout, attempts=attempts)
        self._conversations = Conversations(self._http, lambda: self.clock())  # noqa: PLW0108  # a test may set another clock later
        self._texts: Texts = texts
        self._prefix_filter = prefix_filter
        self._progress = progress
        self._receipts: OrderedDict[tuple[str, str], Receipt] = OrderedDict()
        self._begun: OrderedDict[tuple[str, str], Steps] = OrderedDict()
        self.after_fork_in_child()
        watch(self)

    def after_fork_in_child(self) -> None:
        """Begin as a process of its own: an older change set may have been begun by another."""
        self._opened = time.time_ns() // 1_000_000
        self._lock = Lock()

    # conversations

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        thread = self._conversations.present((namespace, conversation_id))
        if thread is None:
            return None
        try:
            record = self._conversations.record(thread, conversation_id)
        except MissingError:
            return None
        return Conversation.from_record(record)

    def conversation_of(self, thread_id: str) -> tuple[str, str] | None:
        """Return the namespace and the id of the conversation that a thread is; None if it has no alias, and so is none.

        Raises:
            NotFoundError: there is no such thread.
        """
        thread = self._conversations.threads.get(thread_id)
        if thread is None:
            raise NotFoundError(f"{self._http.host} has no thread {thread_id!r}")
        return thread.place

    @limited
    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        order, descending = query.order, query.order.descending
        beyond = operator.lt if descending else operator.gt
        choose = heapq.nlargest if descending else heapq.nsmallest

        def fetch(after: Place | None, limit: int) -> Sequence[ConversationRecord]:
            def chosen(records: Iterator[ConversationRecord]) -> list[ConversationRecord]:
                rest = records if after is None else (one for one in records if beyond(order.place(one), after))
                return choose(limit, rest, key=order.place)

            return self._among(namespace, query.criterion, chosen)

        return collect(query, fetch, exact=True)

    @limited
    def count(self, namespace: str, criterion: Criterion) -> int:
        return self._among(namespace, criterion, lambda records: sum(1 for _ in records))

    def _among(self, namespace: str, criterion: Criterion, gather: Callable[[Iterator[ConversationRecord]], T]) -> T:
        """Return what is gathered from the records that match, as their pages come in."""

        def matching(threads: Iterable[tuple[str, Thread]]) -> Iterator[ConversationRecord]:
            for conversation_id, thread in threads:
                if self._conversations.is_expired(thread):
                    continue
                try:
                    record = self._conversations.record(thread, conversation_id)
                except MissingError:
                    continue
                if criterion.matches(Conversation.from_record(record)):
                    yield record

        try:
            return gather(matching(self._stream(namespace)))
        except _TwoThreadsError:
            return gather(matching(self._oldest(namespace).items()))

    def _stream(self, namespace: str) -> Iterator[tuple[str, Thread]]:
        """Yield the conversations of a namespace; raise `_TwoThreadsError` at one that has a second thread."""
        seen: set[str] = set()
        for conversation_id, thread in self._threads_of(namespace):
            if conversation_id in seen:
                raise _TwoThreadsError
            seen.add(conversation_id)
            yield conversation_id, thread

    def _oldest(self, namespace: str) -> dict[str, Thread]:
        """Return the conversations of a namespace, each with the thread that counts."""
        found: dict[str, Thread] = {}
        for conversation_id, thread in self._threads_of(namespace):
            if conversation_id not in found or thread.age < found[conversation_id].age:
                found[conversation_id] = thread
        return found

    def _threads_of(self, namespace: str) -> Iterator[tuple[str, Thread]]:
        prefix = prefix_of(namespace) if self._prefix_filter else None
        for thread in self._conversations.threads.all(prefix, self._progress):
            place = thread.place
            if place is not None and place[0] == namespace:
                yield place[1], thread

    def namespaces(self) -> set[str]:
        threads = self._conversations.threads.all(None, self._progress)
        return {thread.place[0] for thread in threads if thread.place is not None}

    def threads(self, namespace: str) -> Iterator[tuple[Thread, list[Run]]]:
        """Yield every thread that is a conversation of the namespace or none of ours, as one without an alias; with its runs.

        For an import: `find` and `runs` know of threads with an alias only.
        """
        for thread in self._conversations.threads.all(None, self._progress):
            if thread.book is not None and (thread.place is None or thread.place[0] != namespace):
                continue
            if self._conversations.is_expired(thread):
                continue
            try:
                placed = self._conversations.messages.read(thread).placed
            except MissingError:
                continue
            yield thread, [run_of(message, position) for position, message in placed]

    # runs

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        thread = self._conversations.present((namespace, conversation_id))
        if thread is None:
            return RunsRead(None, ())
        seen, gaps_ = ExpectedVersion(thread.id, thread.written.version), thread.written.gaps
        if window.limit == 0:
            return RunsRead(seen, ())
        try:
            read = self._conversations.messages.window(
                thread, lambda total: _ranks(window, gaps_, total), self._conversations.believed(thread)
            )
        except MissingError:
            return RunsRead(None, ())
        if read.whole or (window.from_end and window.before is None and read.placed):
            self._conversations.learn(thread, read)
        end = ALL_RUNS if window.before is None else window.before
        placed = [one for one in read.placed if window.after < one.position < end]
        if window.limit is not None:
            placed = placed[-window.limit :] if window.from_end else placed[: window.limit]
        runs = tuple([run_of(message, position) for position, message in placed])
        return RunsRead(seen, runs, read.count + gaps.size(gaps_))

    # writing

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        key = namespace, changes.token
        with self._lock:
            if (receipt := self._receipts.get(key)) is not None:
                return receipt
            before = self._begun.get(key)
        steps = Steps() if before is None else before
        again = before is not None or _is_older(changes.token, self._opened)
        try:
            attempt = Attempt(namespace, changes.token, changes.at, self._texts, steps, again)
            receipt = write(self._conversations, changes, attempt)
        except (PartialCommitError, CommitInDoubtError):
            with self._lock:
                put(self._begun, key, steps)
            raise
        with self._lock:
            if _tells_all(changes, receipt):
                self._begun.pop(key, None)
                put(self._receipts, key, receipt)
            else:  # who commits it again is told more, perhaps
                put(self._begun, key, steps)
        return receipt

    def purge_expired(self, namespace: str) -> int:
        expired = [one for one in self._oldest(namespace).items() if self._conversations.is_expired(one[1])]
        for conversation_id, _ in expired:
            place = namespace, conversation_id
            self._conversations.delete_all(place, self._conversations.threads.find(*place))
        return len(expired)

    def close(self) -> None:
        self._http.close()

    def __repr__(self) -> str:
        return f"GriptapeCloudRepository({self._http.host!r})"


def _ranks(window: Window, gaps_: gaps.Gaps, total: int) -> range:
    """Return the ranks of a window's runs, out of so many."""
    low = gaps.rank_of(window.after, gaps_) + 1
    high = total if window.before is None else min(total, gaps.rank_of(window.before - 1, gaps_))
    if window.limit is not None and window.from_end:
        low = max(low, high - window.limit + 1)
    elif window.limit is not None:
        high = min(high, low + window.limit - 1)
    return range(low, high + 1)


def _tells_all(changes: ChangeSet, receipt: Receipt) -> bool:
    """Tell whether a receipt has the positions of all runs that were appended."""
    written = [receipt.written[change.id] for change in changes.changes if change.append]
    return all(one is None or one.last_position != UNKNOWN for one in written)


def _is_older(token: str, milliseconds: int) -> bool:
    """Tell whether a token was made before a moment: `memory.domain.values.new_id` begins with its time."""
    try:
        return int(token[:12], 16) < milliseconds
    except ValueError:
        return True


def _timeout(text: str) -> float:
    if (timeout := seconds(text)) >= 3600:  # noqa: PLR2004  # an hour is no time-out
        raise ValueError(text)
    return timeout
