"""Turn a `Diff` into the change of a conversation. An append reads nothing; an edit reads the runs that it changes."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

from attrs import define, field

from memory.bridges.griptape import marks
from memory.bridges.griptape.codec import Codec
from memory.bridges.griptape.diff import Diff, Write
from memory.bridges.griptape.metadata import differs, merged, metadata_text
from memory.bridges.griptape.state import KnownRun, MemoryState
from memory.core.unit_of_work import UnitOfWork
from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import Json
from memory.errors import ConflictError
from memory.port.changes import ALL_RUNS, Change, ExpectedVersion

Trimmed: TypeAlias = Literal["hidden", "deleted"]
"""What happens to runs beyond ``max_runs``: ``hidden`` keeps them in the store but does not load them."""


class StaleStateError(ConflictError):
    """The stored runs are no longer at the positions that the driver knows."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(f"runs of conversation {conversation_id!r} were changed by someone else: call store() again")


@dataclass(slots=True)
class Edit:
    """A change (None if nothing is to be written), its new runs, and the state after it, with the new runs at `NEW`."""

    change: Change | None
    new: list[Run]
    state: MemoryState


def create(conversation_id: str, codec: Codec, diff: Diff, metadata: dict[str, Json], at: int) -> Edit:
    """Return the edit that creates a conversation."""
    new = [codec.to_ours(run) for run in diff.append]
    record = ConversationRecord(conversation_id, metadata_text(metadata), 1, "", 0, 0, at, at, None)
    change = Change(conversation_id, create=record, append=tuple([run.to_record() for run in new]))
    state = MemoryState(diff.runs, metadata=metadata, created_at=at, unseen=ALL_RUNS, is_current=True)
    return Edit(change, new, state)


@define(eq=False, slots=False)
class Editing:
    """One edit of an existing conversation; it raises `StaleStateError` if someone else changed the runs to edit."""

    _uow: UnitOfWork
    _id: str
    _codec: Codec
    _state: MemoryState
    _diff: Diff
    _trimmed: Trimmed = field(kw_only=True)
    _stored: dict[int, Run] = field(init=False, factory=dict)
    _new: list[Run] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._created_at = self._state.created_at
        self._new = [self._codec.to_ours(run) for run in self._diff.append]

    def edit(self, metadata: dict[str, Json]) -> Edit:
        state, diff = self._state, self._diff
        trimmed = [known for known in diff.trimmed if known.position]
        hidden, deleted = ([], trimmed) if self._trimmed == "deleted" else (trimmed, [])
        remove = [*[known for known in diff.remove if known.position], *deleted]
        shown, hide = self._shown_from(hidden)
        detached = sorted([*diff.detached, *hidden])
        after = replace(state, runs=diff.runs, detached=detached, metadata=metadata, shown_from=shown)
        if shown != state.shown_from and self._new:
            self._mark_new(shown)
        only_appends = not (diff.write or remove or hide or differs(metadata, state.metadata))
        if only_appends and (self._new or shown == state.shown_from):
            return Edit(Change(self._id, append=self._appended()) if self._new else None, self._new, after)
        return Edit(self._change(after, remove, hide), self._new, after)

    def _change(self, after: MemoryState, remove: list[KnownRun], hide: list[KnownRun]) -> Change | None:
        conversation = self._uow.conversations.get(self._id)
        record = cast(ConversationRecord, conversation.record)
        if record.incarnation != self._state.incarnation:
            raise StaleStateError(self._id)
        self._read(remove, hide)
        written = self._written()
        written |= {known.position: marks.hide(self._stored[known.position], self._created_at) for known in hide}
        removed = [known.position for known in remove if known.position in self._stored]
        is_lost = any(marks.has_mark(self._stored[at], self._created_at) for at in removed) and after.shown_from > 0
        if not self._new and (is_lost or after.shown_from != self._state.shown_from):
            self._mark_stored(after, removed, written)
        elif self._new and is_lost:
            self._mark_new(after.shown_from)
        text = metadata_text(merged(self._state.metadata, after.metadata, conversation.metadata))
        change = Change(
            self._id,
            metadata=None if text == record.metadata else text,
            remove_runs=tuple(sorted(removed)),
            replace_runs=tuple([written[at].to_record(at) for at in sorted(written)]),
            append=self._appended(),
        )
        if change.edits:
            return change._replace(expected=ExpectedVersion(record.incarnation, record.version))
        return change if self._new else None

    def _appended(self) -> tuple[RunRecord, ...]:
        return tuple([run.to_record() for run in self._new])

    def _shown_from(self, hidden: list[KnownRun]) -> tuple[int, list[KnownRun]]:
        """Return the position from which the conversation will be loaded, and the runs to hide one by one.

        The position never hides a run that others appended, because this driver has not seen it.
        """
        state = self._state
        kept = [known.position for known in self._diff.runs if known.position > 0]
        shown, hide = state.shown_from, list[KnownRun]()
        # With ``last=``, trimmed runs need no mark: the next load leaves them out anyway.
        is_left_out = state.is_window and self._diff.runs
        if hidden and not is_left_out:
            last = max(known.position for known in hidden)
            first = min([last + 1, state.unseen, *kept])
            shown, hide = (first, hide) if first > last else (shown, hidden)
        if kept and min(kept) < shown:  # hidden runs were restored; the hidden ones after them stay hidden
            shown = min(kept)
            hide = [*hide, *[known for known in self._diff.detached if shown <= known.position < state.shown_from]]
        return shown, hide

    # reading and writing stored runs

    def _read(self, remove: list[KnownRun], hide: list[KnownRun]) -> None:
        """Read the runs to change, and check that each is still at the position that the driver knows."""
        written = {at for slot, write in self._diff.write.items() for at in (slot, write.before) if at}
        needed = written | {each.position for each in hide}
        touched = needed | {each.position for each in remove}
        if not touched:
            return
        self._add(self._uow.runs.list(self._id, after=min(touched) - 1, before=max(touched) + 1))
        ids = {each.position: each.id for each in (*self._state.runs, *self._state.detached)}
        if not self._stored.keys() >= needed or any(
            self._codec.to_theirs(self._stored[at]).id != ids[at] for at in touched & self._stored.keys()
        ):
            raise StaleStateError(self._id)

    def _add(self, runs: list[Run]) -> None:
        self._stored.update({cast(int, run.position): run for run in runs})

    def _written(self) -> dict[int, Run]:
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

    def _mark_new(self, shown: int) -> None:
        self._new[0] = marks.mark(self._new[0], self._created_at, shown)

    def _mark_stored(self, after: MemoryState, removed: list[int], written: dict[int, Run]) -> None:
        """Write the mark into a stored run: the last known one that is kept, or a later one that already has a mark."""
        places = {known.position for known in (*after.runs, *after.detached)} - {0, *removed}
        if not places:
            return
        place = max(places)
        self._add(self._uow.runs.list(self._id, after=place - 1))
        if place not in self._stored:
            raise StaleStateError(self._id)
        marked = [at for at, run in self._stored.items() if at > place and marks.has_mark(run, self._created_at)]
        place = max([place, *[at for at in marked if at not in removed]])
        run = written.get(place, self._stored[place])
        written[place] = marks.mark(run, self._created_at, after.shown_from)
