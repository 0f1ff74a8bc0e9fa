"""Faults of sliding expiry, of rewinding, and of what a removal leaves behind."""

# a fault looks at as much of what it is given as it needs

from collections.abc import Collection

from memory.adapters.in_memory import _Kept
from memory.port.changes import Change
from memory.port.repository import Forgotten
from tests.contract.faults.base import Faulty, altered


class ExpiryDoesNotSlide(Faulty):
    """An append does not move a sliding expiry."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        moves = before is None or change.create or change.expires_at or change.expires_after
        return after if moves or before is None else altered(after, expires_at=before.record.expires_at)


class MovedExpiryCounted(Faulty):
    """An append that moves a sliding expiry counts as a change of the conversation."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        counted = before is not None and bool(change.append) and after.record.expires_after is not None
        return altered(after, version=after.record.version + counted)


class ExpiryGoesBack(Faulty):
    """A sliding expiry is what the last writer's clock makes it."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        lifetime = after.record.expires_after
        if lifetime is None or before is None or not change.append:
            return after
        return altered(after, expires_at=self.clock() + lifetime)


class EditsMoveTheExpiry(Faulty):
    """Any change moves a sliding expiry."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        lifetime = after.record.expires_after
        return after if lifetime is None else altered(after, expires_at=self.clock() + lifetime)


class TailStays(Faulty):
    """The runs after a position are not removed."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change if change.remove_after is None else change._replace(remove_after=2**53 - 1)


class PositionsUsedAgain(Faulty):
    """After the last runs are removed, their positions are assigned again."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        is_rewound = change.remove_after is not None and not change.append
        return altered(after, last_position=max(after.runs, default=0)) if is_rewound else after


class RewindsWhatWasNotRead(Faulty):
    """Removing the last runs takes along what was appended since they were read."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(after=None) if change.remove_after is not None else change


class ReceiptsStay(Faulty):
    """Receipts of an erased conversation are counted, and stay."""

    def forget(self, namespace: str, conversation_ids: Collection[str]) -> Forgotten:
        return Forgotten(len(conversation_ids))


class NoReceiptForgotten(Faulty):
    """Nothing is forgotten, and nothing is said to be left."""

    def forget(self, namespace: str, conversation_ids: Collection[str]) -> Forgotten:
        return Forgotten()
