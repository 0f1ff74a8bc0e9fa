"""What a person saw of a message's content, whatever the interface whose parts it consists of."""

from collections.abc import Iterator
from typing import Any, Final

from memory.domain.values import Json, compact

_TEXT: Final = frozenset([None, "text", "input_text", "output_text", "audio_transcription"])
_UNSEEN: Final = (
    "tool", "function", "thinking", "redacted_thinking", "reasoning", "server_tool", "mcp_tool", "web_search_tool",
    "step-start", "source", "dynamic-tool", "data-", "signature",
)  # fmt: skip
"""The beginnings of the types of parts that an application does not show as a message: calls, results and thoughts."""
_UNSEEN_KEYS: Final = frozenset(
    [
        "toolUse",
        "toolResult",
        "reasoningContent",
        "functionCall",
        "functionResponse",
        "function_call",
        "function_response",
    ]
)


def shown(content: Json) -> Json:
    """Return what a person saw of a message's content: its text; else its pictures and files as they are; else None.

    Several texts are joined by line breaks. Content that is neither a list of parts nor an object with one is returned as it is.

    >>> shown([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "cat.png"}}])
    'What is it?'
    >>> shown([{"type": "tool_result", "tool_use_id": "t", "content": "rain"}]) is None
    True
    """
    if isinstance(content, dict) and isinstance(content.get("parts"), list):
        content = content["parts"]
    if not isinstance(content, list):
        return content
    seen = [part for part in content if not _is_unseen(part)]
    texts = [text for part in seen if (text := _text(part))]
    if texts:
        return "\n".join(texts)
    others: list[Json] = [part for part in seen if part is not None and _text(part) is None]
    return content if len(others) == len(content) > 0 else others or None


def readable(message: Json) -> str | None:
    r"""Return a message of a framework as text for people: its texts, and other parts in brackets. None if it is no message.

    It knows the forms in which the bridges store messages (`memory.bridges`).

    >>> readable({"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "x"}]})
    'Hi\n[input_image]'
    >>> readable({"kind": "response", "parts": [{"part_kind": "tool-call", "tool_name": "refund", "args": {"id": 7}}]})
    '[refund {"id":7}]'
    >>> readable({"role": "assistant", "contents": [{"type": "text", "text": "It left on Monday."}]})
    'It left on Monday.'
    >>> readable({"role": "tool", "contents": [{"type": "function_result", "call_id": "1", "result": "It left."}]})
    'It left.'
    >>> readable({"n": 1}) is None
    True
    """
    if not isinstance(message, dict):
        return None
    for name in ("data", "redact_message", "message", "content"):  # LangChain, Strands, ADK: a message in a message
        inside = message.get(name)
        if isinstance(inside, dict) and not _PARTS.isdisjoint(inside):
            message = inside
            break
    else:
        is_call = message.get("type") in ("function_call", "function_call_output", "reasoning")  # OpenAI
        is_request = message.get("kind") in ("request", "response") and "parts" in message  # pydantic-ai
        if not (is_call or is_request or ("role" in message and not _PARTS.isdisjoint(message))):
            return None
    return "\n".join(_lines(message))


_PARTS: Final = frozenset(["content", "contents", "parts", "blocks"])
_NESTED: Final = (
    "text", "refusal", *sorted(_PARTS), "output", "result", "message", "tool_calls", "toolUse", "toolResult", "function_call",
    "function_response",
)  # fmt: skip
_KINDS: Final = ("type", "part_kind", "block_type", "kind", "role")
_ARGUMENTS: Final = ("args", "arguments", "input", "tool_kwargs")
_THOUGHTS: Final = frozenset(["thinking", "reasoning"])
_MEDIA: Final = (
    "image",
    "document",
    "video",
    "inline_data",
    "file_data",
    "reasoningContent",
    "cachePoint",
)  # Strands, ADK


def _lines(part: Json) -> Iterator[str]:
    """Yield the lines of a part: its texts, a call with its arguments, else what kind of part it is."""
    if isinstance(part, list):
        for each in part:
            yield from _lines(each)
    elif isinstance(part, dict):
        kind = next((part[name] for name in _KINDS if isinstance(part.get(name), str)), None)
        kind = next((name for name in _MEDIA if isinstance(part.get(name), dict)), kind)
        name = part.get("tool_name", part.get("name"))
        arguments = [part[each] for each in _ARGUMENTS if each in part]
        nested = [part[each] for each in _NESTED if part.get(each)]
        if isinstance(name, str) and arguments:
            yield f"[{name} {arguments[0] if isinstance(arguments[0], str) else compact(arguments[0])}]"
        elif nested and kind not in _THOUGHTS:
            for each in nested:
                yield from _lines(each)
        else:
            yield compact(part) if kind is None else f"[{kind}]"
    else:
        yield part if isinstance(part, str) else compact(part)


def has_text(value: Json) -> bool:
    """Whether there is any text under a key that holds what was said, at any depth.

    >>> has_text({"role": "narrator", "body": {"text": "Once"}}), has_text({"role": "user", "content": [""]})
    (True, False)
    """
    return any(text.strip() for text in _said(value, named=False))


_SAID: Final = frozenset(["content", "text", "parts", "value", "message", "output", "response", "refusal"])


def _said(value: Json, *, named: bool) -> Iterator[str]:
    if isinstance(value, str) and named:
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _said(part, named=named)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _said(part, named=key in _SAID)


def _is_unseen(part: Json) -> bool:
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    is_unseen = isinstance(kind, str) and kind.startswith(_UNSEEN)
    return is_unseen or part.get("thought") is True or not _UNSEEN_KEYS.isdisjoint(part)


def _text(part: Any) -> str | None:
    """Return the text of a part; None if it is something else, such as a picture."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return None
    kind = part.get("type", part.get("content_type"))
    text = part.get("refusal") if kind == "refusal" else part.get("text")
    is_text = kind == "refusal" or (isinstance(kind, str | None) and kind in _TEXT)
    return text if is_text and isinstance(text, str) else None
