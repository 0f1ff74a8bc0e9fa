"""Where each item is: partition and sort keys, as text that people can read.

The names in a key are joined by ``#``. Sort keys keep the order of the values in them, because DynamoDB compares the bytes of
UTF-8. A key beyond DynamoDB's limits keeps its beginning, followed by a tab and a digest; no name contains a tab, so no key of
another item can equal it.
"""

import hashlib
import re
import zlib
from functools import lru_cache
from typing import Final, TypeAlias

from memory.domain.timestamps import format_timestamp
from memory.domain.values import FIRST_TIME, LAST_TIME
from memory.port.index import Entry

Key: TypeAlias = tuple[str, str]
"""A partition key and a sort key: one item."""

STATE: Final = "state"
"""The sort key of a conversation's head. It follows all runs, so one query backwards brings the head and the last runs."""

RUNS: Final = "run#"
PARTS: Final = "part#"
COUNTERS: Final = 16
"""Items that count the conversations of a namespace: creations at the same moment seldom update the same one."""

COUNTS: Final = "counts"
"""The partition of all counters; it shows which namespaces there are."""

SCHEMA: Final = ("schema", "schema")
"""Where the version of the layout and the number of shards are stored."""

LOWEST: Final = " "
"""Sorts before every name."""

HIGHEST: Final = "\U0010ffff" * 256
"""Sorts behind every name."""

_LONGEST_PARTITION, _LONGEST_SORT = 2048, 1024  # bytes: DynamoDB's limits
_LONGEST_ID_IN_ENTRY = 440  # bytes, beside an index key of at most 578
_DIGEST = 65  # bytes of a tab and a digest
_UNSAFE: Final = re.compile("[%#\x00-\x1f\x7f\ud800-\udfff]")
_UNSAFE_IN_PATH: Final = re.compile("[%#.\\[\\]\x00-\x1f\x7f\udc80-\udcff]")
_END_OF_KEY: Final = "\t"  # of an index key; below all that a longer key goes on with
_LOW_BYTES: Final = {byte: f"\n{chr(0x41 + byte)}" for byte in range(0x0B)}


def conversation(namespace: str, conversation_id: str) -> str:
    """Return the partition of a conversation: its head, its runs, and parts of what is too large for one item.

    >>> conversation("default", "support-42"), conversation("a#b", "50%")
    ('conversation#default#support-42', 'conversation#a%23b#50%25')
    """
    return _partition("conversation", namespace, conversation_id)


def head(namespace: str, conversation_id: str) -> Key:
    """Return the key of a conversation's head."""
    return conversation(namespace, conversation_id), STATE


def run(incarnation: str, position: int) -> str:
    """Return the sort key of a run."""
    return f"{RUNS}{incarnation}#{position:016d}"


def position_of(sort_key: str) -> int:
    """Return the position in a run's sort key."""
    return int(sort_key[-16:])


def part(name: str, number: int) -> str:
    """Return the sort key of a part of a text."""
    return f"{PARTS}{name}#{number:04d}"


def listing(field: str, namespace: str, shard: int) -> str:
    """Return the partition of a list of conversations: by ``updated_at``, ``created_at``, ``expires_at`` or ``id``."""
    return _partition("list", field, namespace, str(shard))


def listed(at: int, conversation_id: str) -> str:
    """Return the sort key of a conversation in a list by time."""
    return _fitted(f"{time(at)}#{conversation_id}", _LONGEST_SORT)


def listed_by_id(conversation_id: str) -> str:
    """Return the sort key of a conversation in the list by id."""
    return _fitted(conversation_id, _LONGEST_SORT)


def expiring(at: int, conversation_id: str, incarnation: str) -> str:
    """Return the sort key in the list by expiry: that of a conversation made later under the same id is another."""
    return f"{_fitted(f'{time(at)}#{conversation_id}', _LONGEST_SORT - 40)}#{incarnation}"


def time(microseconds: int) -> str:
    """Return a time as text that sorts as times do; one beyond the years 1 to 9999 becomes the first or the last."""
    return format_timestamp(max(FIRST_TIME, min(LAST_TIME, microseconds)))


