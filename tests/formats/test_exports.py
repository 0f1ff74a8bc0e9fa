"""Exports of other applications, beyond the small cases: branches, attachments, odd messages."""

import json
from typing import Any

import pytest

from memory import Store
from tests.formats.conftest import AT, SAMPLES, Importing, kept, pairs


def read(importing: Importing, value: Any) -> None:
    """Import a value, whose format is detected, and check that nothing is refused."""
    totals, refusals = importing(None, json.dumps(value).encode())
    assert refusals == []
    assert totals.conversations > 0


def claude(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"uuid": "u1", "name": "Refund", "chat_messages": list(messages), **fields}


def said(uuid: str, sender: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"uuid": uuid, "sender": sender, "text": text, "content": [{"type": "text", "text": text}], **fields}


def test_claude_shows_texts_and_keeps_tools_thoughts_and_attachments(importing: Importing, store: Store) -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "name": "search", "input": {"q": "refund"}},
        {"type": "tool_result", "name": "search", "content": [{"type": "text", "text": "Monday"}]},
        {"type": "text", "text": "It left on Monday."},
    ]
    files = [{"file_name": "order.pdf", "extracted_content": "Order 7"}]
    answer = {**said("a", "assistant", "This block is not supported"), "content": blocks}
    question = said("q", "human", "Where is my refund?", attachments=files, created_at="2025-01-01T00:00:00Z")
    only_file = said("q2", "human", "", attachments=files)
    read(importing, [claude(question, answer, only_file)])
    conversation, runs = kept(store, "u1")
    assert [(run.input, run.output) for run in runs] == [
        ("Where is my refund?", "Let me look.\nIt left on Monday."),
        (files, None),
    ]
    assert conversation.metadata["title"] == "Refund"
    messages = runs[0].metadata["claude"]["messages"]
    assert messages == [{**question, "text": None}, answer]
    assert runs[0].created_at.year == 2025


def test_claude_follows_the_branch_of_the_last_message(importing: Importing, store: Store) -> None:
    root = "00000000-0000-4000-8000-000000000000"
    messages = [
        said("q", "human", "Q1", parent_message_uuid=root),
        said("old", "assistant", "old answer", parent_message_uuid="q"),
        said("new", "assistant", "new answer", parent_message_uuid="q"),
        said("q2", "human", "Q2", parent_message_uuid="new"),
        said("a2", "assistant", "A2", parent_message_uuid="q2"),
    ]
    read(importing, [claude(*messages)])
    runs = kept(store, "u1")[1]
    assert [(run.input, run.output) for run in runs] == [("Q1", "new answer"), ("Q2", "A2")]
    assert runs[0].metadata["claude"]["branches"] == [messages[1]]


def test_a_chat_of_open_webui_keeps_its_other_branches(importing: Importing, store: Store) -> None:
    tree = {
        "1": {
            "id": "1",
            "parentId": None,
            "childrenIds": ["2", "3"],
            "role": "user",
            "content": "Q",
            "timestamp": 1700000000,
        },
        "2": {"id": "2", "parentId": "1", "childrenIds": [], "role": "assistant", "content": "one", "model": "a"},
        "3": {"id": "3", "parentId": "1", "childrenIds": [], "role": "assistant", "content": "other", "model": "b"},
    }
    chat = {"title": "T", "models": ["a", "b"], "history": {"messages": tree, "currentId": "2"}, "messages": []}
    read(importing, [{"id": "o", "title": "T", "chat": chat, "archived": True}])
    conversation, runs = kept(store, "o")
    assert [(run.id, run.input, run.output) for run in runs] == [("1", "Q", "one")]
    assert runs[0].metadata["open-webui"]["branches"] == [tree["3"]]
    assert conversation.metadata["open-webui"]["fields"]["archived"] is True
    assert conversation.metadata["open-webui"]["fields"]["chat"]["models"] == ["a", "b"]
    assert conversation.record is not None
    assert conversation.record.created_at == AT


@pytest.mark.parametrize("is_tree", [True, False])
def test_librechat_writes_a_list_or_a_tree(importing: Importing, store: Store, *, is_tree: bool) -> None:
    nodes: list[dict[str, Any]] = [
        {"messageId": "1", "isCreatedByUser": True, "text": "Q", "createdAt": "2023-11-14T22:13:20Z"},
        {"messageId": "2", "parentMessageId": "1", "isCreatedByUser": False, "text": "old"},
        {"messageId": "3", "parentMessageId": "1", "isCreatedByUser": False, "text": "",
         "content": [{"type": "think", "think": "hm"}, {"type": "text", "text": {"value": "new"}}]},
        {"messageId": "4", "parentMessageId": "3", "isCreatedByUser": True, "text": "Thanks"},
    ]  # fmt: skip
    if is_tree:
        third = {**nodes[2], "children": [{**nodes[3], "children": []}]}
        messages = [{**nodes[0], "children": [{**nodes[1], "children": []}, third]}]
    else:
        messages = nodes
    read(importing, {"conversationId": "c", "title": "T", "messages": messages, "options": {"model": "m"}})
    conversation, runs = kept(store, "c")
    assert [(run.id, run.input, run.output) for run in runs] == [("1", "Q", "new"), ("4", "Thanks", None)]
    assert [node["messageId"] for node in runs[0].metadata["librechat"]["branches"]] == ["2"]
    assert conversation.metadata["librechat"]["fields"]["options"] == {"model": "m"}


