"""The runs of conversations. Runs are ordered by position; pending ones come last, and have no position yet."""

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeAlias

from memory.core.faces import Item, Items, Steps, immediate, iteration, operation
from memory.core.identity_map import TrackedConversation, check_ids, id_of
from memory.core.session import Session
from memory.domain.entities import Conversation, M, Run
from memory.domain.records import encode_metadata
from memory.domain.values import check_id, encode, to_microseconds
from memory.errors import InvalidValueError, NotFoundError
from memory.port.changes import ALL_RUNS, Completion
from memory.port.repository import OpenRun, RunsRead, Window

Of: TypeAlias = "Conversation[Any] | str"
"""A conversation, or its id."""

At: TypeAlias = int | Run
"""A position, or the run that has it."""

RunList: TypeAlias = list[Run]  # because `list` is a method
_PAGE: Final = 200  # runs that `iterate` reads at a time


class ReadingRuns(Generic[M]):
    """Read runs, by conversation or its id. In a unit of work, reads include its own pending changes.

    A conversation that does not exist has no runs.
    """

    def __init__(self, session: Session[M]) -> None:
        self._session = session

    @operation
    def last(self, conversation: Of, n: int, *, before: At | None = None) -> Steps[RunList]:
        """Return the last ``n`` runs, oldest first; those before a position, or before a run, to page backwards.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> with store.begin() as uow:
        ...     uow.conversations.add(memory.Conversation("support-42"))
        ...     uow.runs.append("support-42", *[memory.Run(f"Question {n}", f"Answer {n}") for n in range(1, 6)])
        >>> shown = store.runs.last("support-42", 2)
        >>> [run.input for run in store.runs.last("support-42", 2, before=shown[0])]
        ['Question 2', 'Question 3']
        """
        before = None if before is None else _check_bound(before)
        return self._read(conversation, Window(before=before, limit=_check_limit(n), from_end=True))

    @operation
    def first(self, conversation: Of, n: int) -> Steps[RunList]:
        """Return the first ``n`` runs."""
        return self._read(conversation, Window(limit=_check_limit(n)))

    @operation
    def list(
        self, conversation: Of, *, after: At = 0, before: At | None = None, limit: int | None = None
    ) -> Steps[RunList]:
        """Return the first ``limit`` runs (default: all) with ``after < position < before``, given as positions or runs."""
        before = None if before is None else _check_bound(before)
        limit = None if limit is None else _check_limit(limit)
        return self._read(conversation, Window(after=_check_bound(after), before=before, limit=limit))

    @operation
    def last_of(self, conversations: Iterable[Of], n: int) -> Steps[dict[str, RunList]]:
        """Return the last ``n`` runs of each of these conversations, oldest first, by the conversation's id.

        SQL and Redis read them in one request. A conversation that does not exist has an empty list.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> with store.begin() as uow:
        ...     uow.conversations.add(memory.Conversation("support-42"))
        ...     uow.runs.append("support-42", memory.Run("Where is my refund?", "It left on Monday."))
        >>> last = store.runs.last_of(store.conversations.find(), 1)
        >>> last["support-42"][0].output
        'It left on Monday.'
        """
        session, limit = self._session, _check_limit(n)
        yield from session.prepare()
        tracked = {id: session.tracked(id) for id in map(id_of, check_ids(conversations))}
        unchanged = [id for id, one in tracked.items() if one.change(0) is None]
        found: dict[str, RunsRead] = {}
        if unchanged and limit:
            found = yield partial(session.repository.last_runs, session.namespace, unchanged, limit)
        runs: dict[str, RunList] = {}
        for id, one in tracked.items():
            if id in found:
                one.record_read(found[id].seen, found[id].last_position)
                runs[id] = [*found[id].runs]
            else:
                runs[id] = yield from self._read(id, Window(limit=limit, from_end=True))
        return runs

    @iteration
    def iterate(self, conversation: Of) -> Items[Run]:
        """Yield all runs, in constant memory."""
        after = 0
        while True:
            runs = yield from self._read(conversation, Window(after=after, limit=_PAGE))
            yield from map(Item, runs)
            if len(runs) < _PAGE or runs[-1].position is None:
                # No stored runs are left. A full page may have cut off some pending ones.
                pending = self._session.tracked(id_of(conversation)).appended
                yield from map(Item, pending[sum(run.position is None for run in runs) :])
                return
            after = runs[-1].position

    @operation
    def get(self, conversation: Of, position: At) -> Steps[Run]:
        """Return the run at a position. Given a run, read again what is at its position.

        Raises:
            NotFoundError: the run does not exist.
        """
        position = _check_position(position)
        runs = yield from self._read(conversation, Window(after=position - 1, before=position + 1))
        if not runs:
            id = id_of(conversation)
            raise NotFoundError(f"conversation {id!r} has no run at position {position}", conversation_id=id)
        return runs[0]

    @operation
    def open(self, *, before: datetime | None = None, limit: int = 50) -> Steps[tuple[OpenRun, ...]]:
        """Return the open runs of all conversations of the namespace, the oldest first: those without a final output.

        Pending changes of this unit of work are ignored.

        Args:
            before: only those with an earlier ``created_at``, for instance ten minutes ago: their process may have crashed.
            limit: the most runs to return.
        """
        session = self._session
        yield from session.prepare()
        until = None if before is None else to_microseconds(before, "before")
        found: tuple[OpenRun, ...] = yield partial(
            session.repository.open_runs, session.namespace, until, _check_limit(limit)
        )
        return found

    def _read(self, conversation: Of, window: Window) -> Steps[RunList]:
        session = self._session
        yield from session.prepare()
        tracked = session.tracked(id_of(conversation))
        wanted = window.limit
        pending = tracked.appended if window.before is None else []
        if wanted is not None and window.from_end:
            wanted = max(0, wanted - len(pending))
        stored: RunList = []
        if tracked.is_stored and wanted != 0:
            read = yield partial(
                session.repository.runs, session.namespace, tracked.id, _wider(window, wanted, tracked)
            )
            tracked.record_read(read.seen, read.last_position)
            stored = tracked.overlay(read.runs)
            if wanted is not None:
                stored = stored[-wanted:] if window.from_end else stored[:wanted]
        together = [*stored, *pending]
        if window.limit is None:
            return together
        return together[-window.limit :] if window.from_end and window.limit else together[: window.limit]


