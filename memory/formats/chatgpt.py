"""Read ChatGPT's data export: ``conversations.json``. Each conversation is a tree of messages."""

import json
from collections.abc import Iterator
from typing import Any, Final, cast

from memory.domain.values import Json, first_id
from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft
from memory.formats.registry import Source
from memory.formats.texts import shown
from memory.formats.trees import branches_of, parents_of, path_to
from memory.formats.turns import Message, Role
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "chatgpt"
"""The metadata key of runs and conversations for fields without an equivalent in this package."""

QUERIED: Final = {"title": "title", "default_model_slug": "model"}  # fields that become metadata under these names
_NEVER_SHOWN: Final = frozenset(
    [
        "model_editable_context",
        "reasoning_recap",
        "tether_browsing_display",
        "tether_quote",
        "thoughts",
        "user_editable_context",
    ]
)


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of an export one by one; only one at a time is held in memory."""
    return documents.read(source, KEY, convert)


def recognizes(value: Any) -> bool:
    """Return whether a value is a conversation of ChatGPT, which has a tree of messages with authors."""
    return isinstance(value, dict) and "mapping" in value


def convert(value: Any) -> Draft:
    """Return the draft for an element of the export.

    The messages are those from the root of the tree to ``current_node``, which is what the user saw last. Other branches (from an
    edited question or a regenerated answer) are kept in the metadata of the run where they fork, under ``chatgpt.branches``.
    ``title`` and ``model`` become metadata of the conversation; all other fields are kept under ``chatgpt.fields``. Nothing is
    lost except the order of the nodes in ``mapping``.
    """
    mapping = value.get("mapping") if isinstance(value, dict) else None
    if not isinstance(mapping, dict):
        raise InvalidValueError('not a conversation of ChatGPT, which is an object with a "mapping"')
    parents = parents_of(mapping, "parent")
    path = path_to(parents, value.get("current_node"))
    return Draft(
        [_read_node(key, mapping[key]) for key in path],
        first_id(value.get("conversation_id"), value.get("id")),
        {name: value[field] for field, name in QUERIED.items() if field in value},
        {"fields": {name: None if name == "mapping" or name in QUERIED else part for name, part in value.items()}},
        value.get("create_time"),
        value.get("update_time"),
        branches_of(parents, path, lambda key: _pack(key, mapping[key])),
    )


def _read_node(key: str, node: Any) -> Message:
    message = node.get("message") if isinstance(node, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    whole = _pack(key, node)
    if not isinstance(message, dict) or not isinstance(content, dict):
        return Message("context", None, whole, whole, key)
    value = _shown(message, content)
    role = _role_of(message, content, value)
    is_restorable = value is content or (_is_plain(content) and value == content["parts"][0])
    rest = _pack(key, {**node, "message": {**message, "content": None}}) if is_restorable else whole
    return Message(role, value, rest, whole, key, message.get("create_time"))


def _role_of(message: dict[str, Any], content: dict[str, Any], value: Json) -> Role:
    """Return a message's role: what a person did not see is context."""
    author, details = message.get("author"), message.get("metadata")
    details = details if isinstance(details, dict) else {}
    is_hidden = (
        details.get("is_visually_hidden_from_conversation") is True or details.get("is_user_system_message") is True
    )
    kind = content.get("content_type")
    if value in (None, "") or is_hidden or (isinstance(kind, str) and kind in _NEVER_SHOWN):
        return "context"
    role = author.get("role") if isinstance(author, dict) else None
    if role == "user":
        return "question"
    is_document = _is_for_canvas(message)
    is_to_all = message.get("recipient") in (None, "all")
    if role == "assistant":
        return "answer" if is_to_all or is_document else "context"
    # A picture that a tool made, and the report of a research, are all that is shown: the assistant adds nothing.
    is_result = _has_picture(content) or details.get("is_async_task_result_message") is True
    return "answer" if role == "tool" and is_to_all and is_result else "context"


def _shown(message: dict[str, Any], content: dict[str, Any]) -> Json:
    """Return what a person saw: the text, the document of a canvas, or pictures and other content as it is."""
    if _is_for_canvas(message):
        return _document_in(content.get("text"))
    if "parts" in content or content.get("content_type") == "text":
        parts = content.get("parts")
        seen = shown(parts) if isinstance(parts, list) else None
        return seen if isinstance(seen, str) or seen is None else cast("Json", content)
    text = content.get("text")
    return text if isinstance(text, str) else cast("Json", content)


def _is_for_canvas(message: dict[str, Any]) -> bool:
    recipient = message.get("recipient")
    return isinstance(recipient, str) and recipient.startswith("canmore.create")


def _document_in(text: object) -> Json:
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    content = document.get("content") if isinstance(document, dict) else None
    return content if isinstance(content, str) else None


def _has_picture(content: dict[str, Any]) -> bool:
    parts = content.get("parts")
    pictures = (
        [part for part in parts if isinstance(part, dict) and "asset_pointer" in part]
        if isinstance(parts, list)
        else []
    )
    return bool(pictures)


def _is_plain(content: dict[str, Any]) -> bool:
    parts = content.get("parts")
    is_text = list(content) == ["content_type", "parts"] and content["content_type"] == "text"
    return is_text and isinstance(parts, list) and list(map(type, parts)) == [str]


def _pack(key: str, node: Any) -> Json:
    """Return a node together with its key in the mapping, which is nearly always its ``id``."""
    return node if isinstance(node, dict) and node.get("id") == key else {"key": key, "node": node}
