"""The tokens in the index, computed from the entries of `memory.port.index`.

A token is a digest keyed by the namespace. It consists of harmless characters, so no value can inject query syntax, and tokens
of different namespaces differ.

A test for equality looks up one token. A range is a union of tokens: the index contains a token for certain prefixes of every
key (see `_levels`), and `cover` expresses a range as the shortest prefixes that lie entirely in it.
"""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

from memory.port.index import Entry, KeyBetween, is_element, key

_DIGEST_BYTES: Final = 9
"""A token has 12 characters. Finding a value with a given token takes about 2**71 attempts; the probability that two of a
billion tokens are equal is 1 in 8,000."""

# The lengths of the indexed prefixes, in hexadecimal digits of a key. The first two digits are the type.
_NUMBER, _STRING = key(0)[:1].hex(), key("")[:1].hex()
_BYTE_BY_BYTE: Final = 12
_LEVELS_OF: Final = {
    # sign and exponent, then the 64 bits of the mantissa digit by digit, whichever way `key` escapes them
    _NUMBER: (4, *range(6, 43)),
    _STRING: (2, *(2 + 2 * size for size in (*range(1, _BYTE_BY_BYTE + 1), 16, 24, 32))),
}
_UTF8: Final = [f"{byte:02x}" for byte in range(0xF5) if byte not in (0xC0, 0xC1)]
_SIGNS: Final = [key(value)[:2].hex() for value in (-1, 0, 1)]
_ZERO: Final = key(0).hex()
_TYPES: Final = ["01", "02", *_SIGNS, _STRING, "05", "06"]  # each sign of numbers is a type
_EXPONENTS: Final = [f"{byte:02x}" for byte in range(0x48, 0xB8)]  # the high bytes of exponents, for both signs
_DIGITS: Final = list("0123456789abcdef")


class Cover(NamedTuple):
    """Prefixes and whole keys whose union is a range, or a superset of the range if not ``exact``."""

    prefixes: list[str]
    keys: list[str]
    exact: bool


class Tokens:
    """The tokens of one namespace."""

    def __init__(self, namespace: str) -> None:
        scope = blake2b(namespace.encode(), digest_size=32).digest()
        self._empty = blake2b(digest_size=_DIGEST_BYTES, key=scope)
        self.everything = _text(self._empty)
        """The token of all conversations in the namespace."""

    def of(self, entries: Iterable[Entry]) -> str:
        """Return all tokens of a conversation with these entries, in the form of the hash's field."""
        return "|".join(sorted({self.everything, *[token for entry in entries for token in self._of_entry(entry)]}))

    def equal(self, path: bytes, keys: Iterable[bytes]) -> list[str]:
        """Return the token of each key at the path."""
        at_path = self._at(path, b"=")
        return [_with(at_path, key.hex()) for key in keys]

    def between(self, lookup: KeyBetween) -> tuple[list[str], bool]:
        """Return tokens that match every key in a range, and whether they match no other key."""
        found = cover(lookup.low.hex(), lookup.high.hex())
        at_path = self._at(lookup.path, b"<")
        tokens = [_with(at_path, prefix) for prefix in found.prefixes]
        # Only strings have a prefix token of their full length: for numbers it would match no other number.
        whole = [one for one in found.prefixes if not one.startswith(_STRING) and len(one) % 2 == 0]
        return tokens + self.equal(lookup.path, map(bytes.fromhex, [*whole, *found.keys])), found.exact

    def _of_entry(self, entry: Entry) -> Iterator[str]:
        digits = entry.key.hex()
        yield from self.equal(entry.path, [entry.key])
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
    return b64encode(digest.digest(), b"__").decode()  # both non-alphanumeric characters become "_"


def cover(low: str, high: str) -> Cover:
    """Return the prefixes and keys, as hexadecimal digits, whose union is ``low <= key < high``.

    >>> cover("03c080", "04").prefixes[:2], cover("0461", "0462").prefixes
    (['03c080', '03c081'], ['0461'])
    """
    prefixes: list[str] = []
    keys: list[str] = []
    exact = low >= high or _cover("", low, high, prefixes, keys)
    return Cover(prefixes, keys, exact)


def _cover(prefix: str, low: str, high: str, prefixes: list[str], keys: list[str]) -> bool:
    """Add the keys with a prefix to the cover, as far as they are in the range; return whether no others were added."""
    if prefix >= high or (prefix < low and not low.startswith(prefix)):
        return True  # no key with this prefix is in the range
    if prefix and prefix >= low and not high.startswith(prefix):
        prefixes.append(prefix)  # all keys with this prefix are in the range
        return True
    level = next((level for level in _levels(prefix) if level > len(prefix)), 0)
    only = low[:level]
    if prefix and len(only) == level > 0 and high <= f"{int(only, 16) + 1:0{level}x}":
        return _cover(only, low, high, prefixes, keys)
    if (children := _children(prefix, level)) is None:
        prefixes.append(prefix)
        return False
    if prefix and low <= prefix and len(prefix) % 2 == 0:
        keys.append(prefix)  # the key that equals the prefix
    parts = [_cover(prefix + child, low, high, prefixes, keys) for child in children]
    return all(parts)


def _levels(digits: str) -> tuple[int, ...]:
    return _LEVELS_OF.get(digits[:2], (2,))


def _children(prefix: str, level: int) -> list[str] | None:
    """Return the possible continuations of a prefix up to a level; None if there are too many to enumerate."""
    if not prefix:
        return _TYPES
    if prefix == _ZERO:
        return []
    if level == len(prefix) + 2:
        return _UTF8 if prefix.startswith(_STRING) else _EXPONENTS
    return _DIGITS if level == len(prefix) + 1 else None
