"""Files that people really have: each arrives with its questions and answers, or is refused by its name."""

import json
from typing import Any

import pytest

from memory import Store
from memory.formats.opening import Part, parts
from memory.formats.registry import Source
from tests.formats.conftest import AT, SAMPLES, Importing, kept, pairs

CASES = SAMPLES / "cases"
REFUND = [("Where is my refund?", "It left on Monday.")]
TABLE = [("A table?", "For four.")]
RAIN = [("Will it rain?", "Yes.")]
WEATHER = [("Weather?", "Rain.")]
TREE = [("Q1", "new answer"), ("Q2", "A2")]
CAT = {
    "content_type": "image_asset_pointer",
    "asset_pointer": "sediment://file_0001",
    "size_bytes": 100,
    "width": 10,
    "height": 10,
    "metadata": {"dalle": {"prompt": "a cat"}},
}

READ: dict[str, tuple[str, list[list[tuple[Any, Any]]]]] = {
    "ai-sdk-ui-list.json": ("openai", [REFUND]),
    "ai-sdk-ui-messages.json": ("openai", [TABLE]),
    "anthropic-blocks-tool-result.json": ("openai", [WEATHER]),
    "chatgpt-branches.json": ("chatgpt", [TREE]),
    "chatgpt-canvas.json": (
        "chatgpt",
        [[("Write a letter", ["Dear Ada, your refund left on Monday.", "Here is the letter."])]],
    ),
    "chatgpt-code-shown.json": ("chatgpt", [[("JSON please", '{"a": 1}')]]),
    "chatgpt-dangling-current-node.json": ("chatgpt", [TREE]),
    "chatgpt-file-quote.json": ("chatgpt", [[("Sum it up", "Done.")]]),
    "chatgpt-hidden-context-flagged.json": ("chatgpt", [[("Where?", "Here.")]]),
    "chatgpt-hidden-context-unflagged.json": ("chatgpt", [[("Where?", "Here.")]]),
    "chatgpt-image-answer.json": (
        "chatgpt",
        [[("Draw a cat", {"content_type": "multimodal_text", "parts": [CAT]})]],
    ),
    "chatgpt-image-question.json": ("chatgpt", [[("What is this?", "A cat.")]]),
    "chatgpt-january.json": ("chatgpt", [[("Q1", "A1")]]),
    "chatgpt-linear-conversation.json": ("chatgpt", [REFUND]),
    "chatgpt-tool-quotes.json": ("chatgpt", [[("News?", "None.")]]),
    "chatgpt-tree-07-05-conversations.json": ("chatgpt", [TREE]),
    "chatgpt-tree-07-06-conversations.json": ("chatgpt", [TREE]),
    "chatgpt-tree-07-07-conversations.json": ("chatgpt", [TREE]),
    "chatgpt-tree-07-08-conversations.json": ("chatgpt", [TREE]),
    "chatgpt-tree-07-09-conversations.json": ("chatgpt", [[("Q1", "A1")]]),
    "chatgpt-tree-07-10-conversations.json": ("chatgpt", [[("Q1", "A1")]]),
    "chatgpt-tree-07-11-conversations.json": ("chatgpt", [TREE]),
    "chatgpt-tree-07-13-conversations.json": ("chatgpt", [TREE]),
    "chatgpt-two-text-parts.json": ("chatgpt", [[("Go on", "One.\nTwo.")]]),
    "chatgpt-voice.json": ("chatgpt", [REFUND]),
    "claude-export.json": ("claude", [REFUND]),
    "deepseek-export.json": ("deepseek", [REFUND]),
    "gemini-api-history.json": ("openai", [TABLE]),
    "gemini-contents.json": ("openai", [REFUND]),
    "gemini-takeout-MyActivity.json": ("gemini", [REFUND]),
    "langchain-messages-to-dict.json": ("langchain", [REFUND]),
    "langchain-type-content.json": ("langchain", [REFUND]),
    "librechat-export.json": ("librechat", [REFUND]),
    "llm-logs.json": ("llm", [REFUND]),
    "open-webui-chat-object.json": ("open-webui", [REFUND]),
    "open-webui-export.json": ("open-webui", [REFUND]),
    "openai-developer-and-function-roles.json": ("openai", [WEATHER]),
    "openai-greeting-first-two-questions.json": (
        "openai",
        [[(None, "Hello"), ("Weather?", None), ("Anyone?", "Rain.")]],
    ),
    "openai-reasoning-content.json": ("openai", [WEATHER]),
    "openai-refusal.json": ("openai", [[("Weather?", "I cannot help with that.")]]),
    "openai-tool-call-content-absent.json": ("openai", [WEATHER]),
    "openai-tool-call-content-empty-list.json": ("openai", [WEATHER]),
    "openai-tool-call-content-empty.json": ("openai", [WEATHER]),
    "openai-tool-call-content-null.json": ("openai", [WEATHER]),
    "responses-item-a-line.jsonl": ("openai", [RAIN]),
    "responses-items-indented.json": ("openai", [RAIN]),
    "responses-items-one-line.jsonl": ("openai", [RAIN, RAIN]),
    "responses-items-under-input.json": ("openai", [RAIN]),
    "responses-items-under-messages.json": ("openai", [RAIN]),
    "responses-items.json": ("openai", [RAIN]),
    "sharegpt.json": ("sharegpt", [REFUND]),
    "text-for-content.json": ("openai", [TABLE]),
}
REFUSED = {
    "batch-input.jsonl": "requests of OpenAI's batch API",
    "chat-completion-objects.jsonl": "responses of OpenAI without their questions",
    "codex-rollout.jsonl": "a session of Codex",
    "grok-export.json": "Grok's data export",
    "oasst-tree.jsonl": "message trees of Open Assistant",
    "preference-tuning.jsonl": "pairs of preferences",
    "prompt-completion.jsonl": "prompts and completions",
    "request-and-response-log.jsonl": "a log of requests and responses",
    "silly-tavern.jsonl": "a chat of SillyTavern",
    "streaming-chunks.jsonl": "responses of OpenAI without their questions",
}


