import fcntl
import resource
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import memory
from memory import Conversation
from memory.cli import main
from memory.cli.reporting import visible
from tests.cli.conftest import ROOT, Cli, start


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["count"],
            1,
            "there is no file conversations.db: create it by `memory import`, or name another store by --store",
        ),
        (["find", "--store", "sqlite:///no/such/folder/x.db"], 1, "there is no folder no/such/folder"),
        (["import", "-", "--store", "sqlite:///no/such/folder/x.db"], 1, "the file cannot be opened or created"),
        (["count", "--store", "nonsense"], 1, "a store's URL looks like"),
        (["count", "--store", ""], 1, "a store's URL looks like"),
        (["count", "--store", "mongodb://host"], 1, "no store has the scheme of this URL"),
        (["count", "--store", "memory://", "--namespace", ""], 1, "the namespace must have 1 to 255 characters"),
        (["count", "--store", "memory://", "a = 1"], 1, "write == to compare, at column 3"),
        (["find", "--store", "memory://", "--order", "name"], 1, "cannot order by 'name'"),
        (["find", "--store", "memory://", "--after", "x"], 1, "this is no cursor of a page: 'x'"),
        (["find", "--store", "memory://", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["show", "nobody", "--store", "memory://"], 1, "there is no conversation 'nobody'"),
        (
            ["show", "a\nb\x1b[2J", "--store", "memory://"],
            1,
            r"the conversation's id must not contain control characters",
        ),
        (["import", "missing.jsonl", "--store", "memory://"], 1, "missing.jsonl: No such file or directory"),
        (["export", "/no/such/file", "--store", "memory://"], 1, "No such file or directory"),
        (["import"], 2, "Missing argument 'SOURCE'"),
        (["import", "-", "--on-conflict", "merge"], 2, "Invalid value for '--on-conflict'"),
        (["fnid"], 2, "No such command 'fnid'"),
        (["find", "--nonsense"], 2, "No such option"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(cli: Cli, arguments: list[str], code: int, message: str) -> None:
    ended = cli(*arguments)
    assert ended.code == code
    assert ended.err.startswith("error: ")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.err.rstrip("\n").isprintable()


def test_a_file_of_something_else_is_told(cli: Cli) -> None:
    Path("other.db").write_bytes(b"something else entirely" * 100)
    ended = cli("count", "--store", "sqlite:///other.db")
    assert ended.code == 1
    assert "not a sqlite database" in ended.err
    assert ended.err.count("\n") == 1


def test_a_traceback_only_with_debug_and_never_a_password(cli: Cli) -> None:
    url = "postgresql+psycopg://ada:s3cret@127.0.0.1:1/none?connect_timeout=1"
    plain = cli("count", "--store", url)
    assert plain.code == 1
    assert "Traceback" not in plain.err
    debug = cli("count", "--store", url, "--debug")
    assert "Traceback" in debug.err
    assert "s3cret" not in plain.err + debug.err


def test_what_should_not_happen_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr("memory.cli.showing.show_page", fail)
    ended = cli("find", "--store", "memory://")
    assert ended.code == 1
    assert (
        ended.err
        == "error: ZeroDivisionError: a bug of two lines (this is a fault of the program; --debug shows where)\n"
    )


def test_text_for_a_terminal_shows_what_a_terminal_would_obey() -> None:
    assert visible("\x1b[2J\x07\x9b\u202e\u2028\ud800\n\té") == r"\x1b[2J\x07\x9b\u202e\u2028\ud800\n\té"
    assert visible("a\n\tb", keep="\n\t") == "a\n\tb"


def test_without_its_libraries_the_command_says_what_to_install() -> None:
    program = "import sys; sys.modules['typer'] = None; from memory.cli import main; sys.exit(main(['tour']))"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 1
    assert ended.stderr == "error: the command line needs more packages: pip install 'conversation-memory[cli]'\n"


def test_help_loads_no_driver(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys; from memory.cli import main; main(['--help']); print({'sqlalchemy', 'rich.table'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout.splitlines()[-1] == "set()"
    assert main(["find", "--help"]) == 0
    assert "--namespace" in capsys.readouterr().out


def many_conversations(count: int = 2000) -> None:
    with memory.connect("sqlite:///conversations.db?synchronous=normal") as store, store.begin() as uow:
        for number in range(count):
            uow.conversations.add(Conversation(f"{number:06}", metadata={"text": "x" * 100}))


def test_who_reads_a_pipe_may_stop() -> None:
    many_conversations()
    for command, begin in ((["export"], b'{"namespace":'), (["find", "--limit", "2000"], b'{"id":')):
        with start(*command) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(begin)
            process.stdout.close()
            assert process.wait(20) == 141
            assert process.stderr.read() == b""


def test_ctrl_c_ends_an_import_between_two_commits() -> None:
    line = b'{"id": "%d", "runs": [{"input": "x", "output": "y"}]}\n'
    with start("import", "-") as process:
        assert process.stdin is not None
        for number in range(1500):
            process.stdin.write(line % number)
        process.stdin.flush()
        deadline = time.monotonic() + 20
        while unread(process.stdin.fileno()):  # lines beyond the first thousand are read when that is written
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.decode().splitlines() == ["error: interrupted"]
    assert out.decode() == "imported 1,000 conversations and 1,000 runs\n"
    assert stored_conversations() == 1000


def unread(pipe: int) -> int:
    """Return how many bytes of a pipe nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def stored_conversations() -> int:
    with memory.connect("sqlite:///conversations.db") as store, store.begin() as uow:
        return uow.conversations.count()


def limit_file_size() -> None:
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (3_000_000, 3_000_000)
    )  # as a full disk: a write comes back with an error


def test_a_full_disk_is_one_line_and_the_store_stays_whole() -> None:
    line = b'{"id": "%d", "runs": [{"input": "%s", "output": "y"}]}\n'
    data = b"".join(line % (number, b"x" * 2000) for number in range(4000))
    with start("import", "-", preexec_fn=limit_file_size) as process:
        out, err = process.communicate(data, timeout=60)
    assert process.returncode == 1
    assert err.startswith(b"error: ")
    assert err.count(b"\n") == 1
    told = int(out.split()[1].replace(b",", b""))
    assert stored_conversations() == told


def test_an_export_to_a_full_disk_is_one_line_and_leaves_nothing() -> None:
    many_conversations(15_000)
    with start("export", "out.jsonl", preexec_fn=limit_file_size) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert err == b"error: File too large\n"
    assert not list(Path().glob("out*"))
