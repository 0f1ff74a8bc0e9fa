"""Read and write ShareGPT's format: ``{"conversations": [{"from": "human", "value": "Hi"}, ...]}``."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from memory.domain.entities import Run
from memory.domain.values import Json
from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft, time_of
from memory.formats.registry import Source
from memory.formats.said import Exported, messages_of, write_line
from memory.formats.turns import Message, Role, message
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "sharegpt"
_LISTS: Final = ("conversations", "conversation")
_ROLES: Final[dict[object, Role]] = {
    "human": "question", "user": "question",
    "gpt": "answer", "assistant": "answer", "chatgpt": "answer", "bard": "answer", "bing": "answer", "model": "answer",
}  # fmt: skip


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of a file, an array or lines."""
    return documents.read(source, KEY, convert, plain=plain)


def recognizes(value: Any) -> bool:
    """Return whether a value is an object with a list of messages that have ``from`` and ``value``."""
    name = _list_in(value)
    return name is not None and all(isinstance(each, dict) and "from" in each for each in value[name][:1])


def _list_in(value: Any) -> str | None:
    return next((name for name in _LISTS if isinstance(value, dict) and isinstance(value.get(name), list)), None)


def convert(value: Any) -> Draft:
    """Return the draft for an object with a list of messages."""
    name = _list_in(value)
    if name is None:
        raise InvalidValueError('not a conversation of ShareGPT, which is an object with "conversations"')
    rest: dict[str, Json] = {"fields": {**value, name: None}} if len(value) > 1 or name != _LISTS[0] else {}
    return Draft([read_message(each) for each in value[name]], value.get("id"), rest=rest, created_at=time_of(value))


def read_message(whole: Json) -> Message:
    """Return one message; those of the system and of tools are context."""
    if not isinstance(whole, dict):
        return Message("context", None, whole, whole)
    role, value = whole.get("from"), whole.get("value")
    kind = _ROLES.get(role, "context") if isinstance(role, str) and value is not None else "context"
    return message(kind, whole, "value", value, at=time_of(whole))


def write(found: Exported) -> Iterator[str]:
    """Yield a conversation as a line, in pieces: ``{"id": ..., "conversations": [...]}``."""
    return write_line(found, {"id": found.conversation.id}, "conversations", _messages_of)


def _messages_of(run: Run) -> Iterator[Json]:
    def said(role: str, text: str) -> Json:
        return {"from": role, "value": text}

    return messages_of(
        run, KEY, lambda kept, value: {**kept, "value": value}, partial(said, "human"), partial(said, "gpt")
    )


def plain(run: Run) -> list[Json]:
    """Return the messages that a run stands for by itself."""
    messages: list[Json] = [{"from": "human", "value": run.input}] if run.input is not None else []
    return [*messages, {"from": "gpt", "value": run.output}] if run.output is not None else messages
