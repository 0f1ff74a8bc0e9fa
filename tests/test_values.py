"""What enters comes out equal and of the same type, or is refused with the path to it."""

import enum
import math
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given

from memory import InvalidValueError
from memory.domain.values import MAX_DEPTH, Json, check_id, decode, encode, new_id, to_datetime, to_microseconds
from memory.testing import strategies


class Colour(enum.IntEnum):
    RED = 1


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@given(strategies.values)
def test_any_json_value_comes_back_as_it_was(value: Json) -> None:
    text = encode(value, "value")
    assert text.encode().decode() == text
    assert not re.search("[\x00-\x1f]", text)
    assert repr(decode(text)) == repr(value)  # repr tells 1 from 1.0 and True, and 0.0 from -0.0


@pytest.mark.parametrize(
    "text", ["\ud83d" + "\ude00", "a\ud83d", "\ude00\ud83d", "\U0001f600", "\x00", "\ud83d\ude00\U0001f600"]
)
def test_strings_that_json_would_change_come_back_as_they_were(text: str) -> None:
    assert decode(encode({text: [text, {"a": text}]}, "value")) == {text: [text, {"a": text}]}


def test_only_what_has_to_be_is_escaped() -> None:
    assert encode({"Grüße": ["世界", "😀\u2028\x7f"]}, "value") == '{"Grüße":["世界","😀\u2028\x7f"]}'
    assert encode("\x00\n\ud83dü", "value") == '"\\u0000\\n\\ud83dü"'


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"customer": [1, 2, math.nan]}, "metadata.customer[2]"),
        ({"a": {"b": -math.inf}}, "metadata.a.b"),
        ({"a": b"bytes"}, "metadata.a"),
        ({"a": datetime.now(UTC)}, "metadata.a"),
        ({"a": (1, 2)}, "metadata.a"),
        ({"a": {1: 2}}, "metadata.a"),
        ({"a": Colour.RED}, "metadata.a"),
        ({"a": 10**4300}, "metadata.a"),
        ({"a": [1, {"b": object()}]}, "metadata.a[1].b"),
    ],
)
def test_anything_else_is_refused_with_the_path_to_it(value: object, path: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        encode(value, "metadata")
    assert path in str(refused.value)


def test_values_nest_to_the_stated_depth_and_no_deeper() -> None:
    deepest = nested(MAX_DEPTH)
    assert decode(encode(deepest, "value")) == deepest
    cycle: list[object] = []
    cycle.append(cycle)
    for value in (nested(MAX_DEPTH + 1), nested(100_000), cycle):
        with pytest.raises(InvalidValueError, match="nests deeper"):
            encode(value, "value")


def test_an_integer_of_4300_digits_is_kept() -> None:
    assert decode(encode(10**4299, "value")) == 10**4299


@pytest.mark.parametrize("text", ["a", "x" * 255, 'it\'s 100% "odd"/\\', "\U0001f600", "é", " "])
def test_these_can_be_ids(text: str) -> None:
    assert check_id(text, "the id") == text


@pytest.mark.parametrize("value", ["", "x" * 256, "a\nb", "\x00", "\x7f", "\ud83d", 7, None, b"a"])
def test_these_cannot_be_ids(value: object) -> None:
    with pytest.raises(InvalidValueError, match="the id"):
        check_id(value, "the id")


def test_new_ids_are_unique_and_sort_by_age() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [id[:12] for id in ids] == sorted(id[:12] for id in ids)


def test_moments_are_kept_to_the_microsecond_in_any_zone() -> None:
    moment = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert to_datetime(to_microseconds(moment, "it")) == moment


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), "2026-01-01", 0])  # noqa: DTZ001  # that is the point
def test_a_moment_without_a_zone_is_refused(value: object) -> None:
    with pytest.raises(InvalidValueError, match="it"):
        to_microseconds(value, "it")
