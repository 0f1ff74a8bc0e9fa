"""Edge cases of each query operator, with the result that every store returns."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import or_

import pytest

from memory.core.store import Store
from memory.domain.criteria import Criterion, check_depth, where
from memory.domain.entities import Conversation
from memory.domain.values import Json, to_datetime
from memory.errors import InvalidValueError
from memory.testing.base import Clock, Contract, do, put, put_all, read, run, text_of, walk
from memory.testing.strategies import LONG, ODD_STRINGS

NUMBERS: tuple[Json, ...] = (
    *(-(2**70), -(2**53) - 1, -(2**53), -(2**23) - 1, -(2**23), -257, -256, -1.5, -1, 0),
    *(5e-324, 0.1, 1, 1.5, 2**53, 2**53 + 1, 2**63, 2**70, 2**70 + 1, 1.7e308, 10**400),
)
"""Ascending; each differs from the previous one by the least that some store distinguishes."""

STRINGS: tuple[Json, ...] = tuple(
    sorted((*ODD_STRINGS, "a", "A", "b", "ab", "aB", "\u00df", LONG[:-1], LONG + "\x00", LONG + "\U0010ffff"))
)
"""Ascending by code point."""

NEITHER: tuple[Json, ...] = (None, True, False, [], {}, [1], ["a"], {"a": 1}, {"v": "a"})

v = where("v")


def _is_allowed(criterion: Criterion) -> bool:
    try:
        return check_depth(criterion) is criterion
    except InvalidValueError:
        return False


class Queries(Contract):
    """Queries over one conversation for each value, at the metadata key ``v``."""

    def test_equality(self, store: Store) -> None:
        """1 equals 1.0 and -0.0 equals 0; True and "1" do not equal 1; only None equals None; integers compare exactly."""
        values = _distinct([*NUMBERS, *STRINGS, *NEITHER, 1.0, 0.0, -0.0, float(2**53), float(2**70), [True], [1.0, 1]])
        _put_values(store, values)
        for value in values:
            equal = [one for one in values if _equal(one, value)]
            others = [one for one in values if not _equal(one, value)]
            _expect(store, values, [(v == value, equal), (v != value, others)])
        _expect(
            store,
            values,
            [
                (v == 1, [1, 1.0]),
                (v == True, [True]),  # noqa: E712  # a criterion
                (v == 0, [0, 0.0, -0.0]),
                (v == 2**53, [2**53, float(2**53)]),
                (v == 2**53 + 1, [2**53 + 1]),
                (v == [1, 1], [[1.0, 1]]),
                (v == [True], [[True]]),
                (v == {"a": 1.0}, [{"a": 1}]),
            ],
        )

    def test_comparison_of_numbers(self, store: Store) -> None:
        """<, <=, >, >= and between compare numbers of any size exactly, and never match other types."""
        _check_order(store, NUMBERS, (*STRINGS, *NEITHER))

    def test_comparison_of_strings(self, store: Store) -> None:
        """<, <=, >, >= and between compare strings of any length by code point, and never match other types."""
        _check_order(store, STRINGS, (*NUMBERS, *NEITHER))

    def test_in(self, store: Store) -> None:
        """`in_` matches if one of the values is equal, with values of any types, with no values and with very many."""
        values: list[Json] = [1, "1", True, None, [], [1], {"a": 1}, "a", 2**70, *range(100, 110)]
        _put_values(store, values)
        many = [*range(105, 3_000), *map(str, range(3_000))]
        cases: list[tuple[Criterion, list[Json]]] = [
            (v.in_([]), []),
            (~v.in_([]), values),
            (v.in_([1]), [1]),
            (v.in_([1, 1.0, "1", "x"]), [1, "1"]),
            (v.in_([None, True, [1]]), [True, None, [1]]),
            (v.in_([{"a": 1}, 2**70]), [{"a": 1}, 2**70]),
            (v.in_(many), ["1", *range(105, 110)]),
            (~v.in_(many), [one for one in values if one != "1" and one not in range(105, 110)]),
        ]
        _expect(store, values, cases)

    def test_exists(self, store: Store) -> None:
        """`exists()` matches None and empty values like any others; != also matches a missing path."""
        values: list[Json] = [None, False, 0, "", [], {}, "a", 1]
        _put_values(store, values)
        put(store, "none", {})
        put(store, "other", {"w": 1, "v.": 1, "": {"v": 1}})
        conversations = store.begin().conversations
        assert sorted(one.id for one in walk(store, ~v.exists())) == ["none", "other"]
        assert (conversations.count(v.exists()), conversations.count(~v.exists())) == (len(values), 2)
        assert conversations.count(v != 1) == len(values) + 2 - 1
        assert conversations.count(~(v > 0)) == len(values) + 2 - 1
        assert conversations.count(v == None) == 1  # noqa: E711  # a criterion

    def test_startswith(self, store: Store) -> None:
        """`startswith` compares code points: no patterns, case-sensitive, no partial characters; "" matches every string."""
        values = _distinct([*STRINGS, *NUMBERS[:3], *NEITHER])
        _put_values(store, values)
        short = ["", "a", "A", "%", "_", "a\x00", "\x00", "\ud83d", "😀", "\\", '"', "'", "\uffff", "\U0010ffff"]
        cases: list[tuple[Criterion, list[Json]]] = [
            (v.startswith(prefix), [one for one in values if isinstance(one, str) and one.startswith(prefix)])
            for prefix in [*short, LONG[:100], LONG[:256], LONG, LONG + "a", LONG + "c"]
        ]
        _expect(store, values, cases)

    def test_contains(self, store: Store) -> None:
        """`contains()` matches an equal element of the list itself, and does not search nested lists, dicts or strings."""
        lists: list[Json] = [["a", 1], [1.0], [True], ["ab"], [["a"]], [{"a": 1}], [None], [], [LONG + "a"], [[]]]
        values: list[Json] = [*lists, "a", {"a": "a"}, None, [0, 0, -0.0]]
        _put_values(store, values)
        cases: list[tuple[Criterion, list[Json]]] = [
            (v.contains("a"), [["a", 1]]),
            (v.contains(1), [["a", 1], [1.0]]),
            (v.contains(element=True), [[True]]),
            (v.contains(None), [[None]]),
            (v.contains(["a"]), [[["a"]]]),
            (v.contains({"a": 1}), [[{"a": 1}]]),
            (v.contains([]), [[[]]]),
            (v.contains(""), []),
            (v.contains(LONG + "a"), [[LONG + "a"]]),
            (v.contains(LONG + "b"), []),
            (v.contains(0), [[0, 0, -0.0]]),
            (~v.contains(1), [one for one in values if text_of(one) not in ('["a",1]', "[1.0]")]),
        ]
        _expect(store, values, cases)

    def test_paths(self, store: Store) -> None:
        """A path addresses nested dicts by whole keys, as a tuple for keys with dots; it does not descend into lists."""
        kept: dict[str, dict[str, Json]] = {
            "nested": {"a": {"b": 1}},
            "dotted": {"a.b": 1},
            "deep": {"a": {"b": {"c": 1}}},
            "listed": {"a": [{"b": 1}]},
            "element": {"a": {"b": [1]}},
            "empty": {"": {"": 1}},
            "nul": {"a\x00\x01b": 1, "a\x00": {"b": 1}},
            "surrogate": {"\ud83d": {"\ude00": 1}, "\ud83d\ude00": 2, "😀": 3},
            "quoted": {'"': {"'": {"\\": {"%": {"*": 1}}}}},
            "long": {LONG * 20: {LONG * 20: 1}, LONG * 20 + "a": 2},
        }
        for name, metadata in kept.items():
            put(store, name, metadata)
        for criterion, expected in (
            (where("a.b") == 1, ["nested"]),
            (where("a.b").exists(), ["deep", "element", "nested"]),
            (where(("a.b",)) == 1, ["dotted"]),
            (where("a.b.c") == 1, ["deep"]),
            (where("a.b").contains(1), ["element"]),
            (where(".") == 1, ["empty"]),
            (where("").exists(), ["empty"]),
            (where(("a\x00", "b")) == 1, ["nul"]),
            (where(("a\x00\x01b",)) == 1, ["nul"]),
            (where(("\ud83d", "\ude00")) == 1, ["surrogate"]),
            (where("\ud83d\ude00") == 2, ["surrogate"]),
            (where("😀") == 3, ["surrogate"]),
            (where("\".'.\\.%.*") == 1, ["quoted"]),
            (where((LONG * 20, LONG * 20)) == 1, ["long"]),
            (where((LONG * 20 + "a",)) >= 2, ["long"]),
            (where((LONG * 20 + "b",)).exists(), []),
            (where("a.b.c.d").exists(), []),
            (where("A.B").exists(), []),
        ):
            assert sorted(one.id for one in walk(store, criterion)) == expected, criterion
            assert store.begin().conversations.count(criterion) == len(expected), criterion

    def test_own_fields(self, store: Store, clock: Clock) -> None:
        """`id`, `created_at`, `updated_at` and `run_count` support every comparison, also with values beyond any stored one."""
        for n, name in enumerate(("a", "B", "\uffff", "😀")):
            put(store, name, None, *[run()] * n)
            clock.advance()
        do(store, lambda uow: uow.runs.append("a", run(), run()))
        start, end = to_datetime(1_700_000_000_000_000), to_datetime(clock.time)
        for criterion, expected in (
            (where.id == "a", "a"),
            (where.id != "a", "B\uffff😀"),
            (where.id < "a", "B"),
            (where.id <= "a", "Ba"),
            (where.id > "\uffff", "😀"),
            (where.id.between("B", "a"), "Ba"),
            (where.id.in_(["a", "x", "😀"]), "a😀"),
            (where.id.in_([]), ""),
            (where.id >= "", "Ba\uffff😀"),
            (where.id > "\ue000", "\uffff😀"),
            (where.id == "x" * 1_000, ""),
            (where.created_at == start, "a"),
            (where.created_at > start, "B\uffff😀"),
            (where.created_at >= start, "Ba\uffff😀"),
            (where.updated_at == end, "a"),
            (where.updated_at < end, "B\uffff😀"),
            (where.updated_at != end, "B\uffff😀"),
            (where.run_count == 2, "a\uffff"),
            (where.run_count.between(1, 2), "Ba\uffff"),
            (where.run_count.in_([3, -1, 2**70]), "😀"),
            (where.run_count < 2**70, "Ba\uffff😀"),
            (where.run_count > -(2**70), "Ba\uffff😀"),
            (where.run_count == 2**70, ""),
        ):
            assert "".join(one.id for one in walk(store, criterion, limit=2)) == expected, criterion
            assert store.begin().conversations.count(criterion) == len(expected), criterion

    def test_combinations(self, store: Store) -> None:
        """&, | and ~ combine any criteria: nested, negated, and in chains of hundreds."""
        values: list[Json] = [1, 2, 3, "1", [1], {"k": 1}, None]
        _put_values(store, values)
        low, number, listed = v <= 2, v.between(-(10**9), 10**9), v.contains(1)
        equal_list = v == [1]
        cases: list[tuple[Criterion, list[Json]]] = [
            (low & number, [1, 2]),
            (number & ~low, [3]),
            (~number & ~listed, ["1", {"k": 1}, None]),
            (~(number | listed), ["1", {"k": 1}, None]),
            (~(number & low), [3, "1", [1], {"k": 1}, None]),
            (~~low, [1, 2]),
            (low | equal_list, [1, 2, [1]]),
            (~(low | equal_list), [3, "1", {"k": 1}, None]),
            (~equal_list & (v != 1), [2, 3, "1", {"k": 1}, None]),
            ((low & (v == 1)) | (~low & (v == 3)) | (where("v.k") == 1), [1, 3, {"k": 1}]),
            (number & (where.run_count == 0) & (where.id >= ""), [1, 2, 3]),
            (low & ~low, []),
            (low | ~low, values),
            (reduce(or_, [v == n for n in range(2, 500)]), [2, 3]),
        ]
        _expect(store, values, cases)

    def test_nesting_to_the_limit(self, store: Store) -> None:
        """On every store, criteria of any shape may nest up to `memory.domain.values.MAX_DEPTH` levels, and no deeper."""
        put(store, "a", {"v": 1})
        shapes: tuple[Callable[[Criterion], Criterion], ...] = (
            lambda inner: ~(inner & (where("w") == 2)),
            lambda inner: ~((where.run_count != 0) | ((where("w") != 2) & inner)),
            lambda inner: ((where("w") == 2) | ~inner) & v.exists(),
        )
        conversation = read(store, "a")
        for shape in shapes:
            deepest = criterion = v == 1
            while _is_allowed(criterion):
                deepest, criterion = criterion, shape(criterion)
            assert store.begin().conversations.count(deepest) == deepest.matches(conversation)
            assert len(store.begin().conversations.find(deepest)) == deepest.matches(conversation)
            with pytest.raises(InvalidValueError, match="nests deeper"):
                store.begin().conversations.find(criterion)

    def test_rare_match_among_many(self, store: Store) -> None:
        """A few matches are all found among many conversations that an index alone cannot distinguish from them."""
        put_all(store, {f"{n:03}": {"v": [n % 50, {}], "n": n} for n in range(150)})
        for criterion, expected in (
            (v == [7, {}], ["007", "057", "107"]),
            (v.contains({}) & (v == [7, {}]), ["007", "057", "107"]),
            ((where("n") >= 149) | (v == [0, {}]), ["000", "050", "100", "149"]),
            (~(v != [7, {}]) & (where("n") < 100), ["007", "057"]),
        ):
            assert [one.id for one in walk(store, criterion, limit=2)] == expected
            assert [one.id for one in walk(store, criterion, order="-id", limit=3)] == expected[::-1]
            assert store.begin().conversations.count(criterion) == len(expected)

    def test_index_follows_every_change(self, store: Store) -> None:
        """Queries find the current state after a change, a removal and a re-creation."""
        put(store, "a", {"v": 1, "tags": ["x", "y"]})
        conversation = (uow := store.begin()).conversations.get("a")
        values: tuple[Json, ...] = (2, 2.0, "2", [2], {"v": 2}, None)
        for value in values:
            conversation.metadata = {"v": value, "tags": [value]}
            uow.commit()
            for criterion, expected in ((v == value, 1), (v == 1, 0), (where("tags").contains("x"), 0)):
                assert store.begin().conversations.count(criterion) == expected
            assert text_of(walk(store, v == value)[0].metadata["v"]) == text_of(value)
        with store.begin() as other:
            other.conversations.remove("a")
            other.conversations.add(Conversation("a", {"w": 1}))
        conversations = store.begin().conversations
        assert (conversations.count(v.exists()), conversations.count(where("w") == 1)) == (0, 1)


def _equal(left: Json, right: Json) -> bool:
    """Return whether two of this module's values are equal by the rules of queries."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _distinct(values: Iterable[Json]) -> list[Json]:
    return list({text_of(value): value for value in values}.values())


def _put_values(store: Store, values: Iterable[Json]) -> None:
    put_all(store, {f"{n:04}": {"v": value} for n, value in enumerate(values)})


def _expect(store: Store, values: Sequence[Json], cases: Iterable[tuple[Criterion, Sequence[Json]]]) -> None:
    """Assert that find and count return the expected values for each criterion."""
    for criterion, expected in cases:
        texts = set(map(text_of, expected))
        found = [text_of(one.metadata["v"]) for one in walk(store, criterion, limit=100)]
        assert found == [text for text in map(text_of, values) if text in texts], criterion
        assert store.begin().conversations.count(criterion) == len(found), criterion


def _check_order(store: Store, rising: Sequence[Json], others: Sequence[Json]) -> None:
    values = _distinct([*rising, *others])
    _put_values(store, values)
    for at, bound in enumerate(rising):
        assert isinstance(bound, int | float | str)
        cases = [
            (v < bound, rising[:at]),
            (v <= bound, rising[: at + 1]),
            (v > bound, rising[at + 1 :]),
            (v >= bound, rising[at:]),
            (v.between(bound, bound), rising[at : at + 1]),
        ]
        _expect(store, values, cases)
