"""LangChain's chat message history in any store.

    from langchain_core.runnables.history import RunnableWithMessageHistory
    from memory.bridges.langchain import MessageHistory

    store = memory.connect("postgresql+psycopg://host/chats")
    chat = RunnableWithMessageHistory(chain, lambda session_id: MessageHistory(session_id, store))

A session is a conversation, and each message a run (`memory.bridges.messages`), in the form of LangChain's ``message_to_dict``.
"""

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_to_dict, messages_from_dict

from memory.bridges.messages import FRAMEWORK, append, message_of, message_run, remove
from memory.core.store import Store
from memory.domain.entities import Run

_NAME: Final = "langchain"


class MessageHistory(BaseChatMessageHistory):
    """The messages of one session. The asynchronous methods run the synchronous ones on threads, as LangChain's default does.

    Args:
        session_id: the conversation's id.
        store: the store, which several histories share.
        metadata: metadata of the conversation, for queries; used when the session's first messages are added.
        limit: read only this many messages, the last ones; default: all.
    """

    def __init__(
        self, session_id: str, store: Store, *, metadata: dict[str, Any] | None = None, limit: int | None = None
    ) -> None:
        super().__init__()
        self.session_id = session_id
        self.limit = limit
        self._store = store
        self._metadata = {**(metadata or {}), FRAMEWORK: _NAME}

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # the base class has an attribute of this name
        """The messages, oldest first."""
        runs = self._store.runs
        found = runs.list(self.session_id) if self.limit is None else runs.last(self.session_id, self.limit)
        return [message_of(run, _message) for run in found]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages in one commit. Those that others add meanwhile are kept."""
        if messages:
            append(self._store, self.session_id, [_run(message) for message in messages], self._metadata)

    def clear(self) -> None:
        """Remove the session's conversation with all its messages."""
        remove(self._store, self.session_id)


def _message(stored: dict[str, Any]) -> BaseMessage:
    (message,) = messages_from_dict([stored])
    return message


def _run(message: BaseMessage) -> Run:
    return message_run(message_to_dict(message), from_model=isinstance(message, AIMessage | AIMessageChunk))
