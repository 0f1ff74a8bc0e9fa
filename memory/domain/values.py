"""The values every store keeps exactly, and the one text they are stored as.

A value is JSON: ``None``, ``bool``, ``int``, finite ``float``, ``str``, ``list`` and ``dict`` with ``str`` keys, of exactly
these types. What goes in comes out equal and of the same type: ``1`` is not ``1.0``, and ``2**70`` stays ``2**70``.
"""

import json
import math
import os
import re
import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from json.encoder import encode_basestring_ascii
from json.scanner import make_scanner
from typing import Final, TypeAlias

from memory.errors import InvalidValueError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 100
"""How deep lists and dicts may nest. Far above any message format, far below Python's recursion limit."""

LARGEST: Final = 2**53 - 1
"""The largest position, version or count: the largest integer that every store keeps exactly, Lua's numbers included."""

_MAX_INT_BITS = 14_283
# Python reads and writes integers of up to 4,300 digits (sys.set_int_max_str_digits, CVE-2020-10735): 2**14283 < 10**4300.
_LONG_INT = re.compile(r"[0-9]{4300}")  # one that may be too large

_ID_LENGTH = 255
_KINDS = frozenset({type(None), bool, int, float, str, list, dict})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_TIME: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LAST_TIME: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The years 1 to 9999, in microseconds since 1970: what a `datetime` can be."""

compact: Final = json.JSONEncoder(separators=(",", ":")).encode
"""Makes JSON without blanks, ASCII only, of what needs no checking: texts and numbers of our own."""


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


_loads = json.JSONDecoder(parse_constant=_refuse_constant).decode
_scan: Callable[[str, int], tuple[Json, int]] = make_scanner(
    json.JSONDecoder(parse_constant=_refuse_constant)  # type: ignore[arg-type]  # typeshed takes it for another class
)
_dumps = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def encode(value: Json, name: str) -> str:
    """Return the text a value is stored as: compact ASCII JSON, keys in their own order.

    A document with a surrogate *pair* in a string (two code points that JSON would join into one character) is marked by a
    leading space, and its strings hold their bytes one by one; it is still valid JSON.

    Args:
        value: any JSON value.
        name: what the value is called in an error, as ``"metadata"``.

    Raises:
        InvalidValueError: the value is, or holds, something else; the message has the path to it.

    >>> encode({"customer": "ada", "priority": 3}, "metadata")
    '{"customer":"ada","priority":3}'
    >>> encode({"seats": [1, float("nan")]}, "metadata")
    Traceback (most recent call last):
        ...
    memory.errors.InvalidValueError: metadata.seats[1] is nan: only finite numbers can be stored
    """
    if _check(value, name, MAX_DEPTH):
        return " " + _dumps(_map_strings(value, _to_bytes))
    return _dumps(value)


def encode_parsed(value: Json, name: str) -> str:
    """Return what `encode` returns, in a third of the time, for a value that `json.loads` made of valid UTF-8.

    Such a value has no other types than JSON's, no cycle and no surrogate pair; only its numbers and its depth are in doubt.

    Raises:
        InvalidValueError: as `encode`.
    """
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    try:
        text = _dumps(value)
    except (ValueError, RecursionError):
        return encode(value, name)  # names the path
    if len(text) <= 2 * MAX_DEPTH:
        return text
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    return encode(value, name) if may_be_deep or _LONG_INT.search(text) else text


def decode(text: str) -> Json:
    """Return the value that `encode` made a text of.

    Raises:
        ValueError: the text is not one that `encode` writes.

    >>> decode('{"customer":"ada"}')
    {'customer': 'ada'}
    """
    value: Json
    try:
        if text[0] == '"' and text.find('"', 1) == len(text) - 1 and "\\" not in text:
            return text[1:-1]  # nothing is escaped: no parser is needed
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:  # the text does not begin with a value, but perhaps with a blank
        pass
    except (
        RecursionError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:  # all but the first: it is no text, or empty
        raise ValueError(f"not JSON that can be read: {error}") from error
    value = _loads(text)
    return _map_strings(value, _from_bytes) if text.startswith(" ") else value


def count_values(text: str, most: int) -> int:
    """Return how many values a text of `encode` holds, containers included; no more than an estimate up to ``most``.

    >>> count_values('{"tags":["a","b"]}', 0)
    4
    """
    estimate = 1 + text.count(",") + text.count("{") + text.count("[")  # too high where strings have such characters
    return estimate if estimate <= most else _count(decode(text))


def _count(value: Json) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def new_id() -> str:
    """Return a new unique id: 32 hexadecimal digits, the first 12 of them the time in milliseconds, so that ids sort by age."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def check_id(value: object, name: str) -> str:
    """Return the value if it can be an id: 1 to 255 characters, no control characters, no lone surrogates.

    Raises:
        InvalidValueError: it cannot.
    """
    if type(value) is not str:
        hint = ": write conversation.id" if type(value).__name__ == "Conversation" else ""
        raise InvalidValueError(f"{name} must be a str, not {type(value).__name__}{hint}")
    if not 1 <= len(value) <= _ID_LENGTH:
        raise InvalidValueError(f"{name} must have 1 to {_ID_LENGTH} characters, not {len(value)}: {value[:40]!r}")
    return check_id_characters(value, name)


