"""Keys: unambiguous, in order, readable, and never longer than DynamoDB takes them."""

from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from memory.adapters.dynamodb import keys
from memory.domain.values import FIRST_TIME, LAST_TIME
from memory.port.index import LONGEST_PATH, key
from memory.testing import strategies

ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255)
index_keys = st.binary(min_size=1, max_size=20).map(lambda tail: b"\x04" + tail) | strategies.scalars.map(key)
times = st.integers(FIRST_TIME, LAST_TIME)
WIDEST = "\U0010ffff" * 255


def size(text: str) -> int:
    return len(text.encode())


@given(ids, ids, times)
@example("a", "a#", 0)
def test_ids_sort_as_strings_do(left: str, right: str, at: int) -> None:
    if max(size(left), size(right)) <= 900:
        assert (keys.listed(at, left) < keys.listed(at, right)) == (left < right)
    assert max(size(left), size(keys.listed(at, left))) <= 1024
    assert keys.LOWEST <= left <= keys.HIGHEST
    assert keys.time(at) < keys.listed(at, left) < keys.end_of(at)
    assert at == LAST_TIME or keys.end_of(at) < keys.listed(at + 1, left)


@given(times, times)
def test_times_sort_as_numbers_do(left: int, right: int) -> None:
    assert (keys.time(left) < keys.time(right)) == (left < right)
    assert keys.time(-(2**63)) <= keys.time(left) <= keys.time(2**63)


@given(index_keys, index_keys, index_keys, ids)
@example(b"\x04a", b"\x04a\x00", b"\x04a\x00\x01", "x")
@example(b"\x04a", b"\x04a\x0b", b"\x04a\x0a\xff", "x")
def test_bounds_find_just_what_lies_between(low: bytes, high: bytes, found: bytes, conversation_id: str) -> None:
    sort_key = keys.entry(found, conversation_id)
    least, most = keys.entries_between(low, high)
    assert (least <= sort_key <= most) == (low <= found < high)
    least, most = keys.entries_between(low, low + b"\0")
    assert (least <= sort_key <= most) == (low == found)
    assert size(sort_key) <= 1024


@given(st.lists(st.tuples(ids, ids), min_size=2, max_size=2, unique=True))
@example([("a", "b#c"), ("a#b", "c")])
@example([("a", "%23"), ("a", "#")])
def test_no_two_conversations_share_a_partition(pairs: list[tuple[str, str]]) -> None:
    first, second = (keys.partition("conversation", *pair) for pair in pairs)
    assert first != second
    assert max(size(first), size(second)) <= 2048


def test_the_longest_keys_fit() -> None:
    assert size(keys.partition("conversation", WIDEST, WIDEST)) <= 2048
    assert size(keys.entries(WIDEST, b"\xff" * LONGEST_PATH, 99)) <= 2048
    assert size(keys.partition("receipt", WIDEST, "x" * 100_000)) <= 2048
    assert size(keys.counter("#" * 255, "a")[1]) <= 1024
    assert size(keys.counters(WIDEST)[1]) <= 1024


@given(st.text(min_size=2_000, max_size=2_100), st.text())
def test_a_key_with_a_digest_is_never_another(long: str, other: str) -> None:
    """The digest comes after a tab, which is escaped in every name: nobody can choose a name that gives the same key."""
    place = keys.partition("receipt", "n", long)
    assume(long != other)
    if "\t" in place:
        assert place != keys.partition("receipt", "n", place.removeprefix("receipt#n#"))
    assert place != keys.partition("receipt", "n", other)


@given(st.binary(max_size=LONGEST_PATH), st.binary(max_size=LONGEST_PATH))
@example(b"a\x00\x01b", b"a.b")
@example(b"a\x00\x02", b"a[]")
def test_no_two_paths_share_a_partition(left: bytes, right: bytes) -> None:
    assert (keys.entries("n", left, 0) == keys.entries("n", right, 0)) == (left == right)


@given(st.integers(1, 2**53 - 1))
def test_a_run_says_its_position(position: int) -> None:
    sort_key = keys.run("ab" * 16, position)
    assert keys.position_of(sort_key) == position
    assert keys.PARTS < keys.RUNS < sort_key < keys.run("ab" * 16, position + 1) < keys.STATE


@given(strategies.scalars | st.integers(-(10**4_000), 10**4_000) | st.text(max_size=2_000) | st.just("\0" * 2_000))
def test_every_index_key_fits_a_sort_key_whole(value: Any) -> None:
    sort_key = keys.entry(key(value), WIDEST)
    assert size(sort_key) <= 1024
    assert sort_key.startswith(keys.entry(key(value), ""))
