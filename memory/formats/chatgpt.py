"""Read ChatGPT's data export: ``conversations.json``, plain or in its zip. Each conversation is a tree of messages."""

import os
import re
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from typing import IO, Any, Final, cast

from memory.domain.entities import Run
from memory.domain.values import Json, first_id, new_id, to_datetime
from memory.errors import InvalidValueError
from memory.formats.builders import conversation, microseconds
from memory.formats.json_stream import elements
from memory.formats.registry import Source
from memory.formats.turns import Message, Role, rest_of, turns, values_of
from memory.port.changes import Change
from memory.transfer.parsing import BROKEN_STREAM, ParsedConversation, RejectedConversation, broken_off, read_json

KEY: Final = "chatgpt"
"""The metadata key of runs and conversations for fields without an equivalent in this package."""

QUERIED: Final = {"title": "title", "default_model_slug": "model"}  # fields that become metadata under these names
_ZIP: Final = b"PK\x03\x04"
_UNREADABLE: Final = (*BROKEN_STREAM, OverflowError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile)
"""The exceptions that `zipfile` raises for a damaged or unsupported archive."""

_MEMBER: Final = re.compile(r"(.*/)?conversations(-\d+)?\.json")


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of an export one by one; only one at a time is held in memory."""
    number = 0
    try:
        is_archive = hasattr(source.file, "peek") and source.file.peek(4)[:4] == _ZIP
        for found in _read_archive(source) if is_archive else _read_stream(source.file, source, 0):
            number = found.number
            yield found
    except _UNREADABLE as error:  # truncated, damaged, encrypted, not seekable, or too large
        yield broken_off(number + 1, error)


def _read_archive(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    number = 0
    with zipfile.ZipFile(source.file) as archive:
        members = [each for each in archive.infolist() if _MEMBER.fullmatch(each.filename)]
        members.sort(key=attrgetter("filename"))
        if not members:
            yield RejectedConversation(1, "the archive has no conversations.json")
        # `zipfile` never yields more bytes than a member declares, but members may overlap in the file (a zip bomb).
        source.limits.check_unpacked(sum(each.file_size for each in members), source.file.seek(0, os.SEEK_END))
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NotImplementedError(f"{member.filename} has a compression that ChatGPT's export does not use")
            with archive.open(member) as stream:
                for found in _read_stream(stream, source, number):
                    number = found.number
                    yield found


def _read_stream(stream: IO[bytes], source: Source, before: int) -> Iterator[ParsedConversation | RejectedConversation]:
    for number, element in elements(stream, limits=source.limits):
        if isinstance(element, RejectedConversation):
            yield RejectedConversation(before + number, element.reason)
        else:
            make = partial(read_tree, f"{source.name}-{before + number}", at=source.at)
            yield read_json(before + number, element.text, make, limits=source.limits)


def read_tree(id: str, value: Any, at: int) -> Change:
    """Return the conversation for an element of the export; ``id`` and ``at`` are for what has no id and no time of its own.

    The runs are the messages from the root of the tree to ``current_node``, which is what the user saw last. Other branches
    (from an edited question or a regenerated answer) are kept in the metadata of the run where they fork, under
    ``chatgpt.branches``. ``title`` and ``model`` become metadata of the conversation; all other fields are kept under
    ``chatgpt.fields``. Nothing is lost except the order of the nodes in ``mapping``.
    """
    mapping = value.get("mapping") if isinstance(value, dict) else None
    if not isinstance(mapping, dict):
        raise InvalidValueError('not a conversation of ChatGPT, which is an object with a "mapping"')
    created_at = microseconds(value.get("create_time"), at)
    path = _path(mapping, value.get("current_node"))
    messages = [_parse_node(key, mapping[key]) for key in path]
    parts = turns([message.role for message in messages])
    branches = _branches(mapping, path, parts)
    runs = []
    for number, turn in enumerate(parts):
        part = messages[turn.start : turn.stop]
        asked = next((index for index in turn if messages[index].role == "question"), turn.start)
        rest = {**rest_of(part), **({"branches": branches[number]} if number in branches else {})}
        asked_at = to_datetime(microseconds(_message_of(mapping[path[asked]]).get("create_time"), created_at))
        runs.append(Run(*values_of(part), {KEY: rest}, first_id(path[asked]) or new_id(), asked_at))
    fields = {name: None if name == "mapping" or name in QUERIED else part for name, part in value.items()}
    metadata: dict[str, Json] = {name: value[field] for field, name in QUERIED.items() if field in value}
    id = first_id(value.get("conversation_id"), value.get("id")) or id
    updated_at = microseconds(value.get("update_time"), created_at)
    return conversation(id, {**metadata, KEY: {"fields": fields}}, runs, created_at, updated_at)


def _path(mapping: dict[str, Any], current: object) -> list[str]:
    """Return the nodes from the root to the current one or, if it is unknown, to the newest leaf."""
    if not isinstance(current, str) or current not in mapping:
        parents = {_parent_of(node) for node in mapping.values()}
        leaves = [key for key in mapping if key not in parents] or list(mapping)
        current = max(
            reversed(leaves),  # the last one in the file wins a tie
            key=lambda key: microseconds(_message_of(mapping[key]).get("create_time"), 0),
            default=None,
        )
    path: dict[str, None] = {}
    while current is not None and current in mapping and current not in path:
        path[current] = None
        current = _parent_of(mapping[current])
    return list(reversed(path))


def _branches(mapping: dict[str, Any], path: list[str], parts: list[range]) -> dict[int, list[Json]]:
    """Return the nodes that are not on the path, by the number of the turn where their branch forks off."""
    on_path = {path[index]: number for number, turn in enumerate(parts) for index in turn}
    homes = dict(on_path)
    branches: dict[int, list[Json]] = {}
    for key, node in mapping.items():
        trail: dict[str, None] = {}
        above: str | None = key
        while above is not None and above in mapping and above not in homes and above not in trail:
            trail[above] = None
            above = _parent_of(mapping[above])
        home = homes.get(above, 0) if above is not None else 0  # a branch without a parent belongs to the first turn
        homes |= dict.fromkeys(trail, home)
        if key not in on_path:
            branches.setdefault(homes[key], []).append(_pack(key, node))
    return branches


def _parent_of(node: Any) -> str | None:
    parent = node.get("parent") if isinstance(node, dict) else None
    return parent if isinstance(parent, str) else None


def _message_of(node: Any) -> dict[str, Any]:
    message = node.get("message") if isinstance(node, dict) else None
    return message if isinstance(message, dict) else {}


def _parse_node(key: str, node: Any) -> Message:
    message = _message_of(node)
    content = message.get("content")
    whole = _pack(key, node)
    if not isinstance(content, dict):
        return Message("context", None, whole, whole)
    value = _value_of(content)
    role = _role_of(message, content, value)
    return Message(role, value, _pack(key, {**node, "message": {**message, "content": None}}), whole)


def _role_of(message: dict[str, Any], content: dict[str, Any], value: Json) -> Role:
    """Return a message's role. Hidden messages, messages to or from tools, and reasoning are context."""
    author, details = message.get("author"), message.get("metadata")
    if isinstance(details, dict) and details.get("is_visually_hidden_from_conversation") is True:
        return "context"
    role = author.get("role") if isinstance(author, dict) else None
    if role == "user":
        return "question"
    is_to_all = message.get("recipient") in (None, "all")
    is_empty = value == "" or content.get("parts") == []
    is_thought = content.get("content_type") in ("thoughts", "reasoning_recap")
    return "answer" if role == "assistant" and is_to_all and not is_empty and not is_thought else "context"


def _value_of(content: dict[str, Any]) -> Json:
    """Return the text of pure text content, and any other content unchanged."""
    parts = content.get("parts")
    is_text = list(content) == ["content_type", "parts"] and content["content_type"] == "text"
    if is_text and isinstance(parts, list) and list(map(type, parts)) == [str]:
        return cast("str", parts[0])
    return cast("Json", content)


def _pack(key: str, node: Any) -> Json:
    """Return a node together with its key in the mapping, which is nearly always its ``id``."""
    return node if isinstance(node, dict) and node.get("id") == key else {"key": key, "node": node}
