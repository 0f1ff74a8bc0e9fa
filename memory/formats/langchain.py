"""Read and write LangChain's messages, as ``messages_to_dict`` and ``FileChatMessageHistory`` write them."""

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
from memory.formats.turns import Message, Role
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "langchain"
_ROLES: Final[dict[object, Role]] = {
    "human": "question", "HumanMessage": "question", "HumanMessageChunk": "question", "user": "question",
    "ai": "answer", "AIMessage": "answer", "AIMessageChunk": "answer", "assistant": "answer",
}  # fmt: skip
_TYPES: Final = frozenset(
    [*_ROLES, "system", "tool", "function", "chat", "remove", "SystemMessageChunk", "ToolMessageChunk"]
)


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield one conversation for each list of messages: a line, an element of an array, or the whole file."""
    return documents.read(source, KEY, convert, is_message=is_message)


def recognizes(value: Any) -> bool:
    """Return whether a value is a list of messages, an object with one, or a message."""
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    return is_message(value[0]) if isinstance(value, list) and value else is_message(value)


def is_message(value: Any) -> bool:
    """Return whether a value is a message: with its type and data, or serialized by ``dumpd``."""
    if not isinstance(value, dict):
        return False
    if value.get("lc") == 1:
        return isinstance(value.get("kwargs"), dict)
    kind = value.get("type")
    return isinstance(kind, str) and kind in _TYPES and ("data" in value or "content" in value)


def convert(value: Any) -> Draft:
    """Return the draft for a list of messages, or for an object with such a list under ``messages``."""
    messages = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(messages, list) or not all(map(is_message, messages)):
        raise InvalidValueError('not a list of messages of LangChain, which have "type" and "data"')
    rest: dict[str, Json] = {"fields": {**value, "messages": None}} if isinstance(value, dict) else {}
    id = first_id(*[value.get(name) for name in ("id", "session_id", "thread_id")]) if isinstance(value, dict) else None
    return Draft([read_message(each) for each in messages], id, rest=rest, created_at=time_of(value))


def read_message(whole: dict[str, Any]) -> Message:
    """Return one message; a call of a tool without text, results and the system's messages are context."""
    kind = (
        whole["id"][-1]
        if whole.get("lc") == 1 and isinstance(whole.get("id"), list) and whole["id"]
        else whole.get("type")
    )
    data = next((whole[name] for name in ("data", "kwargs") if isinstance(whole.get(name), dict)), whole)
    kind = data.get("role", kind) if kind in ("chat", "ChatMessage") else kind
    role = _ROLES.get(kind, "context") if isinstance(kind, str) else "context"
    value = shown(data.get("content"))
    if value is None or (value == "" and data.get("tool_calls")):
        role = "context"
    details = data.get("additional_kwargs")
    return Message(role, value, whole, whole, data.get("id"), time_of(data) or time_of(details))


def write(found: Exported) -> Iterator[str]:
    """Yield a conversation as a line, in pieces; ``messages`` is what ``messages_from_dict`` takes."""
    return write_line(found, {"session_id": found.conversation.id}, "messages", _messages_of)


def _messages_of(run: Run) -> Iterator[Json]:
    def said(kind: str, text: str) -> Json:
        return {"type": kind, "data": {"content": text, "type": kind}}

    return messages_of(run, KEY, _filled, partial(said, "human"), partial(said, "ai"))


def _filled(kept: dict[str, Any], value: Json) -> Json:
    if read_message(kept).value == value:
        return kept
    name = next((name for name in ("data", "kwargs") if isinstance(kept.get(name), dict)), None)
    return {**kept, "content": value} if name is None else {**kept, name: {**kept[name], "content": value}}
