"""Rebuild the original of an imported conversation, to prove that nothing is lost."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from memory import Conversation, Run
from memory.formats import chatgpt, extras, openai

_REST: Final = frozenset(["messages", "input", "output", "branches"])
_FIELDS: Final = frozenset(["fields"])
_LISTS: Final = ("messages", "input", "contents")


def chatgpt_json(conversation: Conversation, runs: list[Run]) -> dict[str, Any]:
    """Return the element of the export that a conversation was imported from, equal except for the order of its nodes."""
    mapping: dict[str, Any] = {}
    for run in runs:
        _, rest = extras.split(run.metadata, chatgpt.KEY, _REST)
        mapping |= map(_unpack, [*_messages_of(run, rest, _fill_node), *rest.get("branches", [])])
    metadata, kept = extras.split(conversation.metadata, chatgpt.KEY, _FIELDS)
    fields = {**kept.get("fields", {}), "mapping": mapping}
    return {**fields, **{field: metadata.get(name) for field, name in chatgpt.QUERIED.items() if field in fields}}


def openai_json(conversation: Conversation, runs: list[Run]) -> Any:
    """Return the value that a conversation was imported from."""
    messages: list[Any] = []
    for run in runs:
        _, rest = extras.split(run.metadata, openai.KEY, _REST)
        messages += _messages_of(run, rest, _fill_message) if rest else _plain(run)
    _, kept = extras.split(conversation.metadata, openai.KEY, _FIELDS)
    if "fields" in kept and kept["fields"] is None:
        return messages
    fields = kept.get("fields", {})
    return {**fields, next((name for name in _LISTS if name in fields and fields[name] is None), "messages"): messages}


def _messages_of(run: Run, rest: dict[str, Any], fill: Callable[[Any, Any], Any]) -> Iterator[Any]:
    """Yield the messages that a run was made from: ``fill`` is called with the rest of a message and its value."""
    answers = rest.get("output", [])
    values = dict(zip(answers, [run.output] if len(answers) == 1 else run.output or [], strict=False))
    if "input" in rest:
        values[rest["input"]] = run.input
    for index, message in enumerate(rest.get("messages", [])):
        yield fill(message, values[index]) if index in values else message


def _plain(run: Run) -> Iterator[Any]:
    if run.input is not None:
        yield {"role": "user", "content": run.input}
    if run.output is not None:
        yield {"role": "assistant", "content": run.output}


def _fill_message(message: Any, value: Any) -> Any:
    return {**message, "content": value} if message["content"] is None else message


def _unpack(packed: Any) -> tuple[str, Any]:
    return (packed["id"], packed) if "id" in packed else (packed["key"], packed["node"])


def _fill_node(packed: Any, value: Any) -> Any:
    key, node = _unpack(packed)
    if node["message"]["content"] is not None:
        return packed
    content = {"content_type": "text", "parts": [value]} if isinstance(value, str) else value
    filled = {**node, "message": {**node["message"], "content": content}}
    return filled if "id" in packed else {"key": key, "node": filled}
