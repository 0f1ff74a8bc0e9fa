"""Keys: unambiguous, in order, and never longer than DynamoDB takes them."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memory.adapters.dynamodb import keys
from memory.port.index import LONGEST_PATH, Entry, key
from memory.testing import strategies

ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255)
index_keys = st.binary(min_size=1, max_size=20).map(lambda tail: b"\x04" + tail) | strategies.scalars.map(key)


@given(ids, ids)
def test_ids_sort_as_strings_do(left: str, right: str) -> None:
    assert (keys.compact(left) < keys.compact(right)) == (left < right)
    assert (keys.compact(left) == keys.compact(right)) == (left == right)
    assert len(keys.time(0) + keys.compact(left)) <= 1024


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_times_sort_as_numbers_do(left: int, right: int) -> None:
    assert (keys.time(left) < keys.time(right)) == (left < right)


@given(index_keys, index_keys, index_keys, ids)
@example(b"\x04a", b"\x04a\x00", b"\x04a\x00\x01", "x")
def test_bounds_find_what_lies_between(low: bytes, high: bytes, found: bytes, conversation_id: str) -> None:
    _, sort_key = keys.entry("n", Entry(b"path", found), conversation_id, 0)
    least, most = keys.entry_bounds(low, high)
    is_found = least <= sort_key <= most
    if low <= found < high:
        assert is_found
    elif all(len(one.replace(b"\x00", b"\x00\x00")) < 800 for one in (low, high, found)):
        assert not is_found
    assert len(sort_key) <= 1024
    assert max(len(least), len(most)) <= 1024


@given(st.lists(st.tuples(ids, ids), min_size=2, max_size=2, unique=True))
def test_no_two_conversations_share_a_partition(pairs: list[tuple[str, str]]) -> None:
    first, second = (keys.conversation(*pair) for pair in pairs)
    assert first != second
    assert max(len(first), len(second)) <= 2048


def test_the_longest_partition_keys_fit() -> None:
    widest = "\U0010ffff" * 255
    assert len(keys.conversation(widest, widest)) <= 2048
    assert len(keys.entries(widest, b"x" * LONGEST_PATH, 99)) <= 2048
    assert len(keys.token(widest, "x" * 100_000)[0]) <= 2048


@given(st.integers(1, 2**53 - 1), st.integers(0, keys.LAST_PART))
def test_a_run_tells_its_position(position: int, part: int) -> None:
    sort_key = keys.run("ab" * 16, position, part)
    assert (keys.position_of(sort_key), keys.part_of(sort_key), keys.set_of(sort_key)) == (position, part, "ab" * 16)
    assert keys.RUNS < sort_key < keys.HEAD


@given(st.text(min_size=513, max_size=600), st.text(max_size=512))
def test_a_token_that_is_too_long_is_never_another(long: str, other: str) -> None:
    place, _ = keys.token("n", long)
    digest = place.removeprefix(keys.token("n", "")[0])
    assert len(digest) <= 512
    with pytest.raises(UnicodeDecodeError):
        digest.decode("utf-8", "surrogatepass")
    assert place != keys.token("n", other)[0]


@given(strategies.scalars | st.integers(-(10**4_000), 10**4_000) | st.text(max_size=2_000) | st.just("\0" * 2_000))
def test_every_index_key_fits_a_sort_key_whole(value: Any) -> None:
    _, sort_key = keys.entry("n", Entry(b"path", key(value)), "\U0010ffff" * 255, 0)
    assert len(sort_key) <= 1024
    assert keys.entry_key(key(value)).replace(b"\x00\xff", b"\x00") == key(value)
