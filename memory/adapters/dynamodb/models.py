"""The items of the table as PynamoDB models, made anew for each store, and what a conversation's head says of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pynamodb.attributes import BinaryAttribute, DiscriminatorAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.models import Model

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.clients import Clients
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import new_id, now
from memory.port.changes import ALL_RUNS

if TYPE_CHECKING:
    from pynamodb.connection.table import TableConnection

INLINE_METADATA: Final = 700
"""Characters of metadata that the head, and its copy in the list by time, hold: with it both fit one kilobyte, the unit that
writes are paid by. What is longer is in items of its own, and an append does not pay for it."""

PART: Final = 380_000
"""Bytes of text in one item: with its keys and an id of 255 characters it stays below the 409,600 of DynamoDB."""

TTL: Final = "ttl"
"""The attribute by which DynamoDB removes items: seconds since 1970."""

UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What reading an item raises that is not as we wrote it."""

_GRID: Final = 7 * 24 * 3600  # seconds
_SET_SIZE: Final = 16  # bytes
_MOST_PARTS: Final = 10_000  # of metadata: 3.8 GB
_VOID: Final = "null"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a head keeps of a conversation.

    Attributes:
        record: the conversation; its ``metadata`` is empty where it is in parts and was not read.
        run_set: the name its runs are kept under. Another one means other runs, at once.
        first: runs before this position are gone.
        parts: how many items the metadata is in; 0: it is in the head.
        metadata_set: the name these are kept under.
    """

    record: ConversationRecord
    run_set: str
    first: int = 1
    parts: int = 0
    metadata_set: str = ""

    @property
    def has_text(self) -> bool:
        """Whether the metadata was read."""
        return self.record.metadata != ""

    def without_text(self) -> "Kept":
        """Return it as a head writes it: without metadata that is in parts."""
        return replace(self, record=self.record._replace(metadata="")) if self.parts else self

    def with_text(self, metadata: str) -> "Kept":
        """Return it with its metadata, which was read from parts."""
        return replace(self, record=self.record._replace(metadata=metadata))

    def is_expired(self, now: int) -> bool:
        """Tell whether the conversation is hidden."""
        return self.record.expires_at is not None and self.record.expires_at <= now


@dataclass(frozen=True, slots=True)
class Held:
    """What is at the place of a conversation's head.

    Attributes:
        stamp: changes with every write; None: there is no head.
        kept: the conversation; None: there is none.
        stage: the commit that is being staged, and has locked the head.
        then: what the conversation is when that commit has succeeded; None: there is none then.
    """

    stamp: str | None = None
    kept: Kept | None = None
    stage: str | None = None
    then: Kept | None = None


def ttl_of(expires_at: int | None) -> int | None:
    """Return when DynamoDB may remove what is expired, in seconds: one to two weeks later, on a weekly grid.

    So an expiry that moves on with every use rewrites the items that carry it once a week, not each time. None where that is
    past already: then the repository's clock is not the server's, which must not remove what is not expired by the former.
    """
    if expires_at is None:
        return None
    ttl = (expires_at // 1_000_000 // _GRID + 2) * _GRID
    return ttl if ttl * 1_000_000 > now() else None


class _Connection(Connection):
    """PynamoDB's, on clients of ours: its own replaces a client that has no credentials by another, which checks no answers."""

    def __init__(self, clients: Clients) -> None:
        super().__init__()
        self._clients = clients

    @property
    def client(self) -> Any:
        return self._clients.get()