class WritingRuns(ReadingRuns[M]):
    """The runs of conversations in a unit of work."""

    @immediate
    def append(self, conversation: Of, *runs: Run, after: At | None = None) -> None:
        """Append runs. They never conflict with other appends. The commit sets their positions.

        Args:
            conversation: a conversation in the store, or added in this unit of work.
            runs: the runs in order; their positions are ignored.
            after: the expected last position or run (0: no run yet); if the conversation has another one, the commit raises
                `ConflictError`. Without runs, it is the expected last position for a removal: see `Conversations.remove`.

        Raises:
            InvalidValueError: a run contains something that cannot be stored.
            NotFoundError: the conversation was removed in this unit of work. If it is not in the store, the commit raises.
        """
        for run in runs:
            _check_run(run, "append")
        expected = None if after is None else _check_expected(after)
        default = self._session.serializer.default
        self._session.tracked(id_of(conversation)).append([(run, run.to_record(0, default)) for run in runs], expected)

    @immediate
    def complete(
        self,
        conversation: Of,
        run_id: str,
        *,
        output: Any,
        metadata: dict[str, Any] | None = None,
        is_final: bool = True,
    ) -> None:
        """Set the output of an open run, found by its id. It never conflicts, and the conversation's version stays as it is.

        Args:
            conversation: the conversation.
            run_id: the `Run.id` of a run that was appended with `PENDING` as its output, or with ``is_open``.
            output: the output.
            metadata: new metadata of the run; default: it keeps what it has.
            is_final: if false, the run stays open, and can be completed again: for a stream.

        Raises:
            InvalidValueError: the output or the metadata cannot be stored.
            NotFoundError: the conversation, or the run, is known not to be there. If the store has no such open run, the commit
                raises.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> prompt = memory.Run("Where is my refund?", memory.PENDING)
        >>> with store.begin() as uow:
        ...     uow.conversations.add(memory.Conversation("support-42"))
        ...     uow.runs.append("support-42", prompt)
        >>> with store.begin() as uow:
        ...     uow.runs.complete("support-42", prompt.id, output="It left on Monday.")
        >>> store.runs.get("support-42", prompt.position).output
        'It left on Monday.'
        """
        if type(is_final) is not bool:
            raise InvalidValueError(f"is_final must be a bool, not {is_final!r:.60}")
        default = self._session.serializer.default
        texts = encode(output, "output", default), None if metadata is None else encode_metadata(metadata, default)
        completion = Completion(check_id(run_id, "the run's id"), *texts, not is_final)
        self._session.tracked(id_of(conversation)).complete(completion)

    @immediate
    def replace(self, conversation: Of, run: Run) -> None:
        """Replace the run at ``run.position``. Make the new run from the old one with `dataclasses.replace`.

        If this unit of work has read anything of the conversation, the commit raises `ConflictError` if it was changed since.

        Raises:
            InvalidValueError: the run has no position, or contains something that cannot be stored.
            NotFoundError: the run was removed in this unit of work. If it is not in the store, the commit raises.
        """
        _check_run(run, "replace")
        record = run.to_record(_check_position(run.position), self._session.serializer.default)
        self._session.tracked(id_of(conversation)).replace_run(record)

    @immediate
    def remove(self, conversation: Of, *positions: At, before: At | None = None, after: At | None = None) -> None:
        """Remove the runs at these positions, all before a position, or all after one. Conflicts are as for `replace`.

        A run can be given in the place of its position.

        If all runs after a position are removed, the commit also raises `ConflictError` if a run was appended since the
        conversation was read.

        Raises:
            InvalidValueError: a position is not valid.
            NotFoundError: the conversation was removed in this unit of work. If a run is not in the store, the commit raises.
        """
        tracked = self._session.tracked(id_of(conversation))
        if before is not None:
            tracked.remove_runs_before(_check_position(before))
        if after is not None:
            tracked.remove_runs_after(0 if after == 0 and type(after) is int else _check_position(after))
        tracked.remove_runs([_check_position(position) for position in positions])

    @immediate
    def clear(self, conversation: Of) -> None:
        """Remove all runs, including pending ones. Positions are not reused. Conflicts are as for `Conversations.remove`.

        Raises:
            NotFoundError: the conversation was removed in this unit of work. If it is not in the store, the commit raises.
        """
        self._session.tracked(id_of(conversation)).clear_runs()


