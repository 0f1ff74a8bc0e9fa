"""One commit: every change is checked before the first is written, and written so that what is visible is a prefix of it."""

from memory.adapters.cloud.changing import Changing
from memory.adapters.cloud.conversations import Conversations
from memory.adapters.cloud.preparing import Attempt
from memory.adapters.cloud.steps import Steps
from memory.errors import CommitInDoubtError, PartialCommitError, PersistenceError, Step
from memory.port.changes import ChangeSet, Receipt


def write(conversations: Conversations, changes: ChangeSet, attempt: Attempt) -> Receipt:
    """Write a change set; go on with one that is written in part.

    Raises:
        PartialCommitError: some steps are done, and one could not be.
        CommitInDoubtError: it is not known whether a step was done.
        PersistenceError: as `memory.port.repository.Repository.commit`; nothing was written.
    """
    all_changing = [Changing(conversations, change, attempt) for change in changes.changes]
    steps = attempt.steps
    try:
        for changing in all_changing:
            changing.prepare()
        return Receipt(changes.token, {changing.id: changing.write() for changing in all_changing})
    except PersistenceError as error:
        if not (steps.written or steps.doubtful or isinstance(error, CommitInDoubtError)):
            raise
        raise _explained(error, changes, steps) from error


def _explained(error: PersistenceError, changes: ChangeSet, steps: Steps) -> PersistenceError:
    """Return an error as one that tells what is done, or may be: in this attempt or one before."""
    done, doubtful, told = tuple(steps.written), steps.doubtful, str(error)
    known = [steps.all.get(change.id, [Step(change.id, "all of it")]) for change in changes.changes]
    undone = tuple([step for of_one in known for step in of_one if step not in steps.written])
    if doubtful is not None and not isinstance(error, CommitInDoubtError):
        told += f". Whether {_words(doubtful)} was written, when it was sent before, is not known"
    if done:
        told += f". Of {len(done) + len(undone)} steps {len(done)} are written, up to {_words(done[-1])}"
    if doubtful is not None or isinstance(error, CommitInDoubtError):
        return CommitInDoubtError(told)
    return PartialCommitError(
        f"{told}; store.commit(error.changes) goes on from there",
        written=done,
        unwritten=undone,
        changes=changes,
    )


def _words(step: Step) -> str:
    return f"{step.what!r} of conversation {step.conversation!r}"
