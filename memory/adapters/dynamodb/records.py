"""Conversion of conversations and runs to items, and back. `models` defines the same items for PynamoDB's users."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.domain.records import ConversationRecord, RunRecord, check_record
from memory.domain.values import new_id
from memory.errors import CorruptRecordError
from memory.port.changes import ALL_RUNS

Values: TypeAlias = dict[str, dict[str, Any]]
"""Attributes in the format of DynamoDB's API."""

INLINE_METADATA: Final = 600
"""The maximum size in bytes of metadata stored in the head and its copies in the lists. Each then fits into one
kilobyte, the unit in which writes are billed. Longer metadata is stored in parts, which an append does not write."""

PART: Final = 380_000
"""The maximum bytes of text in one item: with its keys and an id of 255 characters, it is below DynamoDB's limit of 409,600."""

TTL: Final = "ttl"
"""The attribute with the time, in seconds since 1970, when DynamoDB deletes a receipt."""

_NUMBERS: Final = ("version", "run_count", "last_position", "created_at", "updated_at")
_OPTIONAL: Final = ("expires_at", "expires_after", "last_run_at")
_MOST_PARTS: Final = 9_999  # 3.8 GB
_TEXTS: Final = 3  # of a run: input, output and metadata
_LARGE: Final = ("input", "output", "metadata", "text")


class Item(NamedTuple):
    """An item. Reading a missing or malformed attribute raises `CorruptRecordError`."""

    key: Key
    values: Values

    def text(self, name: str) -> str:
        """Return the value of a string attribute."""
        try:
            return str(self.values[name]["S"])
        except LookupError as error:
            raise self.corrupt(f"it has no string attribute {error}") from error

    def number(self, name: str) -> int:
        """Return the value of an integer attribute."""
        try:
            return int(self.values[name]["N"])
        except (LookupError, ValueError) as error:
            raise self.corrupt(f"its {name} is not an integer") from error

    @property
    def position(self) -> int:
        """The position of a run."""
        try:
            return keys.position_of(self.key[1])
        except ValueError as error:
            raise self.corrupt("its sort key does not end with a position") from error

    def corrupt(self, why: str) -> CorruptRecordError:
        """Return the error for an item that cannot be read."""
        return CorruptRecordError(f"the item {self.key!r} cannot be read: {why}")


class Parts(NamedTuple):
    """The parts of a text that is too large for its item. Every text gets a new unique name, so parts are never overwritten."""

    name: str
    total: int

    def places(self, partition: str) -> list[Key]:
        """Return the keys of the parts."""
        return [(partition, f"{keys.PARTS}{self.name}#{number:04d}") for number in range(self.total)]


class Head(NamedTuple):
    """The item that contains the current state of a conversation."""

    stamp: str | None = None  # changes with every write; None if the item does not exist
    # None if the conversation does not exist. The metadata is empty until its parts are read.
    record: ConversationRecord | None = None
    first: int = 1  # runs at lower positions are removed; their items exist until the next purge
    shard: int = 0  # the shard of the lists and index entries that contain the conversation
    parts: Parts | None = None  # the parts of the metadata, if it is not stored in the head
    unswept: bool = False  # whether a purge may have items to delete; if so, the list of unswept conversations has it
    first_open: int | None = None  # no run at a lower position is open; None if no run is open
    # Whether the item was written in version 0002 of the layout: it has no `last_run_at`, and is only listed by `updated_at`.
    is_old: bool = False

    def visible(self, now: int) -> ConversationRecord | None:
        """Return the record, or None if the conversation does not exist or has expired."""
        return None if self.record is None or self.record.is_expired(now) else self.record

    def has(self, run: Item) -> bool:
        """Return whether the item of a run belongs to the conversation: the run was committed, and not removed."""
        if (record := self.record) is None:
            return False
        return (
            keys.run(record.incarnation, self.first) <= run.key[1] <= keys.run(record.incarnation, record.last_position)
        )

    def with_metadata(self, text: str) -> "Head":
        """Return the head with the metadata replaced."""
        return self if self.record is None else self._replace(record=self.record._replace(metadata=text))


NO_HEAD: Final = Head()
"""The head of a conversation that has no item."""


def head_values(head: Head, conversation_id: str) -> Values:
    """Return the attributes of a head."""
    values: Values = {"id": {"S": conversation_id}} if head.record is None else copy_values(head)
    values["stamp"] = {"S": head.stamp or ""}
    if head.record is not None:
        values["first_position"] = {"N": str(head.first)}
    if head.first_open is not None:
        values["first_open"] = {"N": str(head.first_open)}
    if head.unswept:
        values["unswept"] = {"BOOL": True}
    return values


