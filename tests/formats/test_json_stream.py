import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.formats.json_stream import Element, elements
from memory.transfer import Limits, RejectedConversation


def read(text: str | bytes, longest: int = 2**30) -> list[Any]:
    """The elements' values, and the reasons of refusals."""
    stream = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    found = [element for _, element in elements(stream, limits=Limits(line=longest))]
    return [json.loads(one.text) if isinstance(one, Element) else one.reason for one in found]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('ab"\\[]{},: é\n'), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('"\\[]{},'), max_size=3), inner)
    ),
    max_leaves=8,
)


@given(st.lists(values), st.sampled_from([None, 1]), st.booleans())
def test_the_elements_of_an_array_come_one_by_one(array: list[Any], indent: int | None, ascii: bool) -> None:  # noqa: FBT001
    assert read(json.dumps(array, indent=indent, ensure_ascii=ascii)) == array


@given(st.lists(st.dictionaries(st.text(max_size=2), values)), st.sampled_from(["", "\n", " ,\n"]))
def test_values_can_follow_each_other(several: list[Any], between: str) -> None:
    assert read(between.join(map(json.dumps, several))) == several


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, text: bytes) -> None:
        self._pieces = [text[at : at + 3] for at in range(0, len(text), 3)]

    def read(self, _: int = -1) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


@given(st.lists(values))
def test_it_does_not_matter_where_the_pieces_end(array: list[Any]) -> None:
    found = elements(Dribble(json.dumps(array).encode()))  # type: ignore[arg-type]
    assert [json.loads(element.text) for _, element in found if isinstance(element, Element)] == array


def test_several_arrays_are_told_apart() -> None:
    found = [element for _, element in elements(io.BytesIO(b'[1, {}]\n["a"] {"b": 1} [[]]'))]
    assert found == [
        Element(1, b"1"),
        Element(1, b"{}"),
        Element(2, b'"a"'),
        Element(0, b'{"b": 1}'),
        Element(3, b"[]"),
    ]


def test_a_bad_element_spoils_no_other() -> None:
    text = b'\xef\xbb\xbf[{"a": 1}, {"b": nonsense}, {"c": ]}, nonsense, "x\ny", {"d": 4}]'
    found = [element.text for _, element in elements(io.BytesIO(text)) if isinstance(element, Element)]
    assert found == [b'{"a": 1}', b'{"b": nonsense}', b'{"c": ]', b"}", b"nonsense", b'"x\ny"', b'{"d": 4}']


def test_an_element_with_a_bracket_too_much_or_too_few_takes_only_its_neighbours_along() -> None:
    assert [element for _, element in elements(io.BytesIO(b'[{"a": 1}}, {"b": 2}, {"c": [3}, {"d": 4}]'))] == [
        Element(1, b'{"a": 1}'),
        Element(1, b"}"),
        Element(1, b'{"b": 2}'),
        Element(1, b'{"c": [3}, {"d": 4}]'),
        RejectedConversation(5, "the input ends inside the array"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \n ", []),
        ('[{"a": 1}, {"a": ', [{"a": 1}, "the input ends inside the value"]),
        ('[{"a": 1}, "a', [{"a": 1}, "the input ends inside the value"]),
        ('[{"a": 1}, {"a": "b\\', [{"a": 1}, "the input ends inside the value"]),
        ('[{"a": 1},', [{"a": 1}, "the input ends inside the array"]),
        ('{"a": 1} nonsense', [{"a": 1}, "not JSON: b'nonsense'"]),
        ("]", ["not JSON: b']'"]),
        ("[1", [1, "the input ends inside the array"]),
    ],
)
def test_an_end_that_comes_too_early_is_told(text: str, found: list[Any]) -> None:
    assert read(text) == found


def test_what_is_too_long_is_refused() -> None:
    text = json.dumps([{"a": 1}, {"b": "x" * 500_000}])
    assert read(text, longest=100_000) == [{"a": 1}, Limits(line=100_000).too_long("the value")]


def test_a_stream_that_breaks_off_is_told() -> None:
    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self._texts = iter([b'[{"a": 1}, {'])

        def read(self, _: int = -1) -> bytes:
            for text in self._texts:
                return text
            raise EOFError("cut")

    found = list(elements(Broken()))  # type: ignore[arg-type]
    assert found[-1] == (2, RejectedConversation(2, "the input cannot be read from here on: cut"))


def test_memory_is_that_of_one_element() -> None:
    class Long(io.RawIOBase):
        """An array of 50 MB, made while it is read."""

        def __init__(self) -> None:
            self._pieces = self._make()
            self.largest = 0

        def _make(self) -> Iterator[bytes]:
            yield b"["
            for _ in range(5_000):
                yield b'{"a": "' + b"x" * 10_000 + b'"},'
            yield b"{}]"

        def read(self, size: int = -1) -> bytes:
            self.largest = max(self.largest, size)
            return next(self._pieces, b"")

    stream = Long()
    assert len([number for number, _ in elements(stream)]) == 5_001  # type: ignore[arg-type]
    assert stream.largest == 2**16  # it reads as much as it keeps: that never was more than this
