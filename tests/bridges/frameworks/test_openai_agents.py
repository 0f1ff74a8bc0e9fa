"""Sessions of the OpenAI Agents SDK, on every store."""

import asyncio
import json
from typing import Any, cast

import pytest
from agents import (
    Agent,
    OpenAIResponsesCompactionSession,
    RunConfig,
    Runner,
    SessionSettings,
    TResponseInputItem,
    set_tracing_disabled,
)
from agents import Session as SessionProtocol
from agents.testing import ScriptedModel
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from memory import Store, UnsupportedError, aio, where
from memory.bridges.openai_agents import Session
from memory.domain.entities import Conversation, Run

pytestmark = pytest.mark.anyio
set_tracing_disabled(True)  # otherwise it sends traces to OpenAI, if there is a key


def item(number: int) -> TResponseInputItem:
    return {"role": "user", "content": f"question {number}"}


def said(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(text=text, type="output_text", annotations=[], logprobs=[])
    return ResponseOutputMessage(id=text, role="assistant", type="message", status="completed", content=[content])


EVERY_KIND: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}]},
    {"type": "message", "role": "user", "content": "Ünïcode \u2028 \U0001f600 \x00"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
    {"type": "function_call", "call_id": "c1", "name": "refund", "arguments": '{"id": 1}', "status": "completed"},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "done"}]},
    {
        "type": "computer_call",
        "id": "cu",
        "call_id": "c2",
        "action": {"type": "click", "x": 1, "y": 2},
        "status": "completed",
    },
    {"type": "computer_call_output", "call_id": "c2", "output": {"type": "computer_screenshot", "image_url": "x"}},
    {"type": "file_search_call", "id": "fs", "queries": ["refund"], "status": "completed", "results": None},
    {"type": "mcp_approval_request", "id": "a1", "arguments": "{}", "name": "pay", "server_label": "bank"},
    {"type": "mcp_approval_response", "approval_request_id": "a1", "approve": True},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"},
    {"type": "item_reference", "id": "msg_1"},
    {"role": "assistant", "content": "It left on Monday."},
    {"type": "a_kind_of_next_year", "value": {"deep": [1, 2.5, None, True, 10**30]}},
]


async def test_a_runner_reads_and_appends_each_turn(aio_store: aio.Store) -> None:
    model = ScriptedModel([[said("Hello Ada.")], [said("Ada.")]])
    agent = Agent(name="clerk", model=model)
    session: SessionProtocol = Session("support-42", aio_store, metadata={"customer": "ada"})
    await Runner.run(agent, "I am Ada.", session=session)
    result = await Runner.run(agent, "Who am I?", session=session)
    assert result.final_output == "Ada."
    assert [entry["role"] for entry in cast(Any, await session.get_items())] == ["user", "assistant"] * 2
    found = await aio_store.conversations.find(where("customer") == "ada")
    assert [(each.id, each.run_count, each.metadata["framework"]) for each in found] == [
        ("support-42", 4, "openai-agents")
    ]


async def test_every_kind_of_item_comes_back_as_it_was(aio_store: aio.Store) -> None:
    session = Session("s", aio_store)
    await session.add_items(cast(Any, EVERY_KIND))
    assert json.dumps(await session.get_items()) == json.dumps(EVERY_KIND)


async def test_what_the_model_says_is_an_output(aio_store: aio.Store) -> None:
    await Session("s", aio_store).add_items(cast(Any, EVERY_KIND))
    runs = await aio_store.runs.list("s")
    assert [number for number, run in enumerate(runs) if run.output is None] == [0, 1, 2, 3, 6, 8, 11]
    assert all((run.input is None) != (run.output is None) for run in runs)


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, [3, 4, 5]), (2, [4, 5]), (0, []), (9, [0, 1, 2, 3, 4, 5]), (-1, [0, 1, 2, 3, 4, 5])]
)
async def test_a_limit_is_that_of_the_call_or_of_the_settings(
    aio_store: aio.Store, limit: int | None, expected: list[int]
) -> None:
    session = Session("s", aio_store, session_settings=SessionSettings(limit=3))
    await session.add_items([item(number) for number in range(6)])
    assert await session.get_items(limit) == [item(number) for number in expected]