def test_an_activity_without_an_answer_keeps_its_files(importing: Importing, store: Store) -> None:
    activity = {
        "header": "Gemini Apps",
        "title": "Prompted Cat?",
        "time": "2023-11-14T22:13:20Z",
        "attachedFiles": ["cat.png"],
    }
    html = {**activity, "safeHtmlItem": [{"html": "<p>A <b>cat</b>.</p><ul><li>grey &amp; old</li></ul>"}]}
    read(importing, [activity, html])
    assert sorted(map(repr, pairs(store).values())) == ["[('Cat?', 'A cat.\\n\\ngrey & old')]", "[('Cat?', None)]"]
    with store.begin() as uow:
        for conversation in uow.conversations.iterate():
            (run,) = uow.runs.list(conversation.id)
            assert run.metadata["gemini"]["messages"][0]["attachedFiles"] == ["cat.png"]
            assert conversation.record is not None
            assert conversation.record.created_at == AT


def test_activities_of_other_products_are_not_imported(importing: Importing, store: Store) -> None:
    """Takeout has a MyActivity.json of each: what somebody has watched is no question."""
    watched = {"header": "YouTube", "title": "Watched Cats", "time": "2023-11-14T22:13:20Z", "products": ["YouTube"]}
    _, refusals = importing(None, json.dumps([watched]).encode())
    assert len(refusals) == 1
    assert store.conversations.count() == 0


def test_sharegpt_has_roles_of_many_names(importing: Importing, store: Store) -> None:
    value = {"id": "s", "source": "x", "conversations": [
        {"from": "system", "value": "Be brief."}, {"from": "user", "value": "Rain?"},
        {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "rain"}, {"from": "chatgpt", "value": "Yes."},
    ]}  # fmt: skip
    read(importing, value)
    conversation, runs = kept(store, "s")
    assert [(run.input, run.output) for run in runs] == [("Rain?", "Yes.")]
    assert [message["from"] for message in runs[0].metadata["sharegpt"]["messages"]] == [
        "system", "user", "function_call", "observation", "chatgpt",
    ]  # fmt: skip
    assert conversation.metadata["sharegpt"]["fields"]["source"] == "x"


def test_rows_of_llm_may_be_of_several_conversations_in_turn(importing: Importing, store: Store) -> None:
    rows = [
        {"id": f"{number}", "conversation_id": id, "prompt": f"Q{number}", "response": f"A{number}", "system": None,
         "datetime_utc": f"2025-01-01T00:00:0{number}"}
        for number, id in enumerate("abab")
    ]  # fmt: skip
    read(importing, rows)
    assert pairs(store) == {"a": [("Q0", "A0"), ("Q2", "A2")], "b": [("Q1", "A1"), ("Q3", "A3")]}


@pytest.mark.parametrize("name", ["langchain_file.json", "langchain_dumpd.json"])
def test_files_of_langchain_are_one_conversation(importing: Importing, store: Store, name: str) -> None:
    totals, refusals = importing(None, SAMPLES / name, "support-42")
    assert (totals.conversations, refusals) == (1, [])
    assert pairs(store) == {"support-42": [("Will it rain?", "Yes.")]}
    messages = kept(store, "support-42")[1][0].metadata["langchain"]["messages"]
    assert messages == json.loads((SAMPLES / name).read_text())


def test_lines_of_langchain_are_messages_or_conversations(importing: Importing, store: Store) -> None:
    messages = [{"type": "human", "data": {"content": "Q"}}, {"type": "ai", "data": {"content": "A"}}]
    importing(None, "\n".join(map(json.dumps, messages)).encode(), "one")
    lines = [{"session_id": id, "messages": messages} for id in "ab"]
    importing(None, "\n".join(map(json.dumps, lines)).encode(), "two")
    assert pairs(store) == {"one": [("Q", "A")], "a": [("Q", "A")], "b": [("Q", "A")]}