def test_every_case_is_tested() -> None:
    tested = {*READ, *REFUSED, "chatgpt-tree-07-12-conversations.json"}
    assert {file.name for file in CASES.iterdir()} == tested


@pytest.mark.parametrize("name", READ)
def test_every_question_arrives_with_its_answer(importing: Importing, store: Store, name: str) -> None:
    format, expected = READ[name]
    found = importing(format, CASES / name, "case")
    assert (found[0].conversations, found[1]) == (len(expected), [])
    assert list(pairs(store).values()) == expected


@pytest.mark.parametrize("name", READ)
def test_the_format_is_found_in_the_content(name: str) -> None:
    with (CASES / name).open("rb") as stream:
        (part,) = parts(Source("case", AT, stream))
    assert isinstance(part, Part)
    assert part.format == READ[name][0]


@pytest.mark.parametrize("format", [None, "openai"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_format_reads_is_refused_by_its_name(
    importing: Importing, store: Store, name: str, format: str | None
) -> None:
    totals, reasons = importing(format, CASES / name)
    assert (totals.conversations, pairs(store)) == (0, {})
    assert reasons[0].startswith(f"1: it looks like {REFUSED[name]}")
    assert "which no format reads: " in reasons[0]


def test_a_tree_without_messages_is_a_conversation_and_no_tree_is_none(importing: Importing, store: Store) -> None:
    _, reasons = importing(None, CASES / "chatgpt-tree-07-12-conversations.json")
    assert pairs(store) == {"e": [], "only-root": [(None, None)]}
    assert [reason.partition(":")[0] for reason in reasons] == ["3", "4"]


@pytest.mark.parametrize("name", [name for name in READ if name.startswith(("responses", "openai", "anthropic"))])
def test_calls_results_and_thoughts_are_kept_beside_the_pair(importing: Importing, store: Store, name: str) -> None:
    importing(None, CASES / name, "case")
    text = (CASES / name).read_text()
    with store.begin() as uow:
        runs = [run for found in uow.conversations.iterate() for run in uow.runs.list(found.id)]
    beside = json.dumps([run.metadata for run in runs])
    for word in ("rs_1", "tool_use_id", "tool_call_id", "call_id", "reasoning_content", "developer"):
        assert word not in text or word in beside


def test_pictures_and_recordings_are_kept_beside_what_was_said(importing: Importing, store: Store) -> None:
    for name in ("chatgpt-image-question.json", "chatgpt-voice.json", "chatgpt-canvas.json"):
        importing(None, CASES / name, on_conflict="replace")
        beside = json.dumps([run.metadata for run in kept(store, "c1")[1]])
        assert "sediment://" in beside or "canmore.create_textdoc" in beside


def test_times_are_read_however_they_are_written(importing: Importing, store: Store) -> None:
    importing(None, CASES / "chatgpt-tree-07-13-conversations.json")
    record = kept(store, "c1")[0].record
    assert record is not None
    assert (record.created_at, record.updated_at) == (1_706_702_400_000_000, 1_706_704_200_000_000)
