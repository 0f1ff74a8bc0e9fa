"""The unit of work: what an application reads and changes between `Store.begin` and the commit.

Written once, over the port: identity map, dirty checking, own changes visible before the commit. No database transaction is
open while an application thinks.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeAlias

from memory.core.identity_map import Session
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
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
from memory.port.repository import Repository, Window

RunList: TypeAlias = list[Run]  # in `Runs`, `list` is a method
_PAGE = 200  # conversations or runs that `iterate` holds at a time


class UnitOfWork:
    """All of it is written, or none. Begin one with `Store.begin`; it commits when its block ends without an exception.

    Not for use by several threads at once. Nothing is locked: what others write meanwhile is noticed at the commit.

    Attributes:
        conversations: the `Conversations` of this unit of work.
        runs: their `Runs`.
    """

    def __init__(
        self,
        repository: Repository,
        namespace: str,
        write: Callable[[ChangeSet], Receipt],
        check_open: Callable[[], object] = lambda: None,
    ) -> None:
        self._write = write
        self._session = Session(repository, namespace, check_open)
        self.conversations = Conversations(self._session)
        self.runs = Runs(self._session)

    def commit(self) -> Receipt:
        """Write all changes so far, and go on; conversations are told their new versions.

        Raises:
            ConflictError: a conversation that was read and changed here was changed by somebody else too.
            NotFoundError: runs were appended to a conversation that is not there, or runs edited that are not.
            AlreadyExistsError: the id of an added conversation is taken; `ConflictError`, if this unit of work looked for it
                before, and found none.
            InvalidValueError: metadata holds something that is not JSON; the message has the path.
            StoreUnavailableError: the store could not be reached. Nothing was written; this holds for all of the above.
            CommitInDoubtError: the store's answer was lost and could not be found out. The unit of work has ended.
            PartialCommitError: a store without transactions wrote a part; ``store.commit(error.changes)`` goes on. Ended too.
        """
        session = self._session
        session.check_open()
        at = session.repository.clock()
        pending = [(change, tracked) for tracked in session.all_tracked() if (change := tracked.change(at)) is not None]
        changes = ChangeSet.of([change for change, _ in pending], at)
        if not pending:
            return Receipt(changes.token, {})
        try:
            receipt = self._write(changes)
        except (CommitInDoubtError, PartialCommitError):
            session.end(in_doubt=True)  # some of it may be written: it is not to be written again under another token
            raise
        except AlreadyExistsError as error:
            if not any(tracked.was_absent and tracked.id == error.conversation_id for _, tracked in pending):
                raise
            raise ConflictError(
                f"conversation {error.conversation_id!r} was added since this unit of work found none: repeat the work"
            ) from error
        for change, tracked in pending:
            tracked.committed(change, receipt.written[change.id], at)
        return receipt

    def rollback(self) -> None:
        """Forget every change and everything read."""
        self._session.forget()

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

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, conversation: Conversation) -> None:
        """Add a new conversation.

        Raises:
            InvalidValueError: its metadata is not JSON, or ``expires_at`` no aware ``datetime``.
            AlreadyExistsError: its id is in this unit of work already; if it is in the store only, the commit says so.
        """
        if not isinstance(conversation, Conversation):
            raise InvalidValueError(f"add() takes a Conversation, not {type(conversation).__name__}")
        self._session.tracked(conversation.id).add(conversation)

    def get(self, conversation_id: str) -> Conversation:
        """Return the conversation; within a unit of work always the same object. Its changes are written at the commit.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        tracked = self._session.tracked(conversation_id)
        if tracked.conversation is None and not tracked.is_removed:
            found = self._session.repository.get(self._session.namespace, conversation_id)
            if found is None:
                tracked.was_absent = True
            else:
                tracked.loaded(found)
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
        """Return a page of the committed conversations that match; pending changes of this unit of work do not count.

        A conversation that was read before in this unit of work is the same object, with its pending changes.

        Args:
            criterion: made by `where`; all conversations, when left out.
            order: ``updated_at``, ``created_at``, ``id``, or a metadata path such as ``metadata.priority``, with ``-`` before
                it to descend; ties are broken by id. Only conversations that have the path are in the order of a path.
            limit: the most conversations of the page, from 1.
            after: the ``cursor`` of the page before.

        Raises:
            InvalidValueError: an argument is none of this, or the cursor belongs to another order.
        """
        session = self._session
        session.check_open()
        page = session.repository.find(session.namespace, Query.parse(criterion, order, limit, after))
        return Page(tuple([session.tracked(found.id).met(found) for found in page.items]), page.cursor)

    def iterate(self, criterion: Criterion | None = None, *, order: str = "id") -> Iterator[Conversation]:
        """Yield all committed conversations that match, in constant memory; each that is there all the while comes once.

        A change made to a conversation in its step of the loop is written at the commit, and so is a later one if the
        application still holds the conversation. Everything else about it is forgotten after its step: hold the conversation
        if you edit its runs later.

        Args:
            criterion: made by `where`; all conversations, when left out.
            order: as for `find`. Conversations move within an order by ``updated_at`` while others write. It therefore takes
                the memory of all their ids, and a descending one ends with those that moved ahead of the loop.

        Raises:
            InvalidValueError: as `find`.
        """
        if Order.parse(order).field != "updated_at":
            yield from self._walk(criterion, order, None)
            return
        seen: set[str] = set()
        yield from self._walk(criterion, order, seen)
        if order.startswith(
            "-"
        ):  # what was written meanwhile moved to where the walk had been: upwards nothing escapes it
            yield from self._walk(criterion, "updated_at", seen)

    def _walk(self, criterion: Criterion | None, order: str, seen: set[str] | None) -> Iterator[Conversation]:
        """Yield page by page, leaving out the ids that were seen."""
        session, cursor = self._session, None
        while True:
            session.check_open()
            page = session.repository.find(session.namespace, Query.parse(criterion, order, _PAGE, cursor))
            for found in page.items:
                if seen is not None:
                    if found.id in seen:
                        continue
                    seen.add(found.id)
                is_passing = not session.is_tracked(found.id)  # else something of it was read before, and counts
                yield session.tracked(found.id).met(found)
                if is_passing:
                    session.let_go(session.tracked(found.id))
            if (cursor := page.cursor) is None:
                return

    def count(self, criterion: Criterion | None = None) -> int:
        """Return how many committed conversations match; all, without a criterion.

        Raises:
            InvalidValueError: the criterion is none.
        """
        self._session.check_open()
        query = Query.parse(criterion, "id", 1, None)
        return self._session.repository.count(self._session.namespace, query.criterion)

    def remove(self, conversation: Conversation | str) -> None:
        """Remove a conversation and its runs, by id or as it was read.

        If anything of it was read in this unit of work, the commit raises `ConflictError` where it was changed since, or a run
        was appended to it.

        Raises:
            NotFoundError: it was removed in this unit of work already; if it is not in the store, the commit says so.
        """
        if isinstance(conversation, Conversation):
            self._session.tracked(conversation.id).met(conversation)
            conversation = conversation.id
        self._session.tracked(conversation).remove()

    def __contains__(self, conversation_id: str) -> bool:
        try:
            self.get(conversation_id)
        except NotFoundError:
            return False
        return True


