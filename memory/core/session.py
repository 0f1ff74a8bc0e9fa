"""The session of a unit of work: the conversations that it has read, and whether it can still be used."""

from typing import Generic, Protocol
from weakref import WeakValueDictionary

from memory.core.faces import Steps
from memory.core.identity_map import TrackedConversation
from memory.domain.codecs import Serializer
from memory.domain.entities import Conversation, M
from memory.domain.values import check_conversation_id
from memory.errors import ClosedError
from memory.port.repository import Repository


class Guard(Protocol):
    """Checks that a store can be used."""

    def check_open(self) -> None:
        """Raise `ClosedError` if the store was closed."""

    def ready(self) -> Steps[None]:
        """Check the version of the store's schema at the first use, and raise `SchemaError` if it is another one."""
        ...


class Session(Generic[M]):
    """The conversations of one unit of work.

    Args:
        repository: where they are stored.
        namespace: their namespace.
        serializer: converts their metadata and the runs' values to texts.
        guard: checks that the store can be used.
        remembers: whether it returns the same object for a conversation each time, and its changes are committed.
    """

    def __init__(
        self,
        repository: Repository,
        namespace: str,
        serializer: Serializer[M],
        guard: Guard,
        *,
        remembers: bool = True,
    ) -> None:
        self.repository = repository
        self.namespace = namespace
        self.serializer = serializer
        self._guard = guard
        self._remembers = remembers
        self._tracked: dict[str, TrackedConversation[M]] = {}
        # Conversations from earlier steps of `iterate`, which may still be changed while the application references them.
        self._released: WeakValueDictionary[str, Conversation[M]] | None = None
        self._ended = False
        self.is_in_doubt = False

    def prepare(self) -> Steps[None]:
        """Check that the unit of work and the store can be used."""
        self._check_not_ended()
        return self._guard.ready()  # which also checks that the store is open

    def check_open(self) -> None:
        self._check_not_ended()
        self._guard.check_open()

    def _check_not_ended(self) -> None:
        if self._ended:
            raise ClosedError("this unit of work has ended: begin another")

    def tracked(self, conversation_id: str) -> TrackedConversation[M]:
        """Return the state of a conversation in this unit of work; a new one, if it was not used before."""
        self.check_open()
        if type(conversation_id) is not str:  # may not even be hashable
            check_conversation_id(conversation_id)
        if (tracked := self._tracked.get(conversation_id)) is None:
            check_conversation_id(conversation_id)
            tracked = TrackedConversation(conversation_id, self.serializer)
            if self._remembers:
                self._tracked[conversation_id] = tracked
            if self._released and (conversation := self._released.pop(conversation_id, None)) is not None:
                tracked.attach(conversation)
        return tracked

    def is_tracked(self, conversation_id: str) -> bool:
        return conversation_id in self._tracked

    def all_tracked(self) -> list[TrackedConversation[M]]:
        for conversation_id in list(self._released or ()):
            self.tracked(conversation_id)
        return list(self._tracked.values())

    def release(self, conversation_id: str) -> None:
        """Reference a conversation weakly from now on, unless it was changed."""
        tracked = self._tracked.get(conversation_id)
        if tracked is not None and tracked.conversation is not None and tracked.change(0) is None:
            if self._released is None:
                self._released = WeakValueDictionary()
            self._released[tracked.id] = tracked.conversation
            del self._tracked[tracked.id]

    def clear(self) -> None:
        self._tracked.clear()
        self._released = None

    def end(self, *, in_doubt: bool = False) -> None:
        self.clear()
        self._ended = True
        self.is_in_doubt = in_doubt
