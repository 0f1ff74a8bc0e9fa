"""How metadata is indexed, the same on every store: which entries a conversation has, and where a criterion looks for them.

An entry consists of two byte strings: the place (`Entry.path`) and the value (`Entry.key`). Keys sort exactly as their values do,
across all integers and floats, so a store needs only byte order. `plan` turns a criterion into look-ups of such entries, and
returns whether they are exact. If not, they find more conversations, and the planner checks each with `Criterion.matches`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from memory.domain.criteria import (
    AllOf,
    AnyOf,
    Contains,
    Criterion,
    Exists,
    FieldCompares,
    Not,
    OneOf,
    OnMetadata,
    Orders,
    Scalar,
    StartsWith,
)
from memory.domain.values import Json

LONGEST_KEY = 256
"""The most bytes of a string or number in its key. A longer one is cut and gets a digest, so that equality stays exact."""

LONGEST_PATH = 512
"""The most bytes of a path in an entry; a digest replaces a longer path. With a namespace and a key it fits the smallest index
limits: 2,048 bytes of a DynamoDB partition key, 2,704 of a PostgreSQL index row."""

INDEXED_ELEMENTS: Final = 64
"""The most elements of a list with entries. A longer list has one more entry, which every search for an element finds."""

# The first byte of a key tells the type, so that a range never leaves it.
_NULL, _BOOL, _NUMBER, _STRING, _LIST, _DICT, _END = (bytes([byte]) for byte in range(1, 8))
_SEPARATOR, _ELEMENT, _ZERO_ESCAPED = b"\x00\x01", b"\x00\x02", b"\x00\xff"
_MORE_ELEMENTS = b"\xff"  # no key of a value begins so
_DIGESTED = b"\xff"  # begins no path: UTF-8 has no such byte, and an escape begins with a zero
_LONGEST_KNOWN = 64  # characters of a key that is worth remembering
_EXPONENT_BIAS = 1 << 15  # exponents lie in -1,073 (5e-324) .. 14,283 (MAX_INT_BITS in values.py)


class Entry(NamedTuple):
    """One place in the metadata, and one value there."""

    path: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class KeyIn:
    """There is an entry at the path with one of these keys."""

    path: bytes
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class KeyBetween:
    """There is an entry at the path with ``low <= key < high``."""

    path: bytes
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold; ``Every(())`` is every conversation."""

    parts: tuple["Plan", ...] = ()


@dataclass(frozen=True, slots=True)
class Some:
    """One part holds at least; ``Some(())`` is no conversation."""

    parts: tuple["Plan", ...] = ()


@dataclass(frozen=True, slots=True)
class Unless:
    """The part does not hold."""

    part: "Plan"


Lookup: TypeAlias = KeyIn | KeyBetween
Plan: TypeAlias = KeyIn | KeyBetween | FieldCompares | Every | Some | Unless


def entries(metadata: dict[str, Any]) -> set[Entry]:
    r"""Return the index entries of a conversation: one for each value at each path, and one for each element of a list.

    A key that begins with an underscore, and everything below it, has no entries: queries on it read the conversations. In a
    list, the first `INDEXED_ELEMENTS` elements have entries.

    >>> sorted(entry.path for entry in entries({"customer": {"tier": "gold"}, "tags": ["a", "b"]}))
    [b'customer', b'customer\x00\x01tier', b'tags', b'tags\x00\x02', b'tags\x00\x02']
    """
    found: set[Entry] = set()
    _gather(metadata, b"", found)
    return found


def _gather(metadata: dict[str, Any], prefix: bytes, found: set[Entry]) -> None:
    for name, value in metadata.items():
        if name.startswith("_"):
            continue
        path, short, of_elements = _paths(prefix, name) if len(name) <= _LONGEST_KNOWN else _make_paths(prefix, name)
        found.add(Entry(short, key(value)))
        if isinstance(value, dict):
            _gather(value, path + _SEPARATOR, found)
        elif isinstance(value, list):
            found.update([Entry(of_elements, key(element)) for element in value[:INDEXED_ELEMENTS]])
            if len(value) > INDEXED_ELEMENTS:
                found.add(Entry(of_elements, _MORE_ELEMENTS))


