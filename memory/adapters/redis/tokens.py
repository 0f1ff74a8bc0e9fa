"""What is written to the index: tokens of twenty harmless characters, made of the entries of `memory.port.index`.

A token is a digest of what it stands for, under a key made of the store's prefix and the namespace. So no value, however odd
or hostile, has a meaning of its own in a query, and no token of one namespace is a token of another.

Equality is one token. A range of keys is a choice between tokens too: each key has tokens of its own beginnings, at the
`_levels`, and a range is the union of the longest beginnings that lie in it entirely (`cover`).
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from memory.port.index import Entry, KeyBetween, is_element, key

ENCODING: Final = "1"
"""The version of all that this module writes; a hash with another is re-encoded by `memory migrate`."""

ID_RANKS: Final = ("by_id_1", "by_id_2", "by_id_3")
"""Numeric fields that sort as the first 18 bytes of the id, six each: the index has ranges of numbers only."""

_RANK_BYTES: Final = 6  # 48 bits: a double, which is what the index has, keeps them exactly
ID_RANK_END: Final = 2 ** (8 * _RANK_BYTES)
"""Above each of them."""

# Lengths of beginnings, in hexadecimal digits of a key. The first two are the type.
_NUMBER, _STRING = key(0)[:1].hex(), key("")[:1].hex()
_BYTE_BY_BYTE: Final = 12
_LEVELS_OF: Final = {
    _NUMBER: (
        2,
        4,
        *range(6, 43),
    ),  # sign, exponent, and 64 bits of mantissa digit by digit, however `key` escapes them
    _STRING: (2, *(2 + 2 * size for size in (*range(1, _BYTE_BY_BYTE + 1), 16, 24, 32))),
}
_OTHER_LEVELS: Final = (2,)
_TYPES: Final = tuple(f"{byte:02x}" for byte in range(1, 7))
_UTF8: Final = tuple(f"{byte:02x}" for byte in range(0xF5) if byte not in (0xC0, 0xC1))
_DIGITS: Final = tuple("0123456789abcdef")
_SIGNS: Final = tuple(key(value)[1:2].hex() for value in (-1, 0, 1))
_LARGEST: Final = 2**14_283 - 1


def _exponents(low: float, high: float) -> tuple[str, ...]:
    """Return the high bytes that an exponent can have, between the keys of two numbers of one sign."""
    return tuple(f"{byte:02x}" for byte in range(key(low)[2], key(high)[2] + 1))


_EXPONENTS: Final = {_SIGNS[0]: _exponents(-_LARGEST, -5e-324), _SIGNS[2]: _exponents(5e-324, _LARGEST)}


@dataclass(frozen=True, slots=True)
class Cover:
    """Beginnings and whole keys that together are a range, or where not ``exact`` more than it."""

    beginnings: tuple[str, ...]
    keys: tuple[str, ...]
    exact: bool = True


class Tokens:
    """The tokens of one namespace of one store."""

    def __init__(self, prefix: str, namespace: str) -> None:
        scope = blake2b(f"{prefix}\x00{namespace}".encode(), digest_size=32).digest()
        self._empty = blake2b(digest_size=15, key=scope)
        self.namespace = _text(self._empty)

    def of(self, entries: Iterable[Entry]) -> str:
        """Return all tokens of a conversation's entries, as its hash holds them."""
        return "|".join(sorted({token for entry in entries for token in self._of_entry(entry)}))

    def equal(self, path: bytes, keys: Iterable[bytes]) -> list[str]:
        """Return the token of each key at the path."""
        at_path = self._at(path, b"=")
        return [_with(at_path, key.hex()) for key in keys]

    def between(self, lookup: KeyBetween) -> tuple[list[str], bool]:
        """Return tokens of which every key in the range has one, and whether no other key has any."""
        found = cover(lookup.low.hex(), lookup.high.hex())
        at_path = self._at(lookup.path, b"<")
        tokens = [_with(at_path, beginning) for beginning in found.beginnings]
        return tokens + self.equal(lookup.path, map(bytes.fromhex, found.keys)), found.exact

    def _of_entry(self, entry: Entry) -> Iterator[str]:
        digits = entry.key.hex()
        yield _with(self._at(entry.path, b"="), digits)
        if not is_element(entry.path):  # of an element only equality is ever asked
            at_path = self._at(entry.path, b"<")
            for level in _levels(digits):
                if level <= len(digits):
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
    return b64encode(digest.digest(), b"__").decode()  # two digits of the 64 are one: 119 bits of 120 are left


