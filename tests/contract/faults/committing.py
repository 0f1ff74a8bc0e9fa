"""Faults of versions, conflicts and replays."""

# a fault looks at as much of what it is given as it needs

import time
from contextlib import AbstractContextManager, nullcontext
from typing import cast

from memory.adapters.in_memory import _Kept, _written
from memory.port.changes import ALL_RUNS, Change, ChangeSet, ExpectedVersion, Receipt, Written
from tests.contract.faults.base import Faulty, altered

# Versions and conflicts


class VersionStays(Faulty):
    """A change of the conversation does not count."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return after if change.create or before is None else altered(after, version=before.record.version)


class EditsOfRunsNotCounted(Faulty):
    """Removing or replacing runs does not count as a change of the conversation."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return altered(after, version=after.record.version - change.edits_runs)


class AppendsCounted(Faulty):
    """An append counts as a change of the conversation."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return altered(
            after, version=after.record.version + (bool(change.append) and not change.edits and before is not None)
        )


class SeenIgnored(Faulty):
    """What was read is not compared with what is there."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(expected=None)


class SeenIgnoredInRemovals(Faulty):
    """A conversation is removed, whatever became of it."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(expected=None) if change.remove and present else change


class RemovesWhatWasNotRead(Faulty):
    """A removal takes along what was appended since the conversation was read."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(after=None) if change.remove else change


class ClearsWhatWasNotRead(Faulty):
    """Clearing the runs takes along what was appended since they were read."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(after=None) if change.remove_before == ALL_RUNS else change


class TimesGoBack(Faulty):
    """A conversation was written when the last writer's clock says so."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return after if before is None else altered(after, updated_at=self.clock())


class BlindWritesRefused(Faulty):
    """What was not read cannot be changed."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        blind = change.expected is None and (change.edits or change.remove)
        return change._replace(expected=ExpectedVersion("", 0)) if blind and present else change


class IncarnationIgnored(Faulty):
    """A conversation made anew passes for the one that was read, if the version is the same."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        if change.expected is None or present is None:
            return change
        return change._replace(expected=ExpectedVersion(present.record.incarnation, change.expected.version))


class IncarnationReused(Faulty):
    """Every conversation has the same incarnation."""

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        return altered(after, incarnation="1")


class AfterIgnored(Faulty):
    """A conditional append is unconditional."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        return change._replace(after=None)


class AfterComparesTheCount(Faulty):
    """A conditional append looks at how many runs there are."""

    def asked(self, change: Change, present: _Kept | None) -> Change:
        if change.after is None or present is None:
            return change
        return change._replace(after=present.record.last_position if len(present.runs) == change.after else ALL_RUNS)


class Unlocked(Faulty):
    """Two commits at once overwrite each other."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = cast("AbstractContextManager[bool]", nullcontext())  # type: ignore[assignment]

    def made(self, before: _Kept | None, change: Change, after: _Kept) -> _Kept:
        time.sleep(0.0001)
        return after


# All or nothing, and once


class HalfWritten(Faulty):
    """An error leaves the conversations that come before it written."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        written: dict[str, Written | None] = {}
        for change in changes.changes:
            written |= super().commit(namespace, ChangeSet((change,), changes.token + change.id, changes.at)).written
        return Receipt(changes.token, written)


class OneByOne(Faulty):
    """A reader can find the first conversation appended to, and the last one not yet."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        if not all(change.only_appends for change in changes.changes):
            return super().commit(namespace, changes)
        written: dict[str, Written | None] = {}
        for change in changes.changes:
            written |= super().commit(namespace, ChangeSet((change,), changes.token + change.id, changes.at)).written
            time.sleep(0.002)
        return Receipt(changes.token, written)


class TokenIgnored(Faulty):
    """A change set that comes again is written again."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        self._receipts.clear()
        return super().commit(namespace, changes)


class TokenForgotten(Faulty):
    """Only the last token is known."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        receipt = super().commit(namespace, changes)
        self._receipts = {(namespace, changes.token): receipt}
        return receipt


class TokenOfAllNamespaces(Faulty):
    """A token that is written in one namespace counts in all."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        known = [receipt for (_, token), receipt in self._receipts.items() if token == changes.token]
        return known[0] if known else super().commit(namespace, changes)


class RefusedTokenKept(Faulty):
    """The token of a change set that was refused counts as written."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        try:
            return super().commit(namespace, changes)
        except Exception:
            self._receipts[namespace, changes.token] = Receipt(changes.token, {})
            raise


class ReplayLeavesAGap(Faulty):
    """An append that comes again is not written, but takes its positions all the same."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        replayed = (namespace, changes.token) in self._receipts
        for change in changes.changes:
            if replayed and (kept := self._present(namespace, change.id)):
                last = kept.record.last_position + len(change.append)
                self._kept[namespace, change.id] = altered(kept, last_position=last)
        return super().commit(namespace, changes)


class ReplayTellsOtherwise(Faulty):
    """A replay's receipt tells what is there now."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        if (namespace, changes.token) not in self._receipts:
            return super().commit(namespace, changes)
        there = {change.id: self._present(namespace, change.id) for change in changes.changes}
        return Receipt(changes.token, {name: _written(kept) for name, kept in there.items()})


class ReceiptOfBefore(Faulty):
    """The receipt's version is one behind."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        receipt = super().commit(namespace, changes)
        behind = {
            name: written and written._replace(version=written.version - 1) for name, written in receipt.written.items()
        }
        return Receipt(receipt.token, behind)
