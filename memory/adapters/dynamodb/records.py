"""How conversations and runs become items, and how items are read. `models` describes the same items for PynamoDB's users."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, TypeAlias, TypeVar

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.keys import Key
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import new_id
from memory.errors import CorruptRecordError
from memory.port.changes import ALL_RUNS

P = ParamSpec("P")
T = TypeVar("T")

Values: TypeAlias = dict[str, dict[str, Any]]
"""Attributes as DynamoDB's requests and answers have them."""

INLINE_METADATA: Final = 600
"""Bytes of metadata that the head, and its copy in the list by ``updated_at``, contain: both then fit one kilobyte, the unit
in which writes are billed. Longer metadata is stored in parts, and an append does not pay for it."""

PART: Final = 380_000
"""Bytes of text in one item: beside its keys and an id of 255 characters they stay below DynamoDB's 409,600."""

TTL: Final = "ttl"
"""The attribute by which DynamoDB deletes receipts: seconds since 1970."""

_MOST_PARTS: Final = 9_999  # 3.8 GB
_ID_LENGTH: Final = 32
_UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class Item(NamedTuple):
    """An item as it was read."""

    key: Key
    values: Values


class Parts(NamedTuple):
    """The parts of a text that is too large for the item it belongs to. Names are unique: other parts are another text."""

    name: str
    total: int

    def places(self, partition: str) -> list[Key]:
        """Return the keys of the parts."""
        return [(partition, keys.part(self.name, number)) for number in range(self.total)]


@dataclass(frozen=True, slots=True)
class Head:
    """The item of a conversation that decides what there is.

    Attributes:
        stamp: changes with every write; None if there is no item.
        record: the conversation, its ``metadata`` empty while they are in parts that were not read; None if there is none.
        first: runs at lower positions are removed. Their items stay until the next purge.
        shard: of the lists and index entries that the conversation is in.
        parts: the parts of the metadata, if they are not in the head.
        unswept: the partition contains items that `purge` is to delete; the list of unswept conversations names it.
        staged: a large commit may have written runs up to this position that are not part of the conversation (yet).
        staged_at: when that commit began.
    """

    stamp: str | None = None
    record: ConversationRecord | None = None
    first: int = 1
    shard: int = 0
    parts: Parts | None = None
    unswept: bool = False
    staged: int = 0
    staged_at: int = 0

    @property
    def has_metadata(self) -> bool:
        """Whether the metadata were read."""
        return self.record is None or self.record.metadata != ""

    def is_hidden(self, now: int) -> bool:
        """Whether there is no conversation, or it has expired."""
        return self.record is None or self.record.is_expired(now)

    def with_metadata(self, text: str) -> "Head":
        """Return the head with another text of the metadata."""
        return self if self.record is None else replace(self, record=self.record._replace(metadata=text))


