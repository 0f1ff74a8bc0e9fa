"""The history of Microsoft's Agent Framework, on every store."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from agent_framework import Agent, BaseChatClient, ChatResponse, Content, Message

from memory import ConfigurationError, aio, where
from memory.bridges.agent_framework import HistoryProvider

pytestmark = pytest.mark.anyio


class Scripted(BaseChatClient[Any]):
    """A chat client that answers with how many messages it was sent."""

    async def _answer(self, messages: Sequence[Message]) -> ChatResponse:
        return ChatResponse(messages=[Message("assistant", [f"I was sent {len(messages)}."])])

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **kwargs: Any
    ) -> Any:
        return self._answer(messages)


EVERY_KIND = [
    Message("system", ["Be brief."]),
    Message(
        "user",
        ["Ünïcode \u2028 \U0001f600 \x00", Content.from_uri("https://example.com/a.png", media_type="image/png")],
    ),
    Message("assistant", [Content.from_function_call("c1", "refund", arguments={"id": 1})], author_name="clerk"),
    Message("tool", [Content.from_function_result("c1", result="done")], message_id="m1"),
    Message("assistant", ["It left on Monday."], additional_properties={"mood": ["kind", 1.5, None]}),
]


async def test_an_agent_reads_and_appends_each_turn(aio_store: aio.Store) -> None:
    agent = Agent(Scripted(), context_providers=[HistoryProvider(aio_store, metadata={"customer": "ada"})])
    session = agent.create_session(session_id="support-42")
    first = await agent.run("Where is my refund?", session=session)
    second = await agent.run("And now?", session=session)
    assert (first.text, second.text) == ("I was sent 1.", "I was sent 3.")
    found = await aio_store.conversations.find(where("customer") == "ada")
    assert [(each.id, each.run_count, each.metadata["framework"]) for each in found] == [
        ("support-42", 4, "agent-framework")
    ]


async def test_every_kind_of_message_comes_back_as_it_was(aio_store: aio.Store) -> None:
    history = HistoryProvider(aio_store)
    await history.save_messages("s", EVERY_KIND)
    read = await history.get_messages("s")
    assert [message.to_dict() for message in read] == [message.to_dict() for message in EVERY_KIND]
    runs = await aio_store.runs.list("s")
    assert [number for number, run in enumerate(runs) if run.output is None] == [0, 1, 3]


async def test_a_limit_reads_the_last_messages(aio_store: aio.Store) -> None:
    await HistoryProvider(aio_store).save_messages("s", EVERY_KIND)
    assert [message.role for message in await HistoryProvider(aio_store, limit=2).get_messages("s")] == [
        "tool",
        "assistant",
    ]


async def test_concurrent_turns_lose_nothing(atomic_store: aio.Store) -> None:
    turns = [[Message("user", [f"{number}?"]), Message("assistant", [f"{number}!"])] for number in range(8)]
    await asyncio.gather(*[HistoryProvider(atomic_store).save_messages("s", turn) for turn in turns])
    texts = [message.text for message in await HistoryProvider(atomic_store).get_messages("s")]
    assert sorted([texts[begin : begin + 2] for begin in range(0, 16, 2)]) == [[f"{n}?", f"{n}!"] for n in range(8)]


async def test_a_session_needs_an_id(aio_store: aio.Store) -> None:
    await HistoryProvider(aio_store).save_messages("s", [])
    assert not await aio_store.conversations.exists("s")
    with pytest.raises(ConfigurationError, match="create_session"):
        await HistoryProvider(aio_store).save_messages(None, EVERY_KIND)
