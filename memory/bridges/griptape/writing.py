"""The change of a conversation that a plan comes to: what is appended needs no reading, what is edited is read before."""

import logging
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

from memory.bridges.griptape.artifacts import Codec, to_json
from memory.bridges.griptape.comparing import Plan
from memory.bridges.griptape.snapshots import GONE, Item, View
from memory.changes import Change, Seen
from memory.domain import ConversationRecord, Run, encode_metadata
from memory.errors import InvalidValueError
from memory.formats.griptape import SHOWN_FROM
from memory.unit_of_work import UnitOfWork
from memory.values import Json, encode

Trimmed: TypeAlias = Literal["hidden", "deleted"]
"""What becomes of runs that ``max_runs`` takes out of a memory: they stay in the store and are not loaded again, or they go."""

# How runs are hidden. Who loads a conversation is shown it from the ``position`` in a run's mark on; 0: from that run on. The
# last run with a mark decides. It is written with the run, so hiding costs no edit, and conflicts with nobody. ``of`` is when the
# conversation was made: to another one, made under the same id meanwhile, the mark says nothing.

_log = logging.getLogger("memory")


class MisplacedError(Exception):
    """Other runs stand where those of a plan were known to be, or none: nothing of it may be written."""


class Writing:
    """One attempt to write what a snapshot changes.

    Attributes:
        new: the runs to be appended, as they are stored.
        placed: the runs of the snapshot with the positions they will have, None for each of ``new``; it is None where the
            plan's ``items`` are.
        mark: the mark that is written, in the first of ``new`` or at a position; None for none.
    """

    def __init__(
        self,
        uow: UnitOfWork,
        conversation_id: str,
        codec: Codec,
        *,
        view: View | None,
        plan: Plan,
        trimmed: Trimmed,
        created_at: int,
    ) -> None:
        self._uow = uow
        self._id = conversation_id
        self._codec = codec
        self._view = view
        self._plan = plan
        self._trimmed = trimmed
        self._created_at = created_at
        self.new = [codec.to_ours(run) for run in plan.append]
        self.placed = plan.items
        self.mark: tuple[int, int | None] | None = None

    def creation(self, meta: dict[str, Json], at: int) -> Change:
        """Return the change that makes the conversation, with the new runs."""
        record = ConversationRecord(self._id, metadata_text(meta), 1, "", 0, 0, at, at, None)
        return Change(self._id, create=record, append=self._appended())

    def change(self, meta: dict[str, Json]) -> tuple[Change | None, Seen | None]:
        """Return the change, None if there is none; and what was read of the conversation for it.

        Raises:
            NotFoundError: there is no such conversation.
            MisplacedError: its runs are not where they were known to be.
        """
        self._mark_new()
        deleted = self._plan.trimmed if self._trimmed == "deleted" else {}
        marks = self._marks()
        base = self._view.meta if self._view is not None else {}
        if not (self._plan.touched or deleted or marks or _differs(meta, base)):
            return (Change(self._id, append=self._appended()) if self.new else None), None
        conversation = self._uow.conversations.get(self._id)
        record = cast(ConversationRecord, conversation.record)
        seen = Seen(record.incarnation, record.version)
        if self._view is not None and self._view.incarnation != seen.incarnation:
            return None, seen  # another conversation by now: nothing of what is known is in it
        stored = self._stored([*self._plan.touched, *deleted, *marks])
        self._check_places(stored, deleted, marks)
        removed = [at for at in {**self._plan.remove, **deleted} if at in stored]
        if not self._shows_anew:
            marks = self._carried([stored[at] for at in sorted(removed)])
            stored |= self._stored([at for at in marks if at not in stored])
            self._check_places(stored, {}, marks)
        replaced = self._replaced(stored, marks)
        metadata = metadata_text(merged(base, meta, conversation.metadata))
        change = Change(
            self._id,
            append=self._appended(),
            metadata=None if metadata == record.metadata else metadata,
            remove_runs=tuple(sorted(removed)),
            replace_runs=tuple([replaced[at].to_record(at) for at in sorted(replaced)]),
        )
        if change.edits:
            return replace(change, seen=seen), seen
        return (change if self.new else None), seen

    def _appended(self) -> tuple[Any, ...]:
        return tuple([run.to_record() for run in self.new])

    # what is hidden

    @property
    def _shows_anew(self) -> bool:
        """Whether loads are to begin elsewhere: runs were let go, or hidden ones were put back."""
        plan = self._plan
        if plan.first_kept is not None and plan.first_kept < plan.shown:
            return True
        # What a window left out was not seen: it is not to disappear with what was.
        complete = self._view is not None and self._view.complete
        return self._trimmed == "hidden" and bool(plan.trimmed) and complete

    def _mark_new(self) -> None:
        if self._shows_anew and self.new:
            self._mark_first(self._plan.first_kept or 0)

    def _mark_first(self, shown: int) -> None:
        self.new[0], self.mark = _marked(self.new[0], self._mark(shown)), (shown, None)

    def _marks(self) -> dict[int, Json]:
        """Return where a mark has to be put into a stored run, because there is no new one: at the last that is known."""
        if not self._shows_anew or self.new or not (last := self._last_place(self._plan.remove)):
            return {}
        return self._mark_at(last, self._plan.first_kept or last + 1)

    def _mark_at(self, position: int, shown: int) -> dict[int, Json]:
        self.mark = shown, position
        return {position: self._mark(shown)}

    def _carried(self, removed: list[Run]) -> dict[int, Json]:
        """Let a mark not go with the run that has it: put it into a new one, or return where it is to be."""
        decides = self._view.marked_at if self._view is not None else GONE  # those before it say nothing any more
        shown = shown_from([run for run in removed if cast(int, run.position) >= decides], self._created_at)
        if not shown:
            return {}
        if self.new:
            self._mark_first(shown)
            return {}
        last = self._last_place([cast(int, run.position) for run in removed])
        return self._mark_at(last, shown) if last else {}

    def _last_place(self, removed: Container[int]) -> int:
        """Return the last position that is known here and stays, or was marked here: a mark there is the last of ours."""
        places = [item.position for item in self.placed or ()]
        places += [each.position for each in self._plan.let_go]
        if self._view is not None:
            places += [*self._view.positions, *[each.position for each in self._view.let_go], self._view.marked_at]
        return max([at for at in places if at and at not in removed], default=GONE)

    def _mark(self, shown: int) -> Json:
        return {"position": shown, "of": self._created_at}

    # what is edited

    def _stored(self, positions: list[int]) -> dict[int, Run]:
        if not positions:
            return {}
        runs = self._uow.runs.list(self._id, after=min(positions) - 1, before=max(positions) + 1)
        return {cast(int, run.position): run for run in runs}

    def _check_places(self, stored: Mapping[int, Run], deleted: Mapping[int, str], marks: Mapping[int, Json]) -> None:
        """Trust no position: what stands there has to be the run that is known, whoever said that it is there."""
        plan = self._plan
        needed = {at for slot, (_, before) in plan.replace.items() for at in (slot, before) if at is not None}
        keys = {**{at: plan.keys[at] for at in needed}, **plan.remove, **deleted}
        others = any(stored[at].id != key for at, key in keys.items() if at in stored)
        if others or not stored.keys() >= {*needed, *marks}:
            raise MisplacedError

    def _replaced(self, stored: Mapping[int, Run], marks: Mapping[int, Json]) -> dict[int, Run]:
        """Return the runs that are to stand where others do."""
        replaced: dict[int, Run] = {}
        for at, (item, before) in self._plan.replace.items():
            source = stored[at if before is None else before]
            run = unmarked(source) if item is None else self._content(item, source)
            run = _marked(run, stored[at].metadata.get(SHOWN_FROM))
            if item is not None:
                self._place(at, run.id)
            if run.to_record(at)._replace(created_at=0) != stored[at].to_record(at)._replace(created_at=0):
                replaced[at] = run
        for at, mark in marks.items():
            replaced[at] = _marked(replaced.get(at, stored[at]), mark)
        return replaced

    def _content(self, item: Item, source: Run) -> Run:
        if item.position is not None and not item.changed and source.id == item.key:
            return unmarked(source)
        run = self._codec.to_ours(item.run)
        return replace(run, created_at=source.created_at) if run.id == source.id else run

    def _place(self, at: int, key: str) -> None:
        self.placed = [Item(each.run, at, key) if each.position == at else each for each in self.placed or ()]


