"""Random metadata and random criteria: every store returns exactly the conversations that `Criterion.matches` accepts."""

from itertools import product
from typing import NamedTuple

from hypothesis import strategies as st

from memory.core.store import Store
from memory.domain.criteria import Criterion, MetadataTerm, where
from memory.domain.entities import Conversation
from memory.domain.values import Json, to_datetime
from memory.port.paging import Order
from memory.testing.base import Clock, Contract, put, put_all, run, sibling, states, walk
from memory.testing.strategies import LONG

_KEYS = ("a", "a", "b", "a.b", "")  # few, so that criteria and metadata often have the same key
_POOLS: tuple[tuple[Json, ...], ...] = (
    (0, -0.0, False, 1, 1.0, True, "1", None),
    (2**53, 2**53 + 1, float(2**53), 2**70, -(2**53), -(2**53) - 1, -256, -257),
    ("", "a", "ab", "b", "\x00", "\uffff", "😀", "\ud83d", "\ud83d\ude00"),
    ("", LONG[:256], LONG, LONG + "a", LONG + "b", None),
)
"""Values that some store may confuse. An example uses one pool only, so that such values occur together."""

_IDS = ("a", "B", "\u00e9", "\uffff", "😀")
_START = Clock().time
_ORDERS = ("last_run_at", "-last_run_at", "updated_at", "-updated_at", "created_at", "-created_at", "id", "-id")

_paths = st.just(("a",)) | st.lists(st.sampled_from(_KEYS), min_size=1, max_size=2).map(tuple)


class _Entry(NamedTuple):
    """A conversation to create: its delay after the previous one, its metadata, and its number of runs."""

    later: int
    metadata: dict[str, Json]
    runs: int


class _Query(NamedTuple):
    """A criterion, an order and a page size."""

    criterion: Criterion
    order: str
    limit: int


class _Example(NamedTuple):
    entries: list[_Entry]
    queries: list[_Query]


def _examples(pool: tuple[Json, ...]) -> st.SearchStrategy[_Example]:
    scalars = st.sampled_from(pool)
    values: st.SearchStrategy[Json] = scalars | st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=2),
        max_leaves=4,
    )
    metadata = st.dictionaries(st.sampled_from(_KEYS), values, max_size=3)
    with_a = st.builds(lambda value, others: {**others, "a": value}, values, metadata)
    entries = st.builds(_Entry, st.integers(0, 1), with_a | metadata, st.integers(0, 2))
    queries = st.builds(_Query, criteria(values, pool), st.sampled_from(_ORDERS), st.integers(1, 4))
    return st.builds(
        _Example, st.lists(entries, min_size=3, max_size=len(_IDS)), st.lists(queries, min_size=3, max_size=6)
    )


def criteria(values: st.SearchStrategy[Json], pool: tuple[Json, ...]) -> st.SearchStrategy[Criterion]:
    """Return random criteria of every kind: with these values, with bounds from the pool, and combinations of them."""
    return st.recursive(
        _paths.flatmap(lambda path: _on_metadata(where(path), values, pool)) | _on_fields(),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
            inner.map(lambda part: ~part),
        ),
        max_leaves=5,
    )


def _on_metadata(
    term: MetadataTerm, values: st.SearchStrategy[Json], pool: tuple[Json, ...]
) -> st.SearchStrategy[Criterion]:
    bounds = st.sampled_from([one for one in pool if isinstance(one, int | float | str) and not isinstance(one, bool)])
    prefixes = st.sampled_from(["", "a", *(one for one in pool if isinstance(one, str))])
    return st.one_of(
        values.map(lambda value: term == value),
        values.map(lambda value: term != value),
        bounds.map(lambda bound: term < bound),
        bounds.map(lambda bound: term <= bound),
        bounds.map(lambda bound: term > bound),
        bounds.map(lambda bound: term >= bound),
        st.tuples(bounds, bounds).map(lambda pair: term.between(*pair)),
        st.lists(values, max_size=3).map(term.in_),
        st.just(term.exists()),
        prefixes.map(term.startswith),
        values.map(term.contains),
    )


