"""Conversations that arrive, written to a store: each wholly or not at all."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from memory.core.store import Store
from memory.domain.values import now
from memory.errors import AlreadyExistsError, InvalidValueError, NotFoundError, PartialCommitError
from memory.port.changes import Change, ChangeSet
from memory.transfer.batching import Cost, batches
from memory.transfer.parsing import ParsedConversation, RejectedConversation

OnConflict: TypeAlias = Literal["skip", "replace", "fail"]
"""What `restore` does with a conversation whose id is taken: leave the stored one, put this in its place, or stop."""


@dataclass(slots=True)
class Totals:
    """What `restore` has done so far; ``skipped`` conversations existed already, ``refused`` lines held none."""

    conversations: int = 0
    runs: int = 0
    skipped: int = 0
    refused: int = 0


def restore(
    store: Store,
    lines: Iterable[ParsedConversation | RejectedConversation],
    *,
    on_conflict: OnConflict = "skip",
    on_refusal: Callable[[RejectedConversation], object] = lambda _: None,
    on_skipped: Callable[[str], object] = lambda _: None,
    progress: Callable[[Totals], object] = lambda _: None,
    totals: Totals | None = None,
) -> Totals:
    """Write the conversations that lines hold, each wholly or not at all, and go on after a line that holds none.

    Memory is constant: some megabytes of lines are written in one commit, in their order.

    Args:
        store: where to.
        lines: as `read_lines` yields them.
        on_conflict: ``"skip"``, ``"replace"`` or ``"fail"``, see `OnConflict`; an id that comes twice is
            taken the second time.
        on_refusal: called with each line that holds no conversation, or one that the store cannot keep.
        on_skipped: called with each id that was taken, where that is skipped.
        progress: called after each commit.
        totals: counts up, and is returned; a new one when left out. It tells what is written when this raises.

    Raises:
        InvalidValueError: ``on_conflict`` is something else.
        AlreadyExistsError: an id was taken and ``on_conflict`` is ``"fail"``; all lines before that one are written.
        PersistenceError: the store failed; what ``totals`` counts is written.
    """
    if on_conflict not in get_args(OnConflict):
        raise InvalidValueError(f"on_conflict must be one of {', '.join(get_args(OnConflict))}, not {on_conflict!r}")
    totals = Totals() if totals is None else totals
    restoring = _Restoring(store, on_conflict, on_refusal, on_skipped, totals)
    for group in batches(restoring.arrivals(lines), _load, together=store.repository.capabilities.atomic):
        restoring.write(group)
        group.clear()  # before the next one is read
        progress(totals)
    return totals


def _load(arrival: ParsedConversation) -> Cost:
    return Cost(arrival.size, len(arrival.change.append), arrival.change.id)


class _Restoring:
    """One call of `restore`."""

    def __init__(
        self,
        store: Store,
        on_conflict: OnConflict,
        on_refusal: Callable[[RejectedConversation], object],
        on_skipped: Callable[[str], object],
        totals: Totals,
    ) -> None:
        self._store = store
        self._on_conflict = on_conflict
        self._on_refusal = on_refusal
        self._on_skipped = on_skipped
        self._totals = totals

    def arrivals(self, lines: Iterable[ParsedConversation | RejectedConversation]) -> Iterator[ParsedConversation]:
        for line in lines:
            if isinstance(line, ParsedConversation):
                yield line
            else:
                self.refuse(line)

    def refuse(self, refusal: RejectedConversation) -> None:
        self._totals.refused += 1
        self._on_refusal(refusal)

    def write(self, group: list[ParsedConversation]) -> None:
        while group:
            try:
                self._store.commit(ChangeSet.of(map(self._change, group), now()))
            except AlreadyExistsError:
                group = self._without_taken(group)
            except InvalidValueError as error:
                group = self._without_invalid(group, error)
            except PartialCommitError as error:
                group = self._without_begun(group, error)
            else:
                self._totals.conversations += len(group)
                self._totals.runs += sum(len(arrival.change.append) for arrival in group)
                return

    def _without_invalid(self, group: list[ParsedConversation], error: BaseException) -> list[ParsedConversation]:
        """Write one half and return the other, to find what the store cannot keep; refuse it when it is found."""
        if len(group) == 1:
            self.refuse(RejectedConversation(group[0].number, str(error)))
            return []
        half = len(group) // 2
        self.write(group[:half])
        return group[half:]

    def _without_begun(self, group: list[ParsedConversation], error: PartialCommitError) -> list[ParsedConversation]:
        """Remove the one conversation of which the store cannot keep all, and refuse it."""
        if not error.is_refusal:
            raise error
        with suppress(NotFoundError):
            self._store.commit(ChangeSet.of([Change(group[0].change.id, remove=True)], now()))
        return self._without_invalid(group, error.__cause__ or error)

    def _change(self, arrival: ParsedConversation) -> Change:
        return replace(arrival.change, remove=True) if self._on_conflict == "replace" else arrival.change

    def _without_taken(self, group: list[ParsedConversation]) -> list[ParsedConversation]:
        with self._store.begin() as uow:
            taken = {arrival.change.id for arrival in group if arrival.change.id in uow.conversations}
        free = [arrival for arrival in group if arrival.change.id not in taken]
        if self._on_conflict == "fail" and taken:
            first = next(arrival for arrival in group if arrival.change.id in taken)
            self.write([arrival for arrival in free if arrival.number < first.number])
            raise AlreadyExistsError(f"line {first.number}: conversation {first.change.id!r} exists already")
        for arrival in group:
            if arrival.change.id in taken:
                self._totals.skipped += 1
                self._on_skipped(arrival.change.id)
        return free
