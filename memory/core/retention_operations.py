"""The operations of a store that delete what is old, and what belongs to one person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory.core.faces import Steps, operation
from memory.errors import InvalidValueError
from memory.port.repository import Progress, no_progress

if TYPE_CHECKING:
    from memory.core.batches import StoreSteps
    from memory.core.erasure import Erased
    from memory.core.retention import Retained, Retention
    from memory.domain.criteria import Criterion


class RetentionOperations:
    """The operations of a store that delete what is old, and what belongs to one person."""

    @operation
    def purge_expired(self: StoreSteps, *, all_namespaces: bool = False) -> Steps[int]:
        """Delete the expired conversations and their runs. Return the number of conversations.

        Args:
            all_namespaces: those of all namespaces of the store; by default those of this one.
        """
        from memory.core.batches import purge, stores_of  # these three modules only when they are needed

        purged = 0
        for store in (yield from stores_of(self, all_namespaces=all_namespaces)):
            purged += yield from purge(store)
        return purged

    @operation
    def retain(
        self: StoreSteps,
        retention: Retention,
        *,
        all_namespaces: bool = False,
        dry_run: bool = False,
        progress: Progress = no_progress,
    ) -> Steps[Retained]:
        """Remove idle conversations, trim the others to their last runs, and purge what has expired. Safe beside writers.

        It commits in batches. A conversation that somebody else writes to meanwhile is skipped: a run that is appended is
        never removed with it. After an error or an interruption, call it again. Memory is constant.

        Args:
            retention: what to keep.
            all_namespaces: apply it to all namespaces of the store; by default to this one.
            dry_run: change nothing, and return what would be done.
            progress: called after each page of conversations.

        Returns:
            What was done.

        Raises:
            PersistenceError: the store failed; the batches before are committed.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> with store.begin() as uow:
        ...     uow.conversations.add(memory.Conversation("support-42"))
        ...     uow.runs.append("support-42", *[memory.Run(f"Question {n}", f"Answer {n}") for n in range(5)])
        >>> store.retain(Retention(idle=timedelta(days=90), keep_last=2)).runs
        3
        >>> [run.input for run in store.runs.list("support-42")]
        ['Question 3', 'Question 4']
        """
        from memory.core.batches import stores_of
        from memory.core.retention import Retained, Retaining, Retention

        if not isinstance(retention, Retention):
            raise InvalidValueError(
                f"retain() takes a Retention, such as Retention(keep_last=200), not {retention!r:.60}"
            )
        retained = Retained(dry_run=dry_run)
        for store in (yield from stores_of(self, all_namespaces=all_namespaces)):
            yield from Retaining(store, retention, retained, progress).run()
        return retained

    @operation
    def erase(
        self: StoreSteps,
        criterion: Criterion,
        *,
        all_namespaces: bool = False,
        verify: bool = False,
        progress: Progress = no_progress,
    ) -> Steps[Erased]:
        """Erase all conversations that match, with their runs, receipts, and texts in the outbox of a mirrored store.

        It commits in batches, and searches again until it finds nothing, so that what is written meanwhile is erased too.
        Conversations that have expired match nothing, so all of them are purged. After an error or an interruption, call it
        again. Memory is constant. See docs/retention.md for what each store promises.

        Args:
            criterion: made with `where`.
            all_namespaces: erase in all namespaces of the store; by default in this one.
            verify: afterwards read all conversations of the namespaces, and compare each with the criterion, without an index.
            progress: called after each page of conversations.

        Returns:
            A report that can be filed. If ``left`` is not 0, writers were faster: call it again.

        Raises:
            InvalidValueError: the criterion is not valid.
            PersistenceError: the store failed; the batches before are committed.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> with store.begin() as uow:
        ...     uow.conversations.add(memory.Conversation("support-42", metadata={"customer": "ada"}))
        >>> report = store.erase(memory.where("customer") == "ada", verify=True)
        >>> report.conversations, report.left, report.is_complete
        (1, 0, True)
        """
        from memory.core.erasure import Erasing
        from memory.domain.criteria import check_criterion, check_depth

        erasing = Erasing(check_depth(check_criterion(criterion)), progress)
        return (yield from erasing.run(self, all_namespaces=all_namespaces, verify=verify))
