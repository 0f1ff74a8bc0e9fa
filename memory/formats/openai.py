"""Read lists of messages in OpenAI's format: ``{"messages": [{"role": "user", "content": "Hi"}, ...]}``."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, Final

from memory.domain.entities import Conversation, Run
from memory.domain.values import Json, new_id, to_datetime
from memory.errors import InvalidValueError
from memory.formats import extras
from memory.formats.builders import conversation
from memory.formats.registry import Source
from memory.formats.turns import REST, Message, Role, messages_of, rest_of, turns, values_of
from memory.port.changes import Change
from memory.transfer import (
    Limits,
    ParsedConversation,
    RejectedConversation,
    read_json,
    split_lines,
    try_parse,
)

KEY: Final = "openai"
"""The metadata key of runs and conversations for fields without an equivalent in this package."""

_FIELDS: Final = frozenset(["fields"])
_ROLES: Final[dict[object, Role]] = {"user": "question", "assistant": "answer"}
_UNFINISHED: Final = (
    b"[",
    b"{",
    b",",
    b":",
)  # ends of a first line that is not a whole value, but begins an indented one


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield one conversation for each list of messages: the whole file, or a line, or an element of an array that either is."""
    lines = split_lines(source.file, limits=source.limits)
    begun = list(islice(lines, 2))
    if begun and isinstance(begun[0][1], bytes) and begun[0][1].rstrip().endswith(_UNFINISHED):
        begun, lines = [(1, _joined(chain(begun, lines), source.limits))], iter(())
    for number, text in chain(begun, lines):
        if isinstance(text, RejectedConversation):
            yield text
        else:
            yield from _parse_text(number, text, source, is_alone=len(begun) == 1)


def _joined(lines: Iterator[tuple[int, bytes | RejectedConversation]], limits: Limits) -> bytes | RejectedConversation:
    text = bytearray()
    for _, line in lines:
        if isinstance(line, RejectedConversation):
            return line
        text += line
        if len(text) > limits.line:
            return RejectedConversation(1, limits.too_long("the file"))
    return bytes(text)


def _parse_text(
    number: int, text: bytes, source: Source, *, is_alone: bool
) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation of a text, or, if the text is a list of conversations, one for each element."""
    several: list[Any] = []

    def read_one(value: Any) -> Change:
        if isinstance(value, list) and value and not all(map(_is_message, value)):
            several.extend(value)
            raise InvalidValueError("this is a list of conversations")
        return read_messages(f"{source.name}-{number}", value, source.at)

    parsed = read_json(number, text, read_one, limits=source.limits)
    if not several:
        yield parsed
    for index, value in enumerate(several, 1):
        at = index if is_alone else number
        id = f"{source.name}-{index}" if is_alone else f"{source.name}-{number}-{index}"
        parsed = try_parse(at, len(text) // len(several), partial(read_messages, id, value, source.at))
        if isinstance(parsed, RejectedConversation) and not is_alone:
            parsed = RejectedConversation(at, f"element {index}: {parsed.reason}")
        yield parsed


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and "messages" not in value


def read_messages(id: str, value: Any, at: int) -> Change:
    """Return the conversation for a list of messages, or for an object with such a list under ``messages``.

    The content of a user's message becomes a run's input, the assistant's answer its output. Other messages, and other fields
    of these messages, are kept in the run's metadata under ``openai``; other fields of the object in the conversation's
    metadata under ``openai.fields``. `conversation_json` restores the value.
    """
    fields = value if isinstance(value, dict) else {"messages": value}
    messages = fields.get("messages")
    if not isinstance(messages, list):
        raise InvalidValueError('not a list of messages, nor an object with one under "messages"')
    metadata: dict[str, Json] = {}
    if value is messages:
        metadata = {KEY: {"fields": None}}
    elif len(fields) > 1:
        metadata = {KEY: {"fields": {**fields, "messages": None}}}  # None keeps the position of the key
    created_at = to_datetime(at)
    parsed = [_parse_message(message) for message in messages]
    ids = new_id()
    runs = []
    for number, turn in enumerate(turns([message.role for message in parsed]), 1):
        part = parsed[turn.start : turn.stop]
        run = Run(*values_of(part), {}, f"{ids}-{number}", created_at)
        is_plain = _dumps(list(_plain(run))) == _dumps([message.whole for message in part])
        runs.append(run if is_plain else Run(run.input, run.output, {KEY: rest_of(part)}, run.id, created_at))
    return conversation(id, metadata, runs, at)


def _parse_message(message: Json) -> Message:
    if not isinstance(message, dict) or "content" not in message:
        return Message("context", None, message, message)
    role, content = message.get("role"), message["content"]
    kind = _ROLES.get(role, "context") if isinstance(role, str) else "context"
    if kind == "answer" and content is None:  # a tool call
        kind = "context"
    return Message(kind, content, {**message, "content": None}, message)


def _plain(run: Run) -> Iterator[Json]:
    if run.input is not None:
        yield {"role": "user", "content": run.input}
    if run.output is not None:
        yield {"role": "assistant", "content": run.output}


def _dumps(messages: list[Any]) -> str:
    return json.dumps(messages)  # unlike `==`, distinguishes 1 from True, and the order of keys


def conversation_json(conversation: Conversation, runs: list[Run]) -> Any:
    """Return the value that a conversation was imported from; for any other conversation, its list of messages."""
    messages: list[Any] = []
    for run in runs:
        _, rest = extras.split(run.metadata, KEY, REST)
        messages += messages_of(run, rest, _fill) if rest else _plain(run)
    _, kept = extras.split(conversation.metadata, KEY, _FIELDS)
    if "fields" in kept and kept["fields"] is None:
        return messages
    return {**kept.get("fields", {}), "messages": messages}


def _fill(message: Any, value: Any) -> Any:
    return {**message, "content": value}
