import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import memory
from memory import Conversation, Run
from tests.cli.conftest import Cli

URL = "sqlite:///conversations.db"


@pytest.fixture(autouse=True)
def three_conversations() -> None:
    with memory.connect(URL) as store:
        for number, name in enumerate(["ada", "grace", "lin"], 1):
            with store.begin() as uow:
                uow.conversations.add(Conversation(name, metadata={"priority": number, "tags": ["x"] * number}))
                uow.runs.append(name, *[Run(f"question {n}", {"answer": n}, id=f"run-{n}") for n in range(number)])


def found(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def test_find_writes_json_lines_where_no_terminal_is(cli: Cli) -> None:
    ended = cli("find", "priority >= 2", "--order", "id")
    assert (ended.code, ended.err) == (0, "")
    assert [(one["id"], one["metadata"]["priority"], one["run_count"]) for one in found(ended.out)] == [
        ("grace", 2, 2),
        ("lin", 3, 3),
    ]
    assert set(found(ended.out)[0]) == {
        "id",
        "metadata",
        "version",
        "created_at",
        "updated_at",
        "last_run_at",
        "run_count",
    }


def test_find_shows_the_newest_first_and_tells_how_to_go_on(cli: Cli) -> None:
    first = cli("find", "--limit", "2")
    assert [one["id"] for one in found(first.out)] == ["lin", "grace"]
    told, cursor = first.err.strip().rsplit(" ", 1)
    assert told == "next page: --after"
    second = cli("find", "--limit", "2", "--after", cursor)
    assert ([one["id"] for one in found(second.out)], second.err) == (["ada"], "")


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ((), 3),
        (("priority in [1, 3]",), 2),
        (('"x" in tags and run_count > 1',), 2),
        (('id == "ada"',), 1),
        (("nothing == 1",), 0),
    ],
)
def test_count(cli: Cli, expression: tuple[str, ...], count: int) -> None:
    assert cli("count", *expression).out == f"{count}\n"


def test_show_is_a_readable_transcript(cli: Cli) -> None:
    ended = cli("show", "grace")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0] == "grace"
    assert "version 1, 2 runs" in lines
    assert 'metadata {"priority": 2, "tags": ["x", "x"]}' in lines
    assert [line.split()[0] for line in lines if line.startswith("#")] == ["#1", "#2"]
    assert "> question 1" in lines
    assert lines[-3:] == ["< {", '    "answer": 1', "  }"]


def test_show_the_last_runs_only(cli: Cli) -> None:
    assert [line for line in cli("show", "lin", "--last", "1").out.splitlines() if line.startswith(">")] == [
        "> question 2"
    ]
    assert "#" not in cli("show", "lin", "--last", "0").out


def test_an_export_does_not_replace_a_database(cli: Cli) -> None:
    for name in ("conversations.db", "./conversations.db"):
        refused = cli("export", name)
        assert (refused.code, "is a database" in refused.err) == (1, True)
    assert cli("count").code == 0


def test_the_version(cli: Cli) -> None:
    ended = cli("--version")
    assert (ended.code, ended.out) == (0, f"{version('conversation-memory')}\n")


def test_delete_takes_an_id_once(cli: Cli) -> None:
    assert cli("delete", "lin", "lin", "--yes").out == "deleted 1 conversation\n"


def test_show_tells_what_griptapes_artifacts_say(cli: Cli) -> None:
    runs = [
        {
            "input": {"type": "TextArtifact", "id": "1", "value": "Where?"},
            "output": {"type": "BlobArtifact", "id": "2", "value": "eA=="},
        }
    ]
    cli("import", "-", stdin=json.dumps({"id": "told", "runs": runs}).encode())
    lines = cli("show", "told").out.splitlines()
    assert "> Where?" in lines
    assert '    "value": "eA=="' in lines


