"""Lists of messages as OpenAI's interfaces take them: ``{"messages": [{"role": "user", "content": "Hi"}, ...]}``."""

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
from memory.formats.turns import REST, Role, Said, messages_of, rest_of, turns, values_of
from memory.port.changes import Change
from memory.transfer import (
    BROKEN_STREAM,
    Limits,
    ParsedConversation,
    RejectedConversation,
    arrive,
    broken_off,
    parse,
    read_json,
    split_lines,
)

KEY: Final = "openai"
"""The key in the metadata of runs and conversations that holds what they have no place for."""

_FIELDS: Final = frozenset(["fields"])
_LONGEST_FIRST_LINE: Final = 2**20
_ROLES: Final[dict[object, Role]] = {"user": "question", "assistant": "answer"}


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation of each list of messages: of a line, of an element of an array, or of the whole file."""
    try:
        first = source.file.readline(_LONGEST_FIRST_LINE)
    except BROKEN_STREAM as error:
        yield broken_off(1, error)
        return
    stream = cast("IO[bytes]", _Again(first, source.file))
    is_lines = len(first) < _LONGEST_FIRST_LINE and not first.strip().endswith((b"[", b"{", b",", b":"))
    is_lines = is_lines and bool(first.strip())
    texts = _lines(stream, source.limits) if is_lines else _texts(elements(stream, limits=source.limits), source.limits)
    for number, text in texts:
        if isinstance(text, RejectedConversation):
            yield replace(text, number=number)
        else:
            yield from _arrivals(number, text, source)


def _lines(stream: IO[bytes], limits: Limits) -> Iterator[tuple[int, bytes | RejectedConversation]]:
    """Yield the texts of lines; of a file that is one line with an array of conversations, those of its elements."""
    lines = split_lines(stream, limits=limits)
    begun = list(islice(lines, 2))
    if len(begun) == 1 and isinstance(text := begun[0][1], bytes) and _may_be_several(text, limits):
        return _texts(elements(BytesIO(text), limits=limits), limits)
    return chain(begun, lines)


def _may_be_several(text: bytes, limits: Limits) -> bool:
    if not text.lstrip().startswith(b"["):
        return False
    try:
        if not limits.has_too_many_values(text):
            return not all(map(_is_message, parse(text)))
    except (ValueError, RecursionError):
        pass
    _, element = next(
        elements(BytesIO(text), limits=limits), (0, None)
    )  # one may be bad; but of a list of messages there is no half
    return isinstance(element, Element) and not _looks_like_message(element.text)


def _arrivals(number: int, text: bytes, source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of a text: one, or of a list that is no list of messages one for each element."""
    id = f"{source.name}-{number}"
    several: list[Any] = []

    def read_one(value: Any) -> Change:
        if isinstance(value, list) and value and not all(map(_is_message, value)):
            several.extend(value)
            raise InvalidValueError("it is a list of conversations")
        return read_messages(id, value, source.at)

    arrival = read_json(number, text, read_one, limits=source.limits)
    if not several:
        yield arrival
    for index, value in enumerate(several, 1):
        each = arrive(number, len(text) // len(several), partial(read_messages, f"{id}-{index}", value, source.at))
        yield (
            RejectedConversation(number, f"element {index}: {each.reason}")
            if isinstance(each, RejectedConversation)
            else each
        )


def _texts(
    found: Iterator[tuple[int, Element | RejectedConversation]], limits: Limits
) -> Iterator[tuple[int, bytes | RejectedConversation]]:
    """Yield the texts of elements; those of an array of messages as one."""
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
            if size <= limits.line and len(messages) <= limits.values:  # else it is refused
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
    """Return the conversation that a list of messages is, or an object with one under ``messages``.

    A user's content is a run's input, what the assistant answers its output. All other messages, and what else these have,
    are kept in the run's metadata under ``openai``, where there is more; other fields of the object, in the conversation's
    under ``openai.fields``. `conversation_json` gives the value back.

    Raises:
        InvalidValueError: there is no list of messages.
    """
    fields = value if isinstance(value, dict) else {"messages": value}
    messages = fields.get("messages")
    if not isinstance(messages, list):
        raise InvalidValueError('it is no list of messages, and no object with one under "messages"')
    metadata: dict[str, Json] = {}
    if value is messages:
        metadata = {KEY: {"fields": None}}
    elif len(fields) > 1:
        metadata = {KEY: {"fields": {**fields, "messages": None}}}  # the place of the messages among the others
    created_at = to_datetime(at)
    said = [_said(message) for message in messages]
    ids = new_id()
    runs = []
    for number, turn in enumerate(turns([one.role for one in said]), 1):
        part = said[turn.start : turn.stop]
        run = Run(*values_of(part), {}, f"{ids}-{number}", created_at)
        is_told = _written(list(_plain(run))) == _written([one.whole for one in part])
        runs.append(run if is_told else Run(run.input, run.output, {KEY: rest_of(part)}, run.id, created_at))
    return conversation(id, metadata, runs, at)


def _said(message: Json) -> Said:
    if not isinstance(message, dict) or "content" not in message:
        return Said("context", None, message, message)
    role, content = message.get("role"), message["content"]
    kind = _ROLES.get(role, "context") if isinstance(role, str) else "context"
    if kind == "answer" and content is None:  # it calls a tool
        kind = "context"
    return Said(kind, content, {**message, "content": None}, message)


def _plain(run: Run) -> Iterator[Json]:
    if run.input is not None:
        yield {"role": "user", "content": run.input}
    if run.output is not None:
        yield {"role": "assistant", "content": run.output}


def _written(messages: list[Any]) -> str:
    return json.dumps(messages)  # tells 1 from True, and keys in another order


def conversation_json(conversation: Conversation, runs: list[Run]) -> Any:
    """Return the value that a conversation was read from; of another conversation, its list of messages."""
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


class _Again:
    """A stream whose first line was read already, and comes again."""

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