def cover(low: str, high: str) -> Cover:
    """Return the beginnings and keys, as hexadecimal digits, that make up ``low <= key < high``.

    >>> cover("03c080", "04").beginnings[:2], cover("0461", "0462").beginnings
    (('03c080', '03c081'), ('0461',))
    """
    beginnings: list[str] = []
    keys: list[str] = []
    exact = _cover("", low, high, beginnings, keys) if low < high else True
    return Cover(tuple(beginnings), tuple(keys), exact)


def _cover(beginning: str, low: str, high: str, beginnings: list[str], keys: list[str]) -> bool:
    """Add what a beginning contributes to a range; tell whether that is exactly the range's part of it."""
    if beginning >= high or (beginning < low and not low.startswith(beginning)):
        return True  # none of it is in the range
    if beginning and beginning >= low and not high.startswith(beginning):
        beginnings.append(beginning)  # all of it is
        return True
    level = _next_level(beginning)
    if level is None:
        beginnings.append(beginning)
        return False
    only = low[:level]
    if len(only) == level and high <= _successor(only):
        return _cover(only, low, high, beginnings, keys)
    if (children := _children(beginning, level)) is None:
        beginnings.append(beginning)
        return False
    if beginning and low <= beginning and len(beginning) % 2 == 0:
        keys.append(beginning)  # a key that ends here
    exact = True
    for child in children:
        exact &= _cover(beginning + child, low, high, beginnings, keys)
    return exact


def _levels(digits: str) -> tuple[int, ...]:
    return _LEVELS_OF.get(digits[:2], _OTHER_LEVELS)


def _next_level(beginning: str) -> int | None:
    if not beginning:
        return 2
    return next((level for level in _levels(beginning) if level > len(beginning)), None)


def _children(beginning: str, level: int) -> tuple[str, ...] | None:
    """Return what can follow a beginning up to the level; None where it is too much to name."""
    if not beginning:
        return _TYPES
    if beginning.startswith(_STRING):
        return _UTF8 if level - len(beginning) == len(_UTF8[0]) else None
    if len(beginning) == len(_NUMBER):
        return _SIGNS
    if len(beginning) == len(_NUMBER) + len(_SIGNS[0]):
        return _EXPONENTS.get(beginning[2:], ())  # nothing follows the sign of zero
    return _DIGITS


def _successor(beginning: str) -> str:
    return f"{int(beginning, 16) + 1:0{len(beginning)}x}"


def id_ranks(conversation_id: str) -> tuple[int, ...]:
    """Return the numbers of `ID_RANKS`: the first bytes of an id, six by six.

    >>> id_ranks("a") < id_ranks("b") < id_ranks("ba")
    True
    """
    text = conversation_id.encode("utf-8", "surrogatepass")
    size = _RANK_BYTES
    return tuple(
        int.from_bytes(text[at : at + size].ljust(size, b"\x00"), "big") for at in range(0, len(ID_RANKS) * size, size)
    )


def is_told_by_ranks(text: str) -> bool:
    """Tell whether no id but this one has its ranks: it is shorter than they are, and has no NUL, as no id has."""
    return len(text.encode("utf-8", "surrogatepass")) < len(ID_RANKS) * _RANK_BYTES and "\x00" not in text


def id_digits(conversation_id: str) -> str:
    """Return digits that sort as ids do."""
    return conversation_id.encode("utf-8", "surrogatepass").hex()
