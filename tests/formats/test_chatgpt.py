"""ChatGPT's data export: the tree of messages becomes runs, and can be rebuilt from them."""

import gzip
import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memory
from memory import Store, where
from memory.cli import main
from memory.formats.chatgpt import KEY
from tests.formats.conftest import AT, SAMPLES, Importing, import_into, kept
from tests.formats.rebuilding import chatgpt_json
from tests.formats.test_griptape_runs import text_of

FILE = SAMPLES / "chatgpt_conversations.json"
FIRST = "6f1b0c2e-0000-4000-8000-000000000001"
EXPORT: list[dict[str, Any]] = json.loads(FILE.read_text())


def test_the_branch_that_was_seen_last_is_the_conversation(importing: Importing, store: Store) -> None:
    totals, refusals = importing("chatgpt", FILE.read_bytes())
    assert (totals.conversations, totals.runs, refusals) == (2, 3, [])
    conversation, runs = kept(store, FIRST)
    assert [(run.id, run.input, run.output) for run in runs] == [
        ("q1", "Where is my refund?", "It left on Monday."),
        ("q2", "Is this the receipt?", ["Yes,", "it is."]),
        ("q3", "Thanks", None),
    ]
    assert runs[0].created_at == datetime(2023, 11, 14, 22, 13, 21, 500_000, UTC)
    assert [node["id"] for node in runs[0].metadata[KEY]["branches"]] == ["a1-old", "q2-old"]
    assert "branches" not in runs[1].metadata[KEY]
    assert conversation.created_at == datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC)
    assert conversation.updated_at == datetime(2023, 11, 14, 22, 15, 0, 500_000, UTC)


def test_title_model_and_all_other_fields_can_be_asked_for(importing: Importing, store: Store) -> None:
    importing("chatgpt", FILE.read_bytes())
    with store.begin() as uow:
        for criterion in (
            where("title").startswith("Refund"),
            where("model") == "gpt-4",
            where(f"{KEY}.fields.is_archived") == False,  # noqa: E712  # a criterion
        ):
            assert [found.id for found in uow.conversations.find(criterion)] == [FIRST]


def test_the_export_can_be_rebuilt(importing: Importing, store: Store) -> None:
    importing("chatgpt", FILE.read_bytes())
    for one in EXPORT:
        rebuilt = chatgpt_json(*kept(store, one["conversation_id"]))
        assert rebuilt == one
        assert list(rebuilt) == list(one)
        for key, node in rebuilt["mapping"].items():
            assert text_of(node) == text_of(one["mapping"][key])


def test_the_zip_is_read_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("user.json", "{}")
        archive.writestr("conversations.json", FILE.read_bytes())
    assert main(["import", "--from", "chatgpt", "export.zip"]) == 0
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        assert uow.conversations.count(where("title").exists()) == 2


def test_an_export_in_parts_is_read_in_their_order(importing: Importing, store: Store) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in (1, 0):
            text = json.dumps([{**EXPORT[number], "id": 1, "conversation_id": None}])
            archive.writestr(f"x/conversations-00{number}.json", text)
    assert importing("chatgpt", packed.getvalue(), "mine")[0].conversations == 2
    with store.begin() as uow:
        found = {conversation.id: conversation.metadata["title"] for conversation in uow.conversations.iterate()}
    assert sorted(id.rpartition("-")[0] for id in found) == ["x/conversations-000", "x/conversations-001"]
    assert set(found.values()) == {EXPORT[0]["title"], None}


def test_other_archives_and_broken_ones_are_refused(importing: Importing) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("other.json", "{}")
    assert importing("chatgpt", packed.getvalue())[1][-1] == (
        "1: the archive has no file with conversations of chatgpt, only other.json"
    )
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", json.dumps(EXPORT * 50))
    whole = packed.getvalue()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (bytes(damaged), whole[:-30], gzip.compress(whole), whole[:100]):
        totals, refusals = importing("chatgpt", content, on_conflict="skip")
        assert refusals
        assert totals.conversations in (0, 2)


