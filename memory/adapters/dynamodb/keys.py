"""Where everything is in the table: partition keys, sort keys, and how they keep the order of what they stand for.

Keys are binary. A partition key begins with a letter that says what is kept there, and a namespace in it has its length before
it, so that no two names run together. DynamoDB compares bytes, as `memory.port.index` wants it.
"""

import hashlib
from typing import Final, TypeAlias

from memory.port.index import Entry

Key: TypeAlias = tuple[bytes, bytes]
"""A partition key and a sort key: one item."""

# The sort keys of a conversation's partition: runs, then the head, then metadata that is too large for the head. So one query
# backwards from the head brings the head and the last runs.
RUNS, HEAD, METADATA, END = b"r", b"s", b"t", b"u"

# The lists of a namespace's conversations, each a partition (or some: shards).
BY_UPDATED, BY_CREATED, BY_ID, BY_EXPIRY = b"u", b"t", b"i", b"x"

LAST_PART: Final = 2**24 - 1
"""As the part of a run: beyond all of its parts."""

ONLY: Final = b"\x00"
"""The sort key where a partition has one item."""

# The kinds of items (`Models`), by the letter of the partition; in a conversation's by that and the length of the sort key.
_IN_CONVERSATIONS: Final = {(RUNS, 27): ("run", "part"), (HEAD, 1): ("head",), (METADATA, 20): ("part",)}
_KINDS: Final = {
    BY_UPDATED: ("head", "to"),
    **dict.fromkeys((BY_CREATED, BY_ID, BY_EXPIRY, b"m", b"g"), ("to",)),
    b"k": ("token", "part"),
    b"j": ("stage", "part"),
    b"s": ("schema",),
}

_EARLIEST = 1 << 63  # added to a time, so that none is negative
_ID_IN_ENTRY = 128  # bytes of an id that an entry's sort key holds; what is longer keeps its beginning and a digest
_DIGEST = 32
_TWO_BYTES, _THREE_BYTES = 0x80, 0x4080  # the first code points that `compact` gives so many
_NAME_LENGTH = 512


def conversation(namespace: str, conversation_id: str) -> bytes:
    """Return the partition of a conversation: its head, runs and large metadata. At most 2,043 of 2,048 bytes."""
    return b"c" + _named(namespace) + conversation_id.encode()


def head(namespace: str, conversation_id: str) -> Key:
    """Return where a conversation's head is."""
    return conversation(namespace, conversation_id), HEAD


def run(run_set: str, position: int, part: int = 0) -> bytes:
    """Return the sort key of a run, or of a part of one that is too large for an item."""
    return RUNS + bytes.fromhex(run_set) + position.to_bytes(7, "big") + part.to_bytes(3, "big")


def position_of(sort_key: bytes) -> int:
    """Return the position in a run's sort key."""
    return int.from_bytes(sort_key[17:24], "big")


def part_of(sort_key: bytes) -> int:
    """Return the number of a part: 0 is the run itself."""
    return int.from_bytes(sort_key[-3:], "big")


def set_of(sort_key: bytes) -> str:
    """Return the set that a run, or a part of metadata, belongs to."""
    return sort_key[1:17].hex()


def metadata_part(metadata_set: str, part: int) -> bytes:
    """Return the sort key of a part of metadata."""
    return METADATA + bytes.fromhex(metadata_set) + part.to_bytes(3, "big")


def listing(kind: bytes, namespace: str, shard: int) -> bytes:
    """Return the partition of one of the lists."""
    return kind + bytes([shard]) + namespace.encode()


def listed_namespace(pk: bytes) -> str:
    """Return the namespace of a list's partition."""
    return pk[2:].decode()


def entry(namespace: str, found: Entry, conversation_id: str, shard: int) -> Key:
    """Return where an index entry of a conversation is: by path, then key, then id."""
    return entries(namespace, found.path, shard), entry_key(found.key) + b"\x00\x01" + _short_id(conversation_id)


def entries(namespace: str, path: bytes, shard: int) -> bytes:
    """Return the partition of all entries at a path."""
    return b"m" + bytes([shard]) + _named(namespace) + path


def entry_key(key: bytes) -> bytes:
    r"""Return an index key in which a zero cannot be taken for the end: any byte may follow it, and order stays.

    >>> entry_key(b"a") + b"\x00\x01" < entry_key(b"a\x00") + b"\x00\x01" < entry_key(b"a\x01") + b"\x00\x01"
    True
    """
    return key.replace(b"\x00", b"\x00\xff")


def entry_bounds(low: bytes, high: bytes) -> tuple[bytes, bytes]:
    """Return between which sort keys the entries with ``low <= key < high`` are."""
    return entry_key(low) or ONLY, entry_key(high)


def time(microseconds: int) -> bytes:
    """Return a time so that bytes sort as times do."""
    return (microseconds + _EARLIEST).to_bytes(8, "big")


def compact(conversation_id: str) -> bytes:
    r"""Return an id in at most three bytes a character, in code point order: in UTF-8 some would not fit beside a time.

    >>> ids = ["", "Z", "a", "a\x00", "é", "\u4000", "\uffff", "😀"]
    >>> sorted(ids) == sorted(ids, key=compact), len(compact("😀" * 255))
    (True, 765)
    """
    if conversation_id.isascii():
        return conversation_id.encode()
    return b"".join(map(_compact, map(ord, conversation_id)))


def _compact(code: int) -> bytes:
    if code < _TWO_BYTES:
        return bytes([code])
    if code < _THREE_BYTES:
        return (0x8000 + code - _TWO_BYTES).to_bytes(2, "big")
    return (0xC00000 + code - _THREE_BYTES).to_bytes(3, "big")


def token(namespace: str, name: str) -> Key:
    """Return where the receipt of a change set is."""
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) > _NAME_LENGTH:
        encoded = b"\xff" + hashlib.sha256(encoded).digest()  # which no name is: UTF-8 has no such byte
    return b"k" + _named(namespace) + encoded, ONLY


def kinds_at(pk: bytes, sk: bytes) -> tuple[str, ...]:
    """Return of which kinds an item at a key can be."""
    return _IN_CONVERSATIONS.get((sk[:1], len(sk)), ()) if pk[:1] == b"c" else _KINDS.get(pk[:1], ())


def journal(namespace: str) -> bytes:
    """Return the partition of the commits that are being staged."""
    return b"j" + namespace.encode()


def stage(namespace: str, name: str) -> Key:
    """Return where it stands how far a staged commit is."""
    return journal(namespace), bytes.fromhex(name)


def trash(namespace: str) -> bytes:
    """Return the partition of conversations of which something dead is to be removed."""
    return b"g" + namespace.encode()


SCHEMA: Final = (b"s", ONLY)
"""Where the version of the schema is."""


def shard_of(conversation_id: str, shards: int) -> int:
    """Return the shard whose lists and entries a conversation is in."""
    if shards == 1:
        return 0
    return int.from_bytes(hashlib.sha256(conversation_id.encode()).digest()[:4], "big") % shards


def _named(namespace: str) -> bytes:
    encoded = namespace.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _short_id(conversation_id: str) -> bytes:
    encoded = conversation_id.encode()
    if len(encoded) <= _ID_IN_ENTRY:
        return encoded
    return encoded[: _ID_IN_ENTRY + 1 - _DIGEST] + hashlib.sha256(encoded).digest()  # one byte longer than any whole id
