"""Retention: remove what is old from a store, in batches and beside writers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from memory.core.batches import Batched, Batches, StoreSteps, ask, each_page, purge, version_of
from memory.core.faces import Steps
from memory.domain.criteria import EVERYTHING, Criterion, FieldCompares, check_criterion, check_depth, where
from memory.domain.entities import Conversation
from memory.domain.values import to_duration
from memory.errors import InvalidValueError
from memory.port.changes import Change
from memory.port.repository import Progress, Window

_RUNS_READ: Final = 200  # at a time, to find the first run that is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What `Store.retain` keeps. At least one of ``idle`` and ``keep_last`` is needed.

    Args:
        idle: conversations whose last run is older than this are removed; those without a run, if they were created before.
        keep_last: of each other conversation, this many of its last runs are kept.
        where: only conversations that match this criterion are removed or trimmed; default: all.

    Raises:
        InvalidValueError: an argument is not valid.

    >>> Retention(idle=timedelta(days=90), keep_last=200).keep_last
    200
    """

    idle: timedelta | None = None
    keep_last: int | None = None
    where: Criterion | None = None

    def __post_init__(self) -> None:
        if self.idle is None and self.keep_last is None:
            raise InvalidValueError("Retention() needs idle, keep_last or both: otherwise it keeps everything")
        if self.idle is not None:
            to_duration(self.idle, "idle")
        if self.keep_last is not None and (type(self.keep_last) is not int or self.keep_last < 1):
            raise InvalidValueError(f"keep_last must be an int from 1, not {self.keep_last!r}")
        if self.where is not None:
            check_depth(check_criterion(self.where))


@dataclass(slots=True, kw_only=True)
class Retained:
    """What `Store.retain` did, or with ``dry_run`` would do.

    Attributes:
        removed: how many idle conversations were removed.
        trimmed: how many conversations were trimmed to their last runs.
        runs: how many runs were removed by both.
        expired: how many expired conversations were purged; 0 in a dry run.
        skipped: how many conversations were left as they are, because somebody else wrote to them meanwhile.
        dry_run: whether nothing was changed.
    """

    removed: int = 0
    trimmed: int = 0
    runs: int = 0
    expired: int = 0
    skipped: int = 0
    dry_run: bool = False


@dataclass(slots=True)
class Retaining:
    """Applies a retention to one namespace."""

    store: StoreSteps
    retention: Retention
    retained: Retained
    progress: Progress
    batches: Batches = field(init=False)

    def run(self) -> Steps[None]:
        self.batches = Batches(self.store)
        repository, retention = self.store.repository, self.retention
        criterion = EVERYTHING if retention.where is None else retention.where
        if retention.idle is not None:
            since = repository.clock() - to_duration(retention.idle, "idle")
            is_idle = FieldCompares("last_run_at", "<", since)
            yield from each_page(self.store, criterion & is_idle, self._remove)
            criterion &= ~is_idle
        if retention.keep_last is not None:
            yield from each_page(self.store, criterion & (where.run_count > retention.keep_last), self._trim)
        if not self.retained.dry_run:
            self.retained.expired += yield from purge(self.store)

    def _remove(self, idle: Sequence[Conversation]) -> Steps[None]:
        removals = [
            Batched(Change(one.id, version_of(one), one.last_position, remove=True), one.run_count) for one in idle
        ]
        self.retained.removed += yield from self._commit(removals)
        self.progress(f"removed {self.retained.removed:,} conversations", None)

    def _trim(self, long: Sequence[Conversation]) -> Steps[None]:
        keep, removals = self.retention.keep_last or 0, []
        for one in long:
            first = yield from self._first_kept(one, keep)
            removals.append(Batched(Change(one.id, version_of(one), remove_before=first), one.run_count - keep))
        self.retained.trimmed += yield from self._commit(removals)
        self.progress(f"trimmed {self.retained.trimmed:,} conversations", None)

    def _commit(self, removals: list[Batched]) -> Steps[int]:
        done = removals if self.retained.dry_run else (yield from self.batches.commit(removals))
        self.retained.runs += sum(removal.runs for removal in done)
        self.retained.skipped += len(removals) - len(done)
        return len(done)

    def _first_kept(self, conversation: Conversation, keep: int) -> Steps[int]:
        """Return the position of the first run to keep. If others wrote to the conversation, the commit finds out."""
        first = yield from self._read(conversation, Window(limit=1))
        last = conversation.last_position
        if first is not None and last - first + 1 == conversation.run_count:  # the positions have no gaps
            return last - keep + 1
        position = last + 1
        while keep and position > 1:
            limit = min(keep, _RUNS_READ)
            found = yield from self._read(conversation, Window(before=position, limit=limit, from_end=True))
            if found is None:
                break
            position, keep = found, keep - limit
        return position

    def _read(self, conversation: Conversation, window: Window) -> Steps[int | None]:
        """Return the position of the first run in a window, None if there is none."""
        repository, namespace = self.store.repository, self.store.namespace_name
        read = yield from ask(self.store, partial(repository.runs, namespace, conversation.id, window))
        return read.runs[0].position if read.runs else None
