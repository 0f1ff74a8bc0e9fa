import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import memory
from memory import Conversation, Run
from memory.testing.base import snapshot
from tests.cli.conftest import Cli, start
from tests.cli.test_terminal import on_terminal
from tests.servers import Server
from tests.servers.redis import fresh_prefix
from tests.test_transfer import fill_with_odd_things

SOURCE, TARGET = "sqlite:///source.db", "sqlite:///target.db"
RATE = re.compile(r" in [0-9.,]+ s, [0-9,]+ conversations/s")


@pytest.fixture
def filled() -> None:
    with memory.connect(SOURCE) as store:
        fill_with_odd_things(store)


def without_rate(text: str) -> str:
    assert RATE.search(text), text
    return RATE.sub("", text)


def edit(url: str, conversation_id: str = "gaps") -> None:
    with memory.connect(url) as store, store.begin() as uow:
        uow.conversations.get(conversation_id).metadata["edited in"] = url


@pytest.mark.usefixtures("filled")
def test_a_copy_tells_what_and_how_fast_and_a_second_one_what_was_there(cli: Cli) -> None:
    copied = cli("copy", SOURCE, TARGET)
    assert (copied.code, copied.err) == (0, "")
    assert without_rate(copied.out) == "copied 19 conversations and 631 runs\n"
    again = cli("copy", SOURCE, TARGET)
    assert without_rate(again.out) == "copied 0 conversations and 0 runs; equal before: 19\n"
    cli("export", "one.jsonl", "--store", SOURCE)
    cli("export", "other.jsonl", "--store", TARGET)
    assert Path("one.jsonl").read_bytes() == Path("other.jsonl").read_bytes()


@pytest.mark.usefixtures("filled")
def test_a_comparison_says_what_differs_in_what_and_the_exit_code_is_1(cli: Cli) -> None:
    assert cli("copy", SOURCE, TARGET, "--verify").out.endswith("both are the same\n")
    edit(TARGET)
    cli("delete", "odd 3", "--yes", "--store", TARGET)
    cli("import", "-", "--store", TARGET, stdin=b'{"id": "z\\u202e"}')
    compared = cli("copy", SOURCE, TARGET, "--verify-only")
    assert (compared.code, compared.err) == (1, "")
    gaps, missing, extra, source, target, end = compared.out.splitlines()
    assert re.fullmatch(r"gaps: metadata; version: (\d+), there (\d+); updated_at: .*Z, there .*Z", gaps)
    assert (missing, extra) == ("odd 3: missing there", r"z\u202e: only there")
    assert re.fullmatch(r"source: 19 conversations and 631 runs, sha256 [0-9a-f]{64}", source)
    assert re.fullmatch(r"target: 19 conversations and 629 runs, sha256 [0-9a-f]{64}", target)
    assert end == "3 conversations differ"
    assert cli("copy", SOURCE, TARGET, "--verify-only", "--where", "value == ''").code == 0
    repaired = cli("copy", SOURCE, TARGET, "--on-conflict", "replace", "--delete", "--verify")
    assert repaired.code == 0
    assert without_rate(repaired.out).startswith("copied 2 conversations and 599 runs; equal before: 17; deleted: 1\n")


@pytest.mark.usefixtures("filled")
def test_what_the_target_has_otherwise_is_told_and_the_exit_code_is_1(cli: Cli) -> None:
    cli("copy", SOURCE, TARGET)
    edit(TARGET)
    copied = cli("copy", SOURCE, TARGET)
    assert copied.code == 1
    assert copied.err == "gaps: the target has another state of it, which is not an older one\n"
    assert without_rate(copied.out) == (
        "copied 0 conversations and 0 runs; equal before: 18; skipped, different in the target: 1\n"
    )
    failed = cli("copy", SOURCE, TARGET, "--on-conflict", "fail")
    assert (failed.code, failed.err) == (
        1,
        "error: conversation 'gaps': the target has another state of it, which is not an older one\n",
    )


def test_a_part_of_a_namespace_into_another_of_the_same_store(cli: Cli) -> None:
    lines = b'{"id": "a", "metadata": {"n": 1}}\n{"id": "b", "metadata": {"n": 2}}'
    cli("import", "-", "--store", SOURCE, "--namespace", "one", stdin=lines)
    copied = cli(
        "copy", SOURCE, SOURCE, "--namespace", "one", "--target-namespace", "two", "--where", "n > 1", "--verify"
    )
    assert copied.code == 0
    assert cli("count", "--store", SOURCE, "--namespace", "two").out == "1\n"
    assert cli("count", "--store", SOURCE).out == "0\n"
    assert cli("copy", SOURCE, SOURCE, "--namespace", "two", "--verify").code == 0


