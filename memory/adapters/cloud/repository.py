"""`GriptapeCloudRepository`: stores conversations as threads and runs as messages."""

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from heapq import nsmallest
from typing import ClassVar, Final, cast

import requests

from memory.adapters.cloud.committing import Commit
from memory.adapters.cloud.http import KEY_VARIABLE, Http, MissingError
from memory.adapters.cloud.records import Thread, run_of
from memory.adapters.cloud.service import Service
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.values import LARGEST, key_of, to_datetime
from memory.errors import ConfigurationError, PersistenceError
from memory.port.changes import ChangeSet, ExpectedVersion, Receipt
from memory.port.deadlines import DEFAULT_TIMEOUT, limited
from memory.port.forking import FreshLock
from memory.port.planner import ListedSearch, Search
from memory.port.repository import Capabilities, OpenRun, Repository, RunsRead, Window
from memory.port.urls import options, seconds

_REMEMBERED: Final = 10_000  # receipts and unfinished commits
_ADDRESS: Final = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/[\w.~%/-]*)?")


def open_url(url: str) -> "GriptapeCloudRepository":
    """Return the repository for ``griptape+https://host``. The API key is read from the environment."""
    scheme, _, rest = url.partition("://")
    timeout = cast(float, options(url, {"timeout": seconds}).get("timeout", DEFAULT_TIMEOUT))
    return GriptapeCloudRepository(f"{scheme.partition('+')[2]}://{rest.partition('?')[0]}", timeout=timeout)


