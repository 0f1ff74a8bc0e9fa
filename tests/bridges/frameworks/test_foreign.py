"""What another framework, or the application, wrote is refused with its position, and never taken for something else."""

from collections.abc import Callable
from typing import Any

import pytest
from google.adk.sessions.session import Session as AdkSession
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.llms import ChatMessage
from strands.types.session import Session as StrandsSession

from memory import Conversation, Run, Store, UnsupportedError, aio
from memory.bridges.agent_framework import HistoryProvider
from memory.bridges.google_adk import SessionService
from memory.bridges.langchain import MessageHistory
from memory.bridges.llama_index import ChatStore
from memory.bridges.openai_agents import Session
from memory.bridges.strands import SessionRepository

pytestmark = pytest.mark.anyio


def by_langchain(store: Store) -> None:
    MessageHistory("s", store).add_messages([HumanMessage("Hi"), AIMessage("Hello")])


def by_llama_index(store: Store) -> None:
    ChatStore(store).set_messages("s", [ChatMessage(role="user", content="Hi")])


def by_the_application(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("s"))
        uow.runs.append("s", Run("Hi", None), Run(None, {"text": "Hello"}))


async def reads(framework: str, store: Store) -> object:
    asynchronous = aio.Store(store.repository, store.namespace_name)
    readers: dict[str, Callable[[], Any]] = {
        "langchain": lambda: MessageHistory("s", store).messages,
        "llama-index": lambda: ChatStore(store).get_messages("s"),
        "agent-framework": lambda: HistoryProvider(asynchronous).get_messages("s"),
        "openai-agents": lambda: Session("s", asynchronous).get_items(),
    }
    found = readers[framework]()
    return await found if hasattr(found, "__await__") else found


@pytest.mark.parametrize("framework", ["langchain", "llama-index", "agent-framework", "openai-agents"])
@pytest.mark.parametrize("write", [by_langchain, by_llama_index, by_the_application])
async def test_messages_of_another_framework_are_refused(
    local_store: Store, framework: str, write: Callable[[Store], None]
) -> None:
    write(local_store)
    if write.__name__.removeprefix("by_").replace("_", "-") == framework:
        assert await reads(framework, local_store)
    elif (write, framework) != (by_llama_index, "openai-agents"):  # whose items are any dicts with a role
        with pytest.raises(UnsupportedError, match="position 1 "):
            await reads(framework, local_store)


async def test_states_are_not_read_from_conversations_of_others(local_store: Store) -> None:
    with local_store.begin() as uow:
        uow.conversations.add(Conversation("support"))
    service = SessionService(aio.Store(local_store.repository, local_store.namespace_name))
    with pytest.raises(UnsupportedError, match="namespace of its own"):
        await service.create_session(app_name="support", user_id="ada", session_id="1")
    assert local_store.conversations.count() == 1
    assert not isinstance(await service.get_session(app_name="support", user_id="ada", session_id="1"), AdkSession)
    with pytest.raises(UnsupportedError, match="namespace of its own"):
        SessionRepository(local_store).read_session("support")
    assert SessionRepository(local_store).read_session("other") is None
    assert SessionRepository(local_store).create_session(StrandsSession("other", "AGENT")).session_id == "other"  # type: ignore[arg-type]


def test_the_name_of_the_framework_is_not_the_applications(local_store: Store) -> None:
    """By it, conversations are found, listed and deleted."""
    repository = SessionRepository(local_store, metadata={"framework": "mine", "team": "a"})
    repository.create_session(StrandsSession("s", "AGENT"))  # type: ignore[arg-type]
    assert local_store.conversations.get("s").metadata["framework"] == "strands"
    repository.delete_session("s")
    assert local_store.conversations.count() == 0


@pytest.fixture
def local_store() -> Store:
    import memory

    store: Store = memory.connect("memory://")
    return store