class Models:
    """The models of one table, on one connection, and how records become items.

    They are made per store: PynamoDB ties endpoint and credentials to a class, and a subclass of a class that is connected
    already would talk to that one's endpoint. Items are made, written and read through `new`, `raw` and `item`: PynamoDB's own
    way goes through every attribute of a class, present or not, by descriptors, and takes a fifth of the time of an append.
    """

    def __init__(self, table: str, partition_key: str, sort_key: str, clients: Clients) -> None:
        self.keys = partition_key, sort_key

        class Item(Model):
            class Meta:
                table_name = table

            kind = DiscriminatorAttribute(attr_name="kind")
            pk = BinaryAttribute(hash_key=True, legacy_encoding=False, attr_name=partition_key)
            sk = BinaryAttribute(range_key=True, legacy_encoding=False, attr_name=sort_key)
            ttl = NumberAttribute(attr_name=TTL, null=True)

        class Head(Item, discriminator="head"):
            id = UnicodeAttribute()
            stamp = UnicodeAttribute(null=True)
            version = NumberAttribute(null=True)
            incarnation = UnicodeAttribute(null=True)
            run_set = UnicodeAttribute(attr_name="runs", null=True)
            run_count = NumberAttribute(attr_name="count", null=True)
            first = NumberAttribute(null=True)
            last = NumberAttribute(null=True)
            created = NumberAttribute(null=True)
            updated = NumberAttribute(null=True)
            expires = NumberAttribute(null=True)
            metadata = UnicodeAttribute(null=True)
            parts = NumberAttribute(null=True)
            part_set = UnicodeAttribute(attr_name="set", null=True)
            stage = UnicodeAttribute(null=True)
            then = UnicodeAttribute(null=True)

        class Pointer(Item, discriminator="to"):
            id = UnicodeAttribute()

        class Run(Item, discriminator="run"):
            id = UnicodeAttribute()
            created = NumberAttribute()
            input = UnicodeAttribute(null=True)
            output = UnicodeAttribute(null=True)
            metadata = UnicodeAttribute(null=True)
            sizes = UnicodeAttribute(null=True)
            parts = NumberAttribute(null=True)
            part_set = UnicodeAttribute(attr_name="set", null=True)

        class Part(Item, discriminator="part"):
            text = UnicodeAttribute()
            part_set = UnicodeAttribute(attr_name="set", null=True)

        class Token(Item, discriminator="token"):
            receipt = UnicodeAttribute()
            parts = NumberAttribute(null=True)
            part_set = UnicodeAttribute(attr_name="set", null=True)

        class Journal(Item, discriminator="stage"):
            state = UnicodeAttribute()
            at = NumberAttribute()
            ids = UnicodeAttribute()
            parts = NumberAttribute(null=True)

        class Schema(Item, discriminator="schema"):
            version = UnicodeAttribute()
            shards = NumberAttribute()

        # PynamoDB's types know nothing of classes made in a function.
        self.Item: Any = Item
        self.Head: Any = Head
        self.Pointer: Any = Pointer
        self.Run: Any = Run
        self.Part: Any = Part
        self.Token: Any = Token
        self.Journal: Any = Journal
        self.Schema: Any = Schema
        self._to_raw = {cls: _writers(cls) for cls in (Head, Pointer, Run, Part, Token, Journal, Schema)}
        self._needed = {cls: {a.attr_name for a in cls.get_attributes().values() if not a.null} for cls in self._to_raw}
        self._from_raw = {_kind_of(cls): (cls, _readers(cls)) for cls in self._to_raw}
        self.connection: TableConnection = Item._get_connection()  # noqa: SLF001  # the one way to clients of one's own
        connection = _Connection(clients)  # hence pynamodb < 7
        connection.add_meta_table(self.connection.get_meta_table())
        self.connection.connection = connection

    def new(self, cls: Any, pk: bytes, sk: bytes, **values: object) -> Any:
        """Return an item of a class; a value that is None is not there."""
        item = cls.__new__(cls)
        values = {name: value for name, value in values.items() if value is not None}
        item.attribute_values = {"kind": cls, "pk": pk, "sk": sk, **values}
        return item

    def raw(self, item: Any) -> dict[str, dict[str, Any]]:
        """Return an item as DynamoDB's requests have it."""
        writers = self._to_raw[type(item)]
        raw = {}
        for name, value in item.attribute_values.items():
            attribute, kind, write = writers[name]
            raw[attribute] = {kind: write(value)}
        return raw

    def item(self, raw: dict[str, dict[str, Any]], attributes: Sequence[str] | None = None) -> Any:
        """Return the item that DynamoDB's answer has, with these attributes or all.

        Raises:
            UNREADABLE: it is none of ours.
        """
        kind = raw.get("kind", {}).get("S")
        pk, sk = (raw[name]["B"] for name in self.keys)
        if kind not in keys.kinds_at(pk, sk):
            raise ValueError(f"it is of the kind {kind!r}")
        cls, readers = self._from_raw[kind]
        item = cls.__new__(cls)
        values: dict[str, Any] = {"kind": cls}
        for attribute, value in raw.items():
            if attribute in readers:
                name, kind, read = readers[attribute]
                values[name] = read(value[kind])
        item.attribute_values = values
        if not 0 <= values.get("parts", 0) <= _MOST_PARTS:
            raise ValueError(f"it has {values['parts']} parts")
        needed = self._needed[cls] if attributes is None else self._needed[cls].intersection(attributes)
        if missing := needed - raw.keys():
            raise ValueError(f"it has no {min(missing)!r}")
        return item

    def head(self, pk: bytes, sk: bytes, held: Held, conversation_id: str) -> Any:
        """Return the item of a head, or (at another place) of its copy."""
        values: dict[str, object] = {"id": conversation_id, "stamp": held.stamp, "stage": held.stage}
        if held.stage is not None:
            values["then"] = _VOID if held.then is None else _dump(held.then.without_text())
        if (kept := held.kept) is not None:
            record = kept.record
            values |= {
                "version": record.version,
                "incarnation": record.incarnation,
                "run_set": None if kept.run_set == record.incarnation else kept.run_set,
                "run_count": record.run_count,
                "first": kept.first,
                "last": record.last_position,
                "created": record.created_at,
                "updated": record.updated_at,
                "expires": record.expires_at,
                "ttl": ttl_of(record.expires_at),
                "metadata": None if kept.parts else record.metadata,
                "parts": kept.parts or None,
                "part_set": kept.metadata_set if kept.parts else None,
            }
        return self.new(self.Head, pk, sk, **values)

    def held(self, item: Any) -> Held:
        """Return what the item of a head says."""
        then = None if item.stage is None or item.then == _VOID else _load(item.then)
        return Held(item.stamp, self.kept(item), item.stage, then)

    def kept(self, item: Any) -> Kept | None:
        """Return what the item of a head, or of its copy, says of the conversation.

        Raises:
            ValueError: something of it is missing.
        """
        needed = (item.version, item.incarnation, item.run_count, item.first, item.last, item.created, item.updated)
        if item.stage is not None and not any(needed):
            return None  # it is being made
        if None in needed or (item.metadata is None) == (item.parts is None):
            raise ValueError("something of it is missing")
        record = ConversationRecord(
            item.id,
            item.metadata or "",
            item.version,
            item.incarnation,
            item.run_count,
            item.last,
            item.created,
            item.updated,
            item.expires,
        )
        return _checked(
            Kept(record, item.run_set or item.incarnation, item.first, item.parts or 0, item.part_set or "")
        )

    def run(self, pk: bytes, sort_key: Any, run: RunRecord) -> Iterator[Any]:
        """Yield the item of a run; of one that is too large, also the items of its parts.

        Args:
            pk: the conversation's partition.
            sort_key: from the number of a part to its sort key.
            run: the run.
        """
        texts = run.input, run.output, run.metadata
        said: dict[str, object] = {"id": run.id, "created": run.created_at}
        if sum(map(size_of, texts)) <= PART:
            yield self.new(self.Run, pk, sort_key(0), input=texts[0], output=texts[1], metadata=texts[2], **said)
            return
        sizes, part_set, parts = json.dumps([len(text) for text in texts]), new_id(), list(pieces("".join(texts)))
        yield self.new(self.Run, pk, sort_key(0), sizes=sizes, parts=len(parts), part_set=part_set, **said)
        for number, text in enumerate(parts, 1):
            yield self.new(self.Part, pk, sort_key(number), text=text, part_set=part_set)