class GriptapeCloudRepository(Repository):
    """Stores conversations in one organization of Griptape Cloud, or of any service with the same API.

    A commit changes one conversation, by several requests in a fixed order; if one fails, `PartialCommitError` lists the steps
    that were written. Versions are checked before the first write, not atomically with it. A query reads the list of all threads.

    Args:
        host: the scheme, host and port of the service.
        key: the API key; by default the value of the environment variable ``GT_CLOUD_API_KEY``.
        session: a session of the application, whose proxies, certificates and adapters are used. `close` does not close it.
            After a fork, the child process gets `ConfigurationError`; it must open its own repository.
        timeout: the maximum duration of one operation in seconds, including all requests, waits and retries.

    >>> GriptapeCloudRepository("https://cloud.griptape.ai", "secret")
    GriptapeCloudRepository('https://cloud.griptape.ai')
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        atomic=False, detects_conflicts=False, many_conversations=False, idempotency_keys=False
    )
    iterate_page: ClassVar[int] = 1_000_000

    def __init__(
        self,
        host: str,
        key: str | None = None,
        *,
        session: requests.Session | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if not _ADDRESS.fullmatch(host):  # the message omits the host, which may contain the key
            raise ConfigurationError(
                "the address is invalid: write https://cloud.griptape.ai, or griptape+https://cloud.griptape.ai as a URL, "
                f"without the API key, which is read from {KEY_VARIABLE}"
            )
        key = os.environ.get(KEY_VARIABLE) if key is None else key
        if not key or not key.isascii() or not key.isprintable():
            raise ConfigurationError(f"the API key for {host} is missing or invalid: set {KEY_VARIABLE}")
        self.timeout = timeout
        self._http = Http(host.rstrip("/"), key, session, timeout)
        self._service = Service(self._http, lambda: self.clock())  # noqa: PLW0108  # tests replace the clock later
        self._lock = FreshLock()
        self._known: OrderedDict[tuple[str, str], Receipt | Commit] = OrderedDict()  # by namespace and token

    @limited
    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        thread = self._service.present(namespace, conversation_id)
        return None if thread is None else Conversation.from_record(thread.record(conversation_id))

    @limited
    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        return self._window(self._service.present(namespace, conversation_id), window)

    @limited
    def get_many(self, namespace: str, conversation_ids: Sequence[str]) -> dict[str, Conversation]:
        found = self._service.present_of(namespace, conversation_ids)
        return {id: Conversation.from_record(thread.record(id)) for id, thread in found.items()}

    @limited
    def last_runs(self, namespace: str, conversation_ids: Sequence[str], n: int) -> dict[str, RunsRead]:
        found = self._service.present_of(namespace, conversation_ids)
        return {id: self._window(found.get(id), Window(limit=n, from_end=True)) for id in conversation_ids}

    def _window(self, thread: Thread | None, window: Window) -> RunsRead:
        if thread is None:
            return RunsRead(None, ())
        seen = ExpectedVersion(thread.id, thread.state.record.version)
        if window.limit == 0:
            return RunsRead(seen, ())
        try:
            placed, total = self._service.window(thread, window)
        except MissingError:  # the thread was deleted since it was found
            return RunsRead(None, ())
        end = LARGEST + 1 if window.before is None else window.before
        placed = [one for one in placed if window.after < one.position < end]
        if window.limit is not None:
            placed = placed[-window.limit :] if window.from_end else placed[: window.limit]
        runs = tuple([run_of(one.message, one.position) for one in placed])
        return RunsRead(seen, runs, total + thread.missing)

    @limited
    def open_runs(self, namespace: str, before: int | None, limit: int) -> tuple[OpenRun, ...]:
        end = None if before is None else to_datetime(before)
        found: list[OpenRun] = []
        for id, thread in self._service.conversations(namespace).items():
            if thread.state.open_from and not self._service.is_expired(thread):
                runs = self._window(thread, Window(after=thread.state.open_from - 1)).runs
                found += [OpenRun(id, run) for run in runs if run.is_open and (end is None or run.created_at < end)]
        return tuple(nsmallest(limit, found, key=lambda one: (one.run.created_at, key_of(one[0]), one.run.position)))

    def searching(self, namespace: str, criterion: Criterion) -> AbstractContextManager[Search]:  # noqa: ARG002  # the service has no index
        found = self._service.conversations(namespace).items()  # one request per 100 threads of the organization
        return nullcontext(ListedSearch([one.record(id) for id, one in found if not self._service.is_expired(one)]))

    def namespaces(self) -> set[str]:
        return {thread.place[0] for thread in self._service.all() if thread.place is not None}

    def conversation_of(self, thread_id: str) -> tuple[str, str] | None:
        """Return the namespace and id of a thread's conversation, or None if the thread is not a conversation (no alias)."""
        return self._service.get(thread_id).place

    def threads(self, namespace: str) -> Iterator[tuple[Thread, list[Run]]]:
        """Yield the threads to import, with their runs: those of the namespace, and those of other programs."""
        for thread in self._service.all():
            is_ours = thread.envelope is None or (thread.place is not None and thread.place[0] == namespace)
            if is_ours and not self._service.is_expired(thread):
                try:
                    placed, _ = self._service.messages(thread)
                except MissingError:  # the thread was deleted since it was listed
                    continue
                yield thread, [run_of(one.message, one.position) for one in placed]

    @limited
    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        """Write a change set, or resume one that this repository has written in part.

        Raises:
            CommitTooLargeError: the change set changes several conversations.
            PartialCommitError: a step failed after others had been written.
        """
        if not changes.changes:
            return Receipt(changes.token, {})
        key = namespace, changes.token
        with self._lock:
            known = self._known.pop(key, None)
        try:
            if isinstance(known, Receipt):
                return replace(known, repeated=True)
            known = known or Commit(self._http, self._service, namespace, changes)
            known = receipt = known.run()
            return receipt  # noqa: TRY300  # an else would run after the receipt is stored
        except PersistenceError as error:
            error.conversation_id = changes.changes[0].id if len(changes.changes) == 1 else None
            raise
        finally:  # also after an interrupt
            if isinstance(known, Receipt) or (known is not None and known.is_started):
                with self._lock:
                    self._known[key] = known
                    if len(self._known) > _REMEMBERED:
                        self._known.popitem(last=False)

    def purge_expired(self, namespace: str) -> int:
        purged = 0
        for conversation_id, listed in self._service.conversations(namespace).items():
            if self._service.is_expired(listed):
                threads = self._service.find(namespace, conversation_id)
                if threads and self._service.is_expired(threads[0]):  # re-read: its expiry may have changed
                    self._service.delete(threads)
                    purged += 1
        return purged

    def close(self) -> None:
        self._http.close()

    def __repr__(self) -> str:
        return f"GriptapeCloudRepository({self._http.host!r})"
