"""The outbox: change sets that wait to be delivered to replicas, with the values that the primary assigned, stored as text."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import compact
from memory.port.changes import Change, ChangeSet, Completion, ExpectedVersion, Receipt, Written, assign_positions


class OutboxEntry(NamedTuple):
    """A change set that waits to be delivered to a replica, as `resolved` returned it. Later entries have greater numbers."""

    number: int
    namespace: str
    changes: ChangeSet


class ReplicaLag(NamedTuple):
    """How far a replica is behind: how many change sets wait, and when the oldest was committed (microseconds since 1970)."""

    change_sets: int
    oldest: int


class Outbox(ABC):
    """The outbox of one replica, locked by the only relay that may deliver its entries."""

    @abstractmethod
    def first(self, limit: int) -> list[OutboxEntry]:
        """Return the first entries. Entries with a conversation in common come in the order of their commits."""

    @abstractmethod
    def remove(self, entries: Iterable[OutboxEntry]) -> None:
        """Remove these entries."""


def resolved(changes: ChangeSet, receipt: Receipt) -> ChangeSet:
    """Return a committed change set with the values that the store assigned, so that a replica in the same state ends equal.

    Appended runs get their positions, and ``after`` the position they follow; an edit gets ``expected`` with the version it met.
    Its incarnation is empty, because that differs between stores.
    """
    written = receipt.written
    return replace(changes, changes=tuple([_resolved(change, written[change.id]) for change in changes.changes]))


def _resolved(change: Change, written: Written | None) -> Change:
    if written is None:
        return Change(change.id, remove=True)
    last = written.last_position - len(change.append)
    return change._replace(
        expected=ExpectedVersion("", written.version - 1) if change.edits and not change.create else None,
        after=last if change.append and not (change.create or change.gives_positions) else None,
        append=assign_positions(change, last)[0],
    )


def dump(changes: ChangeSet) -> str:
    """Return a change set as one line of JSON.

    >>> dump(ChangeSet((Change("support-42", remove=True),), token="t", at=1))
    '["t",1,[["support-42",null,null,true,null,null,null,0,[],[],[],null,null,[]]]]'
    """
    fields = [[getattr(change, name) for name in _FIELDS] for change in changes.changes]
    return compact([changes.token, changes.at, fields])


def load(text: str) -> ChangeSet:
    """Return the change set of a text that `dump` returned."""
    token, at, changes = json.loads(text)
    return ChangeSet(tuple([_load(fields) for fields in changes]), token, at)


_FIELDS: Final = Change._fields


def _load(fields: list[Any]) -> Change:
    named = dict(zip(_FIELDS, fields, strict=False))  # entries of earlier versions have fewer fields
    return Change(
        **{
            **named,
            "expected": named["expected"] and ExpectedVersion(*named["expected"]),
            "create": named["create"] and ConversationRecord(*named["create"]),
            "remove_runs": tuple(named["remove_runs"]),
            "replace_runs": tuple([RunRecord(*run) for run in named["replace_runs"]]),
            "append": tuple([RunRecord(*run) for run in named["append"]]),
            "complete": tuple([Completion(*one) for one in named.get("complete", ())]),
        }
    )
