"""Read lists of messages in OpenAI's format: ``{"messages": [{"role": "user", "content": "Hi"}, ...]}``."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import chain, groupby
from typing import Any, Final

from memory.domain.entities import Run
from memory.domain.values import Json, new_id, to_datetime
from memory.errors import InvalidValueError
from memory.formats.builders import conversation
from memory.formats.json_stream import Element, elements
from memory.formats.registry import Source
from memory.formats.turns import Message, Role, rest_of, turns, values_of
from memory.port.changes import Change
from memory.transfer import Limits, ParsedConversation, RejectedConversation, read_json
from memory.transfer.jsonl import split_lines
from memory.transfer.parsing import BROKEN_STREAM, broken_off, parse

KEY: Final = "openai"
"""The metadata key of runs and conversations for fields without an equivalent in this package."""

_LONGEST_FIRST_LINE: Final = 2**20
_ROLES: Final[dict[object, Role]] = {"user": "question", "assistant": "answer"}


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield one conversation for each list of messages: a line, an element of an array, or the whole file."""
    limits = source.limits
    try:
        first = source.file.readline(_LONGEST_FIRST_LINE)
    except BROKEN_STREAM as error:
        yield broken_off(1, error)
        return
    texts: Iterator[tuple[int, bytes | RejectedConversation]]
    if _is_line(first, limits):
        line = RejectedConversation(1, limits.too_long("the line")) if len(first) > limits.line else first
        texts = chain([(1, line)], split_lines(source.file, limits=limits, first=2))
    else:
        texts = _texts(elements(source.file, limits=limits, begun=first), limits)
    for number, text in texts:
        if isinstance(text, RejectedConversation):
            yield replace(text, number=number)
        else:
            make = partial(read_messages, f"{source.name}-{number}", at=source.at)
            yield read_json(number, text.removeprefix(codecs.BOM_UTF8), make, limits=limits)


def _is_line(first: bytes, limits: Limits) -> bool:
    """Return whether the file has a conversation in each line, which its first line shows."""
    text = first.strip()
    if not text or len(first) == _LONGEST_FIRST_LINE or text.endswith((b"[", b"{", b",", b":")):
        return False
    _, element = next(elements(BytesIO(first), limits=limits), (0, None))
    return not isinstance(element, Element) or not element.array or _looks_like_message(element.text)


def _texts(
    found: Iterator[tuple[int, Element | RejectedConversation]], limits: Limits
) -> Iterator[tuple[int, bytes | RejectedConversation]]:
    """Yield the text of each element; the elements of an array of messages are joined into one text."""
    for array, group in groupby(found, lambda each: _array_of_messages(each[1])):
        if array:
            number, first = next(group)
            yield number, _joined(chain([first], (element for _, element in group)), limits)
        else:
            yield from ((number, each.text if isinstance(each, Element) else each) for number, each in group)


def _array_of_messages(element: Element | RejectedConversation) -> int:
    """Return the number of the array if the element is a message in one, else 0."""
    return element.array if isinstance(element, Element) and _looks_like_message(element.text) else 0


def _joined(messages: Iterator[Any], limits: Limits) -> bytes | RejectedConversation:
    texts: list[bytes] = []
    size = 0
    for message in messages:
        texts.append(message.text)
        size += len(message.text)
        if size > limits.line:
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
    metadata under ``openai.fields``. Nothing is lost.
    """
    fields = value if isinstance(value, dict) else {"messages": value}
    messages = fields.get("messages")
    if not isinstance(messages, list) or (value is messages and not all(map(_is_message, messages))):
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
