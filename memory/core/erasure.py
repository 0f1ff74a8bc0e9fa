"""Erasure of everything that belongs to one person, with a report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from memory.core.batches import Batched, Batches, StoreSteps, ask, each_page, purge, stores_of, version_of
from memory.core.faces import Steps, Write
from memory.domain.criteria import EVERYTHING, Criterion
from memory.domain.entities import Conversation
from memory.domain.timestamps import format_timestamp
from memory.domain.values import Json, to_datetime, to_microseconds
from memory.port.changes import Change
from memory.port.repository import Forgotten, Progress

_MOST_PASSES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The report of `Store.erase`. It has no ids and no texts of conversations, except those in the criterion.

    Attributes:
        criterion: the criterion, as text.
        begun_at: when the call began.
        ended_at: when it ended.
        namespaces: how many namespaces were searched.
        conversations: how many conversations were erased.
        runs: how many runs they had when they were found.
        found_in: how many conversations were erased in each namespace that had any.
        passes: how many times the namespaces were searched; the last pass found nothing, unless something is ``left``.
        left: how many conversations match after all: they were written while they were erased.
        checked: how many conversations ``verify`` compared with the criterion, without an index; None without ``verify``.
        expired: how many expired conversations were purged, whomever they belonged to.
        receipts: how many receipts of commits were deleted.
        receipts_until: when the store deletes the receipts that it could not find by conversation; None if none are left.
        outbox: how many entries of the outbox had their texts deleted.
        waiting: how many change sets wait for each replica of a mirrored store: until they are delivered, it has the data.
    """

    criterion: str
    begun_at: datetime
    ended_at: datetime
    namespaces: int
    conversations: int
    runs: int
    found_in: Mapping[str, int]
    passes: int
    left: int
    checked: int | None
    expired: int
    receipts: int
    receipts_until: datetime | None
    outbox: int
    waiting: Mapping[str, int]

    @property
    def is_complete(self) -> bool:
        """Whether no conversation that matches is left."""
        return not self.left

    def to_dict(self) -> dict[str, Json]:
        """Return the report as JSON values, with times as ISO 8601 text."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("begun_at", "ended_at", "receipts_until"):
            values[name] = None if values[name] is None else format_timestamp(to_microseconds(values[name], name))
        return values | {
            "found_in": dict(self.found_in),
            "waiting": dict(self.waiting),
            "is_complete": self.is_complete,
        }


@dataclass(slots=True)
class Erasing:
    """One erasure, in any number of namespaces."""

    criterion: Criterion
    progress: Progress
    conversations: int = 0
    runs: int = 0
    found_in: dict[str, int] = field(default_factory=dict)
    checked: int = 0
    left: int = 0
    forgotten: Forgotten = field(default_factory=Forgotten)

    def run(self, origin: StoreSteps, *, all_namespaces: bool, verify: bool) -> Steps[Erased]:
        repository = origin.repository
        begun_at, passes, found = repository.clock(), 0, 1
        searched: dict[str, StoreSteps] = {}
        while found and passes < _MOST_PASSES:
            stores = yield from stores_of(origin, all_namespaces=all_namespaces)
            searched |= {store.namespace_name: store for store in stores}
            passes, found = passes + 1, 0
            for store in stores:
                found += yield from self._pass(store)
        expired = yield from self._purge(searched.values())
        for store in searched.values():
            if verify:
                yield from each_page(store, EVERYTHING, self._check)
            elif found:
                self.left += yield from ask(store, partial(repository.count, store.namespace_name, self.criterion))
        waiting = yield from ask(origin, repository.waiting)
        until = self.forgotten.until
        return Erased(
            criterion=repr(self.criterion),
            begun_at=to_datetime(begun_at),
            ended_at=to_datetime(repository.clock()),
            namespaces=len(searched),
            conversations=self.conversations,
            runs=self.runs,
            found_in=self.found_in,
            passes=passes,
            left=self.left,
            checked=self.checked if verify else None,
            expired=expired,
            receipts=self.forgotten.receipts,
            receipts_until=None if until is None else to_datetime(until),
            outbox=self.forgotten.outbox,
            waiting={replica: lag.change_sets for replica, lag in waiting.items()},
        )

    def _pass(self, store: StoreSteps) -> Steps[int]:
        """Erase what matches in a namespace, and return how many conversations were found."""
        found, batches = 0, Batches(store)

        def erase(page: Sequence[Conversation]) -> Steps[None]:
            nonlocal found
            found += len(page)
            # An append does not save a conversation, but an edit may mean that it does not match any more: the next pass sees.
            removals = [Batched(Change(one.id, version_of(one), remove=True), one.run_count) for one in page]
            done = yield from batches.commit(removals)
            if done:
                yield from self._forget(store, [removal.change.id for removal in done])
                self.conversations += len(done)
                self.runs += sum(removal.runs for removal in done)
                self.found_in[store.namespace_name] = self.found_in.get(store.namespace_name, 0) + len(done)
            self.progress(f"erased {self.conversations:,} conversations", None)

        yield from each_page(store, self.criterion, erase)
        return found

    def _forget(self, store: StoreSteps, ids: list[str]) -> Steps[None]:
        new = yield from ask(store, Write(store.repository.forget, store.namespace_name, ids))
        old = self.forgotten
        self.forgotten = Forgotten(
            old.receipts + new.receipts,
            old.outbox + new.outbox,
            max((one.until for one in (old, new) if one.until is not None), default=None),
        )

    def _purge(self, stores: Iterable[StoreSteps]) -> Steps[int]:
        """Purge after the last pass, so that a conversation that expired meanwhile is deleted too; return how many were."""
        expired = 0
        for store in stores:
            expired += yield from purge(store)
        return expired

    def _check(self, page: Sequence[Conversation]) -> Steps[None]:
        self.checked += len(page)
        self.left += sum(map(self.criterion.matches, page))
        self.progress(f"compared {self.checked:,} conversations", None)
        yield from ()
