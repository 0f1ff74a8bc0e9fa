"""The values that every store keeps exactly, and the JSON text they are stored as, in UTF-8.

A value is JSON: ``None``, ``bool``, ``int``, finite ``float``, ``str``, ``list`` and ``dict`` with ``str`` keys, of exactly
these types. Reading returns an equal value of the same type: ``1`` does not become ``1.0``, and ``2**70`` stays ``2**70``.
"""

import hashlib
import json
import math
import os
import re
import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from json.scanner import make_scanner
from typing import Any, Final, TypeAlias, cast

from memory.errors import InvalidValueError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

Default: TypeAlias = Callable[[Any], Any]
"""Encodes a value that is not JSON, as the ``default`` of `json.dumps`; raises `TypeError` or `ValueError` if it cannot."""

MAX_DEPTH = 100
"""How deep lists and dicts may nest: far deeper than any message format, far below Python's recursion limit."""

LARGEST: Final = 2**53 - 1
"""The largest position, version or count: the largest integer that every store keeps exactly (Lua's numbers are doubles)."""

_MAX_INT_BITS = 14_283
# Python converts integers of up to 4,300 digits (sys.set_int_max_str_digits, CVE-2020-10735): 2**14283 < 10**4300.
_LONG_INT = re.compile(r"[0-9]{4300}")  # an integer that may be too large

_ID_LENGTH = 255
_CONVERSATION_ID_LENGTH = 2048
_DIGEST_LENGTH = 65  # a tab and 64 hexadecimal digits
_KINDS = frozenset({type(None), bool, int, float, str, list, dict})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_TIME: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LAST_TIME: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The range of a `datetime`, years 1 to 9999, in microseconds since 1970."""

LONGEST: Final = timedelta(days=36_525) // _MICROSECOND
"""The longest time after which a conversation can expire: 100 years, in microseconds."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_write_ascii = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":")).encode


