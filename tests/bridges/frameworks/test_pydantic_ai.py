"""The conversation store of pydantic-ai, on every store, and beside the one that pydantic-ai keeps in memory."""

import asyncio
import pickle
import random
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    InMemoryConversationStore,
)
from pydantic_ai.conversation_store import ConversationStore as Interface
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    BinaryContent,
    BinaryImage,
    DocumentUrl,
    FilePart,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    NativeToolCallPart,
    NativeToolReturnPart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage, RunUsage
from pydantic_core import PydanticSerializationError

from memory import InvalidValueError, Store, aio, where
from memory.bridges.pydantic_ai import ConversationStore
from memory.domain.entities import Conversation as Stored
from memory.domain.entities import Run

pytestmark = pytest.mark.anyio

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVERY_KIND: list[ModelMessage] = [
    ModelRequest(
        parts=[
            SystemPromptPart("Be brief.", dynamic_ref="d", timestamp=AT),
            UserPromptPart(
                [
                    "Look:",
                    ImageUrl("https://x/y.png"),
                    DocumentUrl("https://x/y.pdf"),
                    BinaryImage(b"\x00\xff", media_type="image/png"),
                ],
                timestamp=AT,
            ),
            UserPromptPart([BinaryContent(b"\x00\xff\xfe", media_type="application/x-own")], timestamp=AT),
        ],
        instructions="Be kind.",
        timestamp=AT,
        run_id="r1",
        metadata={"trace": [1, {"a": None}]},
    ),
    ModelResponse(
        parts=[
            ThinkingPart("Hm.", signature="sig", id="t1", provider_name="anthropic"),
            TextPart("Ünïcode \u2028 \U0001f600"),
            ToolCallPart("refund", {"id": 1, "note": None}, tool_call_id="c1"),
            ToolCallPart("refund", '{"id": 2}', tool_call_id="c2"),
            NativeToolCallPart("web_search", {"q": "x"}, tool_call_id="c3", provider_name="openai"),
            NativeToolReturnPart(
                "web_search", {"found": [1, 2.5]}, tool_call_id="c3", timestamp=AT, provider_name="openai"
            ),
            FilePart(BinaryImage(b"\x89PNG", media_type="image/png")),
        ],
        usage=RequestUsage(input_tokens=3, output_tokens=5, details={"cached": 1}),
        model_name="m",
        timestamp=AT,
        provider_name="p",
        provider_details={"logprobs": [-0.5]},
        provider_response_id="resp_1",
        finish_reason="tool_call",
    ),
    ModelRequest(
        parts=[
            ToolReturnPart(
                "refund", {"paid": 10**20, "at": [True]}, tool_call_id="c1", metadata={"k": 1}, timestamp=AT
            ),
            ToolReturnPart("refund", "no such order", tool_call_id="c2", outcome="retried", timestamp=AT),
        ]
    ),
    ModelResponse(parts=[TextPart("")], timestamp=AT),
]


@pytest.fixture
def conversations(aio_store: aio.Store) -> ConversationStore:
    return ConversationStore(aio_store)


def request(text: str) -> ModelMessage:
    return ModelRequest(parts=[UserPromptPart(text, timestamp=AT)])


def texts(messages: list[ModelMessage]) -> list[str]:
    return [part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)]  # type: ignore[misc]


async def saved(store: Interface, id: str = "c", *prompts: str, scope: str | None = None) -> Conversation:
    conversation = Conversation(conversation_id=id, messages=[request(prompt) for prompt in prompts])
    await store.save(conversation, scope=scope)
    return conversation


