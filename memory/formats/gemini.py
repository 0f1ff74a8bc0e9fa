"""Read the Gemini Apps part of Google Takeout: ``MyActivity.json``, a list of prompts with their answers in HTML."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, Final

from memory.errors import InvalidValueError
from memory.formats import documents
from memory.formats.builders import Draft
from memory.formats.registry import Source
from memory.formats.turns import Message
from memory.transfer import ParsedConversation, RejectedConversation

KEY: Final = "gemini"
_PROMPTED: Final = "Prompted "
_BLOCKS: Final = frozenset(
    ["br", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ol", "p", "pre", "table", "tr", "ul"]
)


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield a conversation for each prompt: Takeout does not say which of them belong together."""
    return documents.read(source, KEY, convert)


def recognizes(value: Any) -> bool:
    """Return whether a value is an activity of Google Takeout, of Gemini Apps (Bard, until 2024).

    Takeout has the activities of other products in files of the same kind. The name of the product is in every language.
    """
    if not (isinstance(value, dict) and "title" in value and ("products" in value or "time" in value)):
        return False
    return any(name in f"{value.get('header')} {value.get('products')}" for name in ("Gemini", "Bard"))


def convert(value: Any) -> Draft:
    """Return the draft for an activity: its title is the question, the text of its HTML the answer."""
    if not recognizes(value) or not isinstance(value["title"], str):
        raise InvalidValueError("not an activity of Google Takeout, which has a header, a title and a time")
    items = value.get("safeHtmlItem")
    answers = [item.get("html") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    text = "\n".join([text_of_html(html) for html in answers if isinstance(html, str)])
    at = value.get("time")
    question = Message("question", value["title"].removeprefix(_PROMPTED), value, value, at=at)
    answer = [Message("answer", text, None, None, at=at)] if text else []
    return Draft([question, *answer], created_at=at)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  # the parser's signature
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def text_of_html(html: str) -> str:
    r"""Return the text of HTML, with a line break before each block.

    >>> text_of_html("<p>It left on <b>Monday</b>.</p><ul><li>one &amp; all</li></ul>")
    'It left on Monday.\n\none & all'
    """
    parser = _Text()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts).strip()