def copy_values(head: Head) -> Values:
    """Return the attributes of the copies of a head in the lists by ``last_run_at`` and ``updated_at``."""
    record = head.record
    assert record is not None  # noqa: S101  # only conversations are listed
    values: Values = {
        "id": {"S": record.id},
        "incarnation": {"S": record.incarnation},
        "shard": {"N": str(head.shard)},
    }
    for name in _NUMBERS + _OPTIONAL:
        if (value := getattr(record, name)) is not None and not (head.is_old and name == "last_run_at"):
            values[name] = {"N": str(value)}
    return values | (_parts_values(head.parts) if head.parts else {"metadata": {"S": record.metadata}})


def read_head(item: Item) -> Head:
    """Parse the item of a head, or its copy in a list."""
    values = item.values
    stamp, unswept = item.text("stamp") if "stamp" in values else None, "unswept" in values
    if "version" not in values and stamp is not None:
        return Head(stamp, unswept=unswept)
    parts = parts_of(item)
    fields: dict[str, Any] = {name: item.number(name) for name in _NUMBERS}
    fields |= {name: item.number(name) if name in values else None for name in _OPTIONAL}
    fields |= {name: item.text(name) for name in ("id", "incarnation")}
    fields["metadata"] = "" if parts else item.text("metadata")
    if is_old := fields["last_run_at"] is None:
        fields["last_run_at"] = fields["updated_at"]
    record = ConversationRecord(**fields)
    check_record(record)
    first = item.number("first_position") if "first_position" in values else 1
    first_open = item.number("first_open") if "first_open" in values else None
    if not (1 <= first <= ALL_RUNS + 1 and (parts or record.metadata)):
        raise item.corrupt("its metadata is empty, or its first position is invalid")
    return Head(stamp, record, first, item.number("shard"), parts, unswept, first_open, is_old)


def run_items(partition: str, incarnation: str, run: RunRecord, shard: int) -> Iterator[Item]:
    """Yield the item of a run. If the run is too large for one item, the items of its parts come first.

    ``shard`` is the shard of the lists that contain the conversation.
    """
    key = partition, keys.run(incarnation, run.position)
    values: Values = {"id": {"S": run.id}, "created_at": {"N": str(run.created_at)}}
    if run.is_open:
        values["open_shard"] = {"N": str(shard)}
    texts = run.input, run.output, run.metadata
    if sum(map(size_of, texts)) <= PART:
        values |= {"input": {"S": run.input}, "output": {"S": run.output}, "metadata": {"S": run.metadata}}
    else:
        parts, items = part_items(partition, "".join(texts), key[1])
        yield from items
        values |= {**_parts_values(parts), "sizes": {"S": ",".join(str(len(each)) for each in texts)}}
    yield Item(key, values)


def part_items(partition: str, whole: str, owner: str) -> tuple[Parts, list[Item]]:
    """Split a text into parts; return them and their items, which contain the sort key of the owning item."""
    texts = list(_pieces(whole.encode()))
    parts = Parts(new_id(), len(texts))
    places = parts.places(partition)
    return parts, [
        Item(key, {"text": {"S": each}, "of": {"S": owner}}) for key, each in zip(places, texts, strict=True)
    ]


def _pieces(whole: bytes) -> Iterator[str]:
    begin = 0
    while begin < len(whole):
        piece = whole[begin : begin + PART].decode(errors="ignore")  # drops a truncated character
        yield piece
        begin += len(piece.encode())


def read_run(item: Item, texts: Mapping[Key, str]) -> RunRecord:
    """Parse the item of a run; ``texts`` contains its parts, if it has any."""
    if (parts := parts_of(item)) is None:
        input, output, metadata = item.text("input"), item.text("output"), item.text("metadata")
    else:
        whole = "".join([texts[place] for place in parts.places(item.key[0])])
        sizes = [int(size) for size in item.text("sizes").split(",") if size.isdecimal()]
        if len(sizes) != _TEXTS or sum(sizes) != len(whole):
            raise item.corrupt("its parts do not have the recorded sizes")
        ends = sizes[0], sizes[0] + sizes[1]
        input, output, metadata = whole[: ends[0]], whole[ends[0] : ends[1]], whole[ends[1] :]
    is_open = "open_shard" in item.values
    return RunRecord(item.position, item.text("id"), input, output, metadata, item.number("created_at"), is_open)


def parts_of(item: Item) -> Parts | None:
    """Return the parts that an item refers to, or None."""
    if "parts" not in item.values:
        return None
    parts = Parts(item.text("parts"), item.number("part_count"))
    if not 1 <= parts.total <= _MOST_PARTS:
        raise item.corrupt(f"it has {parts.total} parts")
    return parts


def size_of(value: str) -> int:
    """Return the size in bytes that DynamoDB computes for a text."""
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))


def size_of_item(item: Item) -> int:
    """Estimate the size in bytes that DynamoDB computes for an item: its long texts, and a kilobyte for all other attributes."""
    return 1_000 + sum([size_of(item.values[name].get("S", "")) for name in _LARGE if name in item.values])


def _parts_values(parts: Parts) -> Values:
    return {"parts": {"S": parts.name}, "part_count": {"N": str(parts.total)}}