def metadata_text(metadata: dict[str, Json]) -> str:
    """Return the text of a conversation's metadata; what no store can keep is kept as text, with a warning in the log."""
    try:
        return encode_metadata(metadata)
    except InvalidValueError as error:
        _log.warning("a part of the conversation's metadata cannot be stored, and is kept as text: %s", error)
    return encode_metadata(
        {key: value if _is_storable({key: value}) else str(value) for key, value in metadata.items()}
    )


def _is_storable(metadata: dict[str, Json]) -> bool:
    try:
        encode_metadata(metadata)
    except InvalidValueError:
        return False
    return True


def metadata_of(meta: Mapping[str, Any]) -> dict[str, Json]:
    """Return what Griptape calls a conversation's metadata, as JSON."""
    try:
        return cast("dict[str, Json]", to_json(dict(meta)))
    except Exception as error:  # noqa: BLE001  # whatever a class does: the runs are to be written all the same
        _log.warning("a part of the conversation's metadata has no JSON, and is kept as text: %s", error)
        return {str(key): str(value) for key, value in meta.items()}


def merged(base: dict[str, Json], ours: dict[str, Json], theirs: dict[str, Json]) -> dict[str, Json]:
    """Return metadata with what one memory has changed since it had ``base``; what others changed stays.

    >>> merged({"a": 1, "b": 1}, {"a": 2}, {"a": 1, "b": 1, "c": 1})
    {'a': 2, 'c': 1}
    """
    kept = {key: value for key, value in theirs.items() if key in ours or key not in base}
    return kept | {key: value for key, value in ours.items() if key not in base or _differs(value, base[key])}


def _differs(one: Json, other: Json) -> bool:
    try:
        return encode(one, "") != encode(other, "")
    except InvalidValueError:
        return repr(one) != repr(other)


def _marked(run: Run, mark: Json) -> Run:
    return run if mark is None else replace(run, metadata={**run.metadata, SHOWN_FROM: mark})


def unmarked(run: Run) -> Run:
    """Return the run without the mark that says what is shown."""
    if SHOWN_FROM not in run.metadata:
        return run
    return replace(run, metadata={key: value for key, value in run.metadata.items() if key != SHOWN_FROM})


def shown_from(runs: list[Run], created_at: int) -> int:
    """Return the position from which these runs are shown, as the last mark among them says; 0 if there is none.

    Args:
        runs: with or without those that are hidden.
        created_at: when their conversation was made, in microseconds since 1970.
    """
    for run in reversed(runs):
        mark = run.metadata.get(SHOWN_FROM)
        if isinstance(mark, dict) and mark.get("of") == created_at and isinstance(shown := mark.get("position"), int):
            return shown or cast(int, run.position)
    return 0
