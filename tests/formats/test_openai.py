"""Lists of messages, as OpenAI's interfaces take them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memory
from memory import Store
from memory.formats.builders import digest
from memory.formats.openai import KEY
from tests.formats.conftest import AT, Importing, import_into, kept
from tests.formats.conftest import pairs as conversations
from tests.formats.rebuilding import openai_json
from tests.formats.test_griptape_runs import text_of

HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be brief."}
FUNCTION = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALL = {"role": "assistant", "content": None, "tool_calls": [FUNCTION]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "42"}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
PARTS = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}

LISTS: list[Any] = [
    [HI, HELLO],
    [SYSTEM, HI, HELLO, PARTS, CALL, RESULT, {**HELLO, "content": "42"}],
    [HI, HI, HELLO, HELLO, HI],
    [HELLO, HI],
    [],
    [{**HI, "name": "ada"}, {**HELLO, "refusal": None}],
    [{"content": "Hi", "role": "user"}],
    [{"role": "user", "content": None}, {"role": "assistant", "content": ""}],
]


def pairs(store: Store, id: str) -> list[tuple[Any, Any]]:
    return [(run.input, run.output) for run in kept(store, id)[1]]


def id_of(value: Any, name: str = "file") -> str:
    """Return the id of a conversation that is not the only one of its file."""
    return f"{name}-{digest(value)}"


@pytest.mark.parametrize(
    "write",
    [
        lambda lists: b"\n".join(json.dumps({"messages": one}).encode() for one in lists),
        lambda lists: b"\n".join(json.dumps(one).encode() for one in lists),
        lambda lists: json.dumps([{"messages": one} for one in lists]).encode(),
        lambda lists: json.dumps([{"messages": one} for one in lists], indent=1).encode(),
        lambda lists: "\ufeff".encode() + json.dumps(lists, indent=2).encode(),
        lambda lists: b"\r\n\r\n" + b"\r\n".join(json.dumps({"messages": one}, indent=2).encode() for one in lists),
    ],
    ids=["lines", "lines of bare lists", "an array", "an array in lines", "an array of bare lists", "objects in lines"],
)
def test_a_file_may_be_lines_or_an_array(importing: Importing, store: Store, write: Any) -> None:
    lists = [one for one in LISTS if one]
    totals, refusals = importing("openai", write(lists))
    assert (totals.conversations, refusals) == (len(lists), [])
    with store.begin() as uow:
        found = [conversation.id for conversation in uow.conversations.iterate(order="created_at")]
    rebuilt = [openai_json(*kept(store, id)) for id in found]
    assert sorted(text_of(one if isinstance(one, list) else one["messages"]) for one in rebuilt) == sorted(
        map(text_of, lists)
    )


@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_may_be_one_bare_list(importing: Importing, store: Store, indent: int | None) -> None:
    assert importing("openai", json.dumps([SYSTEM, HI, HELLO], indent=indent).encode(), "chat")[0].conversations == 1
    conversation, runs = kept(store, "chat")
    assert [(run.input, run.output) for run in runs] == [("Hi", "Hello")]
    assert openai_json(conversation, runs) == [SYSTEM, HI, HELLO]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_elements_of_an_array_are_told_by_their_numbers(
    importing: Importing, store: Store, indent: int | None, end: bytes
) -> None:
    good = {"messages": [HI]}
    bad = {"messages": [{**HI, "content": float("nan")}]}
    content = json.dumps([good, bad, [HI, HELLO], good, 7, good], indent=indent).encode() + end
    totals, refusals = importing("openai", content, "arr")
    assert (totals.conversations, totals.skipped) == (2, 2)  # the same conversation thrice
    assert refusals == [
        "2: input is nan: only finite numbers can be stored",
        '5: not a list of messages, nor an object with one under "messages"',
    ]
    with store.begin() as uow:
        found = [conversation.id for conversation in uow.conversations.iterate(order="id")]
    assert sorted(found) == sorted([id_of(good, "arr"), id_of([HI, HELLO], "arr")])


def test_an_element_that_is_no_json_spoils_no_other(importing: Importing, store: Store) -> None:
    good, other = json.dumps({"messages": [HI]}), {"messages": [HI, HELLO]}
    totals, refusals = importing("openai", f'[{good}, {{"messages": nonsense}}, {json.dumps(other)}]'.encode())
    assert (totals.conversations, refusals) == (2, ["2: not JSON: Expecting value at column 14"])
    assert pairs(store, id_of(other)) == [("Hi", "Hello")]


def test_a_list_of_messages_that_is_cut_is_no_conversation(importing: Importing) -> None:
    totals, refusals = importing("openai", json.dumps([HI, HELLO]).encode()[:-5])
    assert (totals.conversations, len(refusals)) == (0, 1)


def test_lines_may_be_arrays_of_conversations(importing: Importing, store: Store) -> None:
    line = json.dumps([{"messages": [HI]}, 7, 8, {"messages": [HELLO]}])
    _, refusals = importing("openai", f"{line}\n{line}\n".encode())
    reason = 'not a list of messages, nor an object with one under "messages"'
    assert refusals == [f"{number}: {reason}" for number in (2, 3, 6, 7)]
    with store.begin() as uow:
        found = [conversation.id for conversation in uow.conversations.iterate(order="id")]
    assert sorted(found) == sorted([id_of({"messages": [HI]}), id_of({"messages": [HELLO]})])


def test_users_and_assistants_are_paired_and_the_others_kept_beside_them(importing: Importing, store: Store) -> None:
    importing("openai", b"\n".join(json.dumps({"messages": one}).encode() for one in LISTS))
    assert [pairs(store, id_of({"messages": one})) for one in LISTS] == [
        [("Hi", "Hello")],
        [("Hi", "Hello"), ("What is it?", "42")],
        [("Hi", None), ("Hi", ["Hello", "Hello"]), ("Hi", None)],
        [(None, "Hello"), ("Hi", None)],
        [],
        [("Hi", "Hello")],
        [("Hi", None)],
        [(None, "")],
    ]
    plain, rest = [kept(store, id_of({"messages": one})) for one in LISTS[:2]]
    assert (plain[0].metadata, plain[1][0].metadata) == ({}, {})  # nothing is put beside what is told already
    assert rest[1][1].metadata[KEY] == {
        "messages": [PARTS, CALL, RESULT, {**HELLO, "content": None}],
        "input": 0,
        "output": [3],
    }
    assert plain[0].record is not None
    assert plain[0].record.created_at == AT


def test_other_fields_of_the_object_are_metadata(importing: Importing, store: Store) -> None:
    value = {"model": "gpt-4", "messages": [HI, HELLO], "tools": [{"type": "function"}]}
    importing("openai", json.dumps(value).encode())
    conversation, runs = kept(store, "file")
    assert conversation.metadata == {KEY: {"fields": {**value, "messages": None}}}
    assert text_of(openai_json(conversation, runs)) == text_of(value)


def test_a_bad_line_is_refused_and_the_rest_goes_on(importing: Importing, store: Store) -> None:
    good = json.dumps({"messages": [HI]})
    bad = [
        "nonsense",
        '{"messages": [',
        "7",
        '{"messages": 7}',
        '{"a": 1}',
        '{"messages": [{"role": "user", "content": NaN}]}',
    ]
    other = {"messages": [HI, HELLO]}
    totals, refusals = importing("openai", "\n".join([good, *bad, json.dumps(other)]).encode())
    assert totals.conversations == 2
    assert [refusal.partition(":")[0] for refusal in refusals] == ["2", "3", "4", "5", "6", "7"]
    assert refusals[-1] == "7: input is nan: only finite numbers can be stored"
    assert pairs(store, id_of(other)) == [("Hi", "Hello")]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)
roles = st.sampled_from(["user", "assistant", "system", "tool", "developer"])
messages = st.builds(
    lambda role, content, more: {"role": role, "content": content, **more},
    roles | anything,
    st.text(max_size=3) | anything,
    st.dictionaries(st.sampled_from(["name", "tool_calls", "messages"]), anything, max_size=1),
)


@given(st.lists(messages | anything, max_size=8), st.dictionaries(st.text(max_size=3), anything, max_size=2))
def test_any_list_of_messages_is_imported_and_comes_back(said: list[Any], fields: dict[str, Any]) -> None:
    for value in ({**fields, "messages": said}, {"messages": said, **fields}):
        if isinstance(value["messages"], list):
            with memory.connect("memory://") as store:
                refusals = import_into(store, "openai", json.dumps(value).encode())[1]
                if not refusals:
                    (id,) = conversations(store)
                    assert text_of(openai_json(*kept(store, id))) == text_of(value)
                else:
                    assert "no question and no answer" in refusals[0] or "which no format reads" in refusals[0]


@given(st.lists(anything | st.lists(messages)) | anything | messages, st.sampled_from([None, 1]))
def test_any_json_is_imported_or_refused(value: Any, indent: int | None) -> None:
    with memory.connect("memory://") as store:
        totals, refusals = import_into(store, "openai", json.dumps(value, indent=indent).encode())
        assert totals.refused == len(refusals)


@pytest.mark.parametrize("text", [b"[,]", b"[ ,, ] ]"])
def test_a_line_that_begins_as_a_list_and_has_no_element_is_refused(importing: Importing, text: bytes) -> None:
    totals, refusals = importing("openai", text)
    assert (totals.conversations, len(refusals)) == (0, 1)
    assert refusals[0].startswith("1: not JSON")


def test_a_line_that_is_added_before_the_others_leaves_their_ids(importing: Importing, store: Store) -> None:
    lines = [json.dumps({"messages": [{**HI, "content": text}]}) for text in "abc"]
    importing("openai", "\n".join(lines).encode())
    before = conversations(store)
    totals, _ = importing("openai", "\n".join([json.dumps([HI, HELLO]), *lines]).encode())
    assert (totals.conversations, totals.skipped) == (1, 3)
    assert conversations(store).items() > before.items()
    assert [("Hi", "Hello")] in conversations(store).values()


@pytest.mark.parametrize("name", ["created", "created_at", "timestamp"])
@pytest.mark.parametrize("time", [1_700_000_060, 1_700_000_060_000, "2023-11-14T22:14:20Z", "1700000060.0"])
def test_times_of_messages_are_read(importing: Importing, store: Store, name: str, time: Any) -> None:
    importing("openai", json.dumps([{**HI, name: 1_700_000_000}, HELLO, {**HI, name: time}]).encode(), "chat")
    conversation, runs = kept(store, "chat")
    assert conversation.record is not None
    assert (conversation.record.created_at, conversation.record.updated_at) == (AT, AT + 60_000_000)
    assert (runs[1].created_at - runs[0].created_at).seconds == 60


def test_a_list_without_a_question_and_an_answer_is_refused(importing: Importing, store: Store) -> None:
    _, refusals = importing("openai", json.dumps([SYSTEM, {"role": "narrator", "content": "Once"}]).encode())
    assert refusals == ["1: its 2 messages have texts, but there is no question and no answer"]
    assert conversations(store) == {}


def test_what_a_person_heard_is_the_answer(importing: Importing, store: Store) -> None:
    spoken = {"role": "assistant", "content": None, "audio": {"id": "audio_1", "transcript": "Hello there"}}
    importing("openai", json.dumps({"id": "a", "messages": [HI, spoken]}).encode())
    (run,) = store.runs.list("a")
    assert run.output == "Hello there"