def _make_paths(prefix: bytes, name: str) -> tuple[bytes, bytes, bytes]:
    """Return the path below a prefix: whole, as an entry has it, and as an entry of an element has it."""
    path = prefix + _encode_name(name)
    return path, _short(path), _short(path + _ELEMENT)


_paths = lru_cache(maxsize=1024)(_make_paths)  # an application's conversations have the same keys


def is_element(path: bytes) -> bool:
    """Whether the path certainly addresses the elements of a list (plans only test those for equality)."""
    return path.endswith(_ELEMENT) and not path.startswith(_DIGESTED)


def key(value: Json) -> bytes:
    """Return the key of a value. The key of a list or dict contains only the type.

    >>> key(3) == key(3.0), key(2**53) < key(2**53 + 1), key(-1.5) < key(-1), key("a") < key("b")
    (True, True, True, True)
    """
    if isinstance(value, str):  # UTF-8 sorts by code point, as Python compares strings
        return _STRING + _short_key(value.encode() if value.isascii() else value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bool):
        return _BOOL + bytes([value])
    if isinstance(value, int | float):
        return _NUMBER + _short_key(_number(value))
    if value is None:
        return _NULL
    return _LIST if isinstance(value, list) else _DICT


def _short_key(whole: bytes) -> bytes:
    return whole if len(whole) <= LONGEST_KEY else whole[:LONGEST_KEY] + _digest(whole)


