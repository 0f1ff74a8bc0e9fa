"""Rewrite metadata that an earlier version of the application's type has written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from memory.core.batches import Batched, Batches, StoreSteps, ask, each_page, version_of
from memory.core.faces import Steps
from memory.domain.codecs import Serializer
from memory.domain.criteria import EVERYTHING
from memory.domain.entities import Conversation
from memory.domain.values import same
from memory.errors import ConflictError, CorruptRecordError, NotFoundError
from memory.port.changes import Change, ChangeSet

OnCorrupt = Callable[[CorruptRecordError], object]

_TRIES: Final = 20  # for one conversation that others edit


@dataclass(slots=True)
class Upgrading:
    """The upgrade of one namespace. It may end at any moment: each conversation is upgraded or as it was.

    Args:
        store: the store of the conversations.
        serializer: reads their metadata, and writes it as the current version of the type does.
        on_corrupt: called with the error for metadata that does not fit the type; None to raise it.
    """

    store: StoreSteps
    serializer: Serializer[Any]
    on_corrupt: OnCorrupt | None
    upgraded: int = 0
    batches: Batches = field(init=False)

    def run(self) -> Steps[int]:
        """Upgrade all conversations, and return the number of those that changed."""
        self.batches = Batches(self.store)
        yield from each_page(self.store, EVERYTHING, self._upgrade)
        return self.upgraded

    def _upgrade(self, page: Sequence[Conversation]) -> Steps[None]:
        changes = [Batched(change) for found in page if (change := self._change(found)) is not None]
        done = yield from self.batches.commit(changes)
        self.upgraded += len(done)
        for conversation_id in {one.change.id for one in changes} - {one.change.id for one in done}:
            yield from self._upgrade_again(conversation_id)

    def _change(self, found: Conversation) -> Change | None:
        """Return the change that upgrades a conversation; None if there is nothing to change."""
        try:
            _, text = self.serializer.read(found.metadata, found.id)
        except CorruptRecordError as error:
            if self.on_corrupt is None:
                raise
            self.on_corrupt(error)
            return None
        return None if same(text, found.unchanged) else Change(found.id, version_of(found), metadata=text)

    def _upgrade_again(self, conversation_id: str) -> Steps[None]:
        """Read a conversation again, which was changed or removed since, and upgrade what it is now."""
        repository, namespace = self.store.repository, self.store.namespace_name
        for left in reversed(range(_TRIES)):
            found = yield from ask(self.store, partial(repository.get, namespace, conversation_id))
            change = None if found is None else self._change(found)
            if change is None:
                return
            changes = ChangeSet.of([change], repository.clock())
            try:
                yield from self.store.persist(partial(self.store._commit, changes))  # noqa: SLF001  # as a unit of work does
            except (ConflictError, NotFoundError):
                if not left:
                    raise
            else:
                self.upgraded += 1
                return
