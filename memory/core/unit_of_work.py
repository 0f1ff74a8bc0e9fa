"""The unit of work, with an identity map and dirty checking, implemented once for all repositories.

Reads see the unit of work's own pending changes. No database transaction is open before the commit.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self

from memory.core.conversations import WritingConversations
from memory.core.faces import Steps, Synchronous, immediate, operation
from memory.core.identity_map import TrackedConversation
from memory.core.runs import WritingRuns
from memory.core.session import Session
from memory.domain.entities import M
from memory.domain.values import new_id
from memory.errors import AlreadyExistsError, CommitInDoubtError, ConflictError, PartialCommitError
from memory.port.changes import Change, ChangeSet, Receipt
from memory.port.repository import JoinedRepository

Write = Callable[[ChangeSet], Steps[Receipt]]
"""Writes a change set: `Store.commit`, or its equivalent inside the application's transaction."""


class UnitOfWorkOperations(Generic[M]):
    """The operations of a unit of work that both faces have.

    Args:
        session: the conversations that it has read.
        write: writes its change sets.
        token: the idempotency token of its first commit; None for a unique one.
    """

    receipt: Receipt | None = None
    """The receipt of the last commit; None before it, and if nothing was to be written."""

    def __init__(self, session: Session[M], write: Write, token: str | None = None) -> None:
        self._session = session
        self._write = write
        self._token = token

    @operation
    def commit(self) -> Steps[Receipt]:
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
        changes = ChangeSet.of([change for change, _ in pending], at, self._token)
        try:
            receipt = yield from self._write(changes)
        except (CommitInDoubtError, PartialCommitError):
            session.end(in_doubt=True)  # parts may be written, and must not be written again with another token
            raise
        except AlreadyExistsError as error:
            if not any(tracked.was_absent and tracked.id == error.conversation_id for _, tracked in pending):
                raise
            raise ConflictError(
                f"conversation {error.conversation_id!r} was added by someone else since this unit of work looked for it: "
                "repeat the work",
                conversation_id=error.conversation_id,
            ) from error
        self.receipt = receipt
        if self._token is not None and receipt.repeated:
            session.clear()  # another commit with this key was first: what was read may be older than that
        else:
            self._committed(receipt, pending, at)
        self._token = None
        return receipt

    def _committed(self, receipt: Receipt, pending: list[tuple[Change, TrackedConversation[M]]], at: int) -> None:
        repository = self._session.repository
        for change, tracked in pending:
            if isinstance(repository, JoinedRepository):
                repository.after_rollback(tracked.memento())
            tracked.committed(change, receipt.written[change.id], at)

    @immediate
    def rollback(self) -> None:
        """Discard all pending changes and everything that was read."""
        self._session.clear()


class Conversations(Synchronous, WritingConversations[M]):
    """The conversations of a unit of work, as a collection."""

    def __contains__(self, conversation_id: str) -> bool:
        return self.exists(conversation_id)


class Runs(Synchronous, WritingRuns[M]):
    """The runs of conversations in a unit of work."""


class UnitOfWork(Synchronous, UnitOfWorkOperations[M]):
    """A unit of work, which writes all of its changes or none. `Store.begin` returns one.

    In a ``with`` block it commits when the block ends without an exception. It locks nothing: the commit detects writes of
    others. It is not thread-safe.

    Attributes:
        conversations: the conversations, as a collection.
        runs: their runs, by conversation.
        receipt: what the last commit wrote, also after the ``with`` block.
    """

    def __init__(self, session: Session[M], write: Write, token: str | None = None) -> None:
        super().__init__(session, write, token)
        self.conversations = Conversations(session)
        self.runs = Runs(session)

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
