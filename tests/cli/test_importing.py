"""Files as people have them: archives, folders, pipes, several at once, and the next month's export."""

import codecs
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

import memory
from memory import Run
from memory.testing.base import read_runs
from tests.cli.conftest import Cli, start
from tests.formats.conftest import SAMPLES

CASES = SAMPLES / "cases"
REFUND = [("Where is my refund?", "It left on Monday.")]
JANUARY: list[dict[str, Any]] = json.loads((CASES / "chatgpt-january.json").read_text())


def stored(namespace: str = "default") -> dict[str, list[tuple[Any, Any]]]:
    with memory.connect("sqlite:///conversations.db", namespace=namespace) as store, store.begin() as uow:
        ids = [conversation.id for conversation in uow.conversations.iterate(order="id")]
        return {id: [(run.input, run.output) for run in read_runs(store, id)] for id in ids}


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_json", ".json").replace("_zip", ".zip"), content)
    return packed.getvalue()


def messages(question: str, answer: str) -> bytes:
    return json.dumps([{"role": "user", "content": question}, {"role": "assistant", "content": answer}]).encode()


def test_the_format_that_was_found_is_named(cli: Cli) -> None:
    ended = cli("import", str(CASES / "claude-export.json"), str(CASES / "sharegpt.json"))
    assert (ended.code, ended.out) == (0, "imported 2 conversations and 2 runs\n")
    assert [line.rpartition("/")[2] for line in ended.err.splitlines()] == [
        "claude-export.json: format claude",
        "sharegpt.json: format sharegpt",
    ]
    assert cli("import", str(CASES / "claude-export.json"), "--from", "claude").err == ""


def test_what_is_of_no_format_is_refused_with_what_it_looks_like(cli: Cli) -> None:
    Path("x.json").write_text('[{"question": "secret?", "answer": "no"}]')
    ended = cli("import", "x.json", str(CASES / "grok-export.json"), str(CASES / "sharegpt.json"))
    assert (ended.code, ended.out) == (1, "imported 1 conversation and 1 run, refused 2 conversations\n")
    first, second, _ = ended.err.splitlines()
    assert first == "x.json: not read: of no known format: an object with the keys question, answer"
    assert "grok-export.json: not read: it looks like Grok's data export, which no format reads" in second


def test_an_archive_is_read_as_it_comes_and_its_other_files_are_named(cli: Cli) -> None:
    export = (CASES / "claude-export.json").read_bytes()
    Path("data.zip").write_bytes(
        zipped(conversations_json=export, users_json=b"[{}]", x__group_chats_json=b'{"chats": []}')
    )
    ended = cli("import", "data.zip")
    assert (ended.code, ended.out) == (0, "imported 1 conversation and 1 run\n")
    assert ended.err.splitlines() == [
        "data.zip:conversations.json: format claude",
        "data.zip:users.json: not read: of no known format: an empty object",
        "data.zip:x/group_chats.json: not read: of no known format: an object with the keys chats",
    ]


def test_an_archive_may_come_from_a_pipe() -> None:
    process = start("import", "-")
    out, err = process.communicate(
        zipped(conversations_json=(CASES / "chatgpt-branches.json").read_bytes()), timeout=60
    )
    assert (process.returncode, out) == (0, b"imported 1 conversation and 2 runs\n")
    assert err == b"-:conversations.json: format chatgpt\n"


@pytest.mark.parametrize(
    "name", ["responses-items-indented.json", "chatgpt-branches.json", "responses-item-a-line.jsonl"]
)
def test_a_file_may_come_from_a_pipe(name: str) -> None:
    process = start("import", "-")
    out, _ = process.communicate((CASES / name).read_bytes(), timeout=60)
    assert (process.returncode, out[:23]) == (0, b"imported 1 conversation")


def test_an_archive_in_an_archive_is_named_with_what_to_do(cli: Cli) -> None:
    Path("outer.zip").write_bytes(zipped(inner_zip=zipped(a_json=b"{}"), b_json=messages("Q", "A")))
    ended = cli("import", "outer.zip")
    assert ended.out == "imported 1 conversation and 1 run\n"
    assert "outer.zip:inner.zip: not read: unpack it from the archive and import it by itself" in ended.err
    Path("outer.zip").write_bytes(zipped(inner_zip=zipped(a_json=b"{}")))
    assert cli("import", "outer.zip").code == 1


def test_utf_16_is_refused_with_what_to_do(cli: Cli) -> None:
    Path("x.json").write_bytes(codecs.BOM_UTF16_LE + messages("Q", "A").decode().encode("utf-16-le"))
    ended = cli("import", "x.json")
    assert ended.code == 1
    assert "x.json: not read: it is UTF-16: convert it to UTF-8" in ended.err


