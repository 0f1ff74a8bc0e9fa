"""One commit: every change is checked before the first is written, and written so that what is visible is a prefix of it."""

from collections.abc import Sequence
from typing import NoReturn

from memory.adapters.cloud.changing import Attempt, Changing
from memory.adapters.cloud.conversations import Conversations
from memory.changes import ChangeSet, Receipt
from memory.errors import CommitInDoubtError, PartialCommitError, PersistenceError, Step


def write(conversations: Conversations, changes: ChangeSet, attempt: Attempt) -> Receipt:
    """Write a change set; go on with one that is written in part.

    Raises:
        PartialCommitError: some steps are done, and one could not be.
        CommitInDoubtError: it is not known whether a step was done.
        PersistenceError: as `memory.repository.Repository.commit`; nothing was written.
    """
    all_changing: list[Changing] = []
    try:
        for change in changes.changes:
            changing = Changing(conversations, change, attempt)
            all_changing.append(changing)
            changing.prepare()
        written = {changing.id: changing.write() for changing in all_changing}
    except PersistenceError as error:
        _explain(error, changes, all_changing)
    return Receipt(changes.token, written)


def _explain(error: PersistenceError, changes: ChangeSet, all_changing: Sequence[Changing]) -> NoReturn:
    """Raise an error again, as one that tells what is done where anything is."""
    done = tuple([step for changing in all_changing for step in changing.done])
    if not done:
        raise error
    steps = [step for changing in all_changing for step in changing.steps]
    prepared = {changing.id for changing in all_changing if changing.steps}
    steps += [Step(change.id, "all of it") for change in changes.changes if change.id not in prepared]
    undone = tuple([step for step in steps if step not in done])
    told = f"{error}. Of {len(done) + len(undone)} steps {len(done)} are written, up to {_words(done[-1])}"
    if isinstance(error, CommitInDoubtError):
        raise CommitInDoubtError(told) from error
    raise PartialCommitError(
        f"{told}; store.commit(error.changes) goes on from there", written=done, unwritten=undone, changes=changes
    ) from error


def _words(step: Step) -> str:
    return f"{step.what!r} of conversation {step.conversation!r}"
