"""Read LibreChat's export of a conversation: a list of messages, or a tree of them (``recursive``)."""

from collections.abc import Iterator
from typing import Any, Final

from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft, time_of
from memory.formats.registry import Source
from memory.formats.texts import shown
from memory.formats.trees import draft_of
from memory.formats.turns import Message, message
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "librechat"


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation of a file, or those of a list."""
    return documents.read(source, KEY, convert)


def recognizes(value: Any) -> bool:
    """Return whether a value is a conversation of LibreChat."""
    return isinstance(value, dict) and "conversationId" in value and isinstance(value.get("messages"), list)


def convert(value: Any) -> Draft:
    """Return the draft for a conversation: its deepest branch, and the others where they fork."""
    if not recognizes(value):
        raise InvalidValueError('not a conversation of LibreChat, which has a "conversationId" and "messages"')
    return draft_of(
        list(_flat(value["messages"], None)),
        read_message,
        id="messageId",
        parent="parentMessageId",
        current=None,
        draft=Draft(
            [],
            value["conversationId"],
            {"title": value["title"]} if "title" in value else {},
            {"fields": {name: None if name in ("messages", "title") else part for name, part in value.items()}},
            time_of(value),
        ),
    )


def _flat(messages: list[Any], parent: Any) -> Iterator[dict[str, Any]]:
    """Yield the messages of a tree; each names the one above it, and the ids of its children."""
    waiting = [(each, parent) for each in reversed(messages)]
    while waiting:
        each, above = waiting.pop()
        if not isinstance(each, dict):
            raise InvalidValueError("a message is not an object")
        node = {"parentMessageId": above, **each} if above is not None else each
        children = node.get("children")
        if isinstance(children, list):
            waiting += [(child, node.get("messageId")) for child in reversed(children)]
            ids = [child.get("messageId") if isinstance(child, dict) else child for child in children]
            node = {**node, "children": ids}
        yield node


def read_message(whole: dict[str, Any]) -> Message:
    """Return one message: its text, else what its parts show."""
    value = whole.get("text") or shown(_parts(whole.get("content"))) or whole.get("files") or whole.get("attachments")
    role = "question" if whole.get("isCreatedByUser") else "answer"
    return message(role if value else "context", whole, "text", value, id=whole.get("messageId"), at=time_of(whole))  # type: ignore[arg-type]


def _parts(content: Any) -> Any:
    """Return parts whose texts are strings: LibreChat has written them as ``{"value": ...}`` too."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    return [
        {**part, "text": text["value"]} if isinstance(text, dict) and "value" in text else part
        for part, text in zip(content, texts, strict=True)
    ]