@pytest.mark.parametrize("name", ["claude-export.json", "responses-items-indented.json", "responses-item-a-line.jsonl"])
def test_byte_order_marks_and_line_ends_of_windows_are_accepted(cli: Cli, name: str) -> None:
    text = (CASES / name).read_bytes()
    Path(name).write_bytes(codecs.BOM_UTF8 + text.replace(b"\n", b"\r\n"))
    assert cli("import", name).out == "imported 1 conversation and 1 run\n"
    assert None not in next(iter(stored().values()))[0]


def test_native_lines_with_a_byte_order_mark_and_line_ends_of_windows(cli: Cli) -> None:
    Path("x.jsonl").write_bytes(codecs.BOM_UTF8 + b'{"id": "a"}\r\n\r\n{"id": "b"}\r\n')
    assert cli("import", "x.jsonl").out == "imported 2 conversations and 0 runs\n"


def test_files_of_one_name_in_several_folders_all_arrive(cli: Cli) -> None:
    for name in ("ada", "bob"):
        Path(name).mkdir()
        Path(name, "memory.json").write_bytes(messages(name, "Hello"))
    expected = {"ada/memory": [("ada", "Hello")], "bob/memory": [("bob", "Hello")]}
    assert cli("import", "ada/memory.json", "bob/memory.json").code == 0
    assert stored() == expected
    for folder in (["."], ["ada", "bob"], [str(Path.cwd())]):
        Path("conversations.db").unlink()
        assert cli("import", *folder, "--store", "sqlite:///../conversations.db").code == 0
        shutil.move("../conversations.db", "conversations.db")
        assert stored() == expected


def test_one_file_is_called_by_its_name_wherever_it_is(cli: Cli) -> None:
    Path("deep/er").mkdir(parents=True)
    Path("deep/er/memory.json").write_text('{"runs": [{"input": "Q", "output": "A"}], "metadata": {}}')
    cli("import", "deep/er/memory.json")
    assert stored() == {"memory": [("Q", "A")]}


def test_a_folder_is_read_with_its_archives_and_other_files_are_left(cli: Cli) -> None:
    Path("in/.hidden").mkdir(parents=True)
    Path("in/.hidden/x.json").write_bytes(messages("never", "read"))
    Path("in/cat.png").write_bytes(b"\x89PNG")
    shutil.copy(CASES / "librechat-export.json", "in/c.json")
    Path("in/d.zip").write_bytes(zipped(conversations_json=(CASES / "claude-export.json").read_bytes()))
    shutil.copytree(SAMPLES / "strands", "in/sessions")
    ended = cli("import", "in")
    assert (ended.code, ended.out) == (0, "imported 3 conversations and 4 runs\n")
    assert ended.err.splitlines() == [
        "in/c.json: format librechat",
        "in/d.zip:conversations.json: format claude",
        "in/sessions/session_support-42: format strands",
    ]
    assert stored().keys() == {"c", "u", "support-42"}
    Path("empty").mkdir()
    assert "empty is a folder without files to import" in cli("import", "empty").err


def test_a_conversation_that_is_not_read_leaves_the_others(cli: Cli) -> None:
    good = json.loads((CASES / "claude-export.json").read_text())[0]
    bad = [7, {**good, "chat_messages": 7}, {**good, "uuid": "n", "summary": float("nan")}]
    Path("x.json").write_text(json.dumps([*bad, good, {**good, "uuid": "v"}]))
    ended = cli("import", "x.json")
    assert (ended.code, ended.out) == (1, "imported 2 conversations and 2 runs, refused 3 conversations\n")
    assert [line.split(":")[:2] for line in ended.err.splitlines()[1:]] == [
        ["x.json", "1"],
        ["x.json", "2"],
        ["x.json", "3"],
    ]
    assert stored() == {"u": REFUND, "v": REFUND}


def test_a_dry_run_writes_nothing_and_says_what_would_be(cli: Cli) -> None:
    case = str(CASES / "responses-items-one-line.jsonl")
    assert cli("import", case, "--dry-run").out == "would import 2 conversations and 2 runs\n"
    assert not Path("conversations.db").exists()
    cli("import", case)
    Path("x.jsonl").write_bytes(
        Path(case).read_bytes() + messages("Q", "A") + b"\n" + messages("Q", "A") + b"\nnonsense"
    )
    Path("x.jsonl").rename("responses-items-one-line.jsonl")
    ended = cli("import", "responses-items-one-line.jsonl", "--dry-run")
    assert ended.code == 1
    assert ended.out.startswith("would import 1 conversation and 1 run, skipped 3 that already exist (")
    assert len(stored()) == 2
    assert cli("import", case, "--dry-run", "--on-conflict", "fail").code == 1


