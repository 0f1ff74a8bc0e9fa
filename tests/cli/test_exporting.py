"""Exports in the formats of other programs, and what comes back of them."""

import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import memory
from memory import Conversation, Run
from memory.testing.base import read_runs
from tests.cli.conftest import Cli
from tests.formats.conftest import SAMPLES

CASES = SAMPLES / "cases"
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
ARTIFACT: dict[str, Any] = {
    "type": "TextArtifact",
    "id": "i",
    "reference": None,
    "meta": {},
    "name": "i",
    "value": "Grüße",
}


def stored(url: str) -> dict[str, list[tuple[Any, Any]]]:
    with memory.connect(url) as store, store.begin() as uow:
        ids = [conversation.id for conversation in uow.conversations.iterate(order="id")]
        return {id: [(run.input, run.output) for run in read_runs(store, id)] for id in ids}


@pytest.fixture(autouse=True)
def desk() -> None:
    """Two conversations: one of plain texts, one of everything else."""
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        uow.conversations.add(Conversation("plain", metadata={"customer": "ada"}))
        uow.runs.append("plain", Run("Where is my refund?", "It left on Monday.", {"cost": 1}, "r1", AT))
        uow.runs.append("plain", Run("Thanks", None, {}, "r2", AT))
        uow.conversations.add(Conversation("odd/one"))
        uow.runs.append("odd/one", Run(ARTIFACT, ['One,\n"two"', "three"], {}, "r3", AT))
        uow.runs.append("odd/one", Run({"n": 1}, "\ud83d", {}, "r4", AT))


@pytest.mark.parametrize(
    ("format", "lines"),
    [
        (
            "openai",
            [
                {"messages": [
                    {"role": "user", "content": "Grüße"},
                    {"role": "assistant", "content": 'One,\n"two"'},
                    {"role": "assistant", "content": "three"},
                    {"role": "user", "content": '{"n":1}'},
                    {"role": "assistant", "content": "\\ud83d"},
                ]},
                {"messages": [
                    {"role": "user", "content": "Where is my refund?"},
                    {"role": "assistant", "content": "It left on Monday."},
                    {"role": "user", "content": "Thanks"},
                ]},
            ],
        ),
        (
            "sharegpt",
            [
                {"id": "odd/one", "conversations": [
                    {"from": "human", "value": "Grüße"},
                    {"from": "gpt", "value": 'One,\n"two"'},
                    {"from": "gpt", "value": "three"},
                    {"from": "human", "value": '{"n":1}'},
                    {"from": "gpt", "value": "\\ud83d"},
                ]},
                {"id": "plain", "conversations": [
                    {"from": "human", "value": "Where is my refund?"},
                    {"from": "gpt", "value": "It left on Monday."},
                    {"from": "human", "value": "Thanks"},
                ]},
            ],
        ),
        (
            "langchain",
            [
                {"session_id": "odd/one", "messages": [
                    {"type": "human", "data": {"content": "Grüße", "type": "human"}},
                    {"type": "ai", "data": {"content": 'One,\n"two"', "type": "ai"}},
                    {"type": "ai", "data": {"content": "three", "type": "ai"}},
                    {"type": "human", "data": {"content": '{"n":1}', "type": "human"}},
                    {"type": "ai", "data": {"content": "\\ud83d", "type": "ai"}},
                ]},
                {"session_id": "plain", "messages": [
                    {"type": "human", "data": {"content": "Where is my refund?", "type": "human"}},
                    {"type": "ai", "data": {"content": "It left on Monday.", "type": "ai"}},
                    {"type": "human", "data": {"content": "Thanks", "type": "human"}},
                ]},
            ],
        ),
    ],
)  # fmt: skip
def test_lines_have_the_text_of_what_was_said(cli: Cli, format: str, lines: list[Any]) -> None:
    exported = cli("export", "--to", format)
    assert (exported.code, exported.err) == (0, "exported 2 conversations\n")
    assert [json.loads(line) for line in exported.out.splitlines()] == lines


@pytest.mark.parametrize("format", ["openai", "sharegpt", "langchain"])
def test_texts_come_back(cli: Cli, format: str) -> None:
    cli("export", "--to", format, "out.jsonl", "--where", 'id == "plain"')
    assert cli("import", "out.jsonl", "--store", "sqlite:///second.db").err == f"out.jsonl: format {format}\n"
    (pairs,) = stored("sqlite:///second.db").values()
    assert pairs == [("Where is my refund?", "It left on Monday."), ("Thanks", None)]


