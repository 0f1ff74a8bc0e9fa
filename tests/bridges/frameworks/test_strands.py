"""Strands Agents' session repository in a store, with Strands' own session manager and agents."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from strands import Agent, tool
from strands.agent.conversation_manager import SlidingWindowConversationManager
from strands.models import Model
from strands.multiagent import GraphBuilder
from strands.session.repository_session_manager import RepositorySessionManager
from strands.types.content import Message
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

import memory
from memory import aio
from memory.bridges.strands import SessionRepository
from tests.bridges.frameworks.writers import at_once


class Scripted(Model):
    """A model that gives one answer after the other: a text, or the arguments of a call of ``lookup``."""

    def __init__(self, *answers: str | dict[str, Any], refuses: str | None = None) -> None:
        self._answers = iter(answers)
        self._refuses = refuses

    def get_config(self) -> dict[str, Any]:
        return {}

    def update_config(self, **_: Any) -> None:
        pass

    async def structured_output(self, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        yield NotImplemented

    async def stream(self, messages: Any, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        answer = next(self._answers)
        yield {"messageStart": {"role": "assistant"}}
        if self._refuses:
            yield {"redactContent": {"redactUserContentMessage": self._refuses}}
        if isinstance(answer, dict):
            yield {"contentBlockStart": {"start": {"toolUse": {"name": "lookup", "toolUseId": "call-1"}}}}
            yield {"contentBlockDelta": {"delta": {"toolUse": {"input": '{"order": 7}'}}}}
        else:
            yield {"contentBlockStart": {"start": {}}}
            yield {"contentBlockDelta": {"delta": {"text": answer}}}
        yield {"contentBlockStop": {}}
        reason = "tool_use" if isinstance(answer, dict) else "guardrail_intervened" if self._refuses else "end_turn"
        yield {"messageStop": {"stopReason": reason}}


@tool
def lookup(order: int) -> str:
    """Look up an order."""
    return f"order {order} is on its way"


@pytest.fixture
def sessions(store: memory.Store) -> SessionRepository:
    return SessionRepository(store, metadata={"customer": "ada"})


@pytest.fixture
def atomic(atomic_store: aio.Store) -> memory.Store:
    """A store that checks and writes in one step, for what several writers do at once."""
    return memory.Store(atomic_store.repository, atomic_store.namespace_name)


def agent(sessions: SessionRepository, *answers: str | dict[str, Any], **options: Any) -> Agent:
    model = Scripted(*answers, refuses=options.pop("refuses", None))
    manager = RepositorySessionManager("support-42", sessions)
    return Agent(
        agent_id="helper", model=model, session_manager=manager, tools=[lookup], callback_handler=None, **options
    )


def said(messages: list[Message]) -> list[str]:
    """Return the text of each block, or what else the block is."""
    return [block.get("text", next(iter(block))) for message in messages for block in message["content"]]


def user(index: int, text: str = "") -> SessionMessage:
    return SessionMessage.from_message({"role": "user", "content": [{"text": text or str(index)}]}, index)


def with_agent(sessions: SessionRepository, agent_id: str = "helper") -> SessionAgent:
    if sessions.read_session("s") is None:
        sessions.create_session(Session("s", SessionType.AGENT))
    made = SessionAgent(agent_id, {"mood": "good"}, {})
    sessions.create_agent("s", made)
    return made


def test_an_agent_continues_its_conversation(store: memory.Store, sessions: SessionRepository) -> None:
    first = agent(sessions, {"order": 7}, "On its way.")
    first("Where is it?")
    again = agent(sessions, "Tomorrow.")
    assert again.messages == first.messages
    again("When?")
    expected = ["Where is it?", "toolUse", "toolResult", "On its way.", "When?", "Tomorrow."]
    assert said(agent(sessions).messages) == expected
    found = store.conversations.find(memory.where("agent.agent_id") == "helper")
    assert [conversation.id for conversation in found] == ["support-42/helper"]
    assert found.items[0].metadata["customer"] == "ada"
    assert [run.output is None for run in store.runs.list("support-42/helper")] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


def test_the_state_of_an_agent_is_metadata(store: memory.Store, sessions: SessionRepository) -> None:
    helper = agent(sessions, "Noted.")
    helper.state.set("topic", "refund")
    helper("I want a refund.")
    assert agent(sessions).state.get("topic") == "refund"
    assert store.conversations.count(memory.where("agent.state.topic") == "refund") == 1


def test_a_window_restores_only_what_is_in_it(store: memory.Store, sessions: SessionRepository) -> None:
    window = SlidingWindowConversationManager(window_size=4)
    helper = agent(sessions, *"abcdef", conversation_manager=window)
    for text in "uvwxyz":
        helper(text)
    again = agent(sessions, conversation_manager=SlidingWindowConversationManager(window_size=4))
    assert again.messages == helper.messages
    assert len(again.messages) == 4
    assert len(store.runs.list("support-42/helper")) == 12


def test_a_redacted_message_is_replaced(store: memory.Store, sessions: SessionRepository) -> None:
    agent(sessions, "I cannot answer.", refuses="[redacted]")("my password is x")
    assert said(agent(sessions).messages) == ["[redacted]", "I cannot answer."]
    stored = store.runs.get("support-42/helper", 1).input
    assert stored["redact_message"]["content"][0]["text"] == "[redacted]"


def test_bytes_are_kept(sessions: SessionRepository) -> None:
    with_agent(sessions)
    image: Message = {"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": b"\x89PNG\xff"}}}]}
    sessions.create_message("s", "helper", SessionMessage.from_message(image, 0))
    assert [message.to_message() for message in sessions.list_messages("s", "helper")] == [image]


def test_pages_of_messages(sessions: SessionRepository) -> None:
    with_agent(sessions)
    assert sessions.list_messages("s", "helper") == []
    for index in range(6):
        sessions.create_message("s", "helper", user(index))

    def ids(**options: int) -> list[int]:
        return [message.message_id for message in sessions.list_messages("s", "helper", **options)]

    assert (ids(), ids(limit=2), ids(offset=4), ids(limit=2, offset=3), ids(offset=9)) == (
        [0, 1, 2, 3, 4, 5],
        [0, 1],
        [4, 5],
        [3, 4],
        [],
    )
    assert sessions.read_message("s", "helper", 3) == sessions.list_messages("s", "helper", limit=1, offset=3)[0]
    assert sessions.read_message("s", "helper", 6) is None
    assert sessions.read_message("s", "nobody", 0) is None


def test_writers_with_the_same_index_lose_nothing(atomic: memory.Store) -> None:
    sessions = SessionRepository(atomic)
    with_agent(sessions)
    sent = [user(0, f"text {number}") for number in range(20)]
    at_once(lambda number: sessions.create_message("s", "helper", sent[number]), 20)
    found = sessions.list_messages("s", "helper")
    assert sorted(message.message["content"][0]["text"] for message in found) == sorted(f"text {n}" for n in range(20))
    sent[7].redact_message = {"role": "user", "content": [{"text": "[redacted]"}]}
    sessions.update_message("s", "helper", sent[7])
    again = sessions.list_messages("s", "helper")
    assert [message.message for message in again] == [message.message for message in found]
    redacted = [message for message in again if message.redact_message]
    assert [message.message["content"][0]["text"] for message in redacted] == ["text 7"]


def test_agents_and_sessions_are_apart(atomic: memory.Store) -> None:
    sessions = SessionRepository(atomic)
    with_agent(sessions)
    with_agent(sessions, "other/agent")
    sessions.create_session(Session("s/other", SessionType.AGENT))
    sessions.create_message("s", "helper", user(0))
    assert sessions.list_messages("s", "other/agent") == []
    assert sessions.read_agent("s", "other") is None
    assert sessions.read_agent("s/other", "agent") is None
    sessions.delete_session("s")
    assert [conversation.id for conversation in atomic.conversations.iterate()] == ["s%2Fother"]
    assert sessions.read_session("s") is None
    assert sessions.read_session("s/other") is not None


def test_errors_are_those_of_strands(sessions: SessionRepository) -> None:
    made = with_agent(sessions)
    with pytest.raises(SessionException, match="session 's' already exists") as refused:
        sessions.create_session(Session("s", SessionType.AGENT))
    assert isinstance(refused.value.__cause__, memory.AlreadyExistsError)
    with pytest.raises(SessionException, match="agent 'helper' of session 's' already exists"):
        sessions.create_agent("s", made)
    nobody = SessionAgent("nobody", {}, {})
    with pytest.raises(SessionException, match="agent 'nobody' of session 's' does not exist"):
        sessions.update_agent("s", nobody)
    with pytest.raises(SessionException, match="does not exist"):
        sessions.create_message("s", "nobody", user(0))
    with pytest.raises(SessionException, match="does not exist"):
        sessions.list_messages("s", "nobody")
    with pytest.raises(SessionException, match="message 5 of agent 'helper' does not exist"):
        sessions.update_message("s", "helper", user(5))
    with pytest.raises(SessionException, match="session 'none' does not exist"):
        sessions.delete_session("none")
    with pytest.raises(memory.InvalidValueError, match="JSON"):
        sessions.create_agent("s", SessionAgent("odd", {"value": object()}, {}))


def test_updates_of_an_agent_at_once_all_end(atomic: memory.Store) -> None:
    sessions = SessionRepository(atomic)
    made = with_agent(sessions)
    at_once(lambda n: sessions.update_agent("s", SessionAgent("helper", {"by": n}, {})), 8)
    found = sessions.read_agent("s", "helper")
    assert found is not None
    assert found.state["by"] in range(8)
    assert found.created_at == made.created_at


def test_a_graph_of_agents_keeps_its_state(store: memory.Store, sessions: SessionRepository) -> None:
    def graph(*answers: str) -> Any:
        builder = GraphBuilder()
        builder.set_graph_id("graph")
        builder.set_max_node_executions(9)  # Strands warns of a graph without a limit
        for name, answer in zip(("one", "two"), answers, strict=True):
            builder.add_node(Agent(agent_id=name, model=Scripted(answer), callback_handler=None), name)
        builder.add_edge("one", "two")
        builder.set_session_manager(RepositorySessionManager("support-42", sessions))
        return builder.build()

    graph("First.", "Second.")("Go.")
    state = sessions.read_multi_agent("support-42", "graph")
    assert state is not None
    assert sorted(state["completed_nodes"]) == ["one", "two"]
    assert len(store.runs.list("support-42/multi_agents/graph")) == 1
    assert graph("Again.", "Done.")("Go.").status.value == "completed"

    class Missing:
        id = "missing"

        def serialize_state(self) -> dict[str, Any]:
            return {}

    with pytest.raises(SessionException, match="multi-agent 'missing' of session 'support-42' does not exist"):
        sessions.update_multi_agent("support-42", Missing())  # type: ignore[arg-type]
    assert sessions.read_multi_agent("support-42", "missing") is None
