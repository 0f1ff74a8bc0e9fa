"""Read this package's own JSON lines."""

from collections.abc import Iterator
from typing import Any

from memory.formats.registry import Source
from memory.transfer import ParsedConversation, RejectedConversation, read_lines


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation of each line."""
    return read_lines(source.file, limits=source.limits)


def recognizes(value: Any) -> bool:
    """Return whether a value is a conversation of this package: an object with an id, and with runs or metadata if with more."""
    if not isinstance(value, dict) or "id" not in value:
        return False
    return len(value) == 1 or "runs" in value or isinstance(value.get("metadata"), dict) or "namespace" in value
