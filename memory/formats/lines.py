"""This package's own lines of JSON."""

from collections.abc import Iterator

from memory.formats.registry import Source
from memory.transfer import Arrival, Refusal, read_lines


def read(source: Source) -> Iterator[Arrival | Refusal]:
    """Yield the conversation of each line."""
    return read_lines(source.file, limits=source.limits)