def _writers(cls: Any) -> dict[str, tuple[str, str, Any]]:
    """Return, for each attribute by its name in Python, its name in DynamoDB, its type, and what writes a value."""
    return {name: (each.attr_name, each.attr_type, each.serialize) for name, each in cls.get_attributes().items()}


def _readers(cls: Any) -> dict[str, tuple[str, str, Any]]:
    """Return the same the other way round."""
    attributes = {name: each for name, each in cls.get_attributes().items() if name != "kind"}
    return {
        each.attr_name: (name, each.attr_type, _read_int if isinstance(each, NumberAttribute) else each.deserialize)
        for name, each in attributes.items()
    }


def _read_int(value: str) -> int:
    """Return a number: all of ours are integers, and fit eight bytes."""
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{value} is out of range")
    return number


def _kind_of(cls: Any) -> str:
    kind: str = cls.get_attributes()["kind"].get_discriminator(cls)
    return kind


def size_of(text: str) -> int:
    """Return how many bytes DynamoDB counts for a text."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces that each fit an item."""
    size = PART if text.isascii() else PART // 4
    for begin in range(0, len(text), size):
        yield text[begin : begin + size]


def _dump(kept: Kept) -> str:
    return json.dumps([kept.record, kept.run_set, kept.first, kept.parts, kept.metadata_set], separators=(",", ":"))


def _load(text: str) -> Kept:
    record, *rest = json.loads(text)
    return _checked(Kept(ConversationRecord(*record), *rest))


def _checked(kept: Kept) -> Kept:
    """Return what a head says, if keys can be made of it.

    Raises:
        ValueError: they cannot.
    """
    record = kept.record
    sets = [kept.run_set, kept.metadata_set] if kept.parts else [kept.run_set]
    if any(len(bytes.fromhex(name)) != _SET_SIZE for name in sets):
        raise ValueError("its runs, or its metadata, are kept under no name of ours")
    for number, highest in (
        (record.run_count, ALL_RUNS),
        (record.last_position, ALL_RUNS),
        (kept.first, ALL_RUNS + 1),
        (kept.parts, _MOST_PARTS),
        (abs(record.created_at), 2**63 - 1),
        (abs(record.updated_at), 2**63 - 1),
        (abs(record.expires_at or 0), 2**63 - 1),
    ):
        if not 0 <= number <= highest:
            raise ValueError(f"{number} is out of range")
    return kept
