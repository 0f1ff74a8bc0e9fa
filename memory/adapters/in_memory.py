"""In-memory repository: the reference implementation that the other adapters are tested against, and a test double."""

from bisect import bisect_left
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush, nsmallest
from itertools import count
from threading import RLock

from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import key_of
from memory.port.changes import (
    ALL_RUNS,
    Change,
    ChangeSet,
    ExpectedVersion,
    Receipt,
    Written,
    assign_positions,
    check_preconditions,
    missing_open_run,
    missing_runs,
)
from memory.port.forking import ForkAware, watch
from memory.port.planner import ListedSearch, Search
from memory.port.repository import Forgotten, OpenRun, Repository, RunsRead, Window
from memory.port.urls import options, seconds


def open_url(url: str) -> "InMemoryRepository":
    """Return a new, empty repository for ``memory://``. ``timeout`` is validated and ignored: no operation blocks."""
    options(url, {"timeout": seconds})
    return InMemoryRepository()


@dataclass(slots=True)
class _Kept:
    """A conversation: its record, its runs by position, their positions in ascending order, and runs still to be joined."""

    record: ConversationRecord
    runs: dict[int, RunRecord] = field(default_factory=dict)
    positions: list[int] = field(default_factory=list)
    appended: tuple[RunRecord, ...] = ()

    def joined(self) -> "_Kept":
        """Add the appended runs to the others in place, so that the cost of an append does not depend on the number of runs."""
        self.runs.update({run.position: run for run in self.appended})
        self.positions += [run.position for run in self.appended]
        self.appended = ()
        return self


class InMemoryRepository(Repository, ForkAware):
    """Stores conversations in dicts, protected by one lock; they are lost with the object. A forked process gets a copy."""

    def __init__(self) -> None:
        self._lock = RLock()
        watch(self)
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._receipts: dict[tuple[str, str], Receipt] = {}
        self._forget_at: list[tuple[int, tuple[str, str]]] = []  # a heap of the times at which receipts are forgotten
        self._incarnations = count(1)

    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        with self._lock:
            kept = self._present(namespace, conversation_id)
        return Conversation.from_record(kept.record) if kept else None

    def searching(self, namespace: str, criterion: Criterion) -> AbstractContextManager[Search]:  # noqa: ARG002  # this adapter has no index
        with self._lock:
            return nullcontext(ListedSearch([kept.record for kept in self._all(namespace)]))

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        with self._lock:
            kept = self._present(namespace, conversation_id)
            if kept is None:
                return RunsRead(None, ())
            positions = kept.positions
            begin = bisect_left(positions, window.after + 1)
            end = len(positions) if window.before is None else bisect_left(positions, window.before)
            if window.limit is not None:
                begin, end = (
                    (max(begin, end - window.limit), end)
                    if window.from_end
                    else (begin, min(end, begin + window.limit))
                )
            records = [kept.runs[position] for position in positions[begin:end]]
        seen = ExpectedVersion(kept.record.incarnation, kept.record.version)
        runs = tuple([Run.from_record(conversation_id, record) for record in records])
        return RunsRead(seen, runs, kept.record.last_position)

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        with self._lock:
            if (known := self._receipts.get((namespace, changes.token))) is not None:
                return replace(known, repeated=True)
            outcomes = {change.id: self._outcome(namespace, change, changes.at) for change in changes.changes}
            for conversation_id, kept in outcomes.items():  # nothing can fail from here on
                if kept is None:
                    self._kept.pop((namespace, conversation_id), None)
                else:
                    self._kept[namespace, conversation_id] = kept.joined()
            receipt = Receipt(changes.token, {id: _written(kept) for id, kept in outcomes.items()})
            now = self.clock()
            self._receipts[namespace, changes.token] = receipt
            heappush(self._forget_at, (now + changes.receipt_kept, (namespace, changes.token)))
            while self._forget_at[0][0] < now:
                self._receipts.pop(heappop(self._forget_at)[1], None)
            return receipt

    def open_runs(self, namespace: str, before: int | None, limit: int) -> tuple[OpenRun, ...]:
        with self._lock:
            found = [
                (run, kept.record.id)
                for kept in self._all(namespace)
                for run in kept.runs.values()
                if run.is_open and (before is None or run.created_at < before)
            ]
        first = nsmallest(limit, found, key=lambda one: (one[0].created_at, key_of(one[1]), one[0].position))
        return tuple([OpenRun(id, Run.from_record(id, run)) for run, id in first])

    def forget(self, namespace: str, conversation_ids: Collection[str]) -> Forgotten:
        with self._lock:
            ids = set(conversation_ids)
            keys = [key for key, one in self._receipts.items() if key[0] == namespace and ids & one.written.keys()]
            for key in keys:
                del self._receipts[key]
            return Forgotten(len(keys))

    def before_fork(self) -> None:
        self._lock.acquire()  # so that the copy contains no partial commit

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        self._lock = RLock()

    def _outcome(self, namespace: str, change: Change, at: int) -> _Kept | None:
        """Return the conversation after a change, without modifying the stored one."""
        present = self._present(namespace, change.id)
        check_preconditions(change, present.record if present else None)
        if change.create is not None:
            record, runs = change.create._replace(incarnation=str(next(self._incarnations))), {}
        elif change.remove or present is None:
            return None
        else:
            record, runs = present.record, present.runs
        positions = present.positions if present and not change.create else []
        if change.edits_runs or change.complete:
            runs = _edited(change, runs)
            positions = list(runs)
        appended, last_position = assign_positions(change, record.last_position)
        run_count = len(runs) + len(appended)
        return _Kept(change.applied(record, run_count, last_position, at), runs, positions, appended)

    def namespaces(self) -> set[str]:
        with self._lock:
            return {namespace for namespace, _ in self._kept}

    def purge_expired(self, namespace: str) -> int:
        with self._lock:
            expired = [at for at, kept in self._kept.items() if at[0] == namespace and self._is_expired(kept)]
            for at in expired:
                del self._kept[at]
            return len(expired)

    def _present(self, namespace: str, conversation_id: str) -> _Kept | None:
        kept = self._kept.get((namespace, conversation_id))
        return None if kept is None or self._is_expired(kept) else kept

    def _all(self, namespace: str) -> Iterator[_Kept]:
        return (kept for at, kept in self._kept.items() if at[0] == namespace and not self._is_expired(kept))

    def _is_expired(self, kept: _Kept) -> bool:
        return kept.record.is_expired(self.clock())

    def __repr__(self) -> str:
        return "InMemoryRepository()"


def _edited(change: Change, runs: dict[int, RunRecord]) -> dict[int, RunRecord]:
    """Apply removals and replacements of runs to a copy of the runs, and return it."""
    last = ALL_RUNS if change.remove_after is None else change.remove_after
    left = {position: run for position, run in runs.items() if change.remove_before <= position <= last}
    edited = [*change.remove_runs, *(run.position for run in change.replace_runs)]
    if missing := [position for position in edited if position not in left]:
        raise missing_runs(change, missing[0])
    for position in change.remove_runs:
        del left[position]
    left |= {run.position: run for run in change.replace_runs}
    for completion in change.complete:
        position = max(
            (one.position for one in left.values() if one.is_open and one.id == completion.run_id), default=0
        )
        if not position:
            raise missing_open_run(change, completion.run_id)
        left[position] = completion.of(left[position])
    return left


def _written(kept: _Kept | None) -> Written | None:
    if kept is None:
        return None
    record = kept.record
    return Written(record.version, record.incarnation, record.run_count, record.last_position)
