"""Read the conversations of a JSON file: one in each line, in each element of an array, or in all messages together."""

import codecs
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import chain, groupby
from typing import Any, Final, NamedTuple, TypeAlias

from memory.domain.entities import Run
from memory.domain.values import Json, first_id
from memory.formats.builders import Draft, build, digest
from memory.formats.json_stream import Element, elements
from memory.formats.others import check_known
from memory.formats.registry import Source
from memory.port.changes import Change
from memory.transfer import Limits, ParsedConversation, RejectedConversation, read_json
from memory.transfer.jsonl import split_lines
from memory.transfer.parsing import BROKEN_STREAM, broken_off, parse

IsMessage: TypeAlias = Callable[[Any], bool]

_LONGEST_FIRST_LINE: Final = 2**20


class Document(NamedTuple):
    """A JSON text: its number in its file, and whether it is all that the file has."""

    number: int
    text: bytes
    is_whole: bool


def never(_: object) -> bool:
    """Return False: no value of a format is a single message."""
    return False


def read(
    source: Source,
    key: str,
    convert: Callable[[Any], Draft],
    *,
    is_message: IsMessage = never,
    plain: Callable[[Run], list[Json]] | None = None,
) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversation that a format finds in each document of a file.

    A conversation without an id of its own gets the file's name if it is all that the file has. Otherwise its content follows
    the name, so that its id stays the same when others are added before it.

    Args:
        source: the file.
        key: the format's key in metadata.
        convert: returns the draft for a value, or raises `InvalidValueError`.
        is_message: whether a value is one message. If the first element of an array is one, the array is one conversation; if
            the first line is one, so are all lines.
        plain: as for `build`.
    """

    def make(found: Document, value: Any) -> Change:
        check_known(value)
        draft = convert(value)
        id = first_id(draft.id) or (source.name if found.is_whole else f"{source.name}-{digest(value)}")
        return build(key, draft, id, source.at, plain=plain)

    for found in documents(source, is_message):
        if isinstance(found, RejectedConversation):
            yield found
        else:
            yield read_json(found.number, found.text, partial(make, found), limits=source.limits)


def documents(source: Source, is_message: IsMessage = never) -> Iterator[Document | RejectedConversation]:
    """Yield the documents of a file; only one and the next are held in memory."""
    before: _Text | None = None
    is_first = True
    for each in _texts(source, is_message):
        if before is not None:
            yield _document(before, is_only=False)
            is_first = False
        before = each
    if before is not None:
        yield _document(before, is_only=is_first)


class _Text(NamedTuple):
    number: int
    text: bytes | RejectedConversation
    is_element: bool = False  # of an array, to which others may be added


def _document(found: _Text, *, is_only: bool) -> Document | RejectedConversation:
    if isinstance(found.text, RejectedConversation):
        return RejectedConversation(found.number, found.text.reason)
    return Document(found.number, found.text.removeprefix(codecs.BOM_UTF8), is_only and not found.is_element)


def _texts(source: Source, is_message: IsMessage) -> Iterator[_Text]:
    limits = source.limits
    try:
        first = source.file.readline(_LONGEST_FIRST_LINE)
    except BROKEN_STREAM as error:
        yield _Text(1, broken_off(1, error))
        return
    if _is_line(first, limits, is_message):
        line = RejectedConversation(1, limits.too_long("the line")) if len(first) > limits.line else first
        lines = chain([(1, line)], split_lines(source.file, limits=limits, first=2))
        yield from _grouped(((number, _as_element(text)) for number, text in lines), is_message, limits)
    else:
        yield from _grouped(elements(source.file, limits=limits, begun=first), is_message, limits)


def _as_element(line: bytes | RejectedConversation) -> Element | RejectedConversation:
    return line if isinstance(line, RejectedConversation) else Element(0, line.removeprefix(codecs.BOM_UTF8))


def _is_line(first: bytes, limits: Limits, is_message: IsMessage) -> bool:
    """Return whether the file has a document in each line, which its first line shows."""
    text = first.strip()
    if not text or len(first) == _LONGEST_FIRST_LINE or text.endswith((b"[", b"{", b",", b":")):
        return False
    _, element = next(elements(BytesIO(first), limits=limits), (0, None))
    return not isinstance(element, Element) or not element.array or _holds(is_message, element)


def _grouped(
    found: Iterator[tuple[int, Element | RejectedConversation]], is_message: IsMessage, limits: Limits
) -> Iterator[_Text]:
    """Yield the text of each element; if the first one of an array is a message, all of them are joined into one text."""
    for _, group in groupby(found, lambda each: each[1].array if isinstance(each[1], Element) else -1):
        number, first = next(group)
        if isinstance(first, Element) and _holds(is_message, first):
            yield _Text(number, _joined(chain([first], (element for _, element in group)), limits))
        else:
            for place, each in chain([(number, first)], group):
                yield _Text(place, each.text, each.array > 0) if isinstance(each, Element) else _Text(place, each)


def _holds(is_message: IsMessage, element: Element) -> bool:
    if is_message is never:
        return False
    try:
        return is_message(parse(element.text))
    except (ValueError, RecursionError):
        return False


def _joined(messages: Iterator[Any], limits: Limits) -> bytes | RejectedConversation:
    texts: list[bytes] = []
    size = 0
    for message in messages:
        texts.append(message.text)
        size += len(message.text)
        if size > limits.line:
            return RejectedConversation(0, limits.too_long("the list of messages"))
        if len(texts) > limits.values:
            return RejectedConversation(0, limits.too_many())
    return b"[" + b",".join(texts) + b"]"
