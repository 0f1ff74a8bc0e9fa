"""The index that all stores share: keys sort as values do, and a plan finds what the criterion matches."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memory import Conversation
from memory.domain.criteria import Criterion, FieldCompares, where
from memory.domain.records import ConversationRecord, encode_metadata
from memory.port.index import INDEXED_ELEMENTS, Every, KeyBetween, KeyIn, Plan, Some, Unless, entries, key, plan
from memory.testing import strategies
from memory.testing.random_queries import criteria

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(2**53 - 3, 2**53 + 3)
texts = st.text(st.characters(codec=None, categories=None) | st.sampled_from("ab\ud83d\ude00\x00\uffff\U00010000"))


@given(numbers, numbers)
def test_keys_of_numbers_sort_as_the_numbers_do(left: float, right: float) -> None:
    assert (key(left) < key(right), key(left) == key(right)) == (left < right, left == right)


@given(texts, texts)
def test_keys_of_strings_sort_as_the_strings_do(left: str, right: str) -> None:
    assert (key(left) < key(right), key(left) == key(right)) == (left < right, left == right)


POOL = (*strategies.CONSTANTS, *strategies.ODD_NUMBERS, *strategies.ODD_STRINGS)
values = st.sampled_from(POOL) | st.lists(st.sampled_from(POOL), max_size=3)
metadatas = st.dictionaries(st.sampled_from(("a", "b", "a.b", "")), values | st.dictionaries(st.just("a"), values))


def holds(planned: Plan, conversation: Conversation) -> bool:
    """Answer a plan from the index entries alone, as a store does."""
    match planned:
        case KeyIn(path, keys):
            return any(entry.path == path and entry.key in keys for entry in entries(conversation.metadata))
        case KeyBetween(path, low, high):
            return any(entry.path == path and low <= entry.key < high for entry in entries(conversation.metadata))
        case FieldCompares():
            return planned.matches(conversation)
        case Every(parts):
            return all(holds(part, conversation) for part in parts)
        case Some(parts):
            return any(holds(part, conversation) for part in parts)
        case Unless(part):
            return not holds(part, conversation)


@given(metadatas, criteria(values, POOL))
def test_a_plan_finds_what_the_criterion_matches_and_no_more_where_it_is_exact(
    metadata: dict[str, Any], criterion: Criterion
) -> None:
    record = ConversationRecord("a", encode_metadata(metadata), 1, "", 3, 3, 1000, 2000, None)
    conversation = Conversation.from_record(record)
    planned, exact = plan(criterion)
    if exact:
        assert holds(planned, conversation) == criterion.matches(conversation)
    else:
        assert holds(planned, conversation) or not criterion.matches(conversation)


def test_two_bounds_of_one_path_are_one_range() -> None:
    planned, exact = plan(where("price").between(50, 100) & (where("domain") == "Hotels"))
    assert exact
    assert isinstance(planned, Every)
    assert [type(part) for part in planned.parts] == [KeyBetween, KeyIn]


def test_a_long_path_and_a_long_value_fit_an_index_row() -> None:
    metadata: dict[str, Any] = {"k" * 5000: {"\x00" * 2000: ["v" * 5000]}}
    assert all(len(entry.path) <= 512 and len(entry.key) <= 512 for entry in entries(metadata))
    conversation = Conversation("a", metadata)
    for criterion in (
        where(("k" * 5000, "\x00" * 2000)).contains("v" * 5000),
        where(("k" * 5000,)).exists(),
    ):
        assert holds(plan(criterion)[0], conversation)
    assert plan(where(("k" * 5000,)).exists())[1]


def test_what_has_no_entries_is_not_looked_up() -> None:
    metadata: dict[str, Any] = {"_a": 1, "b": {"_c": [1], "d": 2}, "list": list(range(INDEXED_ELEMENTS + 9))}
    assert len(entries(metadata)) == len(("b", "b.d", "list", "and that it is long")) + INDEXED_ELEMENTS
    assert plan(where(("b", "_c")) == 1) == (Every(), False)
    assert plan((where("_a") == 1) & where("b").exists()) == (plan(where("b").exists())[0], False)
    assert not plan(where("list").contains(1))[1]
