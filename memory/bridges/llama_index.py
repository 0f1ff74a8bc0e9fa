"""LlamaIndex's chat store in any store.

    from llama_index.core.memory import ChatMemoryBuffer
    from memory.bridges.llama_index import ChatStore

    store = memory.connect("postgresql+psycopg://host/chats")
    chat = ChatMemoryBuffer.from_defaults(chat_store=ChatStore(store), chat_store_key="support-42")

A key is a conversation's id, and each message a run (`memory.bridges.messages`).
"""

from typing import Any, Final

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore

from memory.bridges.messages import FRAMEWORK, append, message_of, message_run
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.entities import Run

_NAME: Final = "llama-index"


class ChatStore(BaseChatStore):
    """A chat store. The asynchronous methods run the synchronous ones on threads, as LlamaIndex's default does.

    Args:
        store: the store; its namespace has the keys.
        metadata: metadata of new conversations, for queries.
    """

    _store: Store = PrivateAttr()
    _metadata: dict[str, Any] = PrivateAttr()

    def __init__(self, store: Store, *, metadata: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._store = store
        self._metadata = {FRAMEWORK: _NAME, **(metadata or {})}

    @classmethod
    def class_name(cls) -> str:
        """Return the class's name, as LlamaIndex's components do."""
        return "MemoryChatStore"

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Replace all messages of a key in one commit."""

        def replace(uow: UnitOfWork) -> None:
            uow.conversations.get_or_create(key, self._metadata)
            uow.runs.clear(key)
            uow.runs.append(key, *[_run(message) for message in messages])

        self._store.run(replace)

    def get_messages(self, key: str) -> list[ChatMessage]:
        """Return the messages of a key, oldest first."""
        return [_message(run) for run in self._store.runs.list(key)]

    def add_message(self, key: str, message: ChatMessage) -> None:
        """Append a message. Those that others add meanwhile are kept."""
        append(self._store, key, [_run(message)], self._metadata)

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Remove the conversation of a key and return its messages; None if there is none."""

        def delete(uow: UnitOfWork) -> list[ChatMessage] | None:
            if key not in uow.conversations:
                return None
            messages = [_message(run) for run in uow.runs.list(key)]
            uow.conversations.remove(key)
            return messages

        return self._store.run(delete)

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at an index, which may be negative, and return it; None if there is none."""

        def delete(uow: UnitOfWork) -> ChatMessage | None:
            runs = uow.runs.first(key, idx + 1)[idx:] if idx >= 0 else uow.runs.last(key, -idx)
            if not runs or len(runs) < -idx:
                return None
            uow.runs.remove(key, runs[0].position or 0)
            return _message(runs[0])

        return self._store.run(delete)

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Remove the last message and return it; None if there is none."""
        return self.delete_message(key, -1)

    def get_keys(self) -> list[str]:
        """Return all keys: the ids of all conversations of the namespace."""
        return [conversation.id for conversation in self._store.conversations.iterate()]


def _run(message: ChatMessage) -> Run:
    return message_run(message.model_dump(mode="json"), from_model=message.role == "assistant")


def _message(run: Run) -> ChatMessage:
    return ChatMessage.model_validate(message_of(run))
