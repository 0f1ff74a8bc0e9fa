"""Read Claude's data export: ``conversations.json``, a list of conversations with ``chat_messages``."""

from collections.abc import Iterator
from typing import Any, Final

from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft
from memory.formats.registry import Source
from memory.formats.texts import shown
from memory.formats.trees import draft_of
from memory.formats.turns import Message, Role, message
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "claude"
_ROLES: Final[dict[object, Role]] = {"human": "question", "user": "question", "assistant": "answer"}


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of an export one by one."""
    return documents.read(source, KEY, convert)


def recognizes(value: Any) -> bool:
    """Return whether a value is a conversation of Claude."""
    return isinstance(value, dict) and "chat_messages" in value


def convert(value: Any) -> Draft:
    """Return the draft for an element of the export; ``name`` becomes the metadata ``title``.

    Where messages name their parents, the branch of the last message is the conversation, and the others are kept in the
    metadata of the run where they fork.
    """
    messages = value.get("chat_messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        raise InvalidValueError('not a conversation of Claude, which is an object with "chat_messages"')
    return draft_of(
        [each if isinstance(each, dict) else {"message": each} for each in messages],
        read_message,
        id="uuid",
        parent="parent_message_uuid",
        current=value.get("current_leaf_message_uuid"),
        draft=Draft(
            [],
            value.get("uuid"),
            {"title": value["name"]} if "name" in value else {},
            {"fields": {name: None if name in ("chat_messages", "name") else part for name, part in value.items()}},
            value.get("created_at"),
            value.get("updated_at"),
        ),
    )


def read_message(whole: dict[str, Any]) -> Message:
    """Return one message: its text, or the references of its attachments if it has none."""
    sender = whole.get("sender")
    role = _ROLES.get(sender, "context") if isinstance(sender, str) else "context"
    text = whole.get("text")
    seen = shown(whole.get("content")) or text or whole.get("attachments") or whole.get("files")
    value = text if seen == text else seen
    return message(role if value else "context", whole, "text", value, id=whole.get("uuid"), at=whole.get("created_at"))
