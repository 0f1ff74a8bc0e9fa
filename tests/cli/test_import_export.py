import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import memory
from memory import Conversation, Run
from memory.formats import griptape_local
from memory.port.urls import sqlite_url
from memory.testing.base import put, run
from memory.transfer import jsonl
from tests.cli.conftest import Cli, start
from tests.test_transfer import fill_with_odd_things


@pytest.mark.parametrize("name", ["odd.jsonl", "odd.jsonl.gz"])
def test_export_and_import_give_the_same_store(cli: Cli, name: str) -> None:
    with memory.connect("sqlite:///conversations.db") as store:
        fill_with_odd_things(store)
    exported = cli("export", name)
    assert (exported.code, exported.out, exported.err) == (0, "", "exported 19 conversations\n")
    imported = cli("import", name, "--store", "sqlite:///second.db")
    assert (imported.code, imported.out, imported.err) == (0, "imported 19 conversations and 631 runs\n", "")
    cli("export", f"again-{name}", "--store", "sqlite:///second.db")
    assert Path(f"again-{name}").read_bytes() == Path(name).read_bytes()
    assert Path(name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert not list(Path().glob("*.part"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_pipes(cli: Cli, pack: type[bytes]) -> None:
    lines = b'{"id": "a", "runs": [{"input": "x", "output": 1.0}]}\n{"id": "b"}'
    assert cli("import", "-", stdin=pack(lines)).out == "imported 2 conversations and 1 run\n"
    exported = cli("export")
    assert [json.loads(line)["id"] for line in exported.out.splitlines()] == ["a", "b"]
    assert exported.err == "exported 2 conversations\n"
    assert cli("export", "-").out == exported.out


def test_a_pipe_gets_utf_8_in_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    with memory.connect("sqlite:///conversations.db") as store:
        put(store, "é", {"n": "世界"}, run("Grüße 😀"))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for command in (["export"], ["show", "--json", "é"]):
        written, _ = start(*command).communicate(timeout=60)
        for text in ('"é"', '"世界"', '"Grüße 😀"'):
            assert text in written.decode()


def test_a_file_without_ids_of_runs_is_imported_again_and_has_grown(cli: Cli) -> None:
    runs = [{"input": "Hi", "output": "Hello"}, {"input": "And?", "output": "Bye"}]
    for known in (1, 1, 2, 2):
        Path("file").write_text(json.dumps({"id": "a", "runs": runs[:known]}))
        assert cli("import", "file", "--on-conflict", "update").code == 0
        assert cli("export").out.count('"input"') == known


def test_a_long_id_is_imported_again_shown_and_copied(cli: Cli) -> None:
    """Ids have up to 2,048 characters, in every command."""
    id = "x" * 2_048
    Path("long").write_text(json.dumps({"id": id, "runs": [{"id": "r", "input": "Hi", "output": "Hello"}]}))
    for expected in ("imported 1 conversation and 1 run\n", "skipped 1 that already exist"):
        ended = cli("import", "long")
        assert (ended.code, expected in ended.out + ended.err) == (0, True)
    assert "Hello" in cli("show", id).out
    assert cli("import", "long", "--on-conflict", "update").code == 0
    assert cli("copy", "sqlite:///conversations.db", "sqlite:///copy.db", "--verify").code == 0


def test_several_files_and_part_of_a_store(cli: Cli) -> None:
    Path("one").write_text('{"id": "a", "metadata": {"n": 1}}\n')
    Path("two").write_text('{"id": "b", "metadata": {"n": 2}}\n{"id": "c", "metadata": {"n": 3}}\n')
    assert cli("import", "one", "two").out == "imported 3 conversations and 0 runs\n"
    exported = cli("export", "--where", "n >= 2", "--order", "-id")
    assert [json.loads(line)["id"] for line in exported.out.splitlines()] == ["c", "b"]


def test_a_bad_line_is_told_the_rest_goes_on_and_the_exit_code_is_1(cli: Cli) -> None:
    Path("file").write_text('{"id": "a"}\nnonsense \x1b[2J\n{"id": "b", "runs": [{"input": 1}]}\n{"id": "c"}\n')
    ended = cli("import", "file")
    assert ended.code == 1
    assert ended.err == "file:2: not JSON: Expecting value at column 1\nfile:3: runs[0]: it has no output\n"
    assert ended.out == "imported 2 conversations and 0 runs, refused 2 lines\n"
    assert cli("count").out == "2\n"


def test_the_first_that_are_skipped_are_named(cli: Cli) -> None:
    lines = b"".join(b'{"id": "%d"}\n' % number for number in range(5))
    cli("import", "-", stdin=lines)
    again = "imported 0 conversations and 0 runs, skipped 5 that already exist (0, 1, 2 and 2 more)\n"
    assert cli("import", "-", stdin=lines).out == again
    twice = cli("import", "-", stdin=b'{"id": "x"}\n{"id": "x\\u202e"}\n{"id": "x\\u202e"}')
    assert twice.out == "imported 2 conversations and 0 runs, skipped 1 that already exist (x\\u202e)\n"


def test_what_is_told_of_a_bad_line_is_one_line_and_shows_control_characters(cli: Cli) -> None:
    ended = cli("import", "-", stdin=json.dumps({"id": "a", "metadata": {"x\n\x1b[2J": {"y": float("nan")}}}).encode())
    assert ended.err.splitlines()[0] == "-:1: metadata.x \\x1b[2J.y is nan: only finite numbers can be stored"


@pytest.mark.parametrize(
    ("how", "code", "n", "out"),
    [
        ("skip", 0, 1, "imported 1 conversation and 0 runs, skipped 1 that already exist (a)\n"),
        ("replace", 0, 2, "imported 2 conversations and 0 runs\n"),
        ("fail", 1, 1, "imported 1 conversation and 0 runs\n"),
    ],
)
def test_conflicts(cli: Cli, how: str, code: int, n: int, out: str) -> None:
    cli("import", "-", stdin=b'{"id": "a", "metadata": {"n": 1}}')
    again = b'{"id": "b"}\n{"id": "a", "metadata": {"n": 2}}'
    ended = cli("import", "-", "--on-conflict", how, stdin=again)
    assert (ended.code, ended.out) == (code, out)
    assert ended.err == ("error: -: line 2: conversation 'a' already exists\n" if how == "fail" else "")
    assert cli("count", f"n == {n}").out == "1\n"


def test_an_export_that_fails_leaves_the_file_that_was_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("import", "-", stdin=b'{"id": "a"}\n{"id": "b"}')
    Path("out.jsonl").write_text("precious")
    monkeypatch.setattr("memory.cli.transferring.dump", lambda *_, **__: iter(["{", 5]))
    assert cli("export", "out.jsonl").code == 1
    assert Path("out.jsonl").read_text() == "precious"
    assert sorted(map(str, Path().iterdir())) == ["conversations.db", "out.jsonl"]


def test_an_export_can_be_written_to_a_device(cli: Cli) -> None:
    cli("import", "-", stdin=b'{"id": "a"}')
    assert cli("export", os.devnull).code == 0
    assert not Path(os.devnull).is_file()


def test_an_export_follows_a_link(cli: Cli) -> None:
    cli("import", "-", stdin=b'{"id": "a"}')
    Path("target").touch()
    Path("link").symlink_to("target")
    cli("export", "link")
    assert Path("link").is_symlink()
    assert json.loads(Path("target").read_text())["id"] == "a"


def test_noise_is_no_conversation(cli: Cli) -> None:
    noise = random.Random(1).randbytes(100_000)
    for data in (noise, b"\x1f\x8b" + noise, b"\0" * 100_000):
        ended = cli("import", "-", stdin=data)
        assert ended.code == 1
        assert ended.out.startswith("imported 0 conversations and 0 runs, refused ")
    assert cli("count").out == "0\n"


def test_hostile_ids_and_keys_are_only_text(cli: Cli) -> None:
    odd = [
        "'; drop table memory_runs; --",
        "%s %(id)s {}",
        "a/b\\c",
        '"',
        "\U0001f600" * 255,
        "-",
        "--yes",
        "[red]x[/]",
    ]
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        for text in odd:
            uow.conversations.add(Conversation(text, metadata={text: text, "": {text: [text]}}))
            uow.runs.append(text, Run(text, text))
    for text in odd:
        assert cli("count", f"metadata[{text!r}] == {text!r}").out == "1\n"
        assert cli("show", "--", text).out.splitlines()[0] == text
    assert cli("delete", "--yes", "--", *odd).out == "deleted 8 conversations\n"


@pytest.mark.parametrize(("format", "name"), [("memory", "out/a.json"), ("griptape-local", "out")])
def test_an_export_that_is_interrupted_leaves_the_file_that_was_there(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, format: str, name: str
) -> None:
    with memory.connect("sqlite:///conversations.db") as store:
        put(store, "a", None, run(1))

    def interrupted(*_: object, **__: object) -> Iterator[str]:
        yield "a part of it"
        raise KeyboardInterrupt

    monkeypatch.setattr(griptape_local, "write_envelope", interrupted)
    monkeypatch.setattr(jsonl, "write_line", interrupted)
    Path("out").mkdir()
    Path("out/a.json").write_text("before")
    assert cli("export", name, "--to", format).code == 130
    assert Path("out/a.json").read_text() == "before"
    assert [file.name for file in Path("out").iterdir()] == ["a.json"]


def fill_tenants(*names: str) -> None:
    for name in names:
        with memory.connect("sqlite:///conversations.db", namespace=name) as store:
            put(store, "a", {"of": name}, run(name))


@pytest.mark.parametrize("name", ["backup.jsonl", "backup.jsonl.gz"])
def test_a_backup_has_all_namespaces_and_restores_them_as_they_were(cli: Cli, name: str) -> None:
    fill_tenants("default", "tenant-b", "a/b")
    assert cli("export", name).err == "exported 3 conversations\n"
    assert cli("import", name, "--store", "sqlite:///second.db").out == "imported 3 conversations and 3 runs\n"
    assert cli("namespaces", "--store", "sqlite:///second.db").out == "a/b\ndefault\ntenant-b\n"
    assert cli("copy", "sqlite:///conversations.db", "sqlite:///second.db", "--verify-only").code == 0
    assert cli("import", name).out.endswith(" skipped 3 that already exist (a, a, a)\n")


def test_a_backup_of_one_namespace_goes_back_to_it_or_where_it_is_told_to(cli: Cli) -> None:
    fill_tenants("default", "tenant-b")
    cli("export", "backup.jsonl", "--namespace", "tenant-b")
    cli("import", "backup.jsonl", "--store", "sqlite:///second.db")
    assert cli("namespaces", "--store", "sqlite:///second.db").out == "tenant-b\n"
    cli("import", "backup.jsonl", "--store", "sqlite:///second.db", "--namespace", "c")
    assert cli("count", 'of == "tenant-b"', "--store", "sqlite:///second.db", "--namespace", "c").out == "1\n"


def test_several_namespaces_are_not_mixed_in_one(cli: Cli) -> None:
    fill_tenants("a", "b")
    cli("export", "backup.jsonl")
    refused = cli("import", "backup.jsonl", "--store", "sqlite:///second.db", "--namespace", "c")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "line 2 is of namespace 'b', earlier ones of 'a'" in refused.err


def test_a_line_without_a_namespace_goes_to_the_one_that_is_named(cli: Cli) -> None:
    cli("import", "-", stdin=b'{"id": "a"}\n{"id": "a", "namespace": "b"}')
    assert cli("namespaces").out == "b\ndefault\n"
    cli("import", "-", "--namespace", "c", stdin=b'{"id": "a"}')
    assert cli("count", "--namespace", "c").out == "1\n"


def test_an_export_of_a_mistyped_namespace_is_an_error_and_writes_no_file(cli: Cli) -> None:
    fill_tenants("tenant-a")
    for format in ("memory", "griptape-local"):
        ended = cli("export", "out.jsonl", "--namespace", "tenant-aa", "--to", format)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("error: there are no conversations in the namespace 'tenant-aa'")
    assert [str(path) for path in Path().iterdir()] == ["conversations.db"]
    assert cli("export", "out.jsonl", "--namespace", "tenant-a", "--where", "n == 1").code == 0  # it is there


@pytest.mark.parametrize("path", ["my chats.db", "100%.db", "50%25.db", "größe 😀.db", "a?b.db", "dir #1/x.db"])
def test_a_file_of_any_name_is_found_by_every_command(cli: Cli, path: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    url = sqlite_url(Path(path))
    with memory.connect(url) as store:
        put(store, "a", None, run(1))
    assert Path(path).exists()
    (facts,) = [json.loads(cli("stats", "--json", "--store", url).out)]
    assert facts["bytes"] >= Path(path).stat().st_size
    assert cli("count", "--store", url).out == "1\n"
    assert cli("find", "--store", url).code == cli("show", "a", "--store", url).code == 0
    assert cli("migrate", "--status", "--store", url).code == 0
    assert cli("export", "out.jsonl", "--store", url).err == "exported 1 conversation\n"
    assert cli("copy", url, "sqlite:///copy.db", "--verify").code == 0
    assert cli("relay", "copy=sqlite:///copy.db", "--store", url).code == 0
    assert cli("namespaces", "--store", url).out == "default\n"
    assert cli("delete", "a", "--yes", "--store", url).code == cli("purge", "--store", url).code == 0


def test_the_limit_of_metadata_is_an_option_of_every_command_that_writes(cli: Cli) -> None:
    line = json.dumps({"id": "a", "metadata": {"values": list(range(30))}}).encode()
    refused = cli("import", "-", "--max-metadata-values", "20", stdin=line)
    assert (refused.code, "--max-metadata-values" in refused.err) == (1, True)
    assert cli("--max-metadata-values", "40", "import", "-", stdin=line).code == 0
    copied = cli("copy", "sqlite:///conversations.db", "sqlite:///copy.db", "--max-metadata-values", "20")
    assert (copied.code, "failed: 1" in copied.out) == (1, True)
    assert cli("copy", "sqlite:///conversations.db", "sqlite:///copy.db").code == 0
