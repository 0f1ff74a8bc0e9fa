"""Ranges as unions of tokens: nothing is missed, and what is said to be exact is."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory import where
from memory.adapters.redis.models import entry_token
from memory.adapters.redis.searching import Translation
from memory.adapters.redis.tokens import Cover, Tokens, _levels, cover
from memory.domain.criteria import Criterion
from memory.domain.values import Json
from memory.port.index import Every, KeyBetween, entries, key, plan
from memory.testing.random_queries import criteria
from memory.testing.strategies import ODD_NUMBERS, ODD_STRINGS, scalars, values
from tests.rounds import rounds

numbers = st.one_of(
    st.integers(-(2**80), 2**80), st.integers(-300, 300), st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.one_of(st.text(max_size=40), st.text("ab", max_size=20), st.text("ab", min_size=250, max_size=300))
keys = st.one_of(st.none(), st.booleans(), numbers, texts).map(key)


def is_covered(found: Cover, digits: str) -> bool:
    """Whether a key has a token of the cover: of one of its beginnings, or its own."""
    is_string = digits.startswith(key("")[:1].hex())
    own = {digits[:level] for level in _levels(digits) if level < len(digits) + is_string}
    return bool(own & set(found.prefixes)) or digits in (found.keys if is_string else found.keys + found.prefixes)


@settings(max_examples=rounds(250))
@given(keys, keys, keys)
def test_a_cover_is_the_range_or_more(low: bytes, high: bytes, one: bytes) -> None:
    found = cover(low.hex(), high.hex())
    within = low <= one < high
    assert is_covered(found, one.hex()) == within if found.exact else is_covered(found, one.hex()) >= within


@settings(max_examples=rounds(120))
@given(numbers, numbers)
def test_ranges_of_numbers_are_exact(bound: int | float, one: int | float) -> None:
    """Of all numbers of 64 significant bits, that is of all floats and all integers that anybody counts with."""
    for criterion, holds in (
        (where("v") < bound, one < bound),
        (where("v") <= bound, one <= bound),
        (where("v") > bound, one > bound),
        (where("v") >= bound, one >= bound),
        (where("v").between(min(bound, 0), max(bound, 0)), min(bound, 0) <= one <= max(bound, 0)),
    ):
        planned, _ = plan(criterion)
        assert isinstance(planned, KeyBetween)
        found = cover(planned.low.hex(), planned.high.hex())
        if isinstance(bound, float) or bound.bit_length() <= 64:
            assert found.exact
        assert is_covered(found, key(one).hex()) == holds or (not found.exact and not holds)
        assert len(found.prefixes) < 800


@settings(max_examples=rounds(70))
@given(st.text(max_size=20), texts)
def test_beginnings_of_strings(prefix: str, one: str) -> None:
    planned, _ = plan(where("v").startswith(prefix))
    assert isinstance(planned, KeyBetween)
    found = cover(planned.low.hex(), planned.high.hex())
    size = len(prefix.encode("utf-8", "surrogatepass"))
    assert found.exact == (size <= 12 or size in (16, 24, 32))
    assert len(found.prefixes) == 1
    holds = one.startswith(prefix)
    assert is_covered(found, key(one).hex()) >= holds
    if found.exact:
        assert is_covered(found, key(one).hex()) == holds


def test_every_type_is_covered_by_existence() -> None:
    planned, _ = plan(where("v").exists())
    assert isinstance(planned, KeyBetween)
    found = cover(planned.low.hex(), planned.high.hex())
    assert found.exact
    everything: tuple[Json, ...] = (None, True, 0, -1, 10**4000, -(10**4000), 5e-324, -5e-324, "", "a", [], {}, [1])
    for value in everything:
        assert is_covered(found, key(value).hex())


def test_the_largest_and_smallest_numbers() -> None:
    rising = [-(2**14_283) + 1, -1.7e308, -1, -5e-324, 0, 5e-324, 1, 1.7e308, 2**14_283 - 1]
    for low, high in pairwise(rising):
        for criterion, expected in (
            (where("v") >= high, [one >= high for one in rising]),
            (where("v") < high, [one < high for one in rising]),
        ):
            planned, _ = plan(criterion)
            assert isinstance(planned, KeyBetween)
            found = cover(planned.low.hex(), planned.high.hex())
            covered = [is_covered(found, key(one).hex()) for one in rising]
            assert all(is_in >= within for is_in, within in zip(covered, expected, strict=True)), (low, high)


SAFE = re.compile(
    r"(?:[() |-]|@entries:\{[A-Za-z0-9_|]+\}"
    r"|@(?:run_count|created_at|updated_at|last_run_at):\[\(?(?:-inf|-?[0-9]+) \(?(?:\+inf|-?[0-9]+)\])*"
)


@settings(max_examples=rounds(120))
@given(criteria(values, (*ODD_NUMBERS, *ODD_STRINGS)))
def test_no_value_reaches_the_text_of_a_query(criterion: Criterion) -> None:
    planned, _ = plan(criterion)
    text = Translation(Tokens("default")).of(planned).text
    assert SAFE.fullmatch(text), text


@settings(max_examples=rounds(50))
@given(scalars)
def test_a_value_is_found_by_its_token_alone(value: Json) -> None:
    tokens = Tokens("default")
    (token,) = tokens.equal(b"v", [key(value)])
    assert token in tokens.of(entries({"v": value})).split("|")
    assert token not in tokens.of(entries({"w": value})).split("|")


def test_what_is_too_deep_or_too_much_is_left_to_matches() -> None:
    deep: Criterion = where("v") == 1
    for n in range(60):
        deep = ~(deep & (where("v") == n)) | (where("w") == n)
    many = where("v").in_(range(30_000))
    for criterion in (deep, many, ~many, many | (where("w") == 1)):
        planned, _ = plan(criterion)
        condition = Translation(Tokens("default")).of(planned)
        assert not condition.exact
        assert len(condition.text) < 1_000_000
    assert Translation(Tokens("default")).of(Every()).exact


def test_a_digest_of_a_path_is_never_taken_for_the_elements_of_a_list() -> None:
    """A path of more than 512 bytes is a digest, and one of 65,536 ends as a path to elements does."""
    name = f"{'k' * 520}129568"
    (entry,) = entries({name: 5})
    assert entry.path.endswith(b"\x00\x02"), "not such a digest any more: look for another"
    tokens = Tokens("default")
    written = tokens.of([entry]).split("|")
    for criterion in (where(name).exists(), where(name) > 1):
        planned, exact = plan(criterion)
        assert isinstance(planned, KeyBetween)
        assert exact
        assert set(tokens.between(planned)[0]) & set(written)


@pytest.mark.parametrize("value", ["gold", 3, 3.0, True, None, "a|b", "", " x ", "\x00"])
def test_the_public_token_is_the_one_that_is_stored(value: Json) -> None:
    stored = Tokens("default").of(entries({"customer": {"tier": value}})).split("|")
    assert entry_token("default", "customer.tier", value) in stored
    assert entry_token("other", "customer.tier", value) not in stored
    assert entry_token("default", "customer.other", value) not in stored
