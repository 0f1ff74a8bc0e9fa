"""LlamaIndex's chat stores in a store, with LlamaIndex's own memories and chat engine."""

import asyncio
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.base_db import MessageStatus

import memory
from memory import aio
from memory.bridges.llama_index import AsyncChatStore, ChatStore
from tests.bridges.frameworks.writers import at_once

_TEXT = TextBlock(text="text")
BLOCKS: list[Any] = [
    _TEXT,
    ImageBlock(image=b"\x89PNG\r\n\x1a\n\xff", image_mimetype="image/png", detail="low"),
    ImageBlock(url="https://example.com/a.png", image_mimetype="image/png"),
    AudioBlock(audio=b"RIFF\xff", format="wav"),
    VideoBlock(video=b"\x00\xff", video_mimetype="video/mp4", fps=2),
    DocumentBlock(data=b"%PDF-\xff", title="a", document_mimetype="application/pdf"),
    CachePoint(cache_control=CacheControl(type="ephemeral")),
    CitableBlock(title="a", source="b", content=[_TEXT]),
    CitationBlock(cited_content=_TEXT, source="b", title="a", additional_location_info={"page": 3}),
    ThinkingBlock(content="Hm.", num_tokens=2, additional_information={"signature": "s"}),
    ToolCallBlock(tool_call_id="1", tool_name="lookup", tool_kwargs={"order": 7}),
]


@pytest.fixture
def chats(aio_store: aio.Store) -> AsyncChatStore:
    return AsyncChatStore(aio_store)


@pytest.fixture
def atomic(atomic_store: aio.Store) -> memory.Store:
    """A store that checks and writes in one step, for what several writers do at once."""
    return memory.Store(atomic_store.repository, atomic_store.namespace_name)


def said(messages: list[ChatMessage] | None) -> list[str | None]:
    return [message.content for message in messages or []]


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def test_every_message_is_stored_without_loss(store: memory.Store) -> None:
    messages = [ChatMessage(role=role, content=f"as {role.value}") for role in MessageRole]
    messages += [ChatMessage(role="assistant", blocks=[block]) for block in BLOCKS]
    messages += [ChatMessage(role="user", blocks=BLOCKS, additional_kwargs={"name": "ada", "tags": [1, None]})]
    chats = ChatStore(store)
    chats.set_messages("all", messages)
    for found, message in zip(chats.get_messages("all"), messages, strict=True):
        assert found.model_dump() == message.model_dump()
        assert [type(block) for block in found.blocks] == [type(block) for block in message.blocks]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of ChatMemoryBuffer
def test_a_chat_engine_continues_a_conversation(store: memory.Store) -> None:
    def engine() -> SimpleChatEngine:
        chats = ChatStore(store, metadata={"customer": "ada"})
        chat_memory = ChatMemoryBuffer.from_defaults(chat_store=chats, chat_store_key="support-42", token_limit=1000)
        return SimpleChatEngine.from_defaults(llm=MockLLM(), memory=chat_memory)

    engine().chat("Where is it?")
    again = engine()
    again.chat("When?")
    assert [message.role for message in again.chat_history] == ["user", "assistant"] * 2
    assert said(again.chat_history)[::2] == ["Where is it?", "When?"]
    assert store.conversations.find_one(memory.where("customer") == "ada") is not None
    again.reset()
    assert engine().chat_history == []


def test_it_does_what_the_simple_chat_store_does(store: memory.Store) -> None:
    def do(chats: BaseChatStore) -> list[object]:
        found: list[object] = []
        for text in "abcdefg":
            chats.add_message("one", user(text))
        for index in (0, 5, 9, -1, 2, -3):
            found.append(chats.delete_message("one", index))
            found.append([*chats.get_messages("one")])
        found += [chats.delete_last_message("one"), [*chats.get_messages("one")]]
        chats.set_messages("two", [user("x"), user("y")])
        chats.set_messages("two", [user("z")])
        found += [chats.get_messages("two"), chats.get_keys(), chats.delete_messages("one"), chats.get_keys()]
        found += [chats.delete_messages("none"), chats.get_messages("none"), chats.delete_message("none", 0)]
        return [*found, chats.delete_last_message("none")]

    assert do(ChatStore(store)) == do(SimpleChatStore())


def test_an_index_before_the_first_message_removes_nothing(store: memory.Store) -> None:
    chats = ChatStore(store)
    chats.add_message("one", user("a"))
    assert chats.delete_message("one", -2) is None
    assert said(chats.get_messages("one")) == ["a"]