MESSAGES = [  # of the OpenAI Agents SDK, pydantic-ai, LangChain, LlamaIndex, Strands and ADK
    ({"role": "user", "content": "Hi"}, ["Hi"]),
    (
        {"role": "user", "content": [{"type": "input_text", "text": "a\nb"}, {"type": "input_image"}]},
        ["a", "b", "[input_image]"],
    ),
    ({"type": "function_call", "name": "refund", "arguments": '{"id": 7}', "call_id": "c"}, ['[refund {"id": 7}]']),
    ({"type": "function_call_output", "call_id": "c", "output": "refunded"}, ["refunded"]),
    ({"type": "reasoning", "summary": []}, ["[reasoning]"]),
    (
        {
            "kind": "request",
            "parts": [{"part_kind": "user-prompt", "content": ["Hi", {"kind": "binary", "data": "AA=="}]}],
        },
        ["Hi", "[binary]"],
    ),
    (
        {
            "kind": "response",
            "parts": [{"part_kind": "thinking", "content": "Hm"}, {"part_kind": "text", "content": "No"}],
        },
        ["[thinking]", "No"],
    ),
    ({"kind": "request", "parts": [{"part_kind": "tool-return", "tool_name": "t", "content": {"n": 1}}]}, ['{"n":1}']),
    ({"type": "human", "data": {"type": "human", "content": "Hi"}}, ["Hi"]),
    (
        {"type": "ai", "data": {"type": "ai", "content": "", "tool_calls": [{"name": "t", "args": {"n": 1}}]}},
        ['[t {"n":1}]'],
    ),
    ({"role": "user", "blocks": [{"block_type": "text", "text": "Hi"}, {"block_type": "image"}]}, ["Hi", "[image]"]),
    (
        {"message": {"role": "user", "content": [{"text": "Hi"}, {"toolUse": {"name": "t", "input": {}}}]}},
        ["Hi", "[t {}]"],
    ),
    ({"author": "user", "content": {"role": "user", "parts": [{"text": "Hi"}]}}, ["Hi"]),
    ({"author": "a", "content": {"parts": [{"function_call": {"name": "t", "args": {"n": 1}}}]}}, ['[t {"n":1}]']),
    (
        {
            "message": {"role": "user", "content": [{"text": "secret"}]},
            "redact_message": {"role": "user", "content": [{"text": "[redacted]"}]},
        },
        ["[redacted]"],
    ),
    (
        {
            "message": {"role": "user", "content": [{"image": {"source": {"bytes": {"data": "AA=="}}}}]},
            "redact_message": None,
        },
        ["[image]"],
    ),
    ({"content": {"role": "user", "parts": [{"inline_data": {"data": "AA=="}}]}}, ["[inline_data]"]),
    (
        {"role": "assistant", "blocks": [{"block_type": "tool_call", "tool_name": "t", "tool_kwargs": {"n": 1}}]},
        ['[t {"n":1}]'],
    ),
    ({"text": "part of an application's own value", "n": 1}, None),
]


@pytest.mark.parametrize(("message", "lines"), MESSAGES)
@pytest.mark.parametrize("from_model", [False, True])
def test_show_prints_the_messages_of_frameworks_as_text(
    cli: Cli, message: Any, lines: list[str] | None, *, from_model: bool
) -> None:
    line = {
        "id": "m",
        "runs": [{"input": None, "output": message} if from_model else {"input": message, "output": None}],
    }
    assert cli("import", "-", stdin=json.dumps(line).encode()).code == 0
    first, *rest = lines or json.dumps(message, indent=2).splitlines()
    shown = cli("show", "m").out.splitlines()
    assert shown[6:] == [f"{'<' if from_model else '>'} {first}", *[f"  {line}" for line in rest]]


def test_show_as_json_is_the_line_of_an_export(cli: Cli) -> None:
    assert cli("show", "lin", "--json").out == cli("export", "--where", 'id == "lin"').out
    (shown,) = found(cli("show", "lin", "--json", "--last", "1").out)
    assert [run["position"] for run in shown["runs"]] == [3]


def test_stats(cli: Cli) -> None:
    ended = cli("stats")
    told = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert (told["store"], told["namespace"], told["conversations"], told["runs"]) == (URL, "default", "3", "6")
    (facts,) = found(cli("stats", "--json").out)
    assert (facts["conversations"], facts["runs"]) == (3, 6)
    assert facts["oldest"] < facts["newest"]
    assert facts["bytes"] >= Path("conversations.db").stat().st_size


