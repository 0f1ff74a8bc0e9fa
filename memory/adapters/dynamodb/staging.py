"""Commits beyond one transaction: staged bit by bit, seen by nobody, and then there at once.

1. A *stage* is opened: an item that says how far the commit is, and of which conversations.
2. Each head is locked: it says what the conversation is, and what it will be if the stage is committed. Then come the new runs,
   which the head does not tell of yet, and the satellites, for which the head decides. Every one of these transactions checks
   that the stage is still open: whoever ends it ends all that its writer can do.
3. The stage is committed, and the token written: one transaction, which makes everything visible at once.
4. The heads are closed: they say what they will go on saying, and what only the old state needed is removed.

A stage that is left open is undone by the next writer who meets it, or by `purge_expired`; one that was committed is closed so.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from itertools import chain
from typing import Any, Final

from memory.adapters.dynamodb import keys
from memory.adapters.dynamodb.models import UNREADABLE, Held, Kept, pieces
from memory.adapters.dynamodb.preparing import Prepared, leaves_trash, run_items
from memory.adapters.dynamodb.reading import COMMITTED, ChangedError
from memory.adapters.dynamodb.satellites import Satellite, by_updated
from memory.adapters.dynamodb.table import MOST_ACTIONS, Action, RefusedError, in_batches, in_transactions
from memory.adapters.dynamodb.writing import Writer
from memory.domain.records import RunRecord
from memory.domain.values import check_id, new_id, now
from memory.errors import (
    CommitInDoubtError,
    CorruptRecordError,
    InvalidValueError,
    PersistenceError,
    StoreUnavailableError,
)
from memory.port.changes import Receipt

_log = logging.getLogger("memory")

ABANDONED_AFTER: Final = 15_000_000
"""Microseconds after which a stage that nothing was written to is taken for abandoned. Sooner would be safe too: its writer
would find it ended, and begin anew."""

_OPEN, _UNDONE = "open", "undone"
_EDITS_AT_ONCE = 80  # actions on stored runs that are written with the commit; for more, all runs are written anew
_EDIT_BYTES = 3_000_000


class _Outcome(Enum):
    """What became of a commit that was staged."""

    COMMITTED = auto()
    UNDONE = auto()
    UNKNOWN = auto()


class Staging:
    """Stages commits in one namespace, and ends those that others left."""

    def __init__(self, writer: Writer, abandoned_after: int) -> None:
        self._writer = writer
        self._table = writer.table
        self._namespace = writer.namespace
        self._abandoned_after = abandoned_after
        self._met: dict[bytes, tuple[int, float]] = {}  # open stages: their `at`, and since when it is that (monotonic)

    def commit(self, prepared: list[Prepared], token: str | None) -> Receipt:
        """Write changes that do not fit one transaction. Without a token it is not known again.

        Raises:
            RefusedError: a head is not what it was held to be, or the token was written before. Nothing was written.
        """
        stage, receipt = new_id(), Receipt(token or "", {each.id: each.written for each in prepared})
        edits = [edit for each in prepared for edit in each.edits]
        if len(edits) > _EDITS_AT_ONCE or sum(edit.size for edit in edits) > _EDIT_BYTES:
            prepared, edits = [_with_new_runs(each) for each in prepared], []
        ids = [each.id for each in prepared]
        try:
            self._open(stage, ids)
            self._write_all(stage, chain.from_iterable(self._early(stage, each) for each in prepared))
            last = [self._becomes(stage, COMMITTED), *edits]
            if token is not None:
                kept, parts = self._writer.token_actions(receipt)
                self._write_all(stage, parts)
                last.append(kept)
            self._table.write(last)
        except (RefusedError, PersistenceError, ChangedError) as error:
            outcome, receipt = self._found_out(stage, receipt)
            if outcome is _Outcome.UNDONE:
                self._let_go(stage, ids, committed=False)
                if isinstance(error, CommitInDoubtError):
                    raise StoreUnavailableError(f"{error}; it was undone: nothing was written") from error
            if outcome is not _Outcome.COMMITTED:
                raise
        self._let_go(stage, ids, committed=True)
        return receipt

    def _write_all(self, stage: str, actions: Iterable[Action]) -> None:
        """Write as many transactions as it takes, as long as the stage is open."""
        for batch in in_transactions(actions):
            self._table.write([self._goes_on(stage), *batch])

    def _found_out(self, stage: str, receipt: Receipt) -> tuple[_Outcome, Receipt]:
        """End a stage after an error; return what became of the commit, and its receipt if it was written."""
        try:
            outcome = self._end(stage)
            if outcome is _Outcome.UNKNOWN and receipt.token:
                # Somebody else has ended it, and all that it locked. The token was written with the commit, or never will be.
                written = self._writer.receipt(receipt.token)
                return (_Outcome.UNDONE, receipt) if written is None else (_Outcome.COMMITTED, written)
        except PersistenceError:
            return _Outcome.UNKNOWN, receipt  # the first error is the one to tell; others will end it
        return outcome, receipt

    def _let_go(self, stage: str, ids: list[str], *, committed: bool) -> None:
        """Close what has been decided; what fails here is left to the next writer, or to `purge_expired`."""
        try:
            self._close(stage, ids, committed=committed)
        except PersistenceError as error:
            _log.warning("what a commit of %s locked could not be opened yet: %s", ids[:3], error)

    # the stage

    def _open(self, stage: str, ids: list[str]) -> None:
        pk, sk = keys.stage(self._namespace, stage)
        first, *rest = pieces(json.dumps(ids))
        models = self._table.models
        item = models.new(models.Journal, pk, sk, state=_OPEN, at=now(), ids=first, parts=len(rest) or None)
        self._table.write([self._table.put(item, self._table.is_absent())])
        parts = [models.new(models.Part, pk, _part(sk, number), text=text) for number, text in enumerate(rest, 1)]
        self._write_all(stage, map(self._table.put, parts))

    def _goes_on(self, stage: str) -> Action:
        """Return the action that says the stage is alive, and is refused if somebody has ended it."""
        journal = self._table.models.Journal
        return self._table.update(keys.stage(self._namespace, stage), [journal.at.set(now())], journal.state == _OPEN)

    def _becomes(self, stage: str, state: str) -> Action:
        journal = self._table.models.Journal
        return self._table.update(
            keys.stage(self._namespace, stage), [journal.state.set(state)], journal.state == _OPEN
        )

    def _end(self, stage: str) -> _Outcome:
        """End a stage unless it has ended; its writer can do nothing more. Return what became of it: unknown, if it is gone."""
        try:
            self._table.write([self._becomes(stage, _UNDONE)])
        except RefusedError:
            item = self._table.get(keys.stage(self._namespace, stage))
            if item is None:
                return _Outcome.UNKNOWN
            return _Outcome.COMMITTED if item.state == COMMITTED else _Outcome.UNDONE
        return _Outcome.UNDONE

    def settle(self, stage: str) -> None:
        """End a stage that was met, unless its writer is at work."""
        item = self._table.get(keys.stage(self._namespace, stage))
        if item is not None and (item.state != _OPEN or self._is_old(item) or self._stands_still(item)):
            self._settle(item)

    def purge(self, item: Any) -> None:
        """End the stage that an item tells of, unless its writer is at work by this process's clock: it is looked at only once.

        A stage of the future is not waited for. If its writer is alive, and its clock ahead, it begins anew.
        """
        if item.state != _OPEN or self._is_old(item) or item.at > now() + self._abandoned_after:
            self._settle(item)

    def _is_old(self, item: Any) -> bool:
        return bool(item.at + self._abandoned_after <= now())

    def _stands_still(self, item: Any) -> bool:
        """Tell whether nothing was written to a stage for as long as it is met here, whatever its writer's clock says."""
        at, since = self._met.get(item.sk, (None, 0.0))
        if at != item.at:
            since = time.monotonic()
            self._met[item.sk] = item.at, since
        return (time.monotonic() - since) * 1_000_000 >= self._abandoned_after

    def _settle(self, item: Any) -> None:
        stage, outcome = item.sk.hex(), _Outcome.COMMITTED if item.state == COMMITTED else _Outcome.UNDONE
        if item.state == _OPEN:
            outcome = self._end(stage)
        if outcome is not _Outcome.UNKNOWN:  # else others have closed it
            self._close(stage, self._ids(item), committed=outcome is _Outcome.COMMITTED)

    def _ids(self, item: Any) -> list[str]:
        """Return the conversations of a stage; none, where it broke off before it said all of them: then none was locked."""
        places = [(item.pk, _part(item.sk, number)) for number in range(1, (item.parts or 0) + 1)]
        parts = self._table.get_many(places)
        if missing := [place for place in places if place not in parts]:
            try:
                self._table.write([self._table.check(missing[0], self._table.is_absent())])
            except RefusedError as error:
                raise StoreUnavailableError("a commit that broke off could not be read: try again") from error
            return []
        try:
            return [
                check_id(each, "an id")
                for each in json.loads(item.ids + "".join(parts[place].text for place in places))
            ]
        except (*UNREADABLE, InvalidValueError) as error:
            raise CorruptRecordError(f"the commit {item.sk.hex()} is stored but cannot be read: {error}") from error

    # before the commit

    def _early(self, stage: str, prepared: Prepared) -> Iterator[Action]:
        """Yield what is written of one conversation while nobody sees it: first the lock, by which it can be undone."""
        before, after = prepared.before, prepared.after
        locked = Held(prepared.stamp, before, stage, after)
        yield self._writer.head_action(prepared.id, locked, prepared.held)
        for item in self._contents(prepared):
            yield self._table.put(item)
        before, after = self._writer.with_texts(before, after)
        has = self._writer.satellites(before, after)
        wants = self._writer.satellites(after, before)
        for key, satellite in wants.items():
            if satellite != has.get(key):
                yield self._table.put(_bare(satellite).item(self._table.models, key))
        if before is not None and (place := by_updated(self._namespace, before, self._writer.shards)) not in wants:
            yield self._table.put(Satellite(prepared.id).item(self._table.models, place))

    def _contents(self, prepared: Prepared) -> Iterator[Any]:
        before, after = prepared.before, prepared.after
        if before is not None and after is not None and prepared.edited and after.run_set != before.run_set:
            partition = keys.conversation(self._namespace, prepared.id)
            runs = chain(self._edited(partition, before, after.first, prepared), prepared.appended)
            yield from prepared.metadata
            for run in runs:
                yield from run_items(self._table, partition, after.run_set, run)
        else:
            yield from self._writer.contents(prepared)

    def _edited(self, partition: bytes, before: Kept, first: int, prepared: Prepared) -> Iterator[RunRecord]:
        """Yield the stored runs as they will be."""
        for run in self._writer.reader.every_run(partition, replace(before, first=first)):
            wanted = prepared.edited.get(run.position, run)
            if wanted is not None:
                yield wanted

    # after it, or instead

    def _close(self, stage: str, ids: list[str], *, committed: bool) -> None:
        """Let go of all heads that the stage has locked, then of the stage. Several may do so at once."""
        for some in in_batches(ids, MOST_ACTIONS):
            locked: list[str] = []
            together: list[Action] = []
            for conversation_id, actions in self._closings(stage, some, committed=committed):
                locked.append(conversation_id)
                if len(together) + len(actions) > MOST_ACTIONS:
                    self._write_closing(together)
                    together = []
                if len(actions) > MOST_ACTIONS:
                    self._close_large(conversation_id, stage, actions)
                else:
                    together += actions
            self._write_closing(together)
            # those of a refused transaction, one by one
            for conversation_id, actions in self._closings(stage, locked, committed=committed):
                self._close_large(conversation_id, stage, actions)
        self._remove_stage(stage, ids)

    def _closings(self, stage: str, ids: list[str], *, committed: bool) -> Iterator[tuple[str, list[Action]]]:
        """Yield those of the conversations that the stage has locked, and what ends the lock."""
        reader = self._writer.reader
        for conversation_id, held in reader.held(self._namespace, ids).items():
            if held.stage != stage:
                continue
            try:
                actions = self._closing(conversation_id, held, committed=committed)
            except ChangedError as error:
                # Nothing is swept while the lock is on: somebody else has closed it, and swept out its old metadata.
                if reader.held(self._namespace, [conversation_id])[conversation_id].stage == stage:
                    what = f"the metadata of {conversation_id!r} is stored, but parts of it are missing"
                    raise CorruptRecordError(what) from error
            else:
                yield conversation_id, actions

    def _write_closing(self, actions: list[Action]) -> None:
        if not actions:
            return
        with suppress(RefusedError):  # somebody else closes them: which are left is looked at afterwards
            self._table.write(actions)

    def _close_large(self, conversation_id: str, stage: str, actions: list[Action]) -> None:
        """Write what does not fit one transaction: each has the lock as its condition, and the last one gives it up."""
        key = keys.head(self._namespace, conversation_id)
        check = self._table.check(key, self._table.models.Head.stage == stage)
        head, *others = actions
        with suppress(RefusedError):  # somebody else has closed it
            for some in in_batches(others, MOST_ACTIONS - 1):
                self._table.write([check, *some])
            self._table.write([head])

    def _remove_stage(self, stage: str, ids: list[str]) -> None:
        """Remove a stage that has locked nothing any more: without it, nobody could tell what a locked head stands for."""
        key, is_free = keys.stage(self._namespace, stage), self._table.models.Head.stage != stage
        item = self._table.get(key)
        if item is None:
            return
        parts = [(key[0], _part(key[1], number)) for number in range(1, (item.parts or 0) + 1)]
        checks = [self._table.check(keys.head(self._namespace, conversation_id), is_free) for conversation_id in ids]
        with suppress(RefusedError):  # the next writer who meets the lock closes it
            for some in in_transactions([*checks, *map(self._table.delete, [*parts, key])]):
                self._table.write(some)

    def _closing(self, conversation_id: str, held: Held, *, committed: bool) -> list[Action]:
        """Return what ends the lock of a head, the head first: it will say what it was to be, or what it was."""
        try:
            before, after = self._writer.with_texts(held.kept, held.then)
        except ChangedError:
            if committed:
                raise
            before, after = held.kept, None  # undone before its metadata was written, and so before all satellites
            before, _ = self._writer.with_texts(before, after)
        stays, goes = (after, before) if committed else (before, after)
        key = keys.head(self._namespace, conversation_id)
        is_locked = self._table.models.Head.stage == held.stage
        if stays is None:
            head = self._table.delete(key, is_locked)
        else:
            item = self._table.models.head(*key, Held(new_id(), stays.without_text()), conversation_id)
            head = self._table.put(item, is_locked)
        wanted, left = self._writer.satellites(stays, goes), self._writer.satellites(goes, stays)
        puts = [
            self._table.put(satellite.item(self._table.models, place))
            for place, satellite in wanted.items()
            if satellite.copy is not None or (not committed and left.get(place, satellite) != satellite)
        ]
        removals = [self._table.delete(place) for place in left if place not in wanted]
        return [head, *puts, *removals, *self._leftovers(conversation_id, held, committed=committed)]

    def _leftovers(self, conversation_id: str, held: Held, *, committed: bool) -> list[Action]:
        """Return what removes runs and metadata that nobody will read, or tells of them."""
        before, after = held.kept, held.then
        if committed or after is None:
            has_trash = committed and leaves_trash(before, after)
        else:
            has_trash = before is None or (before.run_set, before.metadata_set) != (after.run_set, after.metadata_set)
        actions: list[Action] = []
        if has_trash:
            place = keys.trash(self._namespace), bytes.fromhex(new_id())
            actions.append(
                self._table.put(self._table.models.new(self._table.models.Pointer, *place, id=conversation_id))
            )
        if not committed and before is not None and after is not None and after.run_set == before.run_set:
            partition = keys.conversation(self._namespace, conversation_id)
            low = keys.run(before.run_set, before.record.last_position + 1)
            high = keys.run(before.run_set, 2**56 - 1, keys.LAST_PART)
            staged = self._table.query(partition, low, high, attributes=[])
            actions += [self._table.delete((partition, item.sk)) for item in staged]
        return actions


def _with_new_runs(prepared: Prepared) -> Prepared:
    """Return a change that writes all runs of a conversation anew, where runs of it are edited."""
    if prepared.after is None or not prepared.edits:
        return prepared
    return replace(prepared, after=replace(prepared.after, run_set=new_id()), edits=[])


def _bare(satellite: Satellite) -> Satellite:
    return Satellite(satellite.id, satellite.ttl)


def _part(sort_key: bytes, number: int) -> bytes:
    return sort_key + number.to_bytes(3, "big")
