"""The unit of work, with an identity map and dirty checking, implemented once for all repositories.

Reads see the unit of work's own pending changes. No database transaction is open before the commit.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

from memory.core.identity_map import Session
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.values import new_id
from memory.errors import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConflictError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
)
from memory.port.changes import ALL_RUNS, ChangeSet, Receipt
from memory.port.paging import Order, Page, Query
from memory.port.repository import JoinedRepository, Repository, Window

RunList: TypeAlias = list[Run]  # because `list` is a method of `Runs`
_PAGE = 200  # runs that `iterate` reads at a time


class UnitOfWork:
    """A unit of work, which writes all of its changes or none. `Store.begin` returns one.

    In a ``with`` block it commits when the block ends without an exception. It locks nothing: the commit detects writes of
    others. It is not thread-safe.

    Attributes:
        conversations: the conversations, as a collection.
        runs: their runs, by conversation.
    """

    def __init__(
        self,
        repository: Repository,
        namespace: str,
        write: Callable[[ChangeSet], Receipt],
        check_open: Callable[[], object],
    ) -> None:
        self._write = write
        self._session = Session(repository, namespace, check_open)
        self.conversations = Conversations(self._session)
        self.runs = Runs(self._session)

    def commit(self) -> Receipt:
        """Write all pending changes, and update the conversations' versions. The unit of work can be used further.

        Raises:
            ConflictError: someone else changed a conversation that was read and changed here.
            NotFoundError: a changed conversation, or an edited run, does not exist.
            AlreadyExistsError: the id of an added conversation exists; `ConflictError` instead, if this unit of work looked for
                it before and did not find it.
            InvalidValueError: the metadata contains something that is not JSON; the message has the path.
            StoreUnavailableError: the store could not be reached. After this and all errors above, nothing was written.
            CommitInDoubtError: the store's response was lost, and the outcome is unknown. The unit of work has ended.
            PartialCommitError: a store without transactions wrote a part; ``store.commit(error.changes)`` resumes it. The unit
                of work has ended.
        """
        session = self._session
        session.check_open()
        at = session.repository.clock()
        pending = [(change, tracked) for tracked in session.all_tracked() if (change := tracked.change(at)) is not None]
        if not pending:
            return Receipt(new_id(), {})
        changes = ChangeSet.of([change for change, _ in pending], at)
        try:
            receipt = self._write(changes)
        except (CommitInDoubtError, PartialCommitError):
            session.end(in_doubt=True)  # parts may be written, and must not be written again with another token
            raise
        except AlreadyExistsError as error:
            if not any(tracked.was_absent and tracked.id == error.conversation_id for _, tracked in pending):
                raise
            raise ConflictError(
                f"conversation {error.conversation_id!r} was added by someone else since this unit of work looked for it: "
                "repeat the work"
            ) from error
        if isinstance(session.repository, JoinedRepository):
            for _, tracked in pending:
                if (conversation := tracked.conversation) is not None:
                    session.repository.after_rollback(partial(conversation.written, conversation.record))
        for change, tracked in pending:
            tracked.committed(change, receipt.written[change.id], at)
        return receipt

    def rollback(self) -> None:
        """Discard all pending changes and everything that was read."""
        self._session.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._session.is_in_doubt:
                self.commit()
        finally:
            self._session.end()


class Conversations:
    """The conversations of a unit of work, as a collection."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, conversation: Conversation) -> None:
        """Add a new conversation.

        Raises:
            InvalidValueError: its metadata is not JSON, or ``expires_at`` is not an aware ``datetime``.
            AlreadyExistsError: this unit of work has already read or added its id. If only the store has it, the commit raises.
        """
        if not isinstance(conversation, Conversation):
            raise InvalidValueError(f"add() takes a Conversation, not a {type(conversation).__name__}")
        self._session.tracked(conversation.id).add(conversation)

    def get(self, conversation_id: str) -> Conversation:
        """Return the conversation, always the same object in this unit of work. The commit writes changes of it.

        Raises:
            NotFoundError: the conversation does not exist or has expired.
        """
        tracked = self._session.tracked(conversation_id)
        if tracked.conversation is None and not tracked.is_removed:
            found = self._session.repository.get(self._session.namespace, conversation_id)
            if found is None:
                tracked.was_absent = True
            else:
                tracked.attach(found)
        if tracked.conversation is None:
            raise NotFoundError(f"there is no conversation {conversation_id!r}")
        return tracked.conversation

    def find(
        self,
        criterion: Criterion | None = None,
        *,
        order: str = "-updated_at",
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Conversation]:
        """Return a page of the committed conversations that match; pending changes of this unit of work are ignored.

        A conversation that this unit of work read before is returned as the same object, with its pending changes.

        Args:
            criterion: made with `where`; default: all conversations.
            order: ``updated_at``, ``created_at``, ``id``, or a metadata path such as ``metadata.priority``, with a ``-`` in front
                for descending order; ties are broken by id. An order by a path returns only conversations that have the path.
            limit: the most conversations in the page, at least 1.
            after: the ``cursor`` of the previous page.

        Raises:
            InvalidValueError: an argument is not valid, or the cursor belongs to another order.
        """
        session = self._session
        session.check_open()
        page = session.repository.find(session.namespace, Query.parse(criterion, order, limit, after))
        return Page(tuple([session.tracked(found.id).resolve(found) for found in page.items]), page.cursor)

    def iterate(self, criterion: Criterion | None = None, *, order: str = "id") -> Iterator[Conversation]:
        """Yield all committed conversations that match, page by page. Each that exists throughout is yielded once.

        The commit writes changes made to a conversation in its step of the loop, and later ones if the application still
        references the object. Otherwise the conversation is released after its step: keep a reference if you edit its runs
        later.

        Args:
            criterion: made with `where`; default: all conversations.
            order: as for `find`. In an order by ``updated_at``, conversations move while others write. All ids are therefore
                held in memory, and a descending iteration ends with the conversations that moved to its front.

        Raises:
            InvalidValueError: as for `find`.
        """
        if Order.parse(order).field != "updated_at":
            yield from self._walk(criterion, order, None)
            return
        seen: set[str] = set()
        yield from self._walk(criterion, order, seen)
        if order.startswith("-"):
            # Conversations written meanwhile moved behind this walk. An ascending walk cannot miss any.
            yield from self._walk(criterion, "updated_at", seen)

    def _walk(self, criterion: Criterion | None, order: str, seen: set[str] | None) -> Iterator[Conversation]:
        session, cursor = self._session, None
        limit = session.repository.iterate_page
        while True:
            session.check_open()
            page = session.repository.find(session.namespace, Query.parse(criterion, order, limit, cursor))
            for found in page.items:
                if seen is not None:
                    if found.id in seen:
                        continue
                    seen.add(found.id)
                is_new = not session.is_tracked(found.id)  # otherwise the version read before must be kept
                yield session.tracked(found.id).resolve(found)
                if is_new:
                    session.release(session.tracked(found.id))
            if (cursor := page.cursor) is None:
                return

    def count(self, criterion: Criterion | None = None) -> int:
        """Return the number of committed conversations that match; without a criterion, of all.

        Raises:
            InvalidValueError: the criterion is not valid.
        """
        self._session.check_open()
        query = Query.parse(criterion, "id", 1, None)
        return self._session.repository.count(self._session.namespace, query.criterion)

    def remove(self, conversation: Conversation | str) -> None:
        """Remove a conversation, given as an id or an object, and its runs.

        If this unit of work has read anything of it, the commit raises `ConflictError` if it was changed since, or if a run was
        appended.

        Raises:
            NotFoundError: this unit of work has already removed it. If it is not in the store, the commit raises.
        """
        if isinstance(conversation, Conversation):
            self._session.tracked(conversation.id).resolve(conversation)
            conversation = conversation.id
        self._session.tracked(conversation).remove()

    def __contains__(self, conversation_id: str) -> bool:
        try:
            self.get(conversation_id)
        except NotFoundError:
            return False
        return True


