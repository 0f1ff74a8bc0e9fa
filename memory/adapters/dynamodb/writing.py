"""The actions of a transaction by which a change is written, and the receipts of change sets."""

from collections.abc import Iterator
from typing import Any, Final

from pynamodb.expressions.condition import Condition

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.models import UNREADABLE, Held, Kept, pieces
from memory.adapters.dynamodb.preparing import Prepared, leaves_trash, run_items
from memory.adapters.dynamodb.reading import LastSeen, Reader
from memory.adapters.dynamodb.satellites import Satellites, differ_in_entries, satellites_of
from memory.adapters.dynamodb.table import Action, Table
from memory.domain.values import new_id, now
from memory.errors import CorruptRecordError
from memory.port.changes import Receipt

_RECEIPTS_KEPT: Final = 48 * 3600  # seconds: as long as a lost answer may be asked for again, and a day more


class Writer:
    """Writes prepared changes in one namespace."""

    def __init__(self, table: Table, reader: Reader, namespace: str, shards: int) -> None:
        self.table = table
        self.reader = reader
        self.seen: LastSeen = reader.seen
        self.namespace = namespace
        self.shards = shards

    # one transaction

    def actions(self, prepared: Prepared) -> list[Action]:
        """Return all that a change writes, its head's condition first."""
        before, after = self.with_texts(prepared.before, prepared.after)
        return [
            self.head_action(prepared.id, Held(prepared.stamp, after), prepared.held),
            *map(self.table.put, self.contents(prepared)),
            *prepared.edits,
            *self.moves(self.satellites(before, after), self.satellites(after, before)),
            *self.trash_actions(prepared),
        ]

    def contents(self, prepared: Prepared) -> Iterator[Any]:
        """Yield the items of new metadata and runs."""
        yield from prepared.metadata
        if prepared.after is not None:
            partition = keys.conversation(self.namespace, prepared.id)
            for run in prepared.appended:
                yield from run_items(self.table, partition, prepared.after.run_set, run)

    def with_texts(self, before: Kept | None, after: Kept | None) -> tuple[Kept | None, Kept | None]:
        """Return the conversation before and after, with their metadata where their entries differ.

        Raises:
            ChangedError: it is not there any more.
        """
        if differ_in_entries(before, after):
            before = before and self.reader.with_text(self.namespace, before)
            after = after and self.reader.with_text(self.namespace, after)
        return before, after

    def satellites(self, of: Kept | None, beside: Kept | None) -> Satellites:
        """Return the satellites of a conversation; without entries, where the one beside it has the same."""
        return satellites_of(self.namespace, of, self.shards, with_entries=differ_in_entries(of, beside))

    def moves(self, before: Satellites, after: Satellites) -> list[Action]:
        """Return what makes the satellites after of those before."""
        puts = [
            self.table.put(satellite.item(self.table.models, key))
            for key, satellite in after.items()
            if satellite != before.get(key)
        ]
        return puts + [self.table.delete(key) for key in before if key not in after]

    def head_action(self, conversation_id: str, to: Held, held: Held) -> Action:
        """Return the action that makes the head say this, if it is still as it was held."""
        key, condition = keys.head(self.namespace, conversation_id), self.is_still(held)
        if to.kept is None and to.stage is None:
            return self.table.delete(key, condition)
        return self.table.put(self.table.models.head(*key, to, conversation_id), condition)

    def is_still(self, held: Held) -> Condition:
        """Return the condition that a head is as it was held."""
        return self.table.is_absent() if held.stamp is None else self.table.models.Head.stamp == held.stamp

    def trash_actions(self, prepared: Prepared) -> list[Action]:
        """Return what tells that something in the conversation's partition is dead."""
        if not leaves_trash(prepared.before, prepared.after):
            return []
        place = keys.trash(self.namespace), bytes.fromhex(new_id())
        return [self.table.put(self.table.models.new(self.table.models.Pointer, *place, id=prepared.id))]

    def token_actions(self, receipt: Receipt) -> tuple[Action, list[Action]]:
        """Return what keeps the receipt, and refuses a change set that was written; and the parts of one that is too large."""
        key, ttl = keys.token(self.namespace, receipt.token), now() // 1_000_000 + _RECEIPTS_KEPT
        first, *rest = pieces(receipt.dump())
        models, part_set = self.table.models, new_id() if rest else None
        item = models.new(models.Token, *key, receipt=first, parts=len(rest) or None, part_set=part_set, ttl=ttl)
        parts = [
            models.new(models.Part, key[0], _receipt_part(part_set, n), text=each, ttl=ttl)
            for n, each in enumerate(rest, 1)
        ]
        return self.table.put(item, self.table.is_absent()), [self.table.put(part) for part in parts]

    def receipt(self, token: str) -> Receipt | None:
        """Return the receipt of a change set that was written; None if it was not, or long ago."""
        item = self.table.get(keys.token(self.namespace, token))
        return None if item is None else self.receipt_of(token, item)

    def receipt_of(self, token: str, item: Any) -> Receipt:
        """Return the receipt that an item holds."""
        try:
            places = [(item.pk, _receipt_part(item.part_set, number)) for number in range(1, (item.parts or 0) + 1)]
            parts = self.table.get_many(places)
            return Receipt.load(token, item.receipt + "".join(parts[place].text for place in places))
        except UNREADABLE as error:
            raise CorruptRecordError(f"the receipt of the change set {token!r} cannot be read: {error!r}") from error


def _receipt_part(part_set: str | None, number: int) -> bytes:
    # A set of each try: two that write the same change set at once must not mix their receipts.
    return b"\x01" + bytes.fromhex(part_set or "") + number.to_bytes(3, "big")
