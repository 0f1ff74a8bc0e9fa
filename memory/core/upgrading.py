"""Rewrite metadata that an earlier version of the application's type has written."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from memory.core.faces import Steps
from memory.domain.codecs import Serializer
from memory.domain.entities import Conversation
from memory.domain.values import same
from memory.errors import CommitTooLargeError, ConflictError, CorruptRecordError, NotFoundError
from memory.port.changes import Change, ChangeSet, ExpectedVersion, Receipt
from memory.port.paging import Query
from memory.port.repository import Repository

OnCorrupt = Callable[[CorruptRecordError], object]

_PAGE: Final = 200
_BATCH: Final = 50  # conversations in one commit, where a store takes several
_TRIES: Final = 20  # for one conversation that others edit


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The upgrade of one namespace. It may end at any moment: each conversation is upgraded or as it was.

    Args:
        repository: the repository of the conversations.
        namespace: their namespace.
        serializer: reads their metadata, and writes it as the current version of the type does.
        commit: writes a change set.
        on_corrupt: called with the error for metadata that does not fit the type; None to raise it.
    """

    repository: Repository
    namespace: str
    serializer: Serializer[Any]
    commit: Callable[[ChangeSet], Steps[Receipt]]
    on_corrupt: OnCorrupt | None

    def run(self) -> Steps[int]:
        """Upgrade all conversations, and return the number of those that changed."""
        batch = _BATCH if self.repository.capabilities.many_conversations else 1
        cursor, upgraded = None, 0
        while True:
            query = Query.parse(None, "id", max(_PAGE, self.repository.iterate_page), cursor)
            page = yield partial(self.repository.find, self.namespace, query)
            changes = [change for found in page.items if (change := self._change(found)) is not None]
            for start in range(0, len(changes), batch):
                upgraded += yield from self._write(changes[start : start + batch])
            if (cursor := page.cursor) is None:
                return upgraded

    def _change(self, found: Conversation) -> Change | None:
        """Return the change that upgrades a conversation; None if there is nothing to change."""
        record = found.record
        try:
            _, text = self.serializer.read(found.metadata, found.id)
        except CorruptRecordError as error:
            if self.on_corrupt is None:
                raise
            self.on_corrupt(error)
            return None
        if record is None or same(text, record.metadata):
            return None
        return Change(found.id, ExpectedVersion(record.incarnation, record.version), metadata=text)

    def _write(self, changes: list[Change]) -> Steps[int]:
        try:
            yield from self.commit(ChangeSet.of(changes, self.repository.clock()))
        except (ConflictError, NotFoundError, CommitTooLargeError):
            if len(changes) == 1:
                return (yield from self._write_alone(changes[0].id))
            half = len(changes) // 2
            first = yield from self._write(changes[:half])
            return first + (yield from self._write(changes[half:]))
        return len(changes)

    def _write_alone(self, conversation_id: str) -> Steps[int]:
        """Read a conversation again, which was changed or removed since, and upgrade what it is now."""
        for left in reversed(range(_TRIES)):
            found = yield partial(self.repository.get, self.namespace, conversation_id)
            change = None if found is None else self._change(found)
            if change is None:
                break
            try:
                yield from self.commit(ChangeSet.of([change], self.repository.clock()))
            except (ConflictError, NotFoundError):
                if not left:
                    raise
            else:
                return 1
        return 0