def test_stats_of_an_empty_store(cli: Cli) -> None:
    (facts,) = found(cli("stats", "--json", "--namespace", "empty").out)
    assert (facts["conversations"], facts["runs"], facts["oldest"], facts["newest"]) == (0, 0, None, None)


def test_delete_removes_all_that_are_named(cli: Cli) -> None:
    ended = cli("delete", "ada", "lin", "--yes")
    assert (ended.code, ended.out) == (0, "deleted 2 conversations\n")
    assert cli("count").out == "1\n"


def test_delete_removes_none_if_one_is_not_there(cli: Cli) -> None:
    ended = cli("delete", "ada", "nobody", "--yes")
    assert (ended.code, ended.err) == (1, "error: there is no conversation 'nobody'\n")
    assert cli("count").out == "3\n"


def test_delete_asks_and_where_nobody_can_answer_it_refuses(cli: Cli) -> None:
    ended = cli("delete", "ada")
    assert ended.code == 1
    assert ended.err == "error: stdin is not a terminal, so nobody can confirm: delete without asking by --yes\n"
    assert cli("count").out == "3\n"


def test_purge_removes_what_has_expired(cli: Cli) -> None:
    past = b'{"id": "old", "expires_at": "2020-01-01T00:00:00Z", "runs": [{"input": 1, "output": 2}]}'
    cli("import", "-", stdin=past)
    assert cli("count").out == "3\n"
    assert cli("purge").out == "deleted 1 expired conversation\n"
    assert cli("purge").out == "deleted 0 expired conversations\n"


def test_migrate_makes_the_schema_and_status_only_looks(cli: Cli) -> None:
    assert cli("migrate", "--status", "--store", "sqlite:///new.db").code == 1
    assert not Path("new.db").exists()
    made = cli("migrate", "--store", "sqlite:///new.db")
    assert made.code == 0
    current, head = (line.split()[1] for line in made.out.splitlines())
    assert current == head
    assert cli("migrate", "--status", "--store", "sqlite:///new.db").out == made.out


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(cli: Cli) -> None:
    Path("empty.db").touch()
    assert cli("migrate", "--dry-run", "--store", "sqlite:///empty.db").out == "bring the schema from none to 0005\n"
    assert cli("migrate", "--status", "--store", "sqlite:///empty.db").code == 1
    assert cli("migrate", "--store", "sqlite:///empty.db").code == 0
    assert cli("migrate", "--dry-run", "--store", "sqlite:///empty.db").out == "nothing to do\n"


def test_status_of_a_store_without_a_schema_is_a_failure(cli: Cli) -> None:
    Path("empty.db").touch()
    ended = cli("migrate", "--status", "--store", "sqlite:///empty.db")
    assert ended.code == 1
    assert ended.out.startswith("current: none\nhead:    ")


def test_the_store_is_named_before_the_command_after_it_or_by_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "sqlite:///other.db"
    cli("migrate", "--store", other)
    assert cli("count").out == "3\n"
    assert cli("--store", other, "count").out == "0\n"
    assert cli("count", "--store", other).out == "0\n"
    monkeypatch.setenv("MEMORY_URL", other)
    assert cli("count").out == "0\n"
    assert cli("count", "--store", URL).out == "3\n"
    assert cli("--store", URL, "count").out == "3\n"


def test_a_namespace_is_a_world_of_its_own(cli: Cli) -> None:
    cli("import", "-", "--namespace", "b", stdin=b'{"id": "ada"}')
    assert cli("count", "--namespace", "b").out == "1\n"
    assert cli("--namespace", "b", "show", "ada").out.splitlines()[0] == "ada"
    assert cli("count").out == "3\n"


def test_tour_tells_the_main_job_and_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    ended = cli("tour")
    assert (ended.code, ended.err) == (0, "")
    for said in (
        "support-42",
        "was changed by someone else",
        "chat-5",
    ):
        assert said in ended.out
    assert sorted(tmp_path.iterdir()) == before


def test_without_a_command_there_is_help(cli: Cli) -> None:
    ended = cli()
    assert ended.code == 0
    for command in (
        "tour",
        "import",
        "export",
        "find",
        "show",
        "count",
        "stats",
        "delete",
        "purge",
        "migrate",
        "relay",
    ):
        assert f"\n  {command} " in ended.out
