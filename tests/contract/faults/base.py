"""The reference, with places to put faults in."""

# a fault looks at as much of what it is given as it needs

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from memory.adapters.in_memory import InMemoryRepository, _Kept
from memory.domain.criteria import AllOf, AnyOf, Criterion, Not
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.port.changes import Change
from memory.port.paging import Page, Query


class Faulty(InMemoryRepository):
    """The reference, with places to put a fault in: what is asked, what is kept, what is answered."""

    _shows_expired = False

    def asked(self, change: Change, present: _Kept | None) -> Change:
        """Return the change as the fault understands it."""
        return change

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        """Return what the fault makes of a conversation that was created or changed."""
        return after

    def meant(self, criterion: Criterion) -> Criterion:
        """Return the criterion as the fault understands it."""
        if isinstance(criterion, AllOf | AnyOf):
            return type(criterion)(tuple(map(self.meant, criterion.parts)))
        return Not(self.meant(criterion.part)) if isinstance(criterion, Not) else criterion

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        return super().find(namespace, replace(query, criterion=self.meant(query.criterion)))

    def count(self, namespace: str, criterion: Criterion) -> int:
        return super().count(namespace, self.meant(criterion))

    def _outcome(self, namespace: str, change: Change, at: int) -> _Kept | None:
        before = self._present(namespace, change.id)
        after = super()._outcome(namespace, self.asked(change, before), at)
        if after is None:
            return None
        copied = _Kept(after.record, dict(after.runs), list(after.positions), after.appended).joined()
        made = self.made(before, change, copied)
        return _Kept(made.record, made.runs, sorted(made.runs))

    def _is_expired(self, kept: _Kept) -> bool:
        return not self._shows_expired and super()._is_expired(kept)

    @contextmanager
    def expired_ones_shown(self) -> Iterator[None]:
        self._shows_expired = True
        try:
            yield
        finally:
            self._shows_expired = False


def altered(kept: _Kept, **fields: object) -> _Kept:
    return _Kept(ConversationRecord(**{**kept.record._asdict(), **fields}), kept.runs)


def record_of(conversation: Conversation) -> ConversationRecord:
    """Return what the store says of a conversation that it returned."""
    return cast(ConversationRecord, conversation.record)
