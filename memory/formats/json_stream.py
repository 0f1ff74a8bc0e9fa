"""Read large JSON one value at a time. The elements of an array are read one by one, so a malformed one affects no other.

Elements are found by matching brackets, and each is then parsed by itself.
"""

import codecs
import re
from collections.abc import Iterator
from typing import IO, Final, NamedTuple

from memory.transfer import DEFAULT_LIMITS, Limits
from memory.transfer.parsing import BROKEN_STREAM, RejectedConversation, broken_off

_CHUNK: Final = 2**16
_SPACE: Final = re.compile(rb"[\s,]*+")
_STRING: Final = rb'"(?>[^"\\]++|\\.)*+"'
_INSIDE: Final = re.compile(rb'(?>[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)  # up to a bracket or incomplete string
_ATOM: Final = re.compile(_STRING + rb'|[^"\[\]{},\s]++|}', re.DOTALL)
_OPENING, _QUOTE = b"[{", ord('"')


class Element(NamedTuple):
    """A JSON value: the number of its array (from 1; 0 outside any array) and its text."""

    array: int
    text: bytes


class _EndError(Exception):
    """The input ends inside a value, or the value is too long."""


def elements(
    stream: IO[bytes], *, limits: Limits = DEFAULT_LIMITS, begun: bytes = b""
) -> Iterator[tuple[int, Element | RejectedConversation]]:
    """Yield the elements of the arrays in a UTF-8 stream, and the values outside arrays, numbered from 1.

    ``begun`` is what was already read of the stream. Only the current element is held in memory. Malformed JSON between
    elements, a truncated stream and an element beyond the limits yield a `RejectedConversation` and end the iteration.
    """
    number = 0
    try:
        for number, element in enumerate(_Reader(stream, limits, begun).elements(), 1):
            too_long = len(element.text) > limits.line
            yield number, RejectedConversation(number, limits.too_long("the value")) if too_long else element
    except _EndError as error:
        yield number + 1, RejectedConversation(number + 1, str(error))
    except BROKEN_STREAM as error:
        yield number + 1, broken_off(number + 1, error)


class _Reader:
    """A stream of which only the data from the current element on is held in memory."""

    def __init__(self, stream: IO[bytes], limits: Limits, begun: bytes) -> None:
        self._stream = stream
        self._limits = limits
        self._data = begun
        self._start = self._at = 0

    def elements(self) -> Iterator[Element]:
        if self._data or self._more():
            self._data = self._data.removeprefix(codecs.BOM_UTF8)
        arrays = 0
        is_inside = False
        while first := self._next():
            if first == b"[" and not is_inside:
                arrays, is_inside = arrays + 1, True
                self._at += 1
            elif first == b"]" and is_inside:
                is_inside = False
                self._at += 1
            elif first in (b"[", b"{"):
                yield Element(arrays if is_inside else 0, self._bracketed())
            elif is_inside:
                yield Element(arrays, self._atom())
            else:
                raise _EndError(f"not JSON: {self._data[self._at : self._at + 20]!r}")
        if is_inside:
            raise _EndError("the input ends inside the array")

    def _more(self) -> bool:
        """Read the next chunk and discard the data before the current element. Return False at the end of the stream."""
        kept = self._data[self._start :]
        if len(kept) > self._limits.line:
            raise _EndError(self._limits.too_long("the value"))
        if self._limits.has_too_many_values(kept):
            raise _EndError(self._limits.too_many())
        # The chunk doubles each time, so that a long element is not scanned too often.
        read = self._stream.read(max(_CHUNK, len(kept)))
        self._data = kept + read
        self._at -= self._start
        self._start = 0
        return bool(read)

    def _next(self) -> bytes:
        """Skip blanks and commas, and return the next byte; empty at the end of the stream."""
        while True:
            self._start = self._at = _match(_SPACE, self._data, self._at)
            if self._at < len(self._data) or not self._more():
                return self._data[self._at : self._at + 1]

    def _bracketed(self) -> bytes:
        depth = 0
        while True:
            self._at = _match(_INSIDE, self._data, self._at)
            if self._at < len(self._data) and self._data[self._at] != _QUOTE:
                depth += 1 if self._data[self._at] in _OPENING else -1
                self._at += 1
                if depth == 0:
                    return self._data[self._start : self._at]
            elif not self._more():
                raise _EndError("the input ends inside the value")

    def _atom(self) -> bytes:
        while True:
            found = _ATOM.match(self._data, self._at)
            if found and found.end() < len(self._data):
                self._at = found.end()
                return found[0]
            if not self._more():
                if not found:
                    raise _EndError("the input ends inside the value")
                self._at = len(self._data)
                return self._data[self._start :]


def _match(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    """Return the end of a pattern's match; the patterns here always match, if only the empty string."""
    found = pattern.match(data, at)
    return found.end() if found else at
