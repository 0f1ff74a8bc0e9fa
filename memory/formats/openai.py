"""Read lists of messages that have a role: ``{"messages": [{"role": "user", "content": "Hi"}, ...]}``.

OpenAI's chat completions and Responses, Anthropic's messages, Gemini's contents and the messages of Vercel's AI SDK.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from memory.domain.entities import Run
from memory.domain.values import Json, first_id
from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft, time_of
from memory.formats.registry import Source
from memory.formats.said import Exported, messages_of, write_line
from memory.formats.texts import shown
from memory.formats.turns import Message, Role, message
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "openai"
"""The metadata key of runs and conversations for fields without an equivalent in this package."""

_LISTS: Final = ("messages", "input", "contents")
_IDS: Final = ("id", "conversation_id", "session_id", "thread_id")
_CONTENTS: Final = ("content", "parts", "text")
_ROLES: Final[dict[object, Role]] = {
    "user": "question", "human": "question", "assistant": "answer", "model": "answer", "ai": "answer",
}  # fmt: skip
_ITEMS: Final = frozenset(["message", "reasoning", "function_call", "function_call_output", "item_reference"])


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield one conversation for each list of messages: a line, an element of an array, or the whole file."""
    return documents.read(source, KEY, convert, is_message=is_message, plain=plain)


def recognizes(value: Any) -> bool:
    """Return whether a value is a list of messages, an object with one, or a message."""
    if isinstance(value, list):
        return bool(value) and is_message(value[0])
    if isinstance(value, dict) and (name := _list_in(value)):
        return not value[name] or is_message(value[name][0])
    return is_message(value)


def is_message(value: Any) -> bool:
    """Return whether a value is a message, or an item of OpenAI's Responses."""
    if not isinstance(value, dict) or _list_in(value):
        return False
    kind = value.get("type")
    return "role" in value or (isinstance(kind, str) and kind in _ITEMS)


def _list_in(value: dict[str, Any]) -> str | None:
    return next((name for name in _LISTS if isinstance(value.get(name), list)), None)


def convert(value: Any) -> Draft:
    """Return the draft for a list of messages, or for an object with such a list.

    The text of a user's message becomes a run's input, the assistant's answer its output. Other messages, and other fields of
    these messages, are kept in the run's metadata under ``openai``; other fields of the object in the conversation's metadata
    under ``openai.fields``. Nothing is lost.
    """
    if isinstance(value, list):
        if not value or not all(isinstance(each, dict) and ("role" in each or "type" in each) for each in value):
            raise InvalidValueError('not a list of messages, nor an object with one under "messages"')
        return Draft([read_message(each) for each in value], rest={"fields": None})
    name = _list_in(value) if isinstance(value, dict) else None
    if name is None:
        raise InvalidValueError('not a list of messages, nor an object with one under "messages"')
    rest: dict[str, Json] = {"fields": {**value, name: None}} if len(value) > 1 or name != "messages" else {}
    id = first_id(*[value.get(each) for each in _IDS])
    return Draft([read_message(each) for each in value[name]], id, rest=rest, created_at=time_of(value))


def read_message(whole: Json) -> Message:
    """Return one message, which is context if a person saw nothing of it: a call, a tool's result, a thought."""
    field = next((name for name in _CONTENTS if name in whole), None) if isinstance(whole, dict) else None
    if not isinstance(whole, dict) or field is None:
        return Message("context", None, whole, whole)
    role = whole.get("role")
    kind = _ROLES.get(role, "context") if isinstance(role, str) else "context"
    value = shown(whole[field])
    if kind == "answer":
        value = value or whole.get("refusal") or _transcript(whole.get("audio")) or value
        if not value and (whole.get("tool_calls") or whole.get("function_call")):
            value = None
    id, at = whole.get("id"), time_of(whole)
    if kind == "context" or value is None:
        return Message("context", None, whole, whole, id, at)
    return message(kind, whole, field, value, id=id, at=at)


def _transcript(audio: Json) -> Json:
    return audio.get("transcript") if isinstance(audio, dict) else None


def write(found: Exported) -> Iterator[str]:
    """Yield a conversation as a line for fine-tuning, in pieces: ``{"messages": [...]}``."""
    return write_line(found, {}, "messages", _messages_of)


def _messages_of(run: Run) -> Iterator[Json]:
    def said(role: str, text: str) -> Json:
        return {"role": role, "content": text}

    return messages_of(run, KEY, _filled, partial(said, "user"), partial(said, "assistant"))


def _filled(kept: dict[str, Any], value: Json) -> Json:
    field = next((name for name in _CONTENTS if name in kept), "content")
    return kept if read_message(kept).value == value else {**kept, field: value}


def plain(run: Run) -> list[Json]:
    """Return the messages that a run stands for by itself."""
    messages: list[Json] = [{"role": "user", "content": run.input}] if run.input is not None else []
    return [*messages, {"role": "assistant", "content": run.output}] if run.output is not None else messages
