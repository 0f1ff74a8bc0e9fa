"""Every error this package raises, under one base.

    PersistenceError                    the root; ``retryable`` says whether doing it again makes sense
      NotFoundError (LookupError)       nothing is kept under that id
      AlreadyExistsError                the id is taken
      ConflictError                     retryable: it changed since it was read
      InvalidValueError (ValueError)    a value that no store can keep exactly, with the path to it
        CommitTooLargeError             a commit that this store cannot write in one step; nothing was written
      ConfigurationError (ValueError)   a URL, an option, a missing extra; with what to do
      UnsupportedError                  this store cannot do it; nothing was written
      ClosedError (RuntimeError)        the store was closed, or the unit of work has ended
      SchemaError                       the schema is older or newer than the code; with the command
      CorruptRecordError                something is stored but cannot be read; never "missing"
      StoreUnavailableError             retryable: the store did not take the call; nothing was written
      CommitInDoubtError                the answer to a commit was lost and could not be found out
      PartialCommitError                a store without transactions wrote a part of a commit; it says which

A driver's own exception never leaves an adapter: it is the ``__cause__`` of one of these.
Misuse of operators (``and`` between criteria) is a plain ``TypeError``.
"""

from typing import Any, NamedTuple


class PersistenceError(Exception):
    """Anything that goes wrong between an application and its store.

    Attributes:
        retryable: whether the same call can succeed when it is made again.
        conversation_id: of the conversation that stood in the way, where it is one.
    """

    retryable = False
    conversation_id: str | None = None


class NotFoundError(PersistenceError, LookupError):
    """There is no such conversation, or no such run in it."""


class AlreadyExistsError(PersistenceError):
    """A conversation with this id exists already; nothing was written."""


class ConflictError(PersistenceError):
    """The conversation changed since it was read; nothing was written. Read it again and repeat the work.

    `Store.run` does so by itself.
    """

    retryable = True


class InvalidValueError(PersistenceError, ValueError):
    """A value outside what every store keeps exactly; the message names the path to it."""


class CommitTooLargeError(InvalidValueError):
    """A commit is larger than what this store writes in one step; nothing was written. Split it into several commits.

    Attributes:
        limit: how much the store takes: `Capabilities.largest_commit`.
        size: how much the commit would be, in the same unit.
    """

    def __init__(self, message: str, *, limit: int, size: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.size = size


class ConfigurationError(PersistenceError, ValueError):
    """A URL, an option or an installation that cannot work; the message says what to change."""


class UnsupportedError(PersistenceError):
    """This store cannot do what was asked; nothing was written."""


class ClosedError(PersistenceError, RuntimeError):
    """The store was closed, or the unit of work has ended, before it was used; nothing was written."""


class SchemaError(PersistenceError):
    """The store's schema is missing, older or newer than this version of the code; the message names the command."""


class CorruptRecordError(PersistenceError):
    """A record is stored but cannot be read; the message names it. It is never reported as missing."""


class StoreUnavailableError(PersistenceError):
    """The store could not be reached or refused the work for now; nothing was written."""

    retryable = True


class CommitInDoubtError(PersistenceError):
    """The store's answer to a commit was lost, and asking again did not tell either.

    The change set is written completely or not at all (or up to some step, on a store whose ``capabilities`` are not
    ``atomic``). Look before repeating it.
    """


class Step(NamedTuple):
    """One write of a commit, on a store that writes one after the other: to which conversation, and what."""

    conversation: str
    what: str


class PartialCommitError(PersistenceError):
    """A store without transactions wrote the first steps of a commit, and could not write the others.

    What is written is visible, and a part of what was to be: no step is half done, none after the first that failed is done.
    ``store.commit(error.changes)`` goes on where it ended; doing the work again would do the first steps twice.

    Attributes:
        written: the steps that are done, in their order.
        unwritten: those that are not.
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
        """Whether the store cannot keep what was to be written next: committing again would end there again."""
        return isinstance(self.__cause__, InvalidValueError)