def _wider(window: Window, wanted: int | None, tracked: TrackedConversation[Any]) -> Window:
    """Return a window with additional runs, in place of those that the unit of work removes."""
    after = max(window.after, min(tracked.removed_before, ALL_RUNS) - 1)
    before = window.before
    if tracked.removed_after is not None:
        before = min(tracked.removed_after + 1, ALL_RUNS if before is None else before)
    limit = None if wanted is None else wanted + len(tracked.removed_runs)
    return window._replace(after=after, before=before, limit=limit)


def _check_run(run: object, method: str) -> None:
    if type(run) is not Run:  # a subclass would be read as a Run, without its own fields
        raise InvalidValueError(
            f"{method}() takes a Run, not a {type(run).__name__}: a run's own fields belong in its metadata"
        )


def _check_limit(limit: int) -> int:
    if type(limit) is not int or limit < 0:
        raise InvalidValueError(f"a number of runs must be an int from 0, not {limit!r}")
    return min(limit, ALL_RUNS)  # within the integer range of every store


def _position_of(position: object) -> object:
    return position.position if isinstance(position, Run) else position


def _check_expected(after: At) -> int:
    position = _position_of(after)
    if type(position) is not int or position < 0:
        raise InvalidValueError(f"after must be a position, or 0 for no run, not {position!r}")
    return position


def _check_bound(bound: object) -> int:
    position = _position_of(bound)
    if type(position) is not int:
        raise InvalidValueError(f"a position must be an int, not {position!r}")
    return max(0, min(position, ALL_RUNS))


def _check_position(given: object) -> int:
    position = _position_of(given)
    if type(position) is not int or not 1 <= position <= ALL_RUNS:
        raise InvalidValueError(f"a position must be an int from 1, not {position!r}")
    return position
