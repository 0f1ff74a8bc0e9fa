"""Read the files of Griptape's local driver: each holds one conversation, whose id is the file's name."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, unquote

from memory.formats.envelopes import read_envelope, write_envelope
from memory.formats.registry import Source
from memory.formats.said import Exported
from memory.transfer.parsing import BROKEN_STREAM, ParsedConversation, RejectedConversation, broken_off, read_json

_CHUNK: Final = 2**20
_SAFE = " !#$&'()+,;=@[]^`{}~"  # not encoded, like letters, digits and "-._~"; '%' and '/' must be encoded


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation in a file."""
    parts: list[bytes] = []
    try:
        while part := source.file.read(_CHUNK):
            parts.append(part)
            if sum(map(len, parts)) > source.limits.line:
                yield RejectedConversation(1, source.limits.too_long("the file"))
                return
    except BROKEN_STREAM as error:
        yield broken_off(1, error)
        return
    folder, slash, stem = source.name.rpartition("/")
    id = source.options.get("id", folder + slash + id_of(stem))
    yield read_json(1, b"".join(parts), lambda value: read_envelope(id, value, source.at), limits=source.limits)


def write(found: Exported) -> Iterator[str]:
    """Yield the file of a conversation, in pieces."""
    return write_envelope(found.conversation.metadata, found.runs)


def recognizes(value: Any) -> bool:
    """Return whether a value is a conversation that Griptape's driver wrote."""
    return isinstance(value, dict) and "id" not in value and isinstance(value.get("runs"), list)


def id_of(stem: str) -> str:
    """Return the conversation's id for a file name without its suffix.

    >>> id_of("support-42"), id_of("a%2Fb"), id_of("100%")
    ('support-42', 'a/b', '100%')
    """
    try:
        id = unquote(stem, errors="strict")
    except UnicodeDecodeError:
        return stem
    return id if stem_of(id) == stem else stem


def stem_of(id: str) -> str:
    """Return the file name for a conversation, without suffix: its id, percent-encoded so that the name is valid and not hidden.

    >>> stem_of("support-42"), stem_of("a/b"), stem_of("../v1.2")
    ('support-42', 'a%2Fb', '%2E%2E%2Fv1.2')
    """
    visible = id.lstrip(".")
    dots = "%2E" * (len(id) - len(visible))
    return dots + "".join(part if not part.isascii() else quote(part, safe=_SAFE) for part in visible)
