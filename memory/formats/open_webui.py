"""Read Open WebUI's export: a list of chats, each a tree of messages under ``chat.history``; or one chat."""

from collections.abc import Iterator
from typing import Any, Final

from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft
from memory.formats.openai import read_message
from memory.formats.registry import Source
from memory.formats.trees import draft_of
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "open-webui"


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the chats of an export one by one."""
    return documents.read(source, KEY, convert)


def recognizes(value: Any) -> bool:
    """Return whether a value is a chat, or the record of one."""
    if not isinstance(value, dict):
        return False
    chat = value.get("chat", value)
    return isinstance(chat, dict) and isinstance(chat.get("history"), dict)


def convert(value: Any) -> Draft:
    """Return the draft for a chat: the branch of ``currentId``, and the others where they fork.

    The list ``chat.messages`` repeats that branch. It is read only if the tree is empty, and otherwise not kept.
    """
    if not recognizes(value):
        raise InvalidValueError('not a chat of Open WebUI, which is an object with a "history"')
    chat = value.get("chat", value)
    history = chat["history"]
    tree = history.get("messages")
    nodes = list(tree.values()) if isinstance(tree, dict) and tree else chat.get("messages")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise InvalidValueError("the messages of the chat are not a list of objects")
    kept = {**chat, "history": {**history, "messages": None}, "messages": None}
    return draft_of(
        nodes,
        read_message,
        id="id",
        parent="parentId",
        current=history.get("currentId"),
        draft=Draft(
            [],
            value.get("id"),
            {"title": value["title"]} if "title" in value else {},
            {"fields": {**value, "title": None, **({"chat": kept} if "chat" in value else kept)}},
            value.get("created_at", chat.get("timestamp")),
            value.get("updated_at"),
        ),
    )