def test_deepseek_keeps_the_branch_that_was_left(importing: Importing, store: Store) -> None:
    def node(id: str, parent: str | None, *fragments: tuple[str, str]) -> dict[str, Any]:
        parts = [{"type": type, "content": content} for type, content in fragments]
        return {
            "id": id,
            "parent": parent,
            "children": [],
            "message": {"fragments": parts, "inserted_at": AT // 1_000_000},
        }

    mapping = {
        "root": {"id": "root", "parent": None, "children": ["1"], "message": None},
        "1": node("1", "root", ("REQUEST", "Q")),
        "2": node("2", "1", ("RESPONSE", "old")),
        "3": node("3", "1", ("THINK", "hm"), ("RESPONSE", "new")),
        "4": node("4", "3", ("REQUEST", "Thanks")),
    }
    read(importing, [{"id": "d", "title": "T", "mapping": mapping}])
    runs = kept(store, "d")[1]
    assert [(run.input, run.output) for run in runs] == [("Q", "new"), ("Thanks", None)]
    assert runs[0].metadata["deepseek"]["branches"] == [mapping["2"]]
    assert "hm" in json.dumps(runs[0].metadata)


def test_the_report_of_a_research_is_the_answer(importing: Importing, store: Store) -> None:
    (chat,) = json.loads((SAMPLES / "cases" / "chatgpt-january.json").read_text())
    answer = chat["mapping"]["a"]["message"]
    report = {**answer, "author": {"role": "tool"}, "metadata": {"is_async_task_result_message": True}}
    chat["mapping"]["a"]["message"] = report
    read(importing, [chat])
    assert pairs(store) == {"c1": [("Q1", "A1")]}


@pytest.mark.parametrize(
    "hidden",
    [
        {"author": {"role": "assistant"}, "content": {"content_type": "thoughts", "thoughts": [{"content": "hm"}]}},
        {"author": {"role": "assistant"}, "content": {"content_type": "reasoning_recap", "content": "Thought for 5s"}},
        {"author": {"role": "tool"}, "content": {"content_type": "execution_output", "text": "42"}},
        {"author": {"role": "tool"}, "content": {"content_type": "system_error", "name": "x", "text": "failed"}},
        {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": [""]}},
        {"author": {"role": "assistant"}, "recipient": "python", "content": {"content_type": "code", "text": "1 + 1"}},
        {"author": {"role": "user"}, "content": {"content_type": "user_editable_context", "user_profile": "P"}},
        {
            "author": {"role": "user"},
            "metadata": {"is_user_system_message": True},
            "content": {"content_type": "text", "parts": ["Be brief."]},
        },
        {"author": None, "content": {"content_type": "text", "parts": ["lost"]}},
        {"content": "a string"},
        None,
    ],
)
def test_what_chatgpt_does_not_show_is_neither_a_question_nor_an_answer(
    importing: Importing, store: Store, hidden: Any
) -> None:
    (chat,) = json.loads((SAMPLES / "cases" / "chatgpt-january.json").read_text())
    chat["mapping"]["h"] = {"id": "h", "parent": "q", "children": ["a"], "message": hidden}
    chat["mapping"]["a"]["parent"] = "h"
    read(importing, [chat])
    assert pairs(store) == {"c1": [("Q1", "A1")]}
    assert kept(store, "c1")[1][0].metadata["chatgpt"]["messages"][2] == chat["mapping"]["h"]


def test_a_leaf_without_a_time_wins_against_an_abandoned_one(importing: Importing, store: Store) -> None:
    (chat,) = json.loads((SAMPLES / "cases" / "chatgpt-branches.json").read_text())
    del chat["current_node"]
    for key in ("a2", "q2", "b"):
        chat["mapping"][key]["message"]["create_time"] = None
    read(importing, [chat])
    assert pairs(store) == {"c1": [("Q1", "new answer"), ("Q2", "A2")]}


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("Hi", "Hi"),
        ([{"type": "text", "text": "Hi"}], "Hi"),
        ([{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "cat.png"}], "Hi"),
        ([{"text": "Hi"}, {"inline_data": {"mime_type": "image/png", "data": "AA=="}}], "Hi"),
        (["Hi", {"type": "text", "text": "there"}], "Hi\nthere"),
        ([{"type": "image", "source": {"type": "url", "url": "cat.png"}}],) * 2,
        ([{"type": "text", "text": "Hi"}, {"type": "tool_result", "content": "rain"}], "Hi"),
    ],
    ids=["text", "Anthropic", "Responses", "Gemini", "texts", "picture", "result"],
)
def test_a_question_is_what_a_person_wrote(importing: Importing, store: Store, content: Any, value: Any) -> None:
    answer = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hello"}],
    }
    read(importing, [{"role": "user", "content": content}, answer])
    assert pairs(store) == {"file": [(value, "Hello")]}


def test_conversations_of_one_object_and_of_a_list_are_the_same(importing: Importing) -> None:
    for name in ("claude-export", "deepseek-export", "open-webui-export", "sharegpt"):
        (one,) = json.loads((SAMPLES / "cases" / f"{name}.json").read_text())
        read(importing, one)
        totals, _ = importing(None, json.dumps([one], indent=2).encode())
        assert (totals.conversations, totals.skipped) == (0, 1)