def _readable(read: Callable[Concatenate[Item, P], T]) -> Callable[Concatenate[Item, P], T]:
    """Let a function of an item raise `CorruptRecordError` if the item cannot be read."""

    @wraps(read)
    def reading(item: Item, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(item, *args, **kwargs)
        except _UNREADABLE as error:
            raise CorruptRecordError(f"the item {item.key!r} is stored but cannot be read: {error}") from error

    return reading


ATTRIBUTES: Final = frozenset(
    [
        "id",
        "stamp",
        "version",
        "incarnation",
        "run_count",
        "first_position",
        "last_position",
        "created_at",
        "updated_at",
        "expires_at",
        "metadata",
        "parts",
        "part_count",
        "shard",
        "unswept",
        "staged",
        "staged_at",
        "input",
        "output",
        "sizes",
        "text",
        "of",
        "receipt",
        "count",
        "namespace",
    ]
) | {TTL}
"""The names of all attributes of our items, but for the keys."""


def text(value: str) -> dict[str, str]:
    """Return a text as DynamoDB has it."""
    return {"S": value}


def number(value: int) -> dict[str, str]:
    """Return a number as DynamoDB has it."""
    return {"N": str(value)}


def head_values(head: Head, conversation_id: str) -> Values:
    """Return the attributes of a head."""
    values: Values = {"id": text(conversation_id), "stamp": text(head.stamp or "")}
    if head.record is not None:
        values |= copy_values(head) | {"first_position": number(head.first)}
    if head.unswept:
        values["unswept"] = {"BOOL": True}
    if head.staged:
        values |= {"staged": number(head.staged), "staged_at": number(head.staged_at)}
    return values


def copy_values(head: Head) -> Values:
    """Return the attributes that the copy of a head has in the list by ``updated_at``."""
    record = head.record
    assert record is not None  # noqa: S101  # only conversations are listed
    values: Values = {
        "id": text(record.id),
        "incarnation": text(record.incarnation),
        "shard": number(head.shard),
    }
    for name in ("version", "run_count", "last_position", "created_at", "updated_at", "expires_at"):
        if (value := getattr(record, name)) is not None:
            values[name] = number(value)
    return values | (_parts_values(head.parts) if head.parts else {"metadata": text(record.metadata)})


@_readable
def read_head(item: Item) -> Head:
    """Return what a head, or its copy in a list, says."""
    values = item.values
    stamp = _text(values, "stamp") if "stamp" in values else None
    unswept, staged, staged_at = "unswept" in values, _number(values, "staged", 0), _number(values, "staged_at", 0)
    if "version" not in values and stamp is not None:
        _text(values, "id")
        return Head(stamp, None, 1, 0, None, unswept, staged, staged_at)
    parts = _read_parts(values)
    record = ConversationRecord(
        _text(values, "id"),
        "" if parts else _text(values, "metadata"),
        _number(values, "version"),
        _name(_text(values, "incarnation")),
        _number(values, "run_count"),
        _number(values, "last_position"),
        _time(values, "created_at"),
        _time(values, "updated_at"),
        _time(values, "expires_at") if "expires_at" in values else None,
    )
    if not (parts or record.metadata):
        raise ValueError("its metadata are empty")
    first = _number(values, "first_position", 1)
    return Head(stamp, record, first, _number(values, "shard"), parts, unswept, staged, staged_at)


def run_items(partition: str, incarnation: str, run: RunRecord) -> Iterator[Item]:
    """Yield the item of a run, after the items of its parts if it is too large for one."""
    key = partition, keys.run(incarnation, run.position)
    values: Values = {"id": text(run.id), "created_at": number(run.created_at)}
    texts = run.input, run.output, run.metadata
    if sum(map(size_of, texts)) <= PART:
        values |= {"input": text(run.input), "output": text(run.output), "metadata": text(run.metadata)}
    else:
        parts, items = part_items(partition, "".join(texts), key[1])
        yield from items
        values |= {**_parts_values(parts), "sizes": text(",".join(str(len(each)) for each in texts))}
    yield Item(key, values)


def part_items(partition: str, whole: str, owner: str) -> tuple[Parts, list[Item]]:
    """Return the parts of a text, and their items, which say by its sort key to which item they belong."""
    texts = list(_pieces(whole.encode()))
    parts = Parts(new_id(), len(texts))
    return parts, [
        Item(key, {"text": text(each), "of": text(owner)})
        for key, each in zip(parts.places(partition), texts, strict=True)
    ]


def _pieces(whole: bytes) -> Iterator[str]:
    begin = 0
    while begin < len(whole):
        piece = whole[begin : begin + PART].decode(errors="ignore")  # leaves out the beginning of a character
        yield piece
        begin += len(piece.encode())


@_readable
def read_run(item: Item, texts: Mapping[Key, str]) -> RunRecord:
    """Return the run of an item, whose parts are among the texts."""
    values = item.values
    if (parts := _read_parts(values)) is None:
        input, output, metadata = _text(values, "input"), _text(values, "output"), _text(values, "metadata")
    else:
        whole = "".join([texts[place] for place in parts.places(item.key[0])])
        first, second, third = map(int, _text(values, "sizes").split(","))
        if first + second + third != len(whole):
            raise ValueError("its parts have another size")
        input, output, metadata = whole[:first], whole[first : first + second], whole[first + second :]
    position = keys.position_of(item.key[1])
    return RunRecord(position, _text(values, "id"), input, output, metadata, _time(values, "created_at"))


@_readable
def parts_of(item: Item) -> Parts | None:
    """Return the parts that an item says its text is in."""
    return _read_parts(item.values)


@_readable
def text_of(item: Item, name: str) -> str:
    """Return an attribute that is a text."""
    return _text(item.values, name)


@_readable
def number_of(item: Item, name: str) -> int:
    """Return an attribute that is a number."""
    return _time(item.values, name)


def size_of(value: str) -> int:
    """Return how many bytes DynamoDB counts for a text."""
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))


def size_of_item(item: Item) -> int:
    """Return about how many bytes DynamoDB counts for an item."""
    texts = [content for value in item.values.values() for content in value.values() if isinstance(content, str)]
    return sum(map(size_of, texts)) + sum(map(len, item.values)) + sum(map(size_of, item.key)) + 100


def _parts_values(parts: Parts) -> Values:
    return {"parts": text(parts.name), "part_count": number(parts.total)}


def _read_parts(values: Values) -> Parts | None:
    if "parts" not in values:
        return None
    parts = Parts(_name(_text(values, "parts")), _number(values, "part_count"))
    if not 1 <= parts.total <= _MOST_PARTS:
        raise ValueError(f"it has {parts.total} parts")
    return parts


def _text(values: Values, name: str) -> str:
    value = values[name]["S"]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _name(value: str) -> str:
    """Return a text that keys can be made of."""
    if len(value) != _ID_LENGTH or len(bytes.fromhex(value)) != _ID_LENGTH // 2:
        raise ValueError(f"{value!r} is no name of ours")
    return value


def _number(values: Values, name: str, otherwise: int | None = None) -> int:
    """Return a number of ours: none is negative."""
    value = otherwise if otherwise is not None and name not in values else int(values[name]["N"])
    if not 0 <= value <= ALL_RUNS + 1:
        raise ValueError(f"{name} is out of range")
    return value


def _time(values: Values, name: str) -> int:
    value = int(values[name]["N"])
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is out of range")
    return value
