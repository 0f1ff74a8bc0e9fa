"""Files that are damaged in any way are read or refused: nothing but a refusal comes of what cannot be read."""

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

import memory
from memory.formats.opening import read_all
from memory.formats.registry import Source
from memory.transfer import Limits, ParsedConversation, RejectedConversation, restore, uncompressed
from tests.formats.conftest import SAMPLES
from tests.formats.test_limits import CASES, ONE
from tests.rounds import rounds

LIMITS = Limits(line=200_000, values=20_000, ratio=20)
ODD: list[Any] = [
    None, True, 0, -1, 1.5, -0.0, float("nan"), float("inf"), 1e308, 10**400, 2**63, "", "a\n", "\ud800", "\0", "x" * 300,
    [], {}, [[]], [{}], {"": None}, {"id": 5}, {"role": []}, {"type": {}}, {"parts": 1},
]  # fmt: skip
LINE = {
    "id": "a", "metadata": {"n": [1, {"x": None}]}, "version": 3, "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T12:00:00Z", "expires_at": "2096-01-31T12:00:00Z", "last_position": 9,
    "runs": [{"position": 2, "id": "r", "created_at": "2026-01-31T12:00:00Z", "input": "a", "output": ["b"],
              "metadata": {"\u00c3": 1}, "byte_strings": ["metadata"]}],
}  # fmt: skip
MESSAGE = {"id": "m", "author": {"role": "user"}, "create_time": 1.5, "content": {"content_type": "text", "parts": ["a"]},
           "metadata": {"is_visually_hidden_from_conversation": False}, "recipient": "all"}  # fmt: skip
TREE = {
    "title": "t", "create_time": 1.5, "update_time": 2.5, "current_node": "b", "conversation_id": "c",
    "mapping": {
        "r": {"id": "r", "message": None, "parent": None, "children": ["a"]},
        "a": {"id": "a", "message": MESSAGE, "parent": "r", "children": ["b", "c"]},
        "b": {"id": "b", "message": {**MESSAGE, "author": {"role": "assistant"}}, "parent": "a", "children": []},
        "c": {"id": "c", "message": {**MESSAGE, "author": {"role": "tool"}}, "parent": "a", "children": []},
    },
}  # fmt: skip
CHAT = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
                     {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                     {"role": "tool", "content": "x"}, {"role": "assistant", "content": "a"}], "model": "m"}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "memory": [LINE, ONE["memory"]],
    "chatgpt": [[TREE, TREE], json.loads((SAMPLES / "chatgpt_conversations.json").read_text())],
    "openai": [CHAT, [CHAT, CHAT], CHAT["messages"], [CHAT["messages"]] * 2],
    "griptape-local": [json.loads(file.read_text()) for file in sorted(SAMPLES.glob("local_*.json"))],
    **{format: [ONE[format]] for format in CASES},
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[place for key, child in children for place in places(child, (*path, key))]]


def edited(value: Any, chance: random.Random) -> Any:
    """Put something else into a place, or leave it out, or repeat it."""
    if not (inside := places(value)[1:]):
        return value
    *above, last = chance.choice(inside)
    parent = value = json.loads(json.dumps(value))
    for key in above:
        parent = parent[key]
    act = chance.randrange(4)
    if act == 0:
        del parent[last]
    elif act == 1 and isinstance(parent, list):
        parent.insert(last, parent[last])
    elif act == 2 and isinstance(parent, dict):
        parent[chance.choice(["", "id", "type", "mapping", "messages", "griptape", "openai", "\ud800"])] = parent.pop(
            last
        )
    else:
        parent[last] = chance.choice(ODD)
    return value


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Change some bytes."""
    at = chance.randrange(len(content) + 1)
    size = chance.choice([0, 1, 1, 2, 8, 100])
    odd = [b"", b"\xff", b"\0", b'"', b"\\", b"[" * 2_000, b'{"a":' * 2_000, b"}", b",", b"\n", b"\xef\xbb\xbf", b"9" * 5_000,
           bytes([chance.randrange(256)]), content[: chance.randrange(50)]]  # fmt: skip
    return content[:at] + chance.choice(odd) + content[at + size :]


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", content)
        archive.writestr("conversations-1.json", content[:100])
    return packed.getvalue()


def check_read(format: str, content: bytes, *, detected: bool) -> None:
    """Read it, and write what can be read: all that goes wrong is a refusal."""
    stream = uncompressed(io.BufferedReader(io.BytesIO(content)), limits=LIMITS)
    found = list(read_all(None if detected else format, Source("file", 1, stream, limits=LIMITS)))
    assert all(isinstance(one, ParsedConversation | RejectedConversation) for one in found)
    with memory.connect("memory://") as store:
        totals = restore(store, found, on_conflict="replace")
        assert totals.refused + totals.conversations == len(found)
        for conversation in store.begin().conversations.iterate():
            store.begin().runs.list(conversation.id)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zipped])
@pytest.mark.parametrize("format", VALUES)
def test_a_damaged_file_is_read_or_refused(format: str, pack: Callable[[bytes], bytes]) -> None:
    chance = random.Random(f"{format} {pack.__name__}")
    for number in range(rounds(60)):
        value = chance.choice(VALUES[format])
        for _ in range(chance.choice([0, 1, 1, 2, 5])):
            value = edited(value, chance)
        content = json.dumps(value, indent=chance.choice([None, None, 1])).encode()
        if number % 2:
            content = damaged(content, chance)
        content = pack(content)
        if number % 3 == 0:
            content = damaged(content, chance)
        try:
            check_read(format, content, detected=number % 5 == 0)
        except BaseException as error:
            error.add_note(f"{format} {number}: {content[:2_000]!r}")
            raise
