"""`GriptapeCloudRepository`: conversations as threads, runs as messages."""

import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Final, cast

import requests

from memory.adapters.cloud.committing import Commit
from memory.adapters.cloud.http import KEY_VARIABLE, Http, MissingError
from memory.adapters.cloud.records import Thread, run_of
from memory.adapters.cloud.service import Service
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.values import LARGEST
from memory.errors import ConfigurationError
from memory.port.changes import ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.forking import FreshLock
from memory.port.planner import ListedSearch, Search
from memory.port.repository import Capabilities, Repository, RunsRead, Window
from memory.port.urls import options, seconds

_REMEMBERED: Final = 10_000  # receipts and unfinished commits
_ADDRESS: Final = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/[\w.~%/-]*)?")


def open_url(url: str) -> "GriptapeCloudRepository":
    """Return the repository of ``griptape+https://host``, with the key that the environment names."""
    scheme, _, rest = url.partition("://")
    timeout = cast(float, options(url, {"timeout": seconds}).get("timeout", DEFAULT_TIMEOUT))
    return GriptapeCloudRepository(f"{scheme.partition('+')[2]}://{rest.partition('?')[0]}", timeout=timeout)


class GriptapeCloudRepository(Repository):
    """Conversations in one organization of Griptape Cloud, or of any service with the same API.

    A commit changes one conversation, by several requests in a fixed order; if it cannot be completed, `PartialCommitError`
    names what is written. Versions are compared before the first write, not with it. A query reads the list of all threads.

    Args:
        host: scheme, host and port.
        key: the API key; by default that of the environment's ``GT_CLOUD_API_KEY``.
        session: the application's, with its proxies, certificates and adapters; it stays open. In a forked process the repository
            raises `ConfigurationError`: open one there.
        timeout: seconds that one operation may take, with all its requests, waits and retries.

    >>> GriptapeCloudRepository("https://cloud.griptape.ai", "secret")
    GriptapeCloudRepository('https://cloud.griptape.ai')
    """

    capabilities: ClassVar[Capabilities] = Capabilities(atomic=False, detects_conflicts=False, many_conversations=False)
    iterate_page: ClassVar[int] = 1_000_000

    def __init__(
        self,
        host: str,
        key: str | None = None,
        *,
        session: requests.Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if not _ADDRESS.fullmatch(host):  # which is not shown: it may contain the key
            raise ConfigurationError(
                "write the service's address as https://cloud.griptape.ai, or griptape+https://cloud.griptape.ai as a URL. "
                f"The API key is never part of it: set {KEY_VARIABLE}"
            )
        key = os.environ.get(KEY_VARIABLE) if key is None else key
        if not key or not key.isascii() or not key.isprintable():
            raise ConfigurationError(f"there is no API key for {host}: set {KEY_VARIABLE}")
        self.timeout = timeout
        self._http = Http(host.rstrip("/"), key, session, timeout)
        self._service = Service(self._http, lambda: self.clock())  # noqa: PLW0108  # a test may set another clock later
        self._lock = FreshLock()
        self._known: OrderedDict[tuple[str, str], Receipt | Commit] = OrderedDict()  # by namespace and token

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        thread = self._service.present(namespace, conversation_id)
        return None if thread is None else Conversation.from_record(thread.record(conversation_id))

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        thread = self._service.present(namespace, conversation_id)
        if thread is None:
            return RunsRead(None, ())
        seen = ExpectedVersion(thread.id, thread.state.record.version)
        if window.limit == 0:
            return RunsRead(seen, ())
        try:
            placed, total = self._service.window(thread, window)
        except MissingError:  # somebody deleted the thread since
            return RunsRead(None, ())
        end = LARGEST + 1 if window.before is None else window.before
        placed = [one for one in placed if window.after < one.position < end]
        if window.limit is not None:
            placed = placed[-window.limit :] if window.from_end else placed[: window.limit]
        runs = tuple([run_of(one.message, one.position) for one in placed])
        return RunsRead(seen, runs, total + thread.missing)

    def searching(self, namespace: str, criterion: Criterion) -> AbstractContextManager[Search]:  # noqa: ARG002  # there is no index
        found = self._service.conversations(namespace).items()  # one request for each 100 threads of the organization
        return nullcontext(ListedSearch([one.record(id) for id, one in found if not self._service.is_expired(one)]))

    def namespaces(self) -> set[str]:
        return {thread.place[0] for thread in self._service.all() if thread.place is not None}

    def conversation_of(self, thread_id: str) -> tuple[str, str] | None:
        """Return the namespace and the id of a thread's conversation; None if it has no alias, and so is none."""
        return self._service.get(thread_id).place

    def threads(self, namespace: str) -> Iterator[tuple[Thread, list[Run]]]:
        """Yield, for an import, a namespace's threads and those that are no conversation, without an alias; with their runs."""
        for thread in self._service.all():
            is_ours = thread.envelope is None or (thread.place is not None and thread.place[0] == namespace)
            if is_ours and not self._service.is_expired(thread):
                try:
                    placed, _ = self._service.messages(thread)
                except MissingError:  # somebody deleted the thread since
                    continue
                yield thread, [run_of(one.message, one.position) for one in placed]

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        """Write a change set, or continue one that this repository has written in part.

        `CommitTooLargeError`: it changes several conversations. `PartialCommitError`: some steps are written, one could not be.
        """
        if not changes.changes:
            return Receipt(changes.token, {})
        key = namespace, changes.token
        with self._lock:
            known = self._known.pop(key, None)
        try:
            if not isinstance(known, Receipt):
                known = known or Commit(self._http, self._service, namespace, changes)
                known = known.run()
            return known
        finally:  # also if it is interrupted
            if isinstance(known, Receipt) or (known is not None and known.is_begun):
                with self._lock:
                    self._known[key] = known
                    if len(self._known) > _REMEMBERED:
                        self._known.popitem(last=False)

    def purge_expired(self, namespace: str) -> int:
        purged = 0
        for conversation_id, listed in self._service.conversations(namespace).items():
            if self._service.is_expired(listed):
                threads = self._service.find(namespace, conversation_id)
                if threads and self._service.is_expired(threads[0]):  # nobody has replaced it, or moved its expiry
                    self._service.delete(threads)
                    purged += 1
        return purged

    def close(self) -> None:
        self._http.close()

    def __repr__(self) -> str:
        return f"GriptapeCloudRepository({self._http.host!r})"