async def test_an_agent_continues_a_conversation(conversations: ConversationStore, aio_store: aio.Store) -> None:
    agent, conversation = Agent(TestModel(custom_output_text="It left.")), Conversation(conversation_id="support-42")
    for _ in range(3):
        result = await agent.run("Where is my refund?", conversation=conversation)
        await conversations.save(result, scope="ada")
        said, conversation = result.all_messages(), await conversations.load("support-42") or conversation
        assert conversation.messages == said
    loaded = await conversations.load("support-42", scope="ada")
    assert loaded is not None
    assert loaded.usage.requests == 3
    found = await aio_store.conversations.find(where("scope") == "ada")
    assert [(each.id, each.run_count) for each in found] == [("support-42", 6)]
    assert await conversations.load("support-42", scope="bob") is None


async def test_every_kind_of_message_comes_back_as_it_was(conversations: ConversationStore) -> None:
    await conversations.save(Conversation(conversation_id="c", messages=deepcopy(EVERY_KIND)))
    loaded = await conversations.load("c")
    assert loaded is not None
    assert loaded.messages == EVERY_KIND


async def test_the_record_comes_back_as_it_was(conversations: ConversationStore, aio_store: aio.Store) -> None:
    record = ConversationRecord(
        conversation_id="c",
        head_id="e2",
        usage=RunUsage(requests=2, input_tokens=7, details={"cached": 1}),
        deferred_tool_requests=DeferredToolRequests(approvals=[ToolCallPart("pay", {"to": None}, tool_call_id="1")]),
        scope="ada",
        forked_from="b",
        forked_at="e1",
        branches=["e1"],
        updated_at=AT,
    )
    entries = [
        ConversationEntry(id=f"e{n}", parent_id=f"e{n - 1}" if n > 1 else None, message=request("x")) for n in (1, 2)
    ]
    await conversations.write_record(record, new_entries=entries, expected_revision=None)
    assert await conversations.read_record("c") == record
    is_waiting = where(("pydantic-ai", "is_waiting")) == True  # noqa: E712
    found = await aio_store.conversations.find(is_waiting & (where("scope") == "ada"))
    assert [each.id for each in found] == ["c"]
    assert await conversations.read_history("e2") == entries  # a plain id, as an application stores it
    assert await conversations.read_entry("e1") == entries[0]
    with pytest.raises(KeyError):
        await conversations.read_entry("e3")


@pytest.mark.parametrize(("limit", "expected"), [(None, "abcd"), (3, "bcd"), (9, "abcd"), (0, "")])
async def test_a_limit_loads_the_last_messages(
    conversations: ConversationStore, limit: int | None, expected: str
) -> None:
    await saved(conversations, "c", *"abcd")
    loaded = await conversations.load("c", limit=limit)
    assert loaded is not None
    assert texts(loaded.messages) == list(expected)
    loaded.messages.append(request("e"))
    await conversations.save(loaded)
    assert len(await conversations.load_entries("c") or []) == 5


async def test_one_of_several_savers_wins_and_the_others_leave_nothing(atomic_store: aio.Store) -> None:
    conversations = ConversationStore(atomic_store)

    async def save(conversation: Conversation) -> bool:
        try:
            await conversations.save(conversation)
        except ConversationConflict:
            return False
        return True

    async def extended(number: int) -> Conversation:
        conversation = await conversations.load("c") or Conversation(conversation_id="c")
        conversation.messages.append(request(str(number)))
        return conversation

    for runs in (1, 2):  # when it does not exist yet, and when it does
        copies = [await extended(number) for number in range(5)]
        assert sum(await asyncio.gather(*map(save, copies))) == 1
        assert (await atomic_store.conversations.get("c")).run_count == runs


async def test_retries_after_conflicts_lose_nothing(atomic_store: aio.Store) -> None:
    conversations = ConversationStore(atomic_store)

    async def say(text: str) -> None:
        while True:
            conversation = await conversations.load("c") or Conversation(conversation_id="c")
            conversation.messages.append(request(text))
            try:
                await conversations.save(conversation)
            except ConversationConflict:
                continue
            return

    await asyncio.gather(*map(say, "abcd"))
    loaded = await conversations.load("c")
    assert loaded is not None
    assert sorted(texts(loaded.messages)) == list("abcd")


