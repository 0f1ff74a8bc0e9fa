"""Files that people take for conversations and that no format reads: recognized by their shape, and refused by their name."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from memory.errors import InvalidValueError


class Other(NamedTuple):
    """What a file looks like, and what to do with it."""

    name: str
    advice: str
    fits: Callable[[dict[str, Any]], bool]


def _has(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda value: all(name in value for name in names)


OTHERS: Final = (
    Other("a session of Codex", "write its response items as a list, one session to a file", _has("type", "payload")),
    Other("Grok's data export", "write each conversation as a list of messages with role and content",
          lambda value: _is_list_of(value.get("conversations"), "conversation", "responses")),
    Other("message trees of Open Assistant", "write one path of each tree as a list of messages with role and content",
          lambda value: "message_tree_id" in value or ("prompt" in value and isinstance(value["prompt"], dict))),
    Other("a chat of SillyTavern", "write its lines as messages with role and content",
          lambda value: "character_name" in value or ("mes" in value and "is_user" in value)),
    Other("a log of requests and responses", "append the answer to the messages of its request",
          lambda value: "messages" in value and isinstance(value.get("response"), dict)),
    Other("responses of OpenAI without their questions", "add the messages of the requests", _has("object", "choices")),
    Other("requests of OpenAI's batch API, without their answers", "add the answers to the messages", _has("custom_id", "body")),
    Other("pairs of preferences for tuning", 'write {"messages": [...]} with the answer to keep',
          lambda value: "preferred_output" in value or ("chosen" in value and "rejected" in value)),
    Other("prompts and completions", 'write {"messages": [{"role": "user", "content": prompt}, ...]}',
          _has("prompt", "completion")),
)  # fmt: skip


def known(value: Any) -> Other | None:
    """Return what a value looks like, if no format reads it.

    >>> known({"prompt": "Where is my refund?", "completion": "It left on Monday."}).name
    'prompts and completions'
    """
    return next((other for other in OTHERS if other.fits(value)), None) if isinstance(value, dict) else None


def check_known(value: Any) -> None:
    """Refuse a value that looks like something that no format reads.

    Raises:
        InvalidValueError: what it looks like, and what to do.
    """
    first = value[0] if isinstance(value, list) and value else value
    other = known(first)
    if other is not None:
        raise InvalidValueError(f"it looks like {other.name}, which no format reads: {other.advice}")


def _is_list_of(value: Any, *names: str) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and all(name in first for name in names)