def beyond(prefix: str) -> str:
    """Return a sort key behind all that begin with a prefix."""
    return prefix + HIGHEST[: (_LONGEST_SORT - len(prefix.encode())) // 4]


def entries(namespace: str, path: bytes, shard: int) -> str:
    r"""Return the partition of all index entries at a path.

    >>> entries("default", b"customer\x00\x01tier", 0), entries("default", b"tags\x00\x02", 1)
    ('entry#default#0#customer.tier', 'entry#default#1#tags[]')
    """
    text = _UNSAFE_IN_PATH.sub(
        lambda found: _escaped_character(found, "surrogateescape"), path.decode("utf-8", "surrogateescape")
    )
    text = text.replace("%00%01", ".").replace("%00%02", "[]")
    return _fitted(f"{_partition('entry', namespace, str(shard))}#{text}", _LONGEST_PARTITION)


def entry(namespace: str, found: Entry, conversation_id: str, shard: int) -> Key:
    """Return the key of a conversation's index entry: by path, then by value, then by id."""
    return entries(namespace, found.path, shard), entry_place(found.key, conversation_id)


def entry_place(key: bytes, conversation_id: str) -> str:
    """Return the sort key of an index entry."""
    return f"{entry_key(key)}{_END_OF_KEY}{_fitted(conversation_id, _LONGEST_ID_IN_ENTRY)}"


def entry_key(key: bytes) -> str:
    r"""Return an index key as text that sorts as the key does: a digit for the type, then each byte as one character.

    >>> entry_key(b"\x04gold"), entry_key(b"\x04a") + "\t" < entry_key(b"\x04a\x00") + "\t" < entry_key(b"\x04a\x01") + "\t"
    ('4gold', True)
    """
    return f"{min(key[0], 9)}{key[1:].decode('latin-1').translate(_LOW_BYTES)}" if key else ""


def entries_of(key: bytes) -> tuple[str, str]:
    """Return the bounds of the sort keys of all entries with an index key."""
    return entry_key(key) + _END_OF_KEY, entry_key(key) + "\n"


def entries_between(low: bytes, high: bytes) -> tuple[str, str]:
    """Return the bounds of the sort keys of all entries with ``low <= key < high``."""
    return entry_key(low) or LOWEST, entry_key(high) or LOWEST


def counter(namespace: str, conversation_id: str) -> Key:
    """Return the key of the counter that counts a conversation."""
    number = zlib.crc32(conversation_id.encode()) % COUNTERS
    return COUNTS, f"{_counted(namespace)}#{number:02d}"


def counters(namespace: str) -> tuple[str, str]:
    """Return the bounds of the sort keys of a namespace's counters."""
    return f"{_counted(namespace)}#", f"{_counted(namespace)}#~"


def receipt(namespace: str, token: str) -> Key:
    """Return the key of a change set's receipt."""
    return _partition("receipt", namespace, token), "receipt"


def unswept(namespace: str) -> str:
    """Return the partition that names the conversations which left something for `purge` to delete."""
    return _partition("unswept", namespace)


def unswept_place(namespace: str, conversation_id: str) -> Key:
    """Return the key of the item that names such a conversation."""
    return unswept(namespace), _fitted(conversation_id, _LONGEST_SORT)


def shard_of(conversation_id: str, shards: int) -> int:
    """Return the shard of the lists and entries that a new conversation goes to."""
    return zlib.crc32(conversation_id.encode()) % shards


def _counted(namespace: str) -> str:
    return _fitted(_escaped(namespace), _LONGEST_SORT - 3)


@lru_cache(maxsize=4096)  # a namespace's lists, and the conversations in use
def _partition(*names: str) -> str:
    return _fitted("#".join(map(_escaped, names)), _LONGEST_PARTITION)


def _escaped(name: str) -> str:
    return _UNSAFE.sub(_escaped_character, name) if _UNSAFE.search(name) else name


def _escaped_character(found: re.Match[str], errors: str = "surrogatepass") -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", errors))


def _fitted(text: str, longest: int) -> str:
    """Return a text, or the beginning and the digest of one that has more bytes than a key may have."""
    if 4 * len(text) <= longest or len(encoded := text.encode()) <= longest:
        return text
    return f"{encoded[: longest - _DIGEST].decode(errors='ignore')}\t{hashlib.sha256(encoded).hexdigest()}"