def test_all_namespaces_unless_one_is_given(cli: Cli) -> None:
    for name in ("default", "a", "b\u202e"):
        cli("import", "-", "--store", SOURCE, "--namespace", name, stdin=b'{"id": "1"}\n{"id": "2"}')
    assert cli("namespaces", "--store", SOURCE).out == "a\nb\\u202e\ndefault\n"
    assert without_rate(cli("copy", SOURCE, TARGET, "--namespace", "a").out) == "copied 2 conversations and 0 runs\n"
    assert cli("namespaces", "--store", TARGET).out == "a\n"
    copied = cli("copy", SOURCE, TARGET, "--verify")
    assert copied.code == 0
    assert without_rate(copied.out).startswith("copied 4 conversations and 0 runs; equal before: 2\n")
    assert "target: 6 conversations" in copied.out
    edit(TARGET, "1")
    cli("import", "-", "--store", TARGET, "--namespace", "c", stdin=b'{"id": "3"}')
    extra, different, *_ = cli("copy", SOURCE, TARGET, "--verify-only").out.splitlines()
    assert (extra, different.partition(":")[0]) == ("3 (in c): only there", "1")
    assert cli("copy", SOURCE, TARGET, "--namespace", "a", "--verify-only").code == 0


def test_what_was_emptied_in_the_source_goes_from_the_target_when_it_is_named(cli: Cli) -> None:
    for name in ("default", "a"):
        cli("import", "-", "--store", SOURCE, "--namespace", name, stdin=b'{"id": "1"}')
    cli("copy", SOURCE, TARGET)
    cli("delete", "1", "--yes", "--store", SOURCE, "--namespace", "a")
    assert cli("copy", SOURCE, TARGET, "--delete", "--verify").code == 1
    refused = cli("copy", SOURCE, TARGET, "--namespace", "a")
    assert (refused.code, "no conversations in the namespace 'a'" in refused.err) == (1, True)
    elsewhere = cli("copy", SOURCE, TARGET, "--namespace", "a", "--target-namespace", "default", "--delete")
    assert (elsewhere.code, "this would delete everything" in elsewhere.err) == (1, True)
    assert cli("copy", SOURCE, TARGET, "--namespace", "a", "--delete", "--verify").code == 0
    assert cli("copy", SOURCE, TARGET, "--verify-only").code == 0


def test_what_does_not_match_any_more_is_brought_up_to_date_where_it_was_copied(cli: Cli) -> None:
    cli("import", "-", "--store", SOURCE, stdin=b'{"id": "1", "metadata": {"d": 0}}\n{"id": "2", "metadata": {"d": 0}}')
    cli("copy", SOURCE, TARGET, "--where", "d == 0")
    with memory.connect(SOURCE) as store, store.begin() as uow:
        uow.conversations.get("1").metadata["d"] = 9
    assert cli("copy", SOURCE, TARGET, "--where", "d == 0", "--delete", "--verify").code == 0
    assert cli("copy", SOURCE, TARGET, "--verify-only").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([SOURCE, TARGET, "--namespace", "typo"], 1, "there are no conversations in the namespace 'typo'"),
        ([SOURCE, TARGET, "--verify-only", "--delete"], 1, "excludes --delete"),
        ([SOURCE, TARGET, "--target-namespace", "b"], 1, "--target-namespace needs --namespace"),
        (["sqlite:///missing.db", TARGET], 1, "there is no file missing.db"),
        ([SOURCE, TARGET, "--verify-only"], 1, "there is no file target.db"),
        ([SOURCE, "nonsense"], 1, "a store's URL looks like"),
        ([SOURCE, TARGET, "--where", "a = 1"], 1, "write == to compare"),
        ([SOURCE, TARGET, "--where", "id == 'nobody'", "--delete"], 1, "there is nothing in the source"),
        ([SOURCE], 2, "Missing argument 'TARGET_URL'"),
        ([SOURCE, TARGET, "--store", SOURCE], 2, "No such option"),
        ([SOURCE, TARGET, "--on-conflict", "merge"], 2, "Invalid value for '--on-conflict'"),
    ],
)
@pytest.mark.usefixtures("filled")
def test_an_error_is_one_line(cli: Cli, arguments: list[str], code: int, message: str) -> None:
    ended = cli("copy", *arguments)
    assert (ended.code, ended.err.count("\n")) == (code, 1)
    assert message in ended.err


