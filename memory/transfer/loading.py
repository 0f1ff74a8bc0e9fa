"""Conversations written to a store in batches: the one loop of import and copy."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

from memory.core.store import Store
from memory.errors import (
    AlreadyExistsError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
    UnsupportedError,
)
from memory.port.changes import Change, ChangeSet
from memory.transfer.batching import Cost, batches
from memory.transfer.parsing import ParsedConversation, RejectedConversation
from memory.transfer.reading import get_record
from memory.transfer.updating import changed_since, has_more, update

OnConflict: TypeAlias = Literal["skip", "replace", "fail"]
"""What to do if the store has something else under an id: keep it, replace it, or stop."""

OnExisting: TypeAlias = Literal["skip", "update", "replace", "fail"]
"""What an import does if an id exists: as `OnConflict`; or add what is new, and keep what the application has added."""


@dataclass(slots=True)
class Totals:
    """What `restore` or `memory.transfer.copy` has done so far.

    Attributes:
        conversations: how many were written.
        runs: how many were written.
        equal: conversations that were the same on both sides already (copy).
        removed: conversations that the source did not have (copy).
        skipped: conversations that were left as they are: the id exists (import), or the target has another state (copy).
        updated: conversations that exist, to which something new was added (import).
        refused: conversations, or lines, that could not be read or that the store cannot keep.
    """

    conversations: int = 0
    runs: int = 0
    equal: int = 0
    removed: int = 0
    skipped: int = 0
    updated: int = 0
    refused: int = 0

    @property
    def seen(self) -> int:
        """How many conversations of the source have been handled."""
        return self.conversations + self.equal + self.skipped + self.updated + self.refused


@dataclass
class Loader(ABC):
    """Creates conversations in a store, in batches; each conversation completely or not at all.

    If the store refuses a batch, it is divided until the conversations that caused the refusal are found; all others are
    written. Subclasses decide what happens to those.
    """

    store: Store[Any]
    on_conflict: OnExisting
    totals: Totals
    progress: Callable[[Totals], object]

    def __post_init__(self) -> None:
        choices = self.choices
        if self.on_conflict not in choices:
            raise InvalidValueError(f"on_conflict must be one of {', '.join(choices)}, not {self.on_conflict!r}")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of ``on_conflict``."""
        return get_args(OnConflict)

    @abstractmethod
    def handle_existing(self, one: ParsedConversation) -> None:
        """Decide what happens to a conversation whose id exists in the store."""

    @abstractmethod
    def handle_refused(self, one: ParsedConversation, reason: str) -> None:
        """Report a conversation that the store cannot keep."""

    def load(self, conversations: Iterable[ParsedConversation]) -> None:
        """Write conversations in order; call ``progress`` after each batch."""
        capabilities = self.store.repository.capabilities
        together = capabilities.atomic and capabilities.many_conversations
        for batch in batches(conversations, _cost, together=together, largest_commit=capabilities.largest_commit):
            self._write(batch)
            batch.clear()  # before the next one is read
            self.progress(self.totals)

    def store_of(self, one: ParsedConversation) -> Store:
        """Return the store of the namespace that a conversation goes to."""
        return self.store if one.namespace is None else self.store.namespace(one.namespace)

    def _write(self, batch: list[ParsedConversation]) -> None:
        store = self.store_of(batch[0])
        pending = [batch]
        while pending:
            part = pending.pop()
            try:
                store.commit(ChangeSet.of([one.change for one in part], store.repository.clock()))
            except (AlreadyExistsError, InvalidValueError, PartialCommitError, UnsupportedError) as error:
                pending += [part for part in reversed(self._divide(store, part, error)) if part]
            else:
                self.totals.conversations += len(part)
                self.totals.runs += sum(len(one.change.append) for one in part)

    def _divide(
        self, store: Store[Any], part: list[ParsedConversation], error: PersistenceError
    ) -> list[list[ParsedConversation]]:
        """Return what is left to write of a refused part."""
        check_refusal(error)
        if len(part) == 1:
            self._handle(store, part[0], error)
            return []
        # To fail, the conversations before the existing one are written first, by dividing the part.
        if isinstance(error, AlreadyExistsError) and self.on_conflict != "fail":
            with store.untyped().begin() as uow:
                existing = {one.change.id: one for one in part if one.change.id in uow.conversations}
            for one in existing.values():
                self.handle_existing(one)
            if existing:
                return [[one for one in part if one.change.id not in existing]]
        half = len(part) // 2
        return [part[:half], part[half:]]

    def _handle(self, store: Store[Any], one: ParsedConversation, error: PersistenceError) -> None:
        if isinstance(error, AlreadyExistsError):
            self.handle_existing(one)
            return
        if isinstance(error, PartialCommitError):
            with suppress(NotFoundError):
                store.commit(ChangeSet.of([Change(one.change.id, remove=True)], store.repository.clock()))
        self.handle_refused(one, str(error.__cause__ if isinstance(error, PartialCommitError) else error))


def check_refusal(error: PersistenceError) -> None:
    """Raise the error again if a commit broke off for another reason than what it was to write."""
    if isinstance(error, PartialCommitError) and not error.is_refusal:
        raise error