async def test_other_metadata_may_change_between_a_load_and_a_save(
    conversations: ConversationStore, aio_store: aio.Store
) -> None:
    conversation = await saved(conversations, "c", "a")
    async with aio_store.begin() as uow:
        (await uow.conversations.get("c")).metadata["title"] = "Refund"
    conversation.messages.append(request("b"))
    await conversations.save(conversation)
    assert (await aio_store.conversations.get("c")).metadata["title"] == "Refund"


async def test_a_conversation_made_again_under_its_id_is_another(conversations: ConversationStore) -> None:
    old = await saved(conversations, "c", "a")
    await conversations.delete("c")
    await saved(conversations, "c", "a")
    old.messages.append(request("b"))
    with pytest.raises(ConversationConflict):
        await conversations.save(old)


async def test_a_deletion_meets_a_save(conversations: ConversationStore, aio_store: aio.Store) -> None:
    conversation = await saved(conversations, "c", "a")
    assert conversation.revision is not None
    stale = conversation.revision
    conversation.messages.append(request("b"))
    await conversations.save(conversation)
    with pytest.raises(ConversationConflict):
        await conversations.delete_record("c", expected_revision=stale)
    await conversations.delete("c", scope="bob")
    assert await conversations.load("c") is not None
    await conversations.delete("c")
    with pytest.raises(ConversationConflict):
        await conversations.delete_record("c", expected_revision=conversation.revision)
    assert await aio_store.runs.list("c") == []


async def test_a_fork_is_complete_without_its_origin(conversations: ConversationStore) -> None:
    await saved(conversations, "c", *"abc", scope="ada")
    entries = await conversations.load_entries("c") or []
    await conversations.fork("c", at=2, new_conversation_id="f")
    assert await conversations.load_entries("f") == entries[:2]
    await conversations.delete("c")
    loaded = await conversations.load("f", scope="ada")
    assert loaded is not None
    assert texts(loaded.messages) == ["a", "b"]
    with pytest.raises(ConversationConflict):
        await conversations.write_record(
            ConversationRecord(conversation_id="g", head_id=entries[2].id, forked_from="c"), expected_revision=None
        )


@pytest.mark.parametrize(
    ("positions", "removal", "left"),
    [
        ((), {"after": 2}, ["1", "2"]),
        ((), {"before": 3}, ["3", "4"]),
        ((2,), {}, ["1", "3", "4"]),
        ((), {"before": 5}, []),
    ],
)
async def test_what_is_left_of_a_history_is_read_and_saved_to(
    conversations: ConversationStore,
    aio_store: aio.Store,
    positions: tuple[int, ...],
    removal: dict[str, Any],
    left: list[str],
) -> None:
    """The application, or a retention, may remove runs."""
    await saved(conversations, "c", "1", "2", "3", "4")
    async with aio_store.begin() as uow:
        await uow.runs.remove("c", *positions, **removal)
    loaded = await conversations.load("c")
    assert loaded is not None
    assert texts(loaded.messages) == left
    loaded.messages.append(request("5"))
    await conversations.save(loaded)
    again = await conversations.load("c")
    assert again is not None
    assert texts(again.messages) == [*left, "5"]


async def test_records_and_entries_can_be_copied_and_pickled(conversations: ConversationStore) -> None:
    await saved(conversations, "c", "1")
    record = await conversations.read_record("c")
    assert record is not None
    assert deepcopy(record) == pickle.loads(pickle.dumps(record)) == record
    assert await conversations.read_history(deepcopy(record).head_id) == await conversations.read_history(
        record.head_id
    )


async def test_a_conversation_that_something_else_wrote_is_not_overwritten(
    conversations: ConversationStore, store: Store
) -> None:
    with store.begin() as uow:
        uow.conversations.add(Stored("c"))
        uow.runs.append("c", Run("Where is my refund?", "It left on Monday."))
    assert await conversations.load("c") is None
    with pytest.raises(ConversationConflict):
        await saved(conversations, "c", "a")