def first_id(*candidates: object) -> str | None:
    """Return the first of these values that can be an id, None if none can: for ids that others have given.

    >>> first_id(None, "", "support-42")
    'support-42'
    """
    for candidate in candidates:
        try:
            return check_id(candidate, "id")
        except InvalidValueError:
            continue
    return None


def check_id_characters(value: str, name: str) -> str:
    """Return the text if ids are written with such characters.

    Raises:
        InvalidValueError: it has control characters or lone surrogates.
    """
    if not (value.isascii() and value.isprintable()) and any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise InvalidValueError(f"{name} may not hold control characters or lone surrogates: {value[:40]!r}")
    return value


def now() -> int:
    """Return the time in microseconds since 1970, the unit every store keeps times in."""
    return time.time_ns() // 1000


def to_datetime(microseconds: int) -> datetime:
    """Return the moment as an aware UTC ``datetime``.

    >>> to_datetime(1_000_001)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=datetime.timezone.utc)
    """
    return _EPOCH + _MICROSECOND * microseconds  # half the time of a timedelta of so many


def to_microseconds(moment: object, name: str) -> int:
    """Return the moment in microseconds since 1970.

    Raises:
        InvalidValueError: it is not a ``datetime``, has no time zone, or lies outside the years 1 to 9999 in UTC.
    """
    if not isinstance(moment, datetime):
        raise InvalidValueError(f"{name} must be a datetime, not {type(moment).__name__}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidValueError(f"{name} has no time zone: write datetime.now(UTC), not datetime.now()")
    microseconds = (moment - _EPOCH) // _MICROSECOND
    try:
        to_datetime(microseconds)
    except OverflowError as error:
        raise InvalidValueError(f"{name} lies outside the years 1 to 9999 in UTC: {moment}") from error
    return microseconds


def _check(value: object, path: str, depth: int) -> bool:
    """Raise at the first part that is not JSON; tell whether a string holds a surrogate pair."""
    if type(value) not in _KINDS:  # exactly: a subclass (an IntEnum, a numpy.float64) would come back as another type
        kinds = "str, bool, None, int, float, list, dict"
        raise InvalidValueError(f"{path} is a {type(value).__name__}: only JSON values can be stored ({kinds})")
    if isinstance(value, str):
        return not value.isascii() and _has_surrogate_pair(value)
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            raise InvalidValueError(f"{path} is an integer of more than 4,300 digits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidValueError(f"{path} is {value}: only finite numbers can be stored")
    elif value is not None and depth == 0:
        raise InvalidValueError(f"{path[:200]} nests deeper than {MAX_DEPTH} levels, or contains itself")
    elif isinstance(value, list):
        found = [_check(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]
        return True in found
    elif isinstance(value, dict):
        found = [_check_item(key, item, path, depth - 1) for key, item in value.items()]
        return True in found
    return False


def _check_item(key: object, item: object, path: str, depth: int) -> bool:
    if type(key) is not str:
        raise InvalidValueError(f"{path} has the key {key!r}: keys must be str, not {type(key).__name__}")
    pair = not key.isascii() and _has_surrogate_pair(key)
    return _check(item, f"{path}.{key}", depth) or pair


def _has_surrogate_pair(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return any("\ud800" <= high < "\udc00" <= low < "\ue000" for high, low in pairwise(text))
    return False


def _to_bytes(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _from_bytes(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "surrogatepass")


def _map_strings(value: Json, change: Callable[[str], str]) -> Json:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): _map_strings(item, change) for key, item in value.items()}
    return value
