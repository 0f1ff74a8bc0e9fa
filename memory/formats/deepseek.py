"""Read DeepSeek's data export: ``conversations.json``. Each conversation is a tree of messages made of fragments."""

from collections.abc import Iterator
from typing import Any, Final

from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft
from memory.formats.registry import Source
from memory.formats.trees import branches_of, parents_of, path_to
from memory.formats.turns import Message, Role
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "deepseek"
_ROLES: Final[dict[str, Role]] = {"REQUEST": "question", "RESPONSE": "answer"}


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of an export one by one."""
    return documents.read(source, KEY, convert)


def recognizes(value: Any) -> bool:
    """Return whether a value is a conversation of DeepSeek: a tree whose messages have fragments."""
    mapping = value.get("mapping") if isinstance(value, dict) else None
    return isinstance(mapping, dict) and any("fragments" in _message_of(node) for node in mapping.values())


def convert(value: Any) -> Draft:
    """Return the draft for an element of the export: the deepest branch, and the others where they fork."""
    mapping = value.get("mapping") if isinstance(value, dict) else None
    if not isinstance(mapping, dict):
        raise InvalidValueError('not a conversation of DeepSeek, which is an object with a "mapping"')
    parents = parents_of(mapping, "parent")
    path = path_to(parents, None)
    return Draft(
        [_read_node(key, mapping[key]) for key in path],
        value.get("id"),
        {"title": value["title"]} if "title" in value else {},
        {"fields": {name: None if name in ("mapping", "title") else part for name, part in value.items()}},
        value.get("inserted_at"),
        value.get("updated_at"),
        branches_of(parents, path, mapping.__getitem__),
    )


def _message_of(node: Any) -> dict[str, Any]:
    message = node.get("message") if isinstance(node, dict) else None
    return message if isinstance(message, dict) else {}


def _read_node(key: str, node: Any) -> Message:
    message = _message_of(node)
    fragments = message.get("fragments")
    at = message.get("inserted_at")
    for kind, role in _ROLES.items():
        if texts := _texts(fragments, kind):
            return Message(role, "\n".join(texts), node, node, key, at)
    return Message("context", None, node, node, key, at)


def _texts(fragments: Any, kind: str) -> list[str]:
    found = [part for part in fragments if isinstance(part, dict)] if isinstance(fragments, list) else []
    texts = [part.get("content") for part in found if part.get("type") == kind]
    return [text for text in texts if isinstance(text, str)]
