"""What the index holds: tokens of harmless characters, made of the entries of `memory.port.index`.

A token is a digest of what it stands for, with the namespace as its key. So no value, however hostile, means anything in a
query, and no namespace has a token of another.

Equality is one token. A range of keys is a choice between tokens too: each key has tokens of its own beginnings, at the
`_levels`, and a range is the union of the longest beginnings that lie in it entirely (`cover`).
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

from memory.port.index import Entry, KeyBetween, is_element, key

_DIGEST_BYTES: Final = 9
"""12 characters a token. To find a value with the token of another takes some 2**71 attempts; among a billion tokens, two are
equal by chance with a probability of 1 in 8,000."""

# Lengths of beginnings, in hexadecimal digits of a key. The first two are the type.
_NUMBER, _STRING = key(0)[:1].hex(), key("")[:1].hex()
_BYTE_BY_BYTE: Final = 12
_LEVELS_OF: Final = {
    # sign, exponent, and 64 bits of mantissa digit by digit, however `key` escapes them
    _NUMBER: (4, *range(6, 43)),
    _STRING: (2, *(2 + 2 * size for size in (*range(1, _BYTE_BY_BYTE + 1), 16, 24, 32))),
}
_UTF8: Final = [f"{byte:02x}" for byte in range(0xF5) if byte not in (0xC0, 0xC1)]
_SIGNS: Final = [key(value)[:2].hex() for value in (-1, 0, 1)]
_ZERO: Final = key(0).hex()
_TYPES: Final = ["01", "02", *_SIGNS, _STRING, "05", "06"]  # of numbers, each sign is one
_EXPONENTS: Final = [f"{byte:02x}" for byte in range(0x48, 0xB8)]  # their high bytes, with either sign
_DIGITS: Final = list("0123456789abcdef")


class Cover(NamedTuple):
    """Beginnings and whole keys that together are a range, or where not ``exact`` more than it."""

    beginnings: list[str]
    keys: list[str]
    exact: bool


class Tokens:
    """The tokens of one namespace."""

    def __init__(self, namespace: str) -> None:
        scope = blake2b(namespace.encode(), digest_size=32).digest()
        self._empty = blake2b(digest_size=_DIGEST_BYTES, key=scope)
        self.everything = _text(self._empty)
        """The token that every conversation of the namespace has."""

    def of(self, entries: Iterable[Entry]) -> str:
        """Return all tokens of a conversation with these entries, as its hash holds them."""
        return "|".join(sorted({self.everything, *[token for entry in entries for token in self._of_entry(entry)]}))

    def equal(self, path: bytes, keys: Iterable[bytes]) -> list[str]:
        """Return the token of each key at the path."""
        return self._equal(path, (key.hex() for key in keys))

    def between(self, lookup: KeyBetween) -> tuple[list[str], bool]:
        """Return tokens of which every key in the range has one, and whether no other key has any."""
        found = cover(lookup.low.hex(), lookup.high.hex())
        at_path = self._at(lookup.path, b"<")
        tokens = [_with(at_path, beginning) for beginning in found.beginnings]
        # Only a string has a token as its own beginning too: one more for each number would be one that no other number has.
        whole = [one for one in found.beginnings if not one.startswith(_STRING) and len(one) % 2 == 0]
        return tokens + self._equal(lookup.path, [*whole, *found.keys]), found.exact

    def _equal(self, path: bytes, keys: Iterable[str]) -> list[str]:
        at_path = self._at(path, b"=")
        return [_with(at_path, digits) for digits in keys]

    def _of_entry(self, entry: Entry) -> Iterator[str]:
        digits = entry.key.hex()
        yield _with(self._at(entry.path, b"="), digits)
        if not is_element(entry.path):  # queries only test elements for equality
            at_path = self._at(entry.path, b"<")
            for level in _levels(digits):
                if level < len(digits) or (level == len(digits) and digits.startswith(_STRING)):
                    yield _with(at_path, digits[:level])

    def _at(self, path: bytes, kind: bytes) -> blake2b:
        digest = self._empty.copy()
        digest.update(kind + len(path).to_bytes(4, "big") + path)
        return digest


def _with(digest: blake2b, digits: str) -> str:
    digest = digest.copy()
    digest.update(digits.encode())
    return _text(digest)


def _text(digest: blake2b) -> str:
    return b64encode(digest.digest(), b"__").decode()  # two of the 64 characters become one


def cover(low: str, high: str) -> Cover:
    """Return the beginnings and keys, as hexadecimal digits, that make up ``low <= key < high``.

    >>> cover("03c080", "04").beginnings[:2], cover("0461", "0462").beginnings
    (['03c080', '03c081'], ['0461'])
    """
    beginnings: list[str] = []
    keys: list[str] = []
    exact = low >= high or _cover("", low, high, beginnings, keys)
    return Cover(beginnings, keys, exact)


def _cover(beginning: str, low: str, high: str, beginnings: list[str], keys: list[str]) -> bool:
    """Add what a beginning contributes to a range; tell whether that is exactly the range's part of it."""
    if beginning >= high or (beginning < low and not low.startswith(beginning)):
        return True  # none of it is in the range
    if beginning and beginning >= low and not high.startswith(beginning):
        beginnings.append(beginning)  # all of it is
        return True
    level = next((level for level in _levels(beginning) if level > len(beginning)), 0)
    only = low[:level]
    if beginning and len(only) == level > 0 and high <= f"{int(only, 16) + 1:0{level}x}":
        return _cover(only, low, high, beginnings, keys)
    if (children := _children(beginning, level)) is None:
        beginnings.append(beginning)
        return False
    if beginning and low <= beginning and len(beginning) % 2 == 0:
        keys.append(beginning)  # a key that ends here
    parts = [_cover(beginning + child, low, high, beginnings, keys) for child in children]
    return all(parts)


def _levels(digits: str) -> tuple[int, ...]:
    return _LEVELS_OF.get(digits[:2], (2,))


def _children(beginning: str, level: int) -> list[str] | None:
    """Return what can follow a beginning up to the level; None where that is too much to name."""
    if not beginning:
        return _TYPES
    if beginning == _ZERO:
        return []
    if level == len(beginning) + 2:
        return _UTF8 if beginning.startswith(_STRING) else _EXPONENTS
    return _DIGITS if level == len(beginning) + 1 else None
