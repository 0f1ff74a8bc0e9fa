"""What people see: the commands on a real pseudo-terminal."""

import os
import pty
import re
from pathlib import Path

import pytest

import memory
from memory import Conversation, Run
from tests.cli.conftest import start

HOSTILE = "\x1b[2J\x1b]0;title\x07[bold red]x[/] :smile: \u202e \x9b31m"


@pytest.fixture(autouse=True)
def hostile_conversation() -> None:
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        uow.conversations.add(Conversation("[red]a[/]", metadata={"name": HOSTILE, "size": 3, "long": "x" * 1000}))
        uow.runs.append("[red]a[/]", Run(HOSTILE, {"said": [HOSTILE]}, {"by": HOSTILE}, id="[blink]r"))


def on_terminal(*arguments: str) -> str:
    """Run a command on a terminal and return what it wrote, without rich's own colours."""
    master, slave = pty.openpty()
    with start(*arguments, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        written = b""
        try:
            while piece := os.read(master, 65536):
                written += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(master)
        assert process.wait(20) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode().replace("\r\n", "\n"))


def test_find_draws_a_table() -> None:
    head, row = on_terminal("find", "size == 3").splitlines()
    assert head.split() == ["id", "updated", "runs", "metadata"]
    assert row.startswith("[red]a[/]  20")
    assert row.split()[3] == "1"
    assert row.endswith("…")
    assert "[bold red]x[/]" in row
    assert len(row) <= 120


def test_find_writes_json_on_demand() -> None:
    assert on_terminal("find", "--json").startswith('{"id":"[red]a[/]","metadata":{"name":"\\u001b[2J')


@pytest.mark.parametrize(
    "arguments",
    [["find"], ["show", "[red]a[/]"], ["find", "--json"], ["show", "--json", "[red]a[/]"]],
)
def test_no_text_of_others_commands_the_terminal(arguments: list[str]) -> None:
    written = on_terminal(*arguments)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", written)
    assert "[bold red]x[/] :smile:" in written


def test_export_to_a_terminal_commands_it_no_more() -> None:
    written = on_terminal("export", "-")  # with a bar, which does
    assert "\\u202e \\u009b31m" in written
    assert not re.search(r"[\x80-\x9f\u202e]", written)


def test_show_on_a_terminal() -> None:
    written = on_terminal("show", "[red]a[/]")
    assert "[blink]r" in written
    assert "> \\x1b[2J\\x1b]0;title\\x07[bold red]x[/] :smile:" in written


def test_erasing_and_retaining_draw_a_bar_that_leaves_the_lines_whole() -> None:
    assert "removed 0 idle conversations, trimmed 0: 0 runs\n" in on_terminal("retain", "--idle", "1d")
    assert "erased 1 conversation with 1 run in 1 namespace" in on_terminal("erase", "size == 3", "--yes", "--verify")


def test_import_and_export_draw_a_bar_that_leaves_the_lines_whole() -> None:
    Path("in.jsonl").write_text('{"id": "b"}\nnonsense\n' * 1)
    with pytest.raises(AssertionError):  # exit code 1
        on_terminal("import", "in.jsonl")
    assert "exported 2 conversations" in on_terminal("export", "out.jsonl")
    assert len(Path("out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (("delete", "[red]a[/]"), b"Delete 1 conversation with all runs? [y/N]"),
        (("erase", "size == 3"), b"Erase 1 conversation with all runs? [y/N]"),
    ],
)
def test_removing_asks(arguments: tuple[str, ...], question: bytes) -> None:
    master, slave = pty.openpty()
    with start(*arguments, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        os.write(master, b"n\n")
        assert process.wait(20) == 1
        assert question in os.read(master, 65536)
        os.close(master)
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        assert uow.conversations.count() == 1
