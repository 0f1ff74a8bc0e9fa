"""Read this package's own JSON lines."""

from collections.abc import Iterator

from memory.formats.registry import Source
from memory.transfer import ParsedConversation, RejectedConversation, read_lines


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation of each line."""
    return read_lines(source.file, limits=source.limits)