def _on_fields() -> st.SearchStrategy[Criterion]:
    moments = st.integers(_START - 1, _START + 5).map(to_datetime)
    return st.one_of(
        st.sampled_from(_IDS).map(lambda value: where.id == value),
        st.sampled_from(_IDS).map(lambda value: where.id > value),
        st.lists(st.sampled_from(_IDS), max_size=2).map(where.id.in_),
        moments.map(lambda value: where.created_at <= value),
        moments.map(lambda value: where.updated_at > value),
        moments.map(lambda value: where.last_run_at <= value),
        moments.map(lambda value: where.created_at != value),
        st.integers(-1, 3).map(lambda value: where.run_count == value),
        st.integers(-1, 3).map(lambda value: where.run_count >= value),
    )


def _nested(depth: int) -> st.SearchStrategy[Criterion]:
    """Return intersections, unions and negations nested to this depth. RediSearch 2.10 misinterprets some of them as written."""
    leaves = st.builds(lambda key, value: where(key) == value, st.sampled_from("abc"), st.sampled_from((0, 1)))
    leaf = leaves | leaves.map(lambda part: ~part) | _on_fields()
    if depth == 0:
        return leaf
    inner = _nested(depth - 1)
    return st.builds(
        lambda left, right, is_union, is_negated: _negated(left | right if is_union else left & right, is_negated),
        inner,
        inner | leaf,
        st.booleans(),
        st.booleans(),
    )


def _negated(criterion: Criterion, is_negated: bool) -> Criterion:  # noqa: FBT001  # drawn at random
    return ~criterion if is_negated else criterion


class RandomQueries(Contract):
    """`find` and `count` agree with `matches`."""

    def test_nested_negations_agree_with_matches(self, store: Store) -> None:
        """`find` and `count` agree with `matches` for negations in unions and intersections, up to five levels deep."""
        combinations = product((0, 1, None), repeat=3)
        put_all(
            store,
            {
                f"{a} {b} {c}": {k: v for k, v in zip("abc", (a, b, c), strict=True) if v is not None}
                for a, b, c in combinations
            },
        )
        conversations = list(store.begin().conversations.iterate())

        def agree(criterion: Criterion) -> None:
            matching = sorted(one.id for one in conversations if criterion.matches(one))
            uow = store.begin()
            assert [one.id for one in uow.conversations.find(criterion, order="id")] == matching
            assert uow.conversations.count(criterion) == len(matching)

        self.for_all(st.integers(1, 5).flatmap(_nested), agree)

    def test_queries_agree_with_matches(self, store: Store, clock: Clock) -> None:
        """`find`, in every order, and `count` agree with the pure function `Criterion.matches`."""

        def agree(example: _Example) -> None:
            clock.time = _START
            other = sibling(store)
            conversations = _put_all(other, clock, example.entries)
            for query in example.queries:
                _check(other, conversations, query)

        self.for_all(st.sampled_from(_POOLS).flatmap(_examples), agree)


def _put_all(store: Store, clock: Clock, entries: list[_Entry]) -> list[Conversation]:
    conversations = []
    for conversation_id, (later, metadata, runs) in zip(_IDS, entries, strict=False):
        clock.advance(later)
        conversations.append(put(store, conversation_id, metadata, *[run()] * runs))
    return conversations


def _check(store: Store, conversations: list[Conversation], query: _Query) -> None:
    criterion, order = query.criterion, Order.parse(query.order)
    matching = [one for one in conversations if criterion.matches(one)]
    matching.sort(key=lambda one: (getattr(one, order.field), one.id), reverse=order.descending)
    assert states(walk(store, criterion, order=query.order, limit=query.limit)) == states(matching)
    assert store.begin().conversations.count(criterion) == len(matching)
