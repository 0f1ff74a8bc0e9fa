"""Read lists of messages in OpenAI's format: ``{"messages": [{"role": "user", "content": "Hi"}, ...]}``."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import chain, islice
from typing import IO, Any, Final, cast

from memory.domain.entities import Conversation, Run
from memory.domain.values import Json, new_id, to_datetime
from memory.errors import InvalidValueError
from memory.formats import extras
from memory.formats.builders import conversation
from memory.formats.json_stream import Element, elements
from memory.formats.registry import Source
from memory.formats.turns import REST, Message, Role, messages_of, rest_of, turns, values_of
from memory.port.changes import Change
from memory.transfer import (
    BROKEN_STREAM,
    Limits,
    ParsedConversation,
    RejectedConversation,
    broken_off,
    parse,
    read_json,
    split_lines,
    try_parse,
)

KEY: Final = "openai"
"""The metadata key of runs and conversations for fields without an equivalent in this package."""

_FIELDS: Final = frozenset(["fields"])
_LONGEST_FIRST_LINE: Final = 2**20
_ROLES: Final[dict[object, Role]] = {"user": "question", "assistant": "answer"}


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield one conversation for each list of messages: a line, an element of an array, or the whole file."""
    try:
        first = source.file.readline(_LONGEST_FIRST_LINE)
    except BROKEN_STREAM as error:
        yield broken_off(1, error)
        return
    stream = cast("IO[bytes]", _PrefixedStream(first, source.file))
    is_lines = len(first) < _LONGEST_FIRST_LINE and not first.strip().endswith((b"[", b"{", b",", b":"))
    is_lines = is_lines and bool(first.strip())
    texts = _lines(stream, source.limits) if is_lines else _texts(elements(stream, limits=source.limits), source.limits)
    for number, text in texts:
        if isinstance(text, RejectedConversation):
            yield replace(text, number=number)
        else:
            yield from _parse_text(number, text, source)


def _lines(stream: IO[bytes], limits: Limits) -> Iterator[tuple[int, bytes | RejectedConversation]]:
    """Yield each line; if the file is a single line with an array of conversations, yield its elements."""
    lines = split_lines(stream, limits=limits)
    begun = list(islice(lines, 2))
    if len(begun) == 1 and isinstance(text := begun[0][1], bytes) and _may_be_array_of_conversations(text, limits):
        return _texts(elements(BytesIO(text), limits=limits), limits)
    return chain(begun, lines)


def _may_be_array_of_conversations(text: bytes, limits: Limits) -> bool:
    if not text.lstrip().startswith(b"["):
        return False
    try:
        if not limits.has_too_many_values(text):
            return not all(map(_is_message, parse(text)))
    except (ValueError, RecursionError):
        pass
    # An array of conversations is read even if one is malformed; a malformed list of messages is rejected whole.
    _, element = next(elements(BytesIO(text), limits=limits), (0, None))
    return isinstance(element, Element) and not _looks_like_message(element.text)


def _parse_text(number: int, text: bytes, source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation of a text, or, if the text is a list of conversations, one for each element."""
    id = f"{source.name}-{number}"
    several: list[Any] = []

    def read_one(value: Any) -> Change:
        if isinstance(value, list) and value and not all(map(_is_message, value)):
            several.extend(value)
            raise InvalidValueError("this is a list of conversations")
        return read_messages(id, value, source.at)

    parsed = read_json(number, text, read_one, limits=source.limits)
    if not several:
        yield parsed
    for index, value in enumerate(several, 1):
        parsed = try_parse(number, len(text) // len(several), partial(read_messages, f"{id}-{index}", value, source.at))
        if isinstance(parsed, RejectedConversation):
            parsed = RejectedConversation(number, f"element {index}: {parsed.reason}")
        yield parsed


def _texts(
    found: Iterator[tuple[int, Element | RejectedConversation]], limits: Limits
) -> Iterator[tuple[int, bytes | RejectedConversation]]:
    """Yield the text of each element; the elements of an array of messages are joined into one text."""
    messages: list[bytes] = []
    array = first = size = 0
    for number, element in found:
        together = isinstance(element, Element) and element.array and _looks_like_message(element.text)
        if messages and not (together and isinstance(element, Element) and element.array == array):
            yield first, _joined(messages, limits)
            messages, size = [], 0
        if isinstance(element, RejectedConversation):
            yield number, element
        elif together:
            array, first = element.array, first if messages else number
            if size <= limits.line and len(messages) <= limits.values:  # otherwise `_joined` rejects it
                messages.append(element.text)
                size += len(element.text)
        else:
            yield number, element.text
    if messages:
        yield first, _joined(messages, limits)


def _joined(texts: list[bytes], limits: Limits) -> bytes | RejectedConversation:
    if sum(map(len, texts)) > limits.line:
        return RejectedConversation(0, limits.too_long("the list of messages"))
    if len(texts) > limits.values:
        return RejectedConversation(0, limits.too_many())
    return b"[" + b",".join(texts) + b"]"


def _looks_like_message(text: bytes) -> bool:
    try:
        return _is_message(parse(text))
    except (ValueError, RecursionError):
        return False


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


class _PrefixedStream:
    """A stream that returns its first line, which was already read, once more."""

    def __init__(self, first: bytes, stream: IO[bytes]) -> None:
        self._first = first
        self._stream = stream

    def readline(self, limit: int) -> bytes:
        first, self._first = self._first[:limit], self._first[limit:]
        return first or self._stream.readline(limit)

    def read(self, size: int) -> bytes:
        first, self._first = self._first, b""
        return first or self._stream.read(size)

    def peek(self) -> bytes:
        return self._stream.peek() if hasattr(self._stream, "peek") else b""