def test_a_conversation_that_is_cut_is_refused_and_those_before_are_there(importing: Importing) -> None:
    text = json.dumps(EXPORT).encode()
    totals, refusals = importing("chatgpt", text[: text.index(b'null, "create_time": 1700000200.0')])
    assert (totals.conversations, refusals) == (1, ["2: the input ends inside the value"])


@pytest.mark.parametrize("value", [{}, {"mapping": None}, {"mapping": []}, 7, None, "mapping", []])
def test_what_has_no_tree_is_refused(importing: Importing, value: Any) -> None:
    reason = 'not a conversation of ChatGPT, which is an object with a "mapping"'
    assert importing("chatgpt", json.dumps([value, EXPORT[1]]).encode())[1] == [f"1: {reason}"]


def test_without_ids_times_and_current_node_there_are_others(importing: Importing, store: Store) -> None:
    bare = {"mapping": EXPORT[0]["mapping"]}
    importing("chatgpt", json.dumps(bare).encode(), "file")
    conversation, runs = kept(store, "file")
    assert [run.id for run in runs] == ["q1", "q2", "q3"]  # the leaf that was made last
    assert conversation.record is not None
    assert conversation.record.created_at == AT
    assert chatgpt_json(conversation, runs) == bare


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.floats(allow_nan=False)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
)
ids = st.sampled_from("abcdefg")
contents = (
    st.builds(lambda text: {"content_type": "text", "parts": [text]}, st.text(max_size=3))
    | st.fixed_dictionaries(
        {"content_type": st.sampled_from(["text", "code", "thoughts"]) | anything, "parts": anything}
    )
    | anything
)
authors = (
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]) | anything}) | anything
)
times = st.floats() | st.integers() | anything
messages = st.none() | anything | st.fixed_dictionaries(
    {"author": authors, "content": contents},
    optional={
        "create_time": times,
        "recipient": st.sampled_from(["all", "python"]) | anything,
        "metadata": st.just({"is_visually_hidden_from_conversation": True}) | anything,
    },
)  # fmt: skip


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """Trees, and what looks like them: with cycles, missing parents, ids that are others'."""
    mapping: dict[str, Any] = {}
    for key in draw(st.lists(ids, unique=True)):
        node = {"id": key, "message": draw(messages), "parent": draw(ids | st.none()), "children": []}
        node |= draw(st.dictionaries(st.sampled_from(["id", "message", "parent", "key", "node"]), anything, max_size=1))
        mapping[key] = draw(
            st.sampled_from([node, node, node, {name: node[name] for name in list(node)[1:]}, None, []])
        )
    fields = draw(
        st.dictionaries(
            st.sampled_from(["title", "create_time", "update_time", "id", "default_model_slug", "x"]), times
        )
    )
    return {**fields, "mapping": mapping, "current_node": draw(ids | anything)}


def is_storable(value: Any) -> bool:
    constants: list[str] = []  # NaN and Infinity, which JSON lacks; a string may say the same
    json.loads(text_of(value), parse_constant=constants.append)
    return not constants


@given(trees())
def test_any_tree_is_imported_and_can_be_rebuilt(tree: dict[str, Any]) -> None:
    with memory.connect("memory://") as store:
        totals, refusals = import_into(store, "chatgpt", json.dumps([tree]).encode())
        is_silent = any("no question and no answer" in reason for reason in refusals)
        assert totals.conversations == (is_storable(tree) and not is_silent), refusals
        if totals.conversations:
            with store.begin() as uow:
                (id,) = [found.id for found in uow.conversations.iterate()]
            rebuilt = chatgpt_json(*kept(store, id))
            assert rebuilt == tree
            assert text_of(rebuilt | {"mapping": None}) == text_of(tree | {"mapping": None})
            assert {key: text_of(node) for key, node in rebuilt["mapping"].items()} == {
                key: text_of(node) for key, node in tree["mapping"].items()
            }


@given(st.lists(anything | trees()) | anything)
def test_any_json_is_imported_or_refused(value: Any) -> None:
    with memory.connect("memory://") as store:
        totals, refusals = import_into(store, "chatgpt", json.dumps(value).encode())
        assert totals.refused == len(refusals)