class Runs:
    """The runs of conversations, by the conversation's id. Reads include the unit of work's own pending changes.

    Runs are ordered by position. Pending runs come last and have no position yet. A conversation that does not exist has no
    runs.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def append(self, conversation_id: str, *runs: Run, after: int | None = None) -> None:
        """Append runs. They get their positions at the commit, and never conflict with other appends.

        Args:
            conversation_id: the id of a conversation in the store, or added in this unit of work.
            runs: the runs in order; their positions are ignored.
            after: the expected last position (0: no run yet); if the conversation has another one, the commit raises
                `ConflictError`. Without runs, it is the expected last position for a removal: see `Conversations.remove`.

        Raises:
            InvalidValueError: a run contains something that cannot be stored.
            NotFoundError: the conversation was removed in this unit of work. If it is not in the store, the commit raises.
        """
        for run in runs:
            if not isinstance(run, Run):
                raise InvalidValueError(f"append() takes Runs, not a {type(run).__name__}")
        if after is not None and (type(after) is not int or after < 0):
            raise InvalidValueError(f"after must be a position, or 0 for no run, not {after!r}")
        self._session.tracked(conversation_id).append([run.to_record() for run in runs], after)

    def last(self, conversation_id: str, n: int) -> RunList:
        """Return the last ``n`` runs, oldest first."""
        return self._read(conversation_id, Window(limit=_check_limit(n), from_end=True))

    def first(self, conversation_id: str, n: int) -> RunList:
        """Return the first ``n`` runs."""
        return self._read(conversation_id, Window(limit=_check_limit(n)))

    def list(
        self, conversation_id: str, *, after: int = 0, before: int | None = None, limit: int | None = None
    ) -> RunList:
        """Return the first ``limit`` runs (default: all) with ``after < position < before``."""
        before = None if before is None else _check_bound(before)
        return self._read(conversation_id, Window(after=_check_bound(after), before=before, limit=_check_limit(limit)))

    def iterate(self, conversation_id: str) -> Iterator[Run]:
        """Yield all runs, in constant memory."""
        after = 0
        while True:
            runs = self.list(conversation_id, after=after, limit=_PAGE)
            yield from runs
            if len(runs) < _PAGE or runs[-1].position is None:
                # No stored runs are left. A full page may have cut off some pending ones.
                pending = self._session.tracked(conversation_id).appended
                yield from pending[sum(run.position is None for run in runs) :]
                return
            after = runs[-1].position

    def get(self, conversation_id: str, position: int) -> Run:
        """Return the run at a position.

        Raises:
            NotFoundError: the run does not exist.
        """
        _check_position(position)
        runs = self.list(conversation_id, after=position - 1, before=position + 1)
        if not runs:
            raise NotFoundError(f"conversation {conversation_id!r} has no run at position {position}")
        return runs[0]

    def replace(self, conversation_id: str, run: Run) -> None:
        """Replace the run at ``run.position``. Make the new run from the old one with `dataclasses.replace`.

        If this unit of work has read anything of the conversation, the commit raises `ConflictError` if it was changed since.

        Raises:
            InvalidValueError: the run has no position, or contains something that cannot be stored.
            NotFoundError: the run was removed in this unit of work. If it is not in the store, the commit raises.
        """
        if not isinstance(run, Run):
            raise InvalidValueError(f"replace() takes a Run, not a {type(run).__name__}")
        self._session.tracked(conversation_id).replace_run(run.to_record(_check_position(run.position)))

    def remove(self, conversation_id: str, *positions: int, before: int | None = None) -> None:
        """Remove the runs at these positions, or all runs before a position. Conflicts are detected as for `replace`.

        Raises:
            InvalidValueError: a position is not valid.
            NotFoundError: the conversation was removed in this unit of work. If a run is not in the store, the commit raises.
        """
        tracked = self._session.tracked(conversation_id)
        if before is not None:
            tracked.remove_runs_before(_check_position(before))
        tracked.remove_runs([_check_position(position) for position in positions])

    def clear(self, conversation_id: str) -> None:
        """Remove all runs, including pending ones. Positions are not reused. Conflicts are as for `Conversations.remove`.

        Raises:
            NotFoundError: the conversation was removed in this unit of work. If it is not in the store, the commit raises.
        """
        self._session.tracked(conversation_id).clear_runs()

    def _read(self, conversation_id: str, window: Window) -> RunList:
        tracked = self._session.tracked(conversation_id)
        wanted = window.limit
        pending = tracked.appended if window.before is None else []
        if wanted is not None and window.from_end:
            wanted = max(0, wanted - len(pending))
        stored: RunList = []
        if tracked.is_stored and wanted != 0:
            # Read additional runs in place of those that this unit of work removes.
            after = max(window.after, min(tracked.removed_before, ALL_RUNS) - 1)
            limit = None if wanted is None else wanted + len(tracked.removed_runs)
            wider = Window(after=after, before=window.before, limit=limit, from_end=window.from_end)
            read = self._session.repository.runs(self._session.namespace, conversation_id, wider)
            tracked.record_read(read.seen, read.last_position)
            stored = tracked.overlay(read.runs)
            if wanted is not None:
                stored = stored[-wanted:] if window.from_end else stored[:wanted]
        together = [*stored, *pending]
        if window.limit is None:
            return together
        return together[-window.limit :] if window.from_end and window.limit else together[: window.limit]


def _check_limit(limit: int | None) -> int | None:
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidValueError(f"a number of runs must be an int from 0, not {limit!r}")
    return None if limit is None else min(limit, ALL_RUNS)  # within the integer range of every store


def _check_bound(position: int) -> int:
    if type(position) is not int:
        raise InvalidValueError(f"a position must be an int, not {position!r}")
    return max(0, min(position, ALL_RUNS))


def _check_position(position: object) -> int:
    if type(position) is not int or not 1 <= position <= ALL_RUNS:
        raise InvalidValueError(f"a position must be an int from 1, not {position!r}")
    return position