def grown() -> list[dict[str, Any]]:
    """Return the conversation of January a month later: another answer to the first question, and a second question."""
    (chat,) = json.loads(json.dumps(JANUARY))
    for key, parent, role, text in [
        ("a+", "a", "assistant", "Also."),
        ("q2", "a+", "user", "Q2"),
        ("a2", "q2", "assistant", "A2"),
    ]:
        message = {**chat["mapping"]["a"]["message"], "id": key, "author": {"role": role}}
        message["content"] = {"content_type": "text", "parts": [text]}
        chat["mapping"][key] = {"id": key, "parent": parent, "children": [], "message": message}
    return [{**chat, "current_node": "a2", "update_time": chat["update_time"] + 2_000_000, "is_starred": True}]


def test_the_next_export_adds_what_is_new_and_keeps_what_is_the_applications(cli: Cli) -> None:
    Path("january.json").write_text(json.dumps(JANUARY))
    Path("february.json").write_text(json.dumps(grown()))
    cli("import", "january.json")
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        conversation = uow.conversations.get("c1")
        conversation.metadata |= {"title": "My refund", "customer": "ada"}
        (first,) = uow.runs.list("c1")
        uow.runs.replace(
            "c1", memory.Run(first.input, first.output, {**first.metadata, "rating": 5}, first.id, first.created_at, 1)
        )
        uow.runs.append("c1", Run("own", "own"))
    skipped = cli("import", "february.json")
    assert skipped.out == "imported 0 conversations and 0 runs, skipped 1 that already exist (c1)\n"
    assert (
        "'c1' has more in the file than in the store: to add it, use --on-conflict update"
        not in cli("import", "january.json").err
    )
    dry = cli("import", "february.json", "--on-conflict", "update", "--dry-run")
    assert dry.out == "would import 0 conversations and 1 run, would update 1 conversation\n"
    updated = cli("import", "february.json", "--on-conflict", "update")
    assert updated.out == "imported 0 conversations and 1 run, updated 1 conversation\n"
    assert stored() == {"c1": [("Q1", ["A1", "Also."]), ("own", "own"), ("Q2", "A2")]}
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        assert uow.conversations.get("c1").metadata.items() >= {"title": "My refund", "customer": "ada"}.items()
        run = uow.runs.list("c1")[0]
        assert (run.metadata["rating"], len(run.metadata["chatgpt"]["messages"])) == (5, 4)
    again = cli("import", "february.json", "january.json", "--on-conflict", "update")
    assert again.out == "imported 0 conversations and 0 runs, skipped 2 that already exist (c1, c1)\n"


def test_what_the_application_has_edited_is_not_undone_by_an_update(cli: Cli) -> None:
    Path("january.json").write_text(json.dumps(JANUARY))
    cli("import", "january.json")
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        (run,) = uow.runs.list("c1")
        uow.runs.replace("c1", Run(run.input, "[redacted]", {}, run.id, run.created_at, 1))
    cli("import", "january.json", "--on-conflict", "update")
    assert stored() == {"c1": [("Q1", "[redacted]")]}


def test_skipped_ones_that_are_newer_in_the_file_are_named(cli: Cli) -> None:
    Path("january.json").write_text(json.dumps(JANUARY))
    Path("february.json").write_text(json.dumps(grown()))
    cli("import", "january.json")
    named = "'c1' has more in the file than in the store: to add it, use --on-conflict update"
    assert named in cli("import", "february.json").err
    assert named not in cli("import", "january.json").err


def test_formats_are_listed(cli: Cli) -> None:
    listed = cli("formats").out
    for name in ("claude", "openai-agents", "markdown", "parquet"):
        assert f"\n{name} " in listed


def test_an_option_of_one_format_is_refused_for_the_one_that_was_found(cli: Cli) -> None:
    ended = cli("import", str(CASES / "claude-export.json"), "--id", "x")
    assert (ended.code, "--from claude does not take --id" in ended.err) == (1, True)


def test_an_address_needs_a_format_and_its_password_is_not_shown(cli: Cli) -> None:
    ended = cli("import", "redis://:secret@localhost/0")
    assert (ended.code, "is an address: name its format by --from" in ended.err) == (1, True)
    assert "secret" not in ended.err + ended.out


def test_the_unit_of_what_was_refused_is_a_file_if_no_format_was_found(cli: Cli) -> None:
    assert cli("import", "-", stdin=b"nonsense").out == "imported 0 conversations and 0 runs, refused 1 file\n"
