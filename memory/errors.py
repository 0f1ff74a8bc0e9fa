"""The errors that this package raises, with a common base class: docs/errors.md says what to do about each.

Exceptions of drivers never leave an adapter; they are the ``__cause__`` of one of these errors.
Misuse of operators (``and`` between criteria) raises ``TypeError``.
"""

from typing import Any, NamedTuple


class PersistenceError(Exception):
    """Base class of the errors of this package.

    Attributes:
        retryable: whether a retry of the same call can succeed.
        conversation_id: the id of the conversation that caused the error, if it was a single one.
    """

    retryable = False

    def __init__(self, *args: object, conversation_id: str | None = None) -> None:
        super().__init__(*args)
        self.conversation_id = conversation_id


class NotFoundError(PersistenceError, LookupError):
    """The conversation, or the run in it, does not exist."""


class AlreadyExistsError(PersistenceError):
    """A conversation with this id already exists; nothing was written."""


class State(NamedTuple):
    """The version and the last position of a conversation; None for one that was not read or not expected."""

    version: int | None = None
    last_position: int | None = None


class ConflictError(PersistenceError):
    """The conversation changed since it was read; nothing was written. Read it again and retry, as `Store.run` does.

    Attributes:
        expected: the version and the last position that the unit of work expected.
        actual: those that the store has; None if the conversation does not exist any more.
    """

    retryable = True
    expected: State = State()
    actual: State | None = None


class InvalidValueError(PersistenceError, ValueError):
    """A value that no store can keep exactly; the message has the path to it."""


class CommitTooLargeError(InvalidValueError):
    """A commit is too large for this store to write in one step; nothing was written. Split it into several commits.

    Attributes:
        limit: the store's limit, `Capabilities.largest_commit`.
        size: the size of the commit, in the same unit.
    """

    def __init__(self, message: str, *, limit: int, size: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.size = size


class ConfigurationError(PersistenceError, ValueError):
    """A URL, an option or an installation is wrong; the message says what to change."""


class UnsupportedError(PersistenceError):
    """This store does not support the operation; nothing was written."""


class ClosedError(PersistenceError, RuntimeError):
    """A closed store, or a unit of work that has ended, was used; nothing was written."""


class SchemaError(PersistenceError):
    """The store's schema is missing, or older or newer than the code; the message has the command to run."""


class CorruptRecordError(PersistenceError):
    """A stored record cannot be read; the message names it. Such a record is never reported as missing."""


class StoreUnavailableError(PersistenceError):
    """The store could not be reached, or temporarily rejected the call; nothing was written."""

    retryable = True


class TransactionAbortedError(PersistenceError):
    """A deadlock or a serialization failure aborted the application's transaction, which a unit of work had joined.

    Nothing of the transaction is written. Roll it back and repeat all of it; the unit of work alone cannot be retried.
    """


class CommitInDoubtError(PersistenceError):
    """The store's response to a commit was lost, and repeating the commit did not reveal its outcome.

    The change set was written completely or not at all (on a store whose ``capabilities`` are not ``atomic``, possibly in
    part). Read the conversation before you repeat the work.
    """


class Step(NamedTuple):
    """One write of a commit on a store that writes step by step: the conversation, and a description of the write."""

    conversation: str
    what: str


class PartialCommitError(PersistenceError):
    """A store without transactions wrote the first steps of a commit, and failed to write the others.

    The completed steps are visible and are a prefix of the commit: no step is half done, and no step after the failed one was
    attempted. ``store.commit(error.changes)`` resumes after the last completed step; repeating the work would write the first
    steps twice.

    Attributes:
        written: the completed steps, in order.
        unwritten: the remaining steps.
        changes: the change set, to be committed again.
    """

    def __init__(
        self, message: str, *, written: tuple[Step, ...] = (), unwritten: tuple[Step, ...] = (), changes: Any = None
    ) -> None:
        super().__init__(message)
        self.written = written
        self.unwritten = unwritten
        self.changes = changes

    @property
    def is_refusal(self) -> bool:
        """Whether the store cannot keep the value of the failed step, so that committing again would fail there again."""
        return isinstance(self.__cause__, InvalidValueError)