@pytest.mark.parametrize(
    ("format", "file", "name"),
    [
        ("openai", "responses-items-under-messages.json", "messages"),
        ("openai", "anthropic-blocks-tool-result.json", "messages"),
        ("openai", "openai-refusal.json", "messages"),
        ("openai", "text-for-content.json", "messages"),
        ("sharegpt", "sharegpt.json", "conversations"),
        ("langchain", "../langchain_file.json", "messages"),
        ("langchain", "../langchain_dumpd.json", "messages"),
    ],
)
def test_messages_that_were_imported_come_back_whole(cli: Cli, format: str, file: str, name: str) -> None:
    cli("import", str(CASES / file), "--store", "sqlite:///second.db")
    line = json.loads(cli("export", "--to", format, "--store", "sqlite:///second.db").out)
    value = json.loads((CASES / file).read_text())
    value = value[0] if name == "conversations" else value
    assert line[name] == (value[name] if isinstance(value, dict) else value)


@pytest.mark.parametrize("format", ["openai", "langchain"])
def test_what_was_edited_since_the_import_is_exported(cli: Cli, format: str) -> None:
    file = {"openai": CASES / "anthropic-blocks-tool-result.json", "langchain": SAMPLES / "langchain_file.json"}[format]
    cli("import", str(file), "--store", "sqlite:///second.db")
    with memory.connect("sqlite:///second.db") as store, store.begin() as uow:
        (conversation,) = uow.conversations.iterate()
        (run,) = uow.runs.list(conversation.id)
        uow.runs.replace(
            conversation.id, Run("Edited?", "[redacted]", run.metadata, run.id, run.created_at, run.position)
        )
    text = cli("export", "--to", format, "--store", "sqlite:///second.db").out
    assert "Edited?" in text
    assert "[redacted]" in text
    assert "Rain." not in text
    assert "Yes." not in text


def test_a_transcript_for_each_conversation(cli: Cli) -> None:
    assert cli("export", "--to", "markdown", "out/").err == "exported 2 conversations\n"
    assert sorted(file.name for file in Path("out").iterdir()) == ["odd%2Fone.md", "plain.md"]
    head, transcript = Path("out/plain.md").read_text().split("---\n")[1:]
    about = dict(line.split(": ", 1) for line in head.splitlines())
    assert json.loads(about["metadata"]) == {"customer": "ada"}
    assert json.loads(about["id"]) == "plain"
    assert about.keys() == {"id", "created_at", "updated_at", "metadata"}
    assert transcript == (
        "\n## User (1, 2026-01-31 12:00:00)\n\nWhere is my refund?\n"
        "\n## Assistant (1, 2026-01-31 12:00:00)\n\nIt left on Monday.\n"
        "\n## User (2, 2026-01-31 12:00:00)\n\nThanks\n"
    )
    odd = Path("out/odd%2Fone.md").read_text()
    assert '\n```json\n{\n  "n": 1\n}\n```\n' in odd
    assert "\nGrüße\n" in odd
    assert cli("export", "--to", "markdown", "one.md", "--where", 'id == "plain"').code == 0
    assert Path("one.md").read_text() == Path("out/plain.md").read_text()


def test_a_row_for_each_run(cli: Cli) -> None:
    cli("export", "--to", "csv", "runs.csv")
    with Path("runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["conversation_id"], row["position"], row["run_id"]) for row in rows] == [
        ("odd/one", "1", "r3"),
        ("odd/one", "2", "r4"),
        ("plain", "1", "r1"),
        ("plain", "2", "r2"),
    ]
    assert (rows[0]["input"], rows[0]["output"]) == ("Grüße", '["One,\\n\\"two\\"","three"]')
    assert (rows[2]["output"], rows[3]["output"]) == ("It left on Monday.", "")
    assert (rows[2]["run_metadata"], rows[2]["conversation_metadata"]) == ('{"cost":1}', '{"customer":"ada"}')
    assert rows[2]["created_at"] == "2026-01-31T12:00:00+00:00"


def test_parquet_says_what_to_install_and_leaves_no_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = cli("export", "--to", "parquet", "runs.parquet")
    assert (ended.code, "pip install 'conversation-memory[parquet]'" in ended.err) == (1, True)
    assert cli("export", "--to", "parquet").err.startswith("error: --to parquet needs a file")
    assert [file.name for file in Path().iterdir()] == ["conversations.db"]


def test_formats_of_one_namespace_export_the_one_that_is_named(cli: Cli) -> None:
    with memory.connect("sqlite:///conversations.db", namespace="other") as store, store.begin() as uow:
        uow.conversations.add(Conversation("x"))
        uow.runs.append("x", Run("Q", "A"))
    assert len(cli("export", "--to", "openai").out.splitlines()) == 2
    assert len(cli("export", "--to", "openai", "--namespace", "other").out.splitlines()) == 1
