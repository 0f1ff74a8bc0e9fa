"""Faults of expiry, namespaces, runs, conversations and values."""

# a fault looks at as much of what it is given as it needs

import unicodedata
from collections.abc import Iterator
from typing import cast

from memory.adapters.in_memory import InMemoryRepository, _Kept
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord
from memory.domain.values import Json, decode, encode
from memory.port.changes import ALL_RUNS, NEVER, Change, ChangeSet, Receipt
from memory.port.paging import Page, Query
from memory.port.repository import RunsRead, Window
from tests.contract.faults.base import Faulty, altered, record_of

# Expiry and namespaces


class ExpiredInGet(Faulty):
    """``get`` returns expired conversations."""

    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        with self.expired_ones_shown():
            return super().get(namespace, conversation_id)


class ExpiredInFind(Faulty):
    """``find`` returns expired conversations."""

    def find(self, namespace: str, query: Query) -> Page[Conversation]:
        with self.expired_ones_shown():
            return super().find(namespace, query)


class ExpiredInCount(Faulty):
    """``count`` counts expired conversations."""

    def count(self, namespace: str, criterion: Criterion) -> int:
        with self.expired_ones_shown():
            return super().count(namespace, criterion)


class ExpiredInRuns(Faulty):
    """``runs`` returns those of expired conversations."""

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        with self.expired_ones_shown():
            return super().runs(namespace, conversation_id, window)


class ExpiredInCommit(Faulty):
    """An expired conversation can be written to, and is in the way of another."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        with self.expired_ones_shown():
            return super().commit(namespace, changes)


class ExpiresTooLate(Faulty):
    """A conversation is still there at the moment of its expiry."""

    def _is_expired(self, kept: _Kept) -> bool:
        return super()._is_expired(kept) and kept.record.expires_at != self.clock()


class PurgesEverywhere(Faulty):
    """Purging takes the expired conversations of every namespace."""

    def purge_expired(self, namespace: str) -> int:
        return sum([InMemoryRepository.purge_expired(self, name) for name in {name for name, _ in self._kept}])


class PurgesNothing(Faulty):
    """Purging counts, and removes nothing."""

    def purge_expired(self, namespace: str) -> int:
        kept = dict(self._kept)
        count = super().purge_expired(namespace)
        self._kept = kept
        return count


class NamespacesLeakInFind(Faulty):
    """``find`` and ``count`` look through every namespace."""

    def _all(self, namespace: str) -> Iterator[_Kept]:
        return (kept for name, _ in list(self._kept) for kept in InMemoryRepository._all(self, name))


class NamespaceNotListed(Faulty):
    """A namespace is listed in small letters, as another one."""

    def namespaces(self) -> set[str]:
        return {name.casefold() for name in super().namespaces()}


class EmptyNamespaceListed(Faulty):
    """A namespace is still listed when its last conversation was removed."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def namespaces(self) -> set[str]:
        self._seen |= super().namespaces()
        return self._seen


class NamesRunTogether(Faulty):
    """The key of a conversation is its namespace and its id in one string."""

    def _present(self, namespace: str, conversation_id: str) -> _Kept | None:
        for name, other in list(self._kept):
            if name + other == namespace + conversation_id:
                return super()._present(name, other)
        return None


class IdsIgnoreCase(Faulty):
    """A conversation is found under its id in other letters."""

    def _present(self, namespace: str, conversation_id: str) -> _Kept | None:
        for name, other in list(self._kept):
            if (name, other.casefold()) == (namespace, conversation_id.casefold()):
                return super()._present(name, other)
        return None


# Runs


class RunsStay(Faulty):
    """The runs of a removed conversation are those of the next one under its id."""

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[tuple[str, str], _Kept] = {}

    def _outcome(self, namespace: str, change: Change, at: int) -> _Kept | None:
        before = self._present(namespace, change.id)
        after = super()._outcome(namespace, change, at)
        if change.remove and before:
            self._left[namespace, change.id] = before
        if change.create and after and (left := self._left.get((namespace, change.id))):
            return _Kept(after.record, left.runs | after.runs)
        return after


class PositionsReused(Faulty):
    """The next position is that of the last run there is, and one."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return altered(after, last_position=max(after.runs, default=0))


class LastIsOneShort(Faulty):
    """The last n are n - 1."""

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        short = window.from_end and window.limit
        return super().runs(namespace, conversation_id, window._replace(limit=short - 1) if short else window)


class LastComesBackwards(Faulty):
    """The last n come newest first."""

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        read = super().runs(namespace, conversation_id, window)
        return read._replace(runs=read.runs[::-1]) if window.from_end else read


class LastIsFirst(Faulty):
    """The last n are the first."""

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        return super().runs(namespace, conversation_id, window._replace(from_end=False))


class AtMostHundredRuns(Faulty):
    """However many runs are asked for, no more than 100 come."""

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        limit = 100 if window.limit is None else min(100, window.limit)
        return super().runs(namespace, conversation_id, window._replace(limit=limit))


class BeforeIncluded(Faulty):
    """``before=`` takes the run at that position in."""

    def runs(self, namespace: str, conversation_id: str, window: Window) -> RunsRead:
        before = None if window.before is None else window.before + 1
        return super().runs(namespace, conversation_id, window._replace(before=before))


class ClearTakesTheNew(Faulty):
    """Clearing takes the runs that are appended by the same change."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        cleared = change.remove_before == ALL_RUNS
        return altered(_Kept(after.record, {}), run_count=0) if cleared else after