def compact(value: object) -> str:
    r"""Return JSON without spaces, in which only quotes, backslashes, control characters and lone surrogates are escaped.

    Nothing is checked: a surrogate pair is decoded as one character. See `encode`.

    >>> compact(["Grüße", "\ud83d"])
    '["Grüße","\\ud83d"]'
    """
    text = _write(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


_loads = json.JSONDecoder(parse_constant=_refuse_constant).decode
_scan: Callable[[str, int], tuple[Json, int]] = make_scanner(
    json.JSONDecoder(parse_constant=_refuse_constant)  # type: ignore[arg-type]  # typeshed takes it for another class
)


def encode(value: object, name: str, default: Default | None = None) -> str:
    """Return the text that a value is stored as: `compact` JSON, with the keys in their original order.

    Args:
        value: the value.
        name: its name in errors, which have the path to the part that cannot be stored.
        default: encodes the parts and the keys that are not JSON; by default they are refused.

    JSON would join a surrogate *pair* in a string (two code points) into one character. A document with such a string
    therefore begins with a space, and each of its strings is encoded byte by byte, in ASCII; it is still valid JSON.

    >>> encode({"customer": "ada", "priority": 3}, "metadata")
    '{"customer":"ada","priority":3}'
    >>> encode({"seats": [1, float("nan")]}, "metadata")
    Traceback (most recent call last):
        ...
    memory.errors.InvalidValueError: metadata.seats[1] is nan: only finite numbers can be stored
    """
    try:
        has_pair = _check(value, name, MAX_DEPTH)
    except InvalidValueError:
        if default is None:
            raise
        value = to_values(value, name, default)
        has_pair = _check(value, name, MAX_DEPTH)
    if has_pair:
        return " " + _write_ascii(_map_strings(cast(Json, value), _to_bytes))
    return compact(value)


def to_values(value: object, path: str, default: Default, depth: int = MAX_DEPTH) -> object:
    """Return a copy of a value in which ``default`` has encoded each part that is not JSON. `encode` checks the rest.

    Raises:
        InvalidValueError: ``default`` refused a part, or the value nests too deeply.
    """
    value = _to_value(value, path, default)
    if depth == 0 and isinstance(value, list | dict):
        raise _too_deep(path)
    if isinstance(value, list):
        return [to_values(item, f"{path}[{index}]", default, depth - 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        items = {
            _to_value(key, f"a key of {path}", default): to_values(item, f"{path}.{key}", default, depth - 1)
            for key, item in value.items()
        }
        if len(items) < len(value):
            raise InvalidValueError(f"{path} has two keys that are encoded to the same text")
        return items
    return value


def _to_value(value: object, path: str, default: Default) -> object:
    for _ in range(MAX_DEPTH):
        if type(value) in _KINDS:
            return value
        try:
            value = default(value)
        except (TypeError, ValueError) as error:
            raise InvalidValueError(f"{path} cannot be stored: {error}") from error
    raise InvalidValueError(f"{path} cannot be stored: its encoding is a {type(value).__name__} for ever")


def encode_parsed(value: Json, name: str) -> str:
    """Return the same as `encode`, in a third of the time, for a value that `json.loads` parsed from valid UTF-8.

    Such a value contains only JSON types, no cycle and no surrogate pair; only its numbers and its depth need a check.
    """
    try:
        text = compact(value)
    except (ValueError, RecursionError):
        return encode(value, name)  # its error names the path
    if len(text) <= 2 * MAX_DEPTH or isinstance(value, str):
        return text
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    return encode(value, name) if may_be_deep or _LONG_INT.search(text) else text


def decode(text: str) -> Json:
    """Return the value of text that `encode` wrote; raise `ValueError` for other text.

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
    except (RecursionError, LookupError, TypeError, AttributeError) as error:  # the last three: empty, or not a str
        raise ValueError(f"not readable as JSON: {error}") from error
    value = _loads(text)
    return _map_strings(value, _from_bytes) if text.startswith(" ") else value


def same(text: str, other: str) -> bool:
    """Whether two texts that `encode` wrote have the same value: the order of keys does not matter, but types do.

    >>> same('{"a":1,"b":2}', '{"b":2,"a":1}'), same("1", "1.0")
    (True, False)
    """
    return text == other or (len(text) == len(other) and _sorted(text) == _sorted(other))


def _sorted(text: str) -> str:
    return json.dumps(decode(text), sort_keys=True)


def count_values(text: str, most: int) -> int:
    """Return the number of values, including containers, in text that `encode` wrote.

    The result is exact above ``most``, and an upper bound otherwise.

    >>> count_values('{"tags":["a","b"]}', 0)
    4
    """
    estimate = 1 + text.count(",") + text.count("{") + text.count("[")  # too high if strings contain these characters
    return estimate if estimate <= most else _count(decode(text))


def _count(value: Json) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def new_id() -> str:
    """Return a new unique id: 32 hexadecimal digits, starting with the time in milliseconds, so that ids sort by age."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def check_id(value: object, name: str, longest: int = _ID_LENGTH) -> str:
    """Return the value if it is a valid id: 1 to 255 characters, no control characters, no lone surrogates."""
    if type(value) is not str:
        hint = ": write conversation.id" if type(value).__name__ == "Conversation" else ""
        raise InvalidValueError(f"{name} must be a str, not {type(value).__name__}{hint}")
    if not 1 <= len(value) <= longest:
        raise InvalidValueError(f"{name} must have 1 to {longest:,} characters, not {len(value):,}: {value[:40]!r}")
    return check_id_characters(value, name)


def check_conversation_id(value: object) -> str:
    """Return the value if it is a valid id of a conversation: as `check_id`, but up to 2,048 characters."""
    return check_id(value, "the conversation's id", _CONVERSATION_ID_LENGTH)


def key_of(conversation_id: str) -> str:
    """Return the form of a conversation's id in the keys, indexes and orders of a store: at most 255 characters.

    A longer id is cut, and followed by a tab and its SHA-256. Ids cannot contain a tab, so no other id has the same key.

    >>> key_of("support-42"), len(key_of("a" * 2048))
    ('support-42', 255)
    """
    if len(conversation_id) <= _ID_LENGTH:
        return conversation_id
    digest = hashlib.sha256(conversation_id.encode()).hexdigest()
    return f"{conversation_id[: _ID_LENGTH - _DIGEST_LENGTH]}\t{digest}"


def first_id(*candidates: object) -> str | None:
    """Return the first of these values that is a valid id, or None: for ids from outside this package.

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
    """Return the text if an id may contain its characters: no control characters, no lone surrogates."""
    if not (value.isascii() and value.isprintable()) and any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise InvalidValueError(f"{name} must not contain control characters or lone surrogates: {value[:40]!r}")
    return value


def now() -> int:
    """Return the current time in microseconds since 1970, the unit in which stores keep times."""
    return time.time_ns() // 1000


def to_datetime(microseconds: int) -> datetime:
    """Return microseconds since 1970 as an aware ``datetime`` in UTC.

    >>> to_datetime(1_000_001)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=datetime.timezone.utc)
    """
    return _EPOCH + _MICROSECOND * microseconds  # a multiplication takes half the time of timedelta(...)


def to_microseconds(timestamp: object, name: str) -> int:
    """Return an aware ``datetime`` in microseconds since 1970; raise `InvalidValueError` outside the years 1 to 9999 in UTC."""
    if not isinstance(timestamp, datetime):
        raise InvalidValueError(f"{name} must be a datetime, not {type(timestamp).__name__}")
    if timestamp.tzinfo is None or timestamp.utcoffset() is None:
        raise InvalidValueError(f"{name} has no time zone: use datetime.now(UTC), not datetime.now()")
    microseconds = (timestamp - _EPOCH) // _MICROSECOND
    try:
        to_datetime(microseconds)
    except OverflowError as error:
        raise InvalidValueError(f"{name} is outside the years 1 to 9999 in UTC: {timestamp}") from error
    return microseconds


def to_duration(duration: object, name: str) -> int:
    """Return a `timedelta` in microseconds; raise `InvalidValueError` unless it is positive, and not longer than 100 years."""
    if not isinstance(duration, timedelta):
        raise InvalidValueError(f"{name} must be a timedelta, not {type(duration).__name__}")
    if not 0 < (microseconds := duration // _MICROSECOND) <= LONGEST:
        raise InvalidValueError(f"{name} must be positive and at most 100 years, not {duration}")
    return microseconds


def _check(value: object, path: str, depth: int) -> bool:
    """Raise at the first part that is not JSON. Return whether a string contains a surrogate pair."""
    if type(value) not in _KINDS:  # exactly: a subclass (an IntEnum, a numpy.float64) would be read as another type
        kinds = "str, bool, None, int, float, list, dict"
        raise InvalidValueError(
            f"{path} is a {type(value).__name__}: only JSON values can be stored ({kinds}); to encode others, pass a "
            "function as json.dumps takes it: connect(url, default=...)"
        )
    if isinstance(value, str):
        return not value.isascii() and _has_surrogate_pair(value)
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            raise InvalidValueError(f"{path} is an integer of more than 4,300 digits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidValueError(f"{path} is {value}: only finite numbers can be stored")
    elif value is not None and depth == 0:
        raise _too_deep(path)
    elif isinstance(value, list):
        found = [_check(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]
        return True in found
    elif isinstance(value, dict):
        found = [_check_item(key, item, path, depth - 1) for key, item in value.items()]
        return True in found
    return False


def _too_deep(path: str) -> InvalidValueError:
    return InvalidValueError(f"{path[:200]} nests deeper than {MAX_DEPTH} levels, or contains itself")


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