def test_keys_are_those_of_this_framework(store: memory.Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(memory.Conversation("of another framework", {"framework": "langchain"}))
    ChatStore(store).add_message("mine", user("a"))
    assert ChatStore(store).get_keys() == ["mine"]


def test_writers_lose_nothing(atomic: memory.Store) -> None:
    chats = ChatStore(atomic)
    at_once(lambda number: chats.add_message("one", user(str(number))), 20)
    assert sorted(said(chats.get_messages("one")), key=str) == sorted(map(str, range(20)))
    removed = at_once(lambda _: chats.delete_last_message("one"), 12)
    kept = said(chats.get_messages("one"))
    assert len(kept) == 8
    assert {message.content for message in removed if isinstance(message, ChatMessage)} | set(kept) == set(
        map(str, range(20))
    )


@pytest.mark.anyio
async def test_a_memory_archives_what_exceeds_its_limit(chats: AsyncChatStore) -> None:
    def recall() -> Memory:
        return Memory.from_defaults(
            "support-42", chat_store=chats, token_limit=40, token_flush_size=10, tokenizer_fn=str.split
        )

    for number in range(12):
        await recall().aput(user(f"question {number} with five words"))
        await recall().aput(ChatMessage(role="assistant", content=f"answer {number}"))
    everything = await recall().aget_all()
    archived = await recall().aget_all(MessageStatus.ARCHIVED)
    active = await recall().aget()
    assert len(everything) == 24
    assert archived + active == everything
    assert archived
    assert active
    assert await chats.count_messages("support-42") == len(active)
    assert await chats.count_messages("support-42", None) == 24
    await recall().areset()
    assert await recall().aget_all() == []


@pytest.mark.anyio
async def test_pages_of_a_memory(chats: AsyncChatStore) -> None:
    await chats.add_messages("p", [user(str(number)) for number in range(6)])
    assert said(await chats.archive_oldest_messages("p", 2)) == ["0", "1"]
    assert said(await chats.get_messages("p", limit=2, offset=1)) == ["3", "4"]
    assert said(await chats.get_messages("p", MessageStatus.ARCHIVED, limit=1)) == ["0"]
    assert said(await chats.get_messages("p", None, offset=4)) == ["4", "5"]
    assert said(await chats.delete_oldest_messages("p", 1)) == ["2"]
    deleted = await chats.delete_message("p", 5)
    assert deleted == user("4")
    assert await chats.delete_message("p", 5) is None
    await chats.delete_messages("p", MessageStatus.ARCHIVED)
    assert said(await chats.get_messages("p", None)) == ["3", "5"]
    await chats.set_messages("p", [user("new")])
    assert said(await chats.get_messages("p")) == ["new"]
    assert await chats.get_keys() == ["p"]
    await chats.delete_messages("p")
    await chats.delete_messages("p")
    assert await chats.get_keys() == []


@pytest.mark.anyio
async def test_tasks_of_a_memory_lose_nothing(atomic_store: aio.Store) -> None:
    chats = AsyncChatStore(atomic_store)
    await asyncio.gather(*(chats.add_messages("one", [user(f"{n}"), user(f"{n}!")]) for n in range(10)))
    found = said(await chats.get_messages("one"))
    assert all(found[found.index(f"{n}") + 1] == f"{n}!" for n in range(10))
    await asyncio.gather(*(chats.archive_oldest_messages("one", 3) for _ in range(4)))
    archived, active = [
        said(await chats.get_messages("one", one)) for one in (MessageStatus.ARCHIVED, MessageStatus.ACTIVE)
    ]
    assert archived + active == found
    assert 3 <= len(archived) <= 12


@pytest.mark.anyio
async def test_two_memories_that_saw_the_same_messages_archive_them_once(
    aio_store: aio.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counts from what it has read: otherwise concurrent turns would leave the model nothing to read."""
    chats, run, waiting, both = AsyncChatStore(aio_store), aio_store.run, [], asyncio.Event()

    async def after_both_have_read(*arguments: Any) -> Any:
        waiting.append(arguments)
        if len(waiting) == 2:
            both.set()
        await both.wait()
        return await run(*arguments)

    await chats.add_messages("one", [user(f"{n}") for n in range(10)])
    monkeypatch.setattr(aio_store, "run", after_both_have_read)
    archived = await asyncio.gather(*(chats.archive_oldest_messages("one", 3) for _ in range(2)))
    assert [said(messages) for messages in archived] == [["0", "1", "2"]] * 2
    assert len(await chats.get_messages("one")) == 7


@pytest.mark.anyio
async def test_messages_are_not_added_as_archived(chats: AsyncChatStore) -> None:
    with pytest.raises(memory.UnsupportedError, match="archive_oldest_messages"):
        await chats.add_message("one", user("a"), MessageStatus.ARCHIVED)