class ReplacedRunMoves(Faulty):
    """A replaced run goes to the end."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        for run in change.replace_runs:
            last = after.record.last_position + 1
            runs = {at: one for at, one in after.runs.items() if at != run.position} | {
                last: run._replace(position=last)
            }
            after = altered(_Kept(after.record, runs), last_position=last)
        return after


class ReplacedRunKeepsItsId(Faulty):
    """A replaced run keeps the id of the one before."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        old = before.runs if before else {}
        runs = {at: run._replace(id=old[at].id) if at in old else run for at, run in after.runs.items()}
        return _Kept(after.record, runs)


class MissingRunsPass(Faulty):
    """Removing a run that is not there is no error."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(remove_runs=tuple([at for at in change.remove_runs if present and at in present.runs]))


class RunCountOnlyGrows(Faulty):
    """The number of runs is that of all that ever were."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return altered(after, run_count=after.record.last_position)


# Conversations


class AppendCreates(Faulty):
    """An append makes the conversation that it does not find."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        if present or change.create or change.remove or not change.append:
            return change
        return change._replace(create=ConversationRecord(change.id, "{}", 1, "", 0, 0, 1, 1, None))


class AddOverwrites(Faulty):
    """Adding under an id that is taken takes the place of what is there."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(remove=change.remove or bool(change.create and present))


class RemovalOfNothingPasses(Faulty):
    """Removing a conversation that is not there is no error."""

    def _outcome(self, namespace: str, change: Change, at: int) -> _Kept | None:
        if change.remove and not change.create and change.expected is None and not self._present(namespace, change.id):
            return None
        return super()._outcome(namespace, change, at)


class MetadataNeverEmpty(Faulty):
    """Metadata that is cleared stays."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(metadata=None) if change.metadata == "{}" else change


class MetadataMerged(Faulty):
    """A key that is taken away stays."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        if before is None or change.create or change.metadata is None:
            return after
        merged = {
            **cast(dict[str, Json], decode(before.record.metadata)),
            **cast(dict[str, Json], decode(change.metadata)),
        }
        return altered(after, metadata=encode(merged, "metadata"))


class ExpiryStays(Faulty):
    """An expiry cannot be taken away."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(expires_at=None) if change.expires_at == NEVER else change


class UpdatedAtStays(Faulty):
    """An append does not move updated_at."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        if before is None or change.create or change.edits:
            return after
        return altered(after, updated_at=before.record.updated_at)


class CreatedAtMoves(Faulty):
    """Every write is a creation."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return altered(after, created_at=after.record.updated_at)


class StoredObjectReturned(Faulty):
    """``get`` returns the same object each time."""

    def __init__(self) -> None:
        super().__init__()
        self._objects: dict[ConversationRecord, Conversation] = {}

    def get(self, namespace: str, conversation_id: str) -> Conversation | None:
        conversation = super().get(namespace, conversation_id)
        return conversation and self._objects.setdefault(record_of(conversation), conversation)


# Values


class _Spoiling(Faulty):
    def spoil(self, text: str) -> str:
        raise NotImplementedError

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        runs = {
            at: run._replace(input=self.spoil(run.input), output=self.spoil(run.output))
            for at, run in after.runs.items()
        }
        return altered(_Kept(after.record, runs), metadata=self.spoil(after.record.metadata))


class WholeFloatsBecomeInts(_Spoiling):
    """1.0 comes back as 1."""

    def spoil(self, text: str) -> str:
        return text.replace(".0", "")


class NulIsCut(_Spoiling):
    """NUL characters are lost."""

    def spoil(self, text: str) -> str:
        return text.replace("\\u0000", "")


class TextIsNormalized(_Spoiling):
    """Characters come back composed."""

    def spoil(self, text: str) -> str:
        return encode(_normalized(decode(text)), "")


class LongTextIsCut(_Spoiling):
    """A text ends after 65,535 characters."""

    def spoil(self, text: str) -> str:
        value = decode(text)
        if not isinstance(value, dict):
            return text
        return encode({key: one[:65_535] if isinstance(one, str) else one for key, one in value.items()}, "")


class MillisecondsOnly(Faulty):
    """The time of a run loses its microseconds."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        runs = {at: run._replace(created_at=run.created_at // 1000 * 1000) for at, run in after.runs.items()}
        return _Kept(after.record, runs)


class KeysAreSorted(_Spoiling):
    """The keys of a dict come back in another order."""

    def spoil(self, text: str) -> str:
        value = decode(text)
        return encode(dict(sorted(value.items())), "") if isinstance(value, dict) else text


def _normalized(value: Json) -> Json:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    return [_normalized(one) for one in value] if isinstance(value, list) else value
