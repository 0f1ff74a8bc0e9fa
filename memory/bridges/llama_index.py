"""LlamaIndex's chat stores in any store: of `Memory`, and of the older memories such as `ChatMemoryBuffer`.

    from llama_index.core.memory import Memory
    from memory import aio
    from memory.bridges.llama_index import AsyncChatStore

    store = await aio.connect("postgresql+psycopg://host/chats")
    chat = Memory.from_defaults(session_id="support-42", chat_store=AsyncChatStore(store))

A key, or session id, is a conversation's id, and each message a run (`memory.bridges.messages`).
"""

from contextlib import suppress
from typing import Any, Final, cast

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from memory import aio
from memory.bridges.messages import FRAMEWORK, append, append_async, message_of, message_run
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import where
from memory.domain.entities import Run
from memory.errors import NotFoundError, UnsupportedError

_NAME: Final = "llama-index"
_ARCHIVED: Final = "archived_to"  # the position of the last message that left the memory
_RETRIES: Final = 20  # each of several that remove messages at once may lose several times


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
        self._metadata = {**(metadata or {}), FRAMEWORK: _NAME}

    @classmethod
    def class_name(cls) -> str:
        """Return the class's name, as LlamaIndex's components do."""
        return "MemoryChatStore"

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Replace all messages of a key in one commit."""

        def replace(uow: UnitOfWork) -> None:
            uow.conversations.get_or_create(key, self._metadata)
            uow.runs.clear(key)
            uow.runs.append(key, *map(_run, messages))

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

        return self._store.run(delete, _RETRIES)

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Remove the last message and return it; None if there is none. Of several at once, each removes another one."""
        return self.delete_message(key, -1)

    def get_keys(self) -> list[str]:
        """Return all keys in ascending order: the ids of the conversations that LlamaIndex wrote."""
        return [conversation.id for conversation in self._store.conversations.iterate(where(FRAMEWORK) == _NAME)]


class AsyncChatStore(AsyncDBChatStore):
    """The chat store of LlamaIndex's `Memory`. A message that leaves the memory stays, and is marked as archived.

    Args:
        store: the store; its namespace has the keys.
        metadata: metadata of new conversations, for queries.
    """

    _store: aio.Store = PrivateAttr()
    _metadata: dict[str, Any] = PrivateAttr()

    def __init__(self, store: aio.Store, *, metadata: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._store = store
        self._metadata = {**(metadata or {}), FRAMEWORK: _NAME}

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """Return ``limit`` messages with a status (None: any), oldest first, after skipping ``offset``."""
        skipped = offset or 0
        runs = await _runs(self._store, key, status, None if limit is None else skipped + limit)
        return [_message(run) for run in runs[skipped:]]

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        """Return the number of messages with a status (None: any)."""
        return len(await _runs(self._store, key, status))

    async def add_message(self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE) -> None:
        """Append a message. Those that others add meanwhile are kept."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Append messages in one commit. Those that others add meanwhile are kept."""
        _check_active(status)
        await append_async(self._store, key, [_run(message) for message in messages], self._metadata)

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Replace all messages of a key, also the archived ones, in one commit."""
        _check_active(status)

        async def replace(uow: aio.UnitOfWork) -> None:
            await uow.conversations.get_or_create(key, self._metadata)
            await uow.runs.clear(key)
            await uow.runs.append(key, *map(_run, messages))

        await self._store.run(replace)

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at a position, `memory.Run.position`, and return it; None if there is none."""

        async def delete(uow: aio.UnitOfWork) -> ChatMessage | None:
            runs = await uow.runs.list(key, after=idx - 1, before=idx + 1)
            return next(iter(await _removed(uow, key, runs)), None)

        return await self._store.run(delete, _RETRIES)

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Remove the messages with a status; without one, the conversation."""
        if status is not None:
            await self._store.run(lambda uow: _remove_first(uow, key, status, None), _RETRIES)
            return
        with suppress(NotFoundError):
            async with self._store.begin() as uow:
                await uow.conversations.remove(key, force=True)

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Remove the first ``n`` active messages and return them."""
        return await self._store.run(lambda uow: _remove_first(uow, key, MessageStatus.ACTIVE, n), _RETRIES)

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive the first ``n`` active messages and return them. Several that have seen the same ones archive them once."""
        runs = await _runs(self._store, key, MessageStatus.ACTIVE, n)

        async def archive(uow: aio.UnitOfWork) -> None:
            metadata = (await uow.conversations.get(key)).metadata
            metadata[_ARCHIVED] = max(metadata.get(_ARCHIVED, 0), cast(int, runs[-1].position))

        if runs:
            await self._store.run(archive, _RETRIES)
        return [_message(run) for run in runs]

    async def get_keys(self) -> list[str]:
        """Return all keys in ascending order: the ids of the conversations that LlamaIndex wrote."""
        return [found.id async for found in self._store.conversations.iterate(where(FRAMEWORK) == _NAME)]


async def _runs(
    reader: aio.Store | aio.UnitOfWork, key: str, status: MessageStatus | None, limit: int | None = None
) -> list[Run]:
    if status is None:
        return await reader.runs.list(key, limit=limit)
    found = await reader.conversations.get_many([key])
    archived = found[key].metadata.get(_ARCHIVED, 0) if key in found else 0
    if status is MessageStatus.ARCHIVED:
        return await reader.runs.list(key, before=archived + 1, limit=limit)
    return await reader.runs.list(key, after=archived, limit=limit)


async def _remove_first(uow: aio.UnitOfWork, key: str, status: MessageStatus, n: int | None) -> list[ChatMessage]:
    return await _removed(uow, key, await _runs(uow, key, status, n))


async def _removed(uow: aio.UnitOfWork, key: str, runs: list[Run]) -> list[ChatMessage]:
    if runs:
        await uow.runs.remove(key, *(run.position or 0 for run in runs))
    return [_message(run) for run in runs]


def _check_active(status: MessageStatus) -> None:
    if status is not MessageStatus.ACTIVE:
        raise UnsupportedError("messages are added as active ones: archive_oldest_messages() archives them")


def _run(message: ChatMessage) -> Run:
    return message_run(message.model_dump(mode="json"), from_model=message.role == "assistant")


def _message(run: Run) -> ChatMessage:
    return message_of(run, _read)


def _read(stored: dict[str, Any]) -> ChatMessage:
    if not stored.keys() >= {"role", "blocks"}:  # LlamaIndex takes any dict for an empty message
        raise ValueError("it has no role, or no blocks")
    return ChatMessage.model_validate(stored)
