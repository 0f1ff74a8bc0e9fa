"""The partition and sort keys of all items, as readable text.

The names in a key are joined by ``#``; a conversation is named by `key_of` its id. Sort keys sort like the values they contain,
because DynamoDB compares UTF-8 bytes. A key that exceeds DynamoDB's limits is truncated and followed by a tab and a digest; names
cannot contain a tab, so the key is unique.
"""

import hashlib
import re
import zlib
from functools import lru_cache
from typing import Final, TypeAlias

from memory.domain.timestamps import format_timestamp
from memory.domain.values import FIRST_TIME, LAST_TIME, key_of

Key: TypeAlias = tuple[str, str]
"""The partition key and sort key of an item."""

STATE: Final = "state"
"""The sort key of a conversation's head. It sorts after all runs, so one backward query returns the head and the last runs."""

PARTS, RUNS = "part#", "run#"
"""The prefixes of the sort keys of parts (of texts that are too large for one item) and of runs."""

COUNTS: Final = "counts"
"""The partition of all counters, from which `namespaces` is read."""

SCHEMA: Final = ("schema", "schema")
"""The key of the item with the version of the layout and the number of shards."""

LOWEST, HIGHEST = " ", "\U0010ffff" * 256
"""These sort before and after every name."""

_COUNTERS: Final = 16  # per namespace, so that concurrent creations seldom update the same counter
_LONGEST_PARTITION, _LONGEST_SORT = 2048, 1024  # bytes: DynamoDB's limits
_LONGEST_ID_IN_ENTRY = 440  # bytes; the index key takes at most 578
_DIGEST = 65  # bytes, including the tab
_MINUTE: Final = len("2026-01-31T12:00")
_UNSAFE: Final = re.compile("[%#\x00-\x1f\x7f\ud800-\udfff]")
_UNSAFE_IN_PATH: Final = re.compile("[%#.\\[\\]\x00-\x1f\x7f\ud800-\udfff]")
_LOW_BYTES: Final = {byte: f"\n{chr(0x41 + byte)}" for byte in range(0x0B)}


@lru_cache(maxsize=4096)  # for the lists of a namespace and the conversations in use
def partition(*names: str | int) -> str:
    """Return a partition key, built from a kind of item, the namespace, and more names.

    >>> partition("conversation", "default", "support-42"), partition("list", "id", "a#b", 0)
    ('conversation#default#support-42', 'list#id#a%23b#0')
    """
    return _fitted("#".join([_UNSAFE.sub(_escape, str(name)) for name in names]), _LONGEST_PARTITION)


def run(incarnation: str, position: int) -> str:
    """Return the sort key of a run."""
    return f"{RUNS}{incarnation}#{position:016d}"


def position_of(sort_key: str) -> int:
    """Return the position in a run's sort key."""
    return int(sort_key[-16:])


@lru_cache(maxsize=4096)  # for the most recent changes
def listed(microseconds: int, conversation_id: str) -> str:
    """Return the sort key of a conversation in a list by time. In the list by id, the id is the sort key."""
    return _fitted(f"{time(microseconds)}#{key_of(conversation_id)}", _LONGEST_SORT)


def opened(microseconds: int, conversation_id: str, run_key: str) -> str:
    """Return the sort key of a run in the list of open runs, from the run's ``created_at`` and sort key."""
    return (
        f"{_fitted(listed(microseconds, conversation_id), _LONGEST_SORT - len(run_key))}\t{run_key.removeprefix(RUNS)}"
    )


@lru_cache(maxsize=4096)  # an append does not change them
def pointers(
    namespace: str, shard: int, conversation_id: str, created_at: int, expires_at: int | None
) -> frozenset[Key]:
    """Return the keys of a conversation's items in the lists by ``id``, ``created_at`` and ``expires_at``."""
    sort_keys = {"id": key_of(conversation_id), "created_at": listed(created_at, conversation_id)}
    if expires_at is not None:
        sort_keys["expires_at"] = listed(expires_at, conversation_id)
    return frozenset((partition("list", field, namespace, shard), key) for field, key in sort_keys.items())


def time(microseconds: int) -> str:
    """Return a time as text that sorts chronologically. Times are clamped to the years 1 to 9999."""
    return format_timestamp(max(FIRST_TIME, min(LAST_TIME, microseconds)))


def minute(sort_key: str) -> str:
    """Return the minute with which a sort key of `listed` or `time` begins."""
    return sort_key[:_MINUTE]


def end_of(microseconds: int) -> str:
    """Return a sort key that follows those of all conversations with the same time in a list."""
    return f"{time(microseconds)}$"  # $ sorts after #


def entries(namespace: str, path: bytes, shard: int) -> str:
    r"""Return the partition of all index entries at a path.

    >>> entries("default", b"customer\x00\x01tier", 0), entries("default", b"tags\x00\x02", 1)
    ('entry#default#0#customer.tier', 'entry#default#1#tags[]')
    """
    text = _UNSAFE_IN_PATH.sub(_escape, path.decode("utf-8", "surrogateescape"))
    text = text.replace("%00%01", ".").replace("%00%02", "[]")
    return _fitted(f"{partition('entry', namespace, shard)}#{text}", _LONGEST_PARTITION)


def entry(key: bytes, conversation_id: str) -> str:
    """Return the sort key of a conversation's index entry, which sorts by value, then by id."""
    return f"{_index_key(key)}\t{_fitted(key_of(conversation_id), _LONGEST_ID_IN_ENTRY)}"


def entries_between(low: bytes, high: bytes) -> tuple[str, str]:
    r"""Return the bounds of the sort keys of all entries with ``low <= key < high``.

    >>> entry(b"\x04gold", "support-42"), entries_between(b"\x04gold", b"\x04gold\x00")
    ('4gold\tsupport-42', ('4gold', '4gold\nA'))
    """
    return _index_key(low) or LOWEST, _index_key(high) or LOWEST


def _index_key(key: bytes) -> str:
    """Return an index key as text with the same order: a digit for the type, then one character for each byte.

    Low bytes become two characters, both above the tab, so that a key sorts before its extensions, whichever id follows it.
    """
    return f"{min(key[0], 9)}{key[1:].decode('latin-1').translate(_LOW_BYTES)}" if key else ""


def counters(namespace: str) -> tuple[str, str]:
    """Return the bounds of the sort keys of a namespace's counters."""
    name = _fitted(_UNSAFE.sub(_escape, namespace), _LONGEST_SORT - 3)
    return f"{name}#", f"{name}#~"


def counter(namespace: str, conversation_id: str) -> Key:
    """Return the key of the counter that counts a conversation."""
    return COUNTS, f"{counters(namespace)[0]}{spread(conversation_id, _COUNTERS):02d}"


def spread(conversation_id: str, over: int) -> int:
    """Return the number of the shard or counter that a new conversation is assigned to, from 0 to ``over - 1``."""
    return zlib.crc32(key_of(conversation_id).encode()) % over


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _fitted(text: str, longest: int) -> str:
    """Return a text, truncated and followed by a digest if it has more bytes than a key allows."""
    if 4 * len(text) <= longest or len(encoded := text.encode()) <= longest:
        return text
    return f"{encoded[: longest - _DIGEST].decode(errors='ignore')}\t{hashlib.sha256(encoded).hexdigest()}"
