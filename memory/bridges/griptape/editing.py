"""Turn a comparison into the change of a conversation. An append reads nothing; an edit reads the runs that it touches."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from memory.bridges.griptape import marks
from memory.bridges.griptape.codec import Codec
from memory.bridges.griptape.diff import Diff, Write
from memory.bridges.griptape.metadata import differs, merged, metadata_text
from memory.bridges.griptape.state import KnownRun, MemoryState
from memory.changes import ALL_RUNS, Change, Seen
from memory.domain import ConversationRecord, Run, RunRecord
from memory.unit_of_work import UnitOfWork
from memory.values import Json

Trimmed: TypeAlias = Literal["hidden", "deleted"]
"""What happens to runs that ``max_runs`` takes out: ``hidden`` keeps them stored, and they are not loaded; ``deleted`` does not."""


class StaleStateError(Exception):
    """The stored runs are not where the driver knows them to be; nothing may be written on that basis."""


@dataclass(slots=True)
class Edit:
    """A change, and the state of the memory after it.

    Attributes:
        change: the change of the conversation; None if there is nothing to write.
        new: the runs to be appended.
        state: the state after the change, with `NEW` as the position of each appended run.
    """

    change: Change | None
    new: list[Run]
    state: MemoryState


def create(
    conversation_id: str, codec: Codec, diff: Diff, metadata: dict[str, Json], at: int
) -> Edit:
    """Return the edit that creates the conversation."""
    new = [codec.to_ours(run) for run in diff.append]
    record = ConversationRecord(conversation_id, metadata_text(metadata), 1, "", 0, 0, at, at, None)
    change = Change(conversation_id, create=record, append=tuple([run.to_record() for run in new]))
    after = MemoryState(diff.runs, metadata=metadata, created_at=at, unseen=ALL_RUNS, is_current=True)
    return Edit(change, new, after)


def edit(
    uow: UnitOfWork,
    conversation_id: str,
    codec: Codec,
    trimmed: Trimmed,
    state: MemoryState,
    diff: Diff,
    metadata: dict[str, Json],
) -> Edit:
    """Return the edit of an existing conversation.

    Raises:
        StaleStateError: others changed the runs that are to be edited.
        NotFoundError: there is no such conversation.
    """
    return _Editing(uow, conversation_id, codec, state, diff).edit(trimmed, metadata)


class _Editing:
    def __init__(
        self, uow: UnitOfWork, conversation_id: str, codec: Codec, state: MemoryState, diff: Diff
    ) -> None:
        self._uow = uow
        self._id = conversation_id
        self._codec = codec
        self._state = state
        self._diff = diff
        self._created_at = state.created_at
        self._stored: dict[int, Run] = {}
        self._new = [codec.to_ours(run) for run in diff.append]
        self._kept = [known.position for known in diff.runs if known.position > 0]

    def edit(self, trimmed: Trimmed, metadata: dict[str, Json]) -> Edit:
        state, diff = self._state, self._diff
        missing = [known for known in diff.trimmed if known.position]
        hidden = [] if trimmed == "deleted" else missing
        remove = [*[known for known in diff.remove if known.position], *([] if hidden else missing)]
        shown, hide = self._shown_from(hidden)
        after = replace(
            state, runs=diff.runs, detached=sorted([*diff.detached, *hidden]), metadata=metadata, shown_from=shown
        )
        is_marked = shown != state.shown_from
        if is_marked and self._new:
            self._new[0] = marks.mark(self._new[0], self._created_at, shown)
        if not (diff.write or remove or hide or (is_marked and not self._new) or differs(metadata, state.metadata)):
            return Edit(Change(self._id, append=self._appended()) if self._new else None, self._new, after)
        record, stored_metadata = self._look()
        self._read([*diff.write, *[known.position for known in (*remove, *hide)]])
        self._check(remove, hide)
        written = self._written() | {
            known.position: marks.hide(self._stored[known.position], self._created_at) for known in hide
        }
        removed = [known.position for known in remove if known.position in self._stored]
        if not self._new and (is_marked or self._loses_mark(removed)):
            self._mark_stored(after, removed, written)
        elif not is_marked and self._loses_mark(removed):
            self._new[0] = marks.mark(self._new[0], self._created_at, state.shown_from)
        text = metadata_text(merged(state.metadata, metadata, stored_metadata))
        change = Change(
            self._id,
            metadata=None if text == record.metadata else text,
            remove_runs=tuple(sorted(removed)),
            replace_runs=tuple([written[at].to_record(at) for at in sorted(written)]),
            append=self._appended(),
        )
        if change.edits:
            change = replace(change, seen=Seen(record.incarnation, record.version))
        return Edit(change if change.edits or self._new else None, self._new, after)

    def _appended(self) -> tuple[RunRecord, ...]:
        return tuple([run.to_record() for run in self._new])

    def _shown_from(self, hidden: list[KnownRun]) -> tuple[int, list[KnownRun]]:
        """Return the position from which the conversation is to be loaded, and the runs to be hidden one by one.

        A run that others appended is never hidden by its position: the driver has not seen it.
        """
        state, diff = self._state, self._diff
        shown, hide = state.shown_from, list[KnownRun]()
        if hidden and not (state.is_window and diff.runs):  # what leaves a window in front is left out by `last` already
            last = max(known.position for known in hidden)
            first = min([last + 1, state.unseen, *self._kept])
            shown, hide = (first, hide) if first > last else (shown, hidden)
        if self._kept and min(self._kept) < shown:  # hidden ones were put back: those behind them stay hidden
            shown = min(self._kept)
            hide = [*hide, *[known for known in diff.detached if shown <= known.position < state.shown_from]]
        return shown, hide

    # what is stored

    def _look(self) -> tuple[ConversationRecord, dict[str, Json]]:
        conversation = self._uow.conversations.get(self._id)
        record = cast(ConversationRecord, conversation.record)
        if record.incarnation != self._state.incarnation:
            raise StaleStateError
        return record, conversation.metadata

    def _read(self, positions: list[int]) -> None:
        sources = [write.before for write in self._diff.write.values() if write.before]
        if positions:
            first, last = min([*positions, *sources]), max([*positions, *sources])
            self._add(self._uow.runs.list(self._id, after=first - 1, before=last + 1))

    def _add(self, runs: list[Run]) -> None:
        self._stored.update({cast(int, run.position): run for run in runs})

    def _check(self, remove: list[KnownRun], hide: list[KnownRun]) -> None:
        """Check that each run to be touched is still where the driver knows it to be."""
        known = {each.position: each for each in (*self._state.runs, *self._state.detached)}
        written = {at for slot, write in self._diff.write.items() for at in (slot, write.before) if at}
        needed = written | {each.position for each in hide}
        for at in needed | {each.position for each in remove}:
            stored = self._stored.get(at)
            if (stored is None and at in needed) or (stored and self._codec.to_theirs(stored).id != known[at].id):
                raise StaleStateError

    def _written(self) -> dict[int, Run]:
        """Return the runs that replace others, by position."""
        written: dict[int, Run] = {}
        for at, write in self._diff.write.items():
            stored = self._stored[at]
            ours = marks.in_place_of(self._content(write), stored, self._created_at)
            if ours.to_record(at)._replace(created_at=0) != stored.to_record(at)._replace(created_at=0):
                written[at] = ours
        return written

    def _content(self, write: Write) -> Run:
        before = self._stored[write.before] if write.before else None
        if before is not None and not write.is_edited:
            return before
        ours = self._codec.to_ours(write.run)
        return ours if before is None else replace(ours, created_at=before.created_at)

    # the mark

    def _loses_mark(self, removed: list[int]) -> bool:
        return self._state.shown_from > 0 and any(marks.has_mark(self._stored[at], self._created_at) for at in removed)

    def _mark_stored(self, after: MemoryState, removed: list[int], written: dict[int, Run]) -> None:
        """Write the mark into a stored run: the last known one that stays, or a later one that has a mark already."""
        places = {known.position for known in (*after.runs, *after.detached)} - {0, *removed}
        if not places:
            return
        place = max(places)
        self._add(self._uow.runs.list(self._id, after=place - 1))
        if place not in self._stored:
            raise StaleStateError
        marked = [at for at, run in self._stored.items() if at > place and marks.has_mark(run, self._created_at)]
        place = max([place, *[at for at in marked if at not in removed]])
        run = written.get(place, self._stored[place])
        written[place] = marks.mark(run, self._created_at, after.shown_from)