def _cost(one: ParsedConversation) -> Cost:
    return Cost(one.size, len(one.change.append), one.change.id, one.namespace)


def restore(
    store: Store[Any],
    lines: Iterable[ParsedConversation | RejectedConversation],
    *,
    all_namespaces: bool = False,
    on_conflict: OnExisting = "skip",
    on_refusal: Callable[[RejectedConversation], object] = lambda _: None,
    on_skipped: Callable[[str], object] = lambda _: None,
    on_newer: Callable[[str], object] = lambda _: None,
    progress: Callable[[Totals], object] = lambda _: None,
    totals: Totals | None = None,
    dry_run: bool = False,
) -> Totals:
    """Write the conversations of parsed lines to a store; report a line without one, and go on.

    Each conversation is written completely or not at all, in the order of the lines. Memory is constant: some megabytes of lines
    are written in one commit.

    Args:
        store: the store to write to.
        lines: as `read_lines` yields them.
        all_namespaces: write each line to the namespace it names; a line that names none goes to that of ``store``. By default
            all go to that of ``store``, and they have to be of one namespace.
        on_conflict: what to do if an id exists, in the store or on an earlier line: ``"skip"`` the line, ``"update"`` the
            stored conversation with what is new in the line, ``"replace"`` it, or ``"fail"``.
        on_refusal: called with each line that holds no conversation, or one that the store cannot keep.
        on_skipped: called with the id of each line that is skipped.
        on_newer: called instead for a line that has more than the stored conversation.
        progress: called after each batch.
        totals: the totals to count up; new ones if left out. After an error they say what is written.
        dry_run: write nothing, and count what would be written. The ids of all lines are held in memory.

    Raises:
        InvalidValueError: ``on_conflict`` is something else; or the lines name several namespaces, without ``all_namespaces``.
        AlreadyExistsError: an id exists and ``on_conflict`` is ``"fail"``; all lines before that one are written.
        PersistenceError: the store failed; what ``totals`` counts is written.

    >>> import io, memory
    >>> from memory.transfer import read_lines, restore
    >>> restore(memory.connect("memory://"), read_lines(io.BytesIO(b'{"id": "support-42"}'))).conversations
    1
    """
    totals = Totals() if totals is None else totals
    kind = _DryRun if dry_run else _Restore
    restoring = kind(store, on_conflict, totals, progress, all_namespaces, on_refusal, on_skipped, on_newer)
    restoring.load(restoring.parsed(lines))
    return restoring.totals


@dataclass
class _Restore(Loader):
    all_namespaces: bool
    on_refusal: Callable[[RejectedConversation], object]
    on_skipped: Callable[[str], object]
    on_newer: Callable[[str], object]

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(OnExisting)

    def parsed(self, lines: Iterable[ParsedConversation | RejectedConversation]) -> Iterator[ParsedConversation]:
        first = None
        for line in lines:
            if isinstance(line, RejectedConversation):
                self._refuse(line)
                continue
            first = first or line.namespace
            if not self.all_namespaces and line.namespace not in (None, first):
                raise InvalidValueError(
                    f"line {line.number} is of namespace {line.namespace!r}, earlier ones of {first!r}: to write each "
                    "to its own, pass all_namespaces=True, or omit --namespace"
                )
            change = line.change._replace(remove=True) if self.on_conflict == "replace" else line.change
            yield replace(line, change=change, namespace=line.namespace if self.all_namespaces else None)

    def handle_existing(self, one: ParsedConversation) -> None:
        if self.on_conflict == "fail":
            raise AlreadyExistsError(f"line {one.number}: conversation {one.change.id!r} already exists")
        if self.on_conflict == "update":
            try:
                added = update(self.store_of(one), one.change)
            except (InvalidValueError, UnsupportedError) as error:
                self.handle_refused(one, str(error))
                return
            if added is not None:
                self.totals.updated += 1
                self.totals.runs += added
                return
        self.totals.skipped += 1
        is_newer = self.on_conflict == "skip" and has_more(get_record(self.store_of(one), one.change.id), one.change)
        (self.on_newer if is_newer else self.on_skipped)(one.change.id)

    def handle_refused(self, one: ParsedConversation, reason: str) -> None:
        self._refuse(RejectedConversation(one.number, reason))

    def _refuse(self, line: RejectedConversation) -> None:
        self.totals.refused += 1
        self.on_refusal(line)


@dataclass
class _DryRun(_Restore):
    seen: set[tuple[str, str]] = field(default_factory=set)

    def _write(self, batch: list[ParsedConversation]) -> None:
        store = self.store_of(batch[0])
        for one in batch:
            key = store.namespace_name, one.change.id
            if self.on_conflict != "replace" and (key in self.seen or get_record(store, one.change.id) is not None):
                self.handle_existing(one)
            else:
                self.totals.conversations += 1
                self.totals.runs += len(one.change.append)
            self.seen.add(key)

    def handle_existing(self, one: ParsedConversation) -> None:
        if self.on_conflict != "update":
            super().handle_existing(one)
        elif (found := changed_since(self.store_of(one), one.change)) is not None:
            self.totals.updated += 1
            self.totals.runs += len(found.append)
        else:
            self.totals.skipped += 1
            self.on_skipped(one.change.id)