async def test_what_cannot_be_stored_writes_nothing(conversations: ConversationStore, aio_store: aio.Store) -> None:
    result = ModelRequest(parts=[ToolReturnPart("t", object(), tool_call_id="1", timestamp=AT)])
    many = ToolCallPart("t", {"numbers": list(range(11_000))}, tool_call_id="1")
    for conversation, error in (
        (Conversation(conversation_id="c", messages=[request("a"), result]), PydanticSerializationError),
        (
            Conversation(conversation_id="c", deferred_tool_requests=DeferredToolRequests(calls=[many])),
            InvalidValueError,
        ),
    ):
        with pytest.raises(error):
            await conversations.save(conversation)
    assert not await aio_store.conversations.exists("c")


async def test_records_are_listed_by_their_last_save(conversations: ConversationStore) -> None:
    for id, scope in (("a", "ada"), ("b", "bob"), ("c", "ada"), ("d", None)):
        await saved(conversations, id, "x", scope=scope)
    changed = await conversations.load("a")
    assert changed is not None
    await conversations.save(changed)

    async def listed(**arguments: Any) -> list[str]:
        return [record.conversation_id for record in await conversations.list_conversations(**arguments)]

    assert await listed() == ["a", "d", "c", "b"]
    assert await listed(scope="ada") == ["a", "c"]
    assert (await listed(limit=2), await listed(limit=0), await listed(scope="ada", limit=1)) == (["a", "d"], [], ["a"])
    assert await listed(scope="eve") == []


@pytest.mark.parametrize("seed", range(4))
async def test_it_does_what_the_store_in_memory_does(conversations: ConversationStore, seed: int) -> None:
    """The same random calls on both give the same results and the same errors."""
    chance, reference = random.Random(seed), InMemoryConversationStore()
    for step in range(40):
        act = Act(
            chance.choice(["save", "save", "save", "branch", "fork", "rewrite", "delete"]),
            chance.choice("ab"),
            chance.randrange(5),
            chance.choice([None, None, "ada"]),
            chance.choice([None, 2]),
            str(step),
        )
        assert await outcome(act, conversations) == await outcome(act, reference), (seed, act)
    assert await state(conversations) == await state(reference)


class Act(NamedTuple):
    kind: str
    id: str
    at: int
    scope: str | None
    limit: int | None
    text: str


async def outcome(act: Act, store: Interface) -> str:
    try:
        await do(act, store)
    except UserError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


async def do(act: Act, store: Interface) -> None:
    loaded = await store.load(act.id, scope=act.scope, limit=act.limit)
    record = await store.read_record(act.id)
    match act.kind:
        case "save":
            conversation = loaded or Conversation(conversation_id=act.id)
            conversation.messages.append(request(act.text))
            await store.save(conversation, scope=act.scope)
        case "branch":
            tip = record.branches[0] if record and record.branches and act.limit else None
            at, revision = (act.at if tip is None else None), (record.revision if record else None)
            await store.branch(act.id, at=at, from_entry=tip, expected_revision=revision, scope=act.scope)
        case "fork":
            await store.fork(act.id, at=act.at, new_conversation_id=f"f{act.text}", source_scope=act.scope)
        case "rewrite" if loaded is not None:
            messages = [*loaded.messages[: act.at], request(act.text)]
            await store.save(Conversation(conversation_id=act.id, messages=messages, revision=loaded.revision))
        case "delete" if act.at == 0:
            await store.delete(act.id, scope=act.scope)


async def state(store: Interface) -> list[Any]:
    result: list[Any] = []
    for record in await store.list_conversations():
        entries = await store.load_entries(record.conversation_id) or []
        window = await store.load_entries(record.conversation_id, limit=2) or []
        assert window == entries[-2:]
        lines = [texts([entry.message for entry in await store.read_history(tip)]) for tip in record.branches]
        history = texts([entry.message for entry in entries])
        result.append((record.conversation_id, record.scope, record.forked_from, history, lines))
    return result
