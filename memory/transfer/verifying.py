"""Compare two stores of any kind and report the conversations that differ."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final, TypeAlias, TypeVar, cast

from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.timestamps import format_timestamp
from memory.domain.values import compact, key_of
from memory.errors import ConflictError, CorruptRecordError
from memory.transfer.reading import get_record, retry_on_conflict, runs_of

T = TypeVar("T")
Pair: TypeAlias = tuple[ConversationRecord | None, ConversationRecord | None]

_NAMED: Final = 5  # positions of differing runs that are listed
_MOMENTS: Final = ("created_at", "updated_at", "last_run_at", "expires_at")
_MISSING: Final = "missing there"


@dataclass(frozen=True, slots=True)
class Difference:
    """A conversation that differs between source and target, and how; ``there`` is the target.

    >>> print(Difference("tenant-a", "support-42", ("version: 3, there 2", "runs: at 7")))
    support-42 (in tenant-a): version: 3, there 2; runs: at 7
    """

    namespace: str
    id: str
    what: tuple[str, ...]

    def __str__(self) -> str:
        return f"{named(self.namespace, self.id)}: {'; '.join(self.what)}"


@dataclass(slots=True)
class Side:
    """What `verify` has read from one store. Equal digests mean equal conversations, in everything that a store keeps."""

    conversations: int = 0
    runs: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def add(self, namespace: str, record: ConversationRecord, digest: str) -> None:
        self.conversations += 1
        self.runs += record.run_count
        self._hash.update(f"{namespace}\n{digest}\n".encode())

    @property
    def digest(self) -> str:
        """The SHA-256 of the digests of all conversations, ordered by namespace and id."""
        return cast(str, self._hash.hexdigest())


@dataclass(slots=True)
class Compared:
    """What `verify` has compared so far."""

    source: Side = field(default_factory=Side)
    target: Side = field(default_factory=Side)
    differing: int = 0


def verify(
    source: Store[Any],
    target: Store[Any],
    criterion: Criterion | None = None,
    *,
    all_namespaces: bool = False,
    progress: Callable[[Compared], object] = lambda _: None,
    compared: Compared | None = None,
) -> Iterator[Difference]:
    """Compare the conversations of two stores, with all their runs, and yield those that differ.

    Everything that a store keeps is compared: metadata, version, times, positions, and each run, by the exact texts of their
    values. Memory is constant. A conversation that is written during the comparison is compared in the state in which it is read.

    Args:
        source: one store.
        target: the other one.
        criterion: only the conversations that match on either side.
        all_namespaces: compare every namespace that either side has; by default that of ``source`` with that of ``target``.
        progress: called after each conversation.
        compared: the counts and digests of both sides; a new one if left out.

    Raises:
        PersistenceError: a store failed.

    >>> import memory
    >>> source, target = memory.connect("memory://"), memory.connect("memory://")
    >>> with source.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    >>> list(verify(source, target))
    [Difference(namespace='default', id='support-42', what=('missing there',))]
    """
    compared = Compared() if compared is None else compared
    stores = [(source, target)]
    if all_namespaces:
        names = sorted({*source.namespaces(), *target.namespaces()})
        stores = [(source.namespace(name), target.namespace(name)) for name in names]
    for here, there in stores:
        for pair in pairs(here, there, criterion):
            what = _compare(here, there, pair, compared)
            if what:
                compared.differing += 1
                yield Difference(here.namespace_name, one_of(*pair).id, what)
            progress(compared)


def named(namespace: str, conversation_id: str) -> str:
    """Return the name of a conversation for messages that may be about several namespaces.

    >>> named("default", "support-42"), named("tenant-a", "support-42")
    ('support-42', 'support-42 (in tenant-a)')
    """
    return conversation_id if namespace == "default" else f"{conversation_id} (in {namespace})"


def _compare(source: Store[Any], target: Store[Any], found: Pair, compared: Compared) -> tuple[str, ...]:
    """Compare a conversation as it was found; if it differs, compare it again as it is now."""

    def digests_of(pair: Pair) -> list[str]:
        return [
            "" if record is None else digest(store, record)
            for store, record in zip((source, target), pair, strict=True)
        ]

    def count(pair: Pair, digests: list[str]) -> None:
        for side, record, text in zip((compared.source, compared.target), pair, digests, strict=True):
            if record is not None:  # the source's name on both sides: the target's may be another one
                side.add(source.namespace_name, record, text)

    def compare_now() -> tuple[str, ...]:
        conversation_id = one_of(*found).id
        now = get_record(source, conversation_id), get_record(target, conversation_id)
        digests = digests_of(now)
        what = () if digests[0] == digests[1] else _differences(source, target, now)
        count(now, digests)
        return what

    try:
        if None not in found and len(set(digests := digests_of(found))) == 1:
            count(found, digests)
            return ()
    except (ConflictError, CorruptRecordError):
        pass
    try:
        return retry_on_conflict(compare_now)
    except (ConflictError, CorruptRecordError) as error:
        return (str(error),)


def digest(store: Store[Any], record: ConversationRecord) -> str:
    """Return the SHA-256 of everything that a store keeps of a conversation, the same for equal ones on all stores."""
    sha = hashlib.sha256(compact(head(record)).encode())
    for run in runs_of(store, record):
        sha.update(compact(run).encode())
    return sha.hexdigest()


def head(record: ConversationRecord) -> ConversationRecord:
    """Return the record without what differs between stores (its incarnation), for comparisons."""
    return record._replace(incarnation="")


def _differences(source: Store[Any], target: Store[Any], pair: Pair) -> tuple[str, ...]:
    ours, theirs = pair
    if theirs is None:
        return (_MISSING,)
    if ours is None:
        return ("only there",)
    fields = [
        name if name == "metadata" else f"{name}: {_shown(name, here)}, there {_shown(name, there)}"
        for name, here, there in zip(ours._fields, head(ours), head(theirs), strict=True)
        if here != there
    ]
    return (*fields, *_differing_runs(runs_of(source, ours), runs_of(target, theirs)))


def _shown(name: str, value: object) -> str:
    return format_timestamp(value) if name in _MOMENTS and isinstance(value, int) else str(value)


def _differing_runs(ours: Iterator[RunRecord], theirs: Iterator[RunRecord]) -> Iterator[str]:
    """Yield one text with the positions of the runs that differ, the first five of them; nothing if none differs."""
    unequal = (pair for pair in outer_join(ours, theirs, lambda run: run.position) if pair[0] != pair[1])
    positions = [one_of(*pair).position for pair in islice(unequal, _NAMED)]
    if positions:
        more = sum(1 for _ in unequal)
        yield f"runs: at {', '.join(map(str, positions))}{f' and {more:,} more' if more else ''}"


def has_any(store: Store[Any], criterion: Criterion | None = None) -> bool:
    """Whether any conversation matches."""
    return bool(store.untyped().conversations.find(criterion, order="id", limit=1).items)


def pairs(source: Store[Any], target: Store[Any], criterion: Criterion | None) -> Iterator[Pair]:
    """Yield pairs of the conversations with the same id that match in either store, ordered by id."""
    here, there = [map(_record, store.untyped().conversations.iterate(criterion)) for store in (source, target)]
    return outer_join(here, there, lambda record: key_of(record.id))


def _record(conversation: Conversation) -> ConversationRecord:
    return cast(ConversationRecord, conversation.record)


def outer_join(here: Iterator[T], there: Iterator[T], key: Callable[[T], Any]) -> Iterator[tuple[T | None, T | None]]:
    """Full outer join of two iterators sorted by key; the missing side of a pair is None.

    >>> list(outer_join(iter([1, 2]), iter([2, 3]), key=int))
    [(1, None), (2, 2), (None, 3)]
    """
    ours, theirs = next(here, None), next(there, None)
    while ours is not None and theirs is not None:
        first = min(key(ours), key(theirs))
        pair = (ours if key(ours) == first else None, theirs if key(theirs) == first else None)
        yield pair
        ours = ours if pair[0] is None else next(here, None)
        theirs = theirs if pair[1] is None else next(there, None)
    yield from ((one, None) for one in chain([] if ours is None else [ours], here))
    yield from ((None, one) for one in chain([] if theirs is None else [theirs], there))


def one_of(here: T | None, there: T | None) -> T:
    """Return the first of the two that is not None."""
    return cast(T, there if here is None else here)