@pytest.mark.usefixtures("filled")
def test_to_postgresql_and_back(cli: Cli, postgres_url: str) -> None:
    refused = cli("copy", SOURCE, postgres_url)
    assert refused.code == 1
    assert re.match(r"error: postgresql\S+: the store has no schema yet.* `memory migrate`", refused.err)
    cli("migrate", "--store", postgres_url)
    assert cli("copy", SOURCE, postgres_url, "--verify").code == 0
    assert cli("copy", postgres_url, TARGET, "--verify").code == 0
    assert cli("copy", SOURCE, TARGET, "--verify-only").code == 0


@pytest.mark.usefixtures("filled")
def test_no_password_is_shown(cli: Cli) -> None:
    url = "postgresql+psycopg://ada:s3cret@127.0.0.1:1/none?connect_timeout=1"
    for arguments in ([url, TARGET], [SOURCE, url], [SOURCE, url, "--debug"], [url, TARGET, "--verify-only"]):
        ended = cli("copy", *arguments)
        assert ended.code == 1
        assert "s3cret" not in ended.err + ended.out


@pytest.mark.usefixtures("filled")
def test_a_bar_leaves_the_lines_whole() -> None:
    written = on_terminal("copy", SOURCE, TARGET, "--verify")
    assert re.search(r"copying .*comparing ", written, re.DOTALL)
    assert re.search(r"copied 19 conversations and 631 runs in [0-9.]+ s, [0-9,]+ conversations/s\n", written)
    assert re.search(r"source: 19 conversations and 631 runs, sha256 [0-9a-f]{64}\n", written)


@pytest.fixture
def redis_url(redis_server: Server) -> Iterator[str]:
    with fresh_prefix(redis_server) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))])
def target_url(request: pytest.FixtureRequest) -> str:
    return TARGET if request.param == "sqlite" else str(request.getfixturevalue("redis_url"))


def test_a_copy_that_is_killed_again_and_again_ends_with_the_same(target_url: str) -> None:
    many, long = 700, 3_000
    with memory.connect(f"{SOURCE}?synchronous=normal") as store:
        with store.begin() as uow:
            for number in range(many):
                uow.conversations.add(Conversation(f"{number:05}", metadata={"n": number}))
                uow.runs.append(f"{number:05}", *[Run(f"in {n}", {"out": n}) for n in range(4)])
            uow.conversations.add(Conversation("00350 long"))
            uow.runs.append("00350 long", *[Run(n, "x" * 50) for n in range(long)])
        with store.begin() as uow:
            uow.runs.remove("00350 long", 7, long)
    with memory.connect(target_url) as store:
        store.migrate()
    chance, most = random.Random(1), 0.5
    while True:
        with start("copy", SOURCE, target_url) as process:
            try:
                process.communicate(timeout=chance.uniform(0.2, most))
            except subprocess.TimeoutExpired:
                process.kill()
                most += 0.2  # a moment must come at which it is not killed
            else:
                assert process.returncode == 0
                break
    with start("copy", SOURCE, target_url, "--verify-only") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.decode().splitlines()[-1] == "both are the same"
    with memory.connect(SOURCE) as source, memory.connect(target_url) as target:
        assert snapshot(target) == snapshot(source)
        assert target.begin().conversations.count() == many + 1
        for store in (source, target):
            positions = [run.position for run in store.begin().runs.iterate("00350 long")]
            assert positions == [n for n in range(1, long) if n != 7]


def test_what_neither_side_has_is_equal(cli: Cli) -> None:
    for url in (SOURCE, TARGET):
        cli("import", "-", "--store", url, stdin=b'{"id": "1"}')
    compared = cli("copy", SOURCE, TARGET, "--namespace", "erased", "--verify-only")
    assert (compared.code, compared.err) == (0, "")
    assert compared.out.splitlines()[-1] == "both are the same"
    cli("import", "-", "--store", TARGET, "--namespace", "erased", stdin=b'{"id": "1"}')
    left = cli("copy", SOURCE, TARGET, "--namespace", "erased", "--verify-only")
    assert (left.code, left.out.splitlines()[0]) == (1, "1 (in erased): only there")
