"""LangChain's chat message history in a store, with LangChain's own runnables."""

from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

import memory
from memory import aio
from memory.bridges.langchain import MessageHistory
from tests.bridges.frameworks.writers import at_once

# LangChain 1 recommends LangGraph's checkpointers instead, and keeps this interface until 2.0.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning")

_CALL = {"name": "lookup", "args": {"order": 7}, "id": "call-1", "type": "tool_call"}
MESSAGES: list[BaseMessage] = [
    SystemMessage("Be brief.", additional_kwargs={"cache": True}),
    HumanMessage(
        [{"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {"url": "data:,"}}], name="ada"
    ),
    AIMessage(
        "",
        tool_calls=[_CALL],
        invalid_tool_calls=[
            {"name": "x", "args": "{", "id": "call-2", "error": "no JSON", "type": "invalid_tool_call"}
        ],
        usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        response_metadata={"model_name": "fake"},
        id="run-1",
    ),
    ToolMessage("On its way.", tool_call_id="call-1", artifact={"rows": [1, None]}, status="error"),
    FunctionMessage(content="42", name="answer"),
    ChatMessage(content="Hm.", role="critic"),
    RemoveMessage(id="run-1"),
    AIMessageChunk(content="par", id="run-2", chunk_position="last"),
    HumanMessageChunk(content="t"),
    SystemMessageChunk(content="i"),
    ToolMessageChunk(content="a", tool_call_id="call-1"),
    FunctionMessageChunk(content="l", name="answer"),
    ChatMessageChunk(content="!", role="critic"),
]


@pytest.fixture
def atomic(atomic_store: aio.Store) -> memory.Store:
    """A store that checks and writes in one step, for what several writers do at once."""
    return memory.Store(atomic_store.repository, atomic_store.namespace_name)


def chat(store: memory.Store, *answers: str) -> Any:
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
    model = GenericFakeChatModel(messages=iter([AIMessage(answer) for answer in answers]))
    return RunnableWithMessageHistory(
        prompt | model,
        lambda session_id: MessageHistory(session_id, store, metadata={"customer": "ada"}),
        input_messages_key="question",
        history_messages_key="history",
    )


SESSION: Any = {"configurable": {"session_id": "support-42"}}


def texts(store: memory.Store, session_id: str = "support-42") -> list[object]:
    return [message.content for message in MessageHistory(session_id, store).messages]


def test_every_message_is_stored_without_loss(store: memory.Store) -> None:
    MessageHistory("all", store).add_messages(MESSAGES)
    found = MessageHistory("all", store).messages
    assert found == MESSAGES
    assert [type(message) for message in found] == [type(message) for message in MESSAGES]


def test_a_chain_talks(store: memory.Store) -> None:
    runnable = chat(store, "On its way.", "Tomorrow.")
    runnable.invoke({"question": "Where is it?"}, SESSION)
    runnable.invoke({"question": "When?"}, SESSION)
    assert texts(store) == ["Where is it?", "On its way.", "When?", "Tomorrow."]
    found = store.conversations.find(memory.where("customer") == "ada")
    assert [conversation.id for conversation in found] == ["support-42"]
    assert [run.output is None for run in store.runs.list("support-42")] == [True, False, True, False]


@pytest.mark.anyio
async def test_a_chain_talks_asynchronously(store: memory.Store) -> None:
    runnable = chat(store, "On its way.", "Tomorrow.")
    await runnable.ainvoke({"question": "Where is it?"}, SESSION)
    streamed = [chunk.content async for chunk in runnable.astream({"question": "When?"}, SESSION)]
    assert "".join(streamed) == "Tomorrow."
    history = MessageHistory("support-42", store)
    assert [m.content for m in await history.aget_messages()] == ["Where is it?", "On its way.", "When?", "Tomorrow."]
    await history.aclear()
    assert await history.aget_messages() == []


def test_writers_lose_nothing(atomic: memory.Store) -> None:
    def write(number: int) -> None:
        pair = [HumanMessage(f"question {number}"), AIMessage(f"answer {number}")]
        MessageHistory("support-42", atomic).add_messages(pair)

    at_once(write, 20)
    found = texts(atomic)
    assert len(found) == 40
    for number in range(20):  # messages that are added together stay together
        at = found.index(f"question {number}")
        assert found[at + 1] == f"answer {number}"


def test_a_limit_reads_the_last_messages(store: memory.Store) -> None:
    MessageHistory("support-42", store).add_messages([HumanMessage(str(n)) for n in range(5)])
    assert [message.content for message in MessageHistory("support-42", store, limit=2).messages] == ["3", "4"]
    assert MessageHistory("support-42", store, limit=0).messages == []


def test_sessions_are_apart_and_clearing_one_twice_is_fine(store: memory.Store) -> None:
    one, other = MessageHistory("one", store), MessageHistory("other", store)
    one.add_user_message("Hi")
    other.add_ai_message("Hello")
    one.clear()
    one.clear()
    assert (one.messages, texts(store, "other")) == ([], ["Hello"])
    one.add_messages([])
    assert not store.conversations.exists("one")


def test_what_is_not_json_is_refused_with_its_path(store: memory.Store) -> None:
    history = MessageHistory("support-42", store)
    with pytest.raises(memory.InvalidValueError, match="artifact"):
        history.add_messages([ToolMessage("rows", tool_call_id="1", artifact={"frame": object()})])
    assert history.messages == []
