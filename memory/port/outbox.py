"""Change sets on their way to replicas: with what the primary assigned, and as text to be kept until they are delivered."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import compact
from memory.port.changes import Change, ChangeSet, ExpectedVersion, Receipt, Written, assign_positions


class OutboxEntry(NamedTuple):
    """A change set that waits to be delivered to a replica, as `memory.port.outbox.settled` made it; numbers rise."""

    number: int
    namespace: str
    changes: ChangeSet


class ReplicaLag(NamedTuple):
    """How far behind a replica is: how many change sets wait, and when the oldest was made (microseconds since 1970)."""

    change_sets: int
    oldest: int


class Outbox(ABC):
    """The parcels for one replica, in the hands of the only one who may deliver them."""

    @abstractmethod
    def parcels(self, limit: int) -> list[OutboxEntry]:
        """Return the first parcels: of those with a conversation in common, the one written first comes first."""

    @abstractmethod
    def delivered(self, parcels: Iterable[OutboxEntry]) -> None:
        """Forget these parcels."""


def resolved(changes: ChangeSet, receipt: Receipt) -> ChangeSet:
    """Return a written change set with what the store assigned, so that it means the same on a store in the same state.

    Appended runs have their positions, and come after the run they came after; an edit has ``seen`` with the version it met.
    That one's incarnation is empty: it is each store's own.
    """
    settled_changes = [_settled(change, receipt.written[change.id]) for change in changes.changes]
    return ChangeSet(tuple(settled_changes), changes.token, changes.at)


def _settled(change: Change, written: Written | None) -> Change:
    if written is None:
        return Change(change.id, remove=True)
    last = written.last_position - len(change.append)
    return Change(
        change.id,
        seen=ExpectedVersion("", written.version - 1) if change.edits and not change.create else None,
        after=last if change.append and not (change.create or change.gives_positions) else None,
        remove=change.remove,
        create=change.create,
        metadata=change.metadata,
        expires_at=change.expires_at,
        remove_before=change.remove_before,
        remove_runs=change.remove_runs,
        replace_runs=change.replace_runs,
        append=assign_positions(change, last)[0],
    )


def dump(changes: ChangeSet) -> str:
    r"""Return a change set as one line of JSON, ASCII only.

    >>> dump(ChangeSet((Change("support-42", remove=True),), token="t", at=1))
    '["t",1,[["support-42",null,null,true,null,null,null,0,[],[],[]]]]'
    """
    fields = [[getattr(change, name) for name in _FIELDS] for change in changes.changes]
    return compact([changes.token, changes.at, fields])


def load(text: str) -> ChangeSet:
    """Return the change set that `dump` made a text of."""
    token, at, changes = json.loads(text)
    return ChangeSet(tuple([_load(fields) for fields in changes]), token, at)


_FIELDS: Final = tuple(Change.__dataclass_fields__)


def _load(fields: list[Any]) -> Change:
    named = dict(zip(_FIELDS, fields, strict=True))
    return Change(
        **{
            **named,
            "seen": named["seen"] and ExpectedVersion(*named["seen"]),
            "create": named["create"] and ConversationRecord(*named["create"]),
            "remove_runs": tuple(named["remove_runs"]),
            "replace_runs": tuple([RunRecord(*run) for run in named["replace_runs"]]),
            "append": tuple([RunRecord(*run) for run in named["append"]]),
        }
    )