async def test_a_run_configuration_limits_what_the_model_sees(aio_store: aio.Store) -> None:
    session = Session("s", aio_store)
    await session.add_items([item(number) for number in range(6)])
    model = ScriptedModel([[said("done")]])
    config = RunConfig(session_settings=SessionSettings(limit=2))
    result = await Runner.run(Agent(name="clerk", model=model), "And now?", session=session, run_config=config)
    assert len(result.to_input_list()) <= 4
    assert len(await session.get_items()) == 8


async def test_a_session_without_items_is_empty(aio_store: aio.Store) -> None:
    session = Session("s", aio_store)
    await session.add_items([])
    assert (await session.get_items(), await session.pop_item()) == ([], None)
    await session.clear_session()
    assert not await aio_store.conversations.exists("s")


async def test_concurrent_appends_lose_nothing(atomic_store: aio.Store) -> None:
    batches = [[item(10 * number), item(10 * number + 1)] for number in range(8)]
    await asyncio.gather(*[Session("s", atomic_store).add_items(batch) for batch in batches])
    found = await Session("s", atomic_store).get_items()
    assert sorted([found[begin : begin + 2] for begin in range(0, 16, 2)], key=str) == sorted(batches, key=str)


async def test_concurrent_pops_return_each_item_once(atomic_store: aio.Store) -> None:
    session = Session("s", atomic_store)
    items = [item(number) for number in range(5)]
    await session.add_items(items)
    popped = await asyncio.gather(*[Session("s", atomic_store).pop_item() for _ in range(5)])
    assert sorted(map(str, popped)) == sorted(map(str, items))
    assert await session.get_items() == []


async def test_items_are_in_order_after_pops_and_appends(aio_store: aio.Store) -> None:
    session = Session("s", aio_store)
    await session.add_items([item(1), item(2)])
    assert await session.pop_item() == item(2)
    await session.add_items([item(3)])
    assert await session.get_items() == [item(1), item(3)]
    await session.clear_session()
    await session.add_items([item(4)])
    assert await session.get_items() == [item(4)]


async def test_a_compaction_replaces_the_items(aio_store: aio.Store) -> None:
    class Responses:
        async def compact(self, **_: object) -> Any:
            compacted = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
            return type("Compacted", (), {"output": [compacted], "usage": None})()

    client = cast(Any, type("Client", (), {"responses": Responses()})())
    session = Session("s", aio_store)
    await session.add_items([item(1), {"role": "assistant", "content": "answer"}])
    compacting = OpenAIResponsesCompactionSession("s", session, client=client, compaction_mode="input")
    await compacting.run_compaction({"force": True})
    assert [entry.get("type") for entry in await session.get_items()] == ["compaction"]


async def test_a_conversation_of_another_kind_is_refused(store: Store, aio_store: aio.Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("s"))
        uow.runs.append("s", Run("Where is my refund?", "It left on Monday."))
    with pytest.raises(UnsupportedError, match="position 1 "):
        await Session("s", aio_store).get_items()


async def test_an_item_that_is_not_json_writes_nothing(aio_store: aio.Store) -> None:
    bad = cast(Any, {"role": "user", "content": {1, 2}})
    with pytest.raises(ValueError, match="content"):
        await Session("s", aio_store).add_items([item(1), bad])
    assert not await aio_store.conversations.exists("s")


async def test_a_tool_call_and_its_output_are_kept_in_order(aio_store: aio.Store) -> None:
    from agents import function_tool

    @function_tool
    def refund(id: int) -> str:
        """Refund an order."""
        return f"refunded {id}"

    call = ResponseFunctionToolCall(type="function_call", call_id="c1", name="refund", arguments='{"id": 7}')
    agent = Agent(name="clerk", model=ScriptedModel([[call], [said("Done.")]]), tools=[refund])
    session = Session("s", aio_store)
    await Runner.run(agent, "Refund order 7.", session=session)
    items = cast(list[dict[str, Any]], await session.get_items())
    assert [entry.get("type", "message") for entry in items] == [
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert items[2]["output"] == "refunded 7"