class Runs:
    """The runs of conversations, by the conversation's id. Reading sees the unit of work's own pending changes.

    Runs come in the order of their positions; those that are not committed yet come last and have no position. Reading the
    runs of a conversation that is not there gives none.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def append(self, conversation_id: str, *runs: Run, after: int | None = None) -> None:
        """Append runs; they get their positions at the commit, which never conflicts with other appends.

        Args:
            conversation_id: of a conversation in the store, or added in this unit of work.
            runs: in their order; any position they have is ignored.
            after: only if this is the position given last (0: no run yet); else the commit raises `ConflictError`. Without runs
                it says what was seen, for a removal: see `Conversations.remove`.

        Raises:
            InvalidValueError: a run is, or holds, something that cannot be stored.
            NotFoundError: the conversation was removed here; if it is not in the store, the commit says so.
        """
        for run in runs:
            if not isinstance(run, Run):
                raise InvalidValueError(f"append() takes Runs, not {type(run).__name__}")
        if after is not None and (type(after) is not int or after < 0):
            raise InvalidValueError(f"after must be a position, not {after!r}")
        self._session.tracked(conversation_id).append([run.to_record() for run in runs], after)

    def last(self, conversation_id: str, n: int) -> RunList:
        """Return the last ``n`` runs, the oldest of them first."""
        return self._read(conversation_id, Window(limit=_check_limit(n), from_end=True))

    def first(self, conversation_id: str, n: int) -> RunList:
        """Return the first ``n`` runs."""
        return self._read(conversation_id, Window(limit=_check_limit(n)))

    def list(
        self, conversation_id: str, *, after: int = 0, before: int | None = None, limit: int | None = None
    ) -> RunList:
        """Return the first ``limit`` runs (all, when left out) with ``after < position < before``."""
        before = None if before is None else _check_bound(before)
        return self._read(conversation_id, Window(after=_check_bound(after), before=before, limit=_check_limit(limit)))

    def iterate(self, conversation_id: str) -> Iterator[Run]:
        """Yield all runs, in constant memory."""
        after = 0
        while True:
            runs = self.list(conversation_id, after=after, limit=_PAGE)
            yield from runs
            if len(runs) < _PAGE or runs[-1].position is None:
                # a full page that ends in pending runs has all stored ones behind it
                pending = self._session.tracked(conversation_id).appended
                yield from pending[sum(run.position is None for run in runs) :]
                return
            after = runs[-1].position

    def get(self, conversation_id: str, position: int) -> Run:
        """Return the run at a position.

        Raises:
            NotFoundError: there is no such run.
        """
        _check_position(position)
        runs = self.list(conversation_id, after=position - 1, before=position + 1)
        if not runs:
            raise NotFoundError(f"conversation {conversation_id!r} has no run at position {position}")
        return runs[0]

    def replace(self, conversation_id: str, run: Run) -> None:
        """Put this run where another one stands, at ``run.position``; use `dataclasses.replace` to make it from that one.

        If anything of the conversation was read in this unit of work, the commit checks that its version is still that one.

        Raises:
            InvalidValueError: the run has no position, or holds something that cannot be stored.
            NotFoundError: the run was removed here; if it is not in the store, the commit says so.
        """
        if not isinstance(run, Run):
            raise InvalidValueError(f"replace() takes a Run, not {type(run).__name__}")
        self._session.tracked(conversation_id).replace_run(run.to_record(_check_position(run.position)))

    def remove(self, conversation_id: str, *positions: int, before: int | None = None) -> None:
        """Remove the runs at these positions, or all before one. Checked at the commit as `replace` is.

        Raises:
            InvalidValueError: a position is none.
            NotFoundError: the conversation was removed here; a run that is not in the store makes the commit say so.
        """
        tracked = self._session.tracked(conversation_id)
        if before is not None:
            tracked.remove_runs_before(_check_position(before))
        tracked.remove_runs([_check_position(position) for position in positions])

    def clear(self, conversation_id: str) -> None:
        """Remove all runs, those pending here too; positions go on counting. Checked at the commit as `Conversations.remove` is.

        Raises:
            NotFoundError: the conversation was removed here; if it is not in the store, the commit says so.
        """
        self._session.tracked(conversation_id).clear_runs()

    def _read(self, conversation_id: str, window: Window) -> RunList:
        """Read a window and lay the pending changes over it."""
        tracked = self._session.tracked(conversation_id)
        wanted = window.limit
        pending = tracked.appended if window.before is None else []
        if wanted is not None and window.from_end:
            wanted = max(0, wanted - len(pending))
        stored: RunList = []
        if tracked.is_stored and wanted != 0:
            # Runs that are removed here would leave gaps in the window: ask for so many more.
            after = max(window.after, min(tracked.removed_before, ALL_RUNS) - 1)
            limit = None if wanted is None else wanted + len(tracked.removed_runs)
            read = self._session.repository.runs(
                self._session.namespace, conversation_id, replace(window, after=after, limit=limit)
            )
            tracked.saw(read.seen, read.last_position)
            stored = tracked.overlay(read.runs)
            if wanted is not None:
                stored = stored[-wanted:] if window.from_end else stored[:wanted]
        together = [*stored, *pending]
        if window.limit is None:
            return together
        return together[-window.limit :] if window.from_end and window.limit else together[: window.limit]


def _check_limit(limit: int | None) -> int | None:
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidValueError(f"a number of runs is an int from 0, not {limit!r}")
    return None if limit is None else min(limit, ALL_RUNS)  # any store's integers hold it


def _check_bound(position: int) -> int:
    if type(position) is not int:
        raise InvalidValueError(f"a position is an int, not {position!r}")
    return max(0, min(position, ALL_RUNS))


def _check_position(position: object) -> int:
    if type(position) is not int or not 1 <= position <= ALL_RUNS:
        raise InvalidValueError(f"a position is an int from 1, not {position!r}")
    return position
