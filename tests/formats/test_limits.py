"""Small files that would take much memory or time are refused, and the reason says which limit to raise."""

import gzip
import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from memory.formats.opening import read_all
from memory.formats.registry import Source
from memory.transfer import Limits, ParsedConversation, RejectedConversation, read_lines, uncompressed
from memory.transfer.jsonl import split_lines
from tests.cli.conftest import start
from tests.formats.conftest import SAMPLES

CASES = {
    "claude": "claude-export",
    "deepseek": "deepseek-export",
    "gemini": "gemini-takeout-MyActivity",
    "open-webui": "open-webui-export",
    "librechat": "librechat-export",
    "sharegpt": "sharegpt",
    "llm": "llm-logs",
    "langchain": "langchain-messages-to-dict",
}
FILES = ("memory", "griptape-local", "chatgpt", "openai", *CASES)
TREE: dict[str, Any] = {"mapping": {"a": {"id": "a", "message": None, "parent": None, "children": []}}}
ONE: dict[str, Any] = {
    "memory": {"id": "a", "runs": [{"input": 1, "output": [1, 2, 3]}]},
    "griptape-local": {"runs": [{"input": "a", "output": "b"}] * 3, "metadata": {}},
    "chatgpt": TREE,
    "openai": {"messages": [{"role": "user", "content": "a"}] * 3},
    **{format: json.loads((SAMPLES / "cases" / f"{name}.json").read_text()) for format, name in CASES.items()},
}
for format_ in ("claude", "deepseek", "gemini", "open-webui", "sharegpt"):
    (ONE[format_],) = ONE[format_]  # their files are lists of conversations


def found(format: str, content: bytes, **limits: int) -> list[ParsedConversation | RejectedConversation]:
    bounds = Limits(**limits)
    stream = uncompressed(io.BufferedReader(io.BytesIO(content)), limits=bounds)
    return list(read_all(format, Source("file", 0, stream, limits=bounds)))


def reasons(found: list[ParsedConversation | RejectedConversation]) -> list[str]:
    return [one.reason for one in found if isinstance(one, RejectedConversation)]


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", content)
    return packed.getvalue()


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("limit", ["line", "values"])
def test_a_conversation_beyond_a_limit_is_refused_and_is_read_with_a_higher_one(format: str, limit: str) -> None:
    content = json.dumps(ONE[format]).encode()
    size = len(content) if limit == "line" else sum(map(content.count, (b",", b"[", b"{")))
    assert [type(one) for one in found(format, content, **{limit: size})] == [ParsedConversation]
    (reason,) = reasons(found(format, content + b" ", **{limit: size - 1}))
    assert f"more than {size - 1} values" in reason or f"longer than {size - 1} bytes" in reason
    assert f"raise the limit: --max-{limit}, or Limits({limit}=...)" in reason


@pytest.mark.parametrize("format", FILES)
def test_what_unpacks_to_much_more_than_its_size_is_not_unpacked(format: str) -> None:
    packed = gzip.compress((b" " * 63 + b"\n") * 2**19)
    tracemalloc.start()
    try:
        (reason,) = reasons(found(format, packed))
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert "over 250 times as much" in reason
    assert "--max-ratio" in reason
    if format != "griptape-local":  # a blank file is none of Griptape's
        assert found(format, gzip.compress(b"\n" * 2**21), ratio=1_100) == []


def test_an_archive_that_unpacks_to_much_more_than_its_size_is_not_unpacked() -> None:
    packed = zipped(b"[[" + b"{}," * 2**23 + b"1]]")
    (reason,) = reasons(found("chatgpt", packed))
    assert "over 250 times as much" in reason
    reason, *_ = reasons(found("chatgpt", packed, ratio=1_100, values=10_000))
    assert "more than 10,000 values" in reason


def test_a_small_file_may_be_as_uniform_as_it_likes() -> None:
    line = json.dumps({"id": "a", "metadata": {"x": "x" * 10_000_000}}).encode()
    packed = gzip.compress(line)
    assert len(line) > 500 * len(packed)
    assert [type(one) for one in found("memory", packed)] == [ParsedConversation]


def test_blank_lines_are_counted() -> None:
    text = b" \r\n" * 1_000_000 + b"  5\n\n\n6"
    assert list(split_lines(io.BytesIO(text))) == [(1_000_001, b"  5\n"), (1_000_004, b"6")]


def test_a_list_of_messages_that_is_too_long_is_refused_and_the_rest_goes_on() -> None:
    message = b'{"role":"user","content":"a"}'
    text = b"[\n" + b",\n".join([message] * 100) + b"]\n[" + message + b"]"
    assert reasons(found("openai", text, line=1_000)) == [Limits(line=1_000).too_long("the list of messages")]
    assert reasons(found("openai", text, values=20)) == [Limits(values=20).too_many()]
    assert [type(one) for one in found("openai", text, values=20)] == [RejectedConversation, ParsedConversation]


def test_a_number_of_any_length_is_refused_or_read() -> None:
    for digits in (b"9" * 5_000, b"1" * 10**6, b"0." + b"1" * 10**6, b"1e" + b"9" * 10**6, b"-" + b"1" * 10**6 + b".5"):
        (one,) = read_lines(io.BytesIO(b'{"id":"a","metadata":{"n":' + digits + b"}}"))
        assert isinstance(one, RejectedConversation) or digits.startswith(b"0.")


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"id":"a","metadata":{"x":' + b"[", b'[{"mapping":{"a":'])
def test_what_nests_deep_is_refused(format: str, opening: bytes) -> None:
    refused = reasons(found(format, opening * 100_000))
    assert len(refused) == 1
    assert "is nested too deeply" in refused[0] or "the input ends inside the value" in refused[0]


TWICE = {
    "memory": (b'{"id":"b"}\n{"id":"a","metadata":{"x":1,"y":2,"x":3}}\n{"id":"c"}', 2, 3),
    "griptape-local": (b'{"runs":[],"metadata":{"x":1,"x":2}}', 1, 1),
    "chatgpt": (b'[{"mapping":{}},{"mapping":{"x":1,"x":2}},{"mapping":{}}]', 2, 3),
    "openai": (
        b'[[{"role":"user","content":"x"}],[{"role":"user","x":1,"x":2}],[{"role":"user","content":"x"}]]',
        2,
        3,
    ),
}


@pytest.mark.parametrize("format", TWICE)
def test_an_object_with_a_key_twice_is_refused_with_its_number_and_key(format: str) -> None:
    content, number, count = TWICE[format]
    every = found(format, content)
    assert len(every) == count
    (refusal,) = [one for one in every if isinstance(one, RejectedConversation)]
    assert refusal == RejectedConversation(number, "an object has the key 'x' twice")


def test_the_command_line_names_the_limit_and_takes_a_higher_one(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"id": "a", "metadata": {"x": "y" * 500}}) + "\n")
    store = ["--store", f"sqlite:///{tmp_path}/store.db"]
    refused = start("import", str(file), "--max-line", "100", *store)
    _, told = refused.communicate()
    assert refused.returncode == 1
    assert b"long.jsonl: not read: the line is longer than 100 bytes" in told
    assert b"--max-line" in told
    taken = start("import", str(file), "--max-line", "1000", *store)
    taken.communicate()
    assert taken.returncode == 0