def _number(value: float) -> bytes:
    """Encode sign, exponent and mantissa so that byte order is numeric order, for all ints and finite floats, exactly."""
    if not value:
        return b"\x80"
    mantissa, divisor = abs(value).as_integer_ratio()  # divisor: a power of two
    bits = mantissa.bit_length()
    exponent = bits - divisor.bit_length() + 1 + _EXPONENT_BIAS
    digits = (mantissa << (-bits % 8)).to_bytes((bits + 7) // 8, "big").rstrip(b"\x00")
    magnitude = exponent.to_bytes(2, "big") + digits
    if value > 0:
        return b"\xc0" + magnitude
    # Turned over, a shorter one must come after all it begins: hence an end that no digits make, zeros being escaped.
    magnitude = magnitude[:2] + magnitude[2:].replace(b"\x00", _ZERO_ESCAPED)
    return b"\x40" + bytes(255 - byte for byte in magnitude) + b"\xff\xff"


def plan(criterion: Criterion) -> tuple[Plan, bool]:
    r"""Return the look-ups that find a criterion's conversations, and whether they find only those.

    >>> from memory.domain.criteria import where
    >>> plan(where("priority").exists())
    (KeyBetween(path=b'priority', low=b'', high=b'\x07'), True)
    """
    if isinstance(criterion, FieldCompares):
        return criterion, True
    if isinstance(criterion, AllOf | AnyOf):
        planned = [plan(part) for part in criterion.parts]
        join = _every if isinstance(criterion, AllOf) else _some
        return join([part for part, _ in planned]), all(exact for _, exact in planned)
    if isinstance(criterion, Not):
        part, exact = plan(criterion.part)
        return (Unless(part), True) if exact else (Every(), False)  # more than it, negated, would be less
    if isinstance(criterion, OnMetadata) and is_indexed(criterion.path):
        return _lookup(criterion, _whole_path(criterion.path))
    return Every(), False  # not indexed, or a criterion of the application's own


def is_indexed(path: tuple[str, ...]) -> bool:
    """Return whether values at a metadata path have entries: no key of it begins with an underscore."""
    return not any(name.startswith("_") for name in path)


def named_ids(plan: Plan) -> tuple[str, ...] | None:
    """Return the ids that a plan names, one of which every match has; None if it names none.

    >>> named_ids(Every((FieldCompares("id", "==", "a"), KeyIn(b"tier", (key("gold"),)))))
    ('a',)
    """
    match plan:
        case FieldCompares(field="id", operator="==", value=str(value)):
            return (value,)
        case Every():
            named = [ids for part in plan.parts if (ids := named_ids(part)) is not None]
            return min(named, key=len, default=None)
        case Some():
            several = [named_ids(part) for part in plan.parts]
            if None in several or not several:
                return None
            return tuple({one: None for ids in several for one in ids or ()})
        case _:
            return None


def index_path(path: tuple[str, ...]) -> bytes:
    """Return the path that entries have for a path of metadata keys."""
    return _short(_whole_path(path))


def describe(lookup: Lookup) -> str:
    r"""Return a look-up in words.

    >>> describe(KeyIn(b"customer\x00\x01tier", (key("gold"),)))
    'customer.tier, one value'
    """
    path = "(a long path)" if lookup.path.startswith(_DIGESTED) else lookup.path.decode("utf-8", "replace")
    path = path.replace("\x00\x01", ".").replace("\x00\x02", "[]").replace("\x00\ufffd", "\x00")
    if isinstance(lookup, KeyBetween):
        return f"{path}, a range"
    return f"{path}, one value" if len(lookup.keys) == 1 else f"{path}, {len(lookup.keys):,} values"


def _whole_path(path: tuple[str, ...]) -> bytes:
    return _SEPARATOR.join(_encode_name(name) for name in path)


def _every(parts: list[Plan]) -> Plan:
    """Return the conjunction of the parts: flat, with one range for each path (a path has one value)."""
    flat: dict[Plan, None] = {}
    ranges: dict[bytes, KeyBetween] = {}
    for part in parts:
        for inner in part.parts if isinstance(part, Every) else (part,):
            if isinstance(inner, KeyBetween):
                other = ranges.get(inner.path, inner)
                ranges[inner.path] = KeyBetween(inner.path, max(inner.low, other.low), min(inner.high, other.high))
            else:
                flat[inner] = None
    together = (*ranges.values(), *flat)
    return together[0] if len(together) == 1 else Every(together)


def _some(parts: list[Plan]) -> Plan:
    flat = {inner: None for part in parts for inner in (part.parts if isinstance(part, Some) else (part,))}
    return next(iter(flat)) if len(flat) == 1 else Some(tuple(flat))


def _lookup(criterion: OnMetadata, path: bytes) -> tuple[Plan, bool]:
    path, of_elements = _short(path), _short(path + _ELEMENT)
    if isinstance(criterion, Exists):
        return KeyBetween(path, b"", _END), True
    if isinstance(criterion, OneOf):
        keys = dict.fromkeys(map(key, criterion.values))
        return KeyIn(path, tuple(keys)), not any(isinstance(value, list | dict) for value in criterion.values)
    if isinstance(criterion, Contains):
        return KeyIn(of_elements, (key(criterion.element), _MORE_ELEMENTS)), False
    if isinstance(criterion, StartsWith):
        low, exact = _STRING + criterion.prefix.encode("utf-8", "surrogatepass"), _is_short(criterion.prefix)
        low = low[: LONGEST_KEY + 1]
        return KeyBetween(path, low, _after_prefix(low)), exact
    if isinstance(criterion, Orders):
        return _range(criterion.operator, criterion.bound, path), _is_short(criterion.bound)
    return Every(), False


def _range(operator: str, bound: Scalar, path: bytes) -> KeyBetween:
    """Return the range on one side of the bound, within its type; it includes the bound itself if its key is cut."""
    at = key(bound)
    beyond = at + b"\x00"
    if not _is_short(bound):
        at, beyond = at[: LONGEST_KEY + 1], _after_prefix(at[: LONGEST_KEY + 1])
        operator = operator[0] + "="
    lowest, highest = at[:1], bytes([at[0] + 1])
    return {
        "<": KeyBetween(path, lowest, at),
        "<=": KeyBetween(path, lowest, beyond),
        ">": KeyBetween(path, beyond, highest),
        ">=": KeyBetween(path, at, highest),
    }[operator]


def _after_prefix(prefix: bytes) -> bytes:
    """Return the least byte string after all with this prefix. UTF-8 has no 0xff, and the type's byte is small."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])


def _encode_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass").replace(b"\x00", _ZERO_ESCAPED)


def _short(path: bytes) -> bytes:
    return path if len(path) <= LONGEST_PATH else _DIGESTED + _digest(path)


def _digest(value: bytes) -> bytes:
    from hashlib import sha256  # which takes a while to import

    return sha256(value).digest()


def _is_short(bound: Scalar) -> bool:
    return len(bound.encode("utf-8", "surrogatepass") if isinstance(bound, str) else _number(bound)) <= LONGEST_KEY
