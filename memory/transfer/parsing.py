"""The results of parsing a source: a `ParsedConversation` for each conversation, or a `RejectedConversation` with the reason."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from memory.errors import InvalidValueError
from memory.port.changes import Change
from memory.transfer.limits import DEFAULT_LIMITS, Limits

BROKEN_STREAM: Final = (OSError, EOFError, zlib.error)
"""What reading a stream raises if it ends early or its compressed data is damaged."""


@dataclass(frozen=True, slots=True)
class ParsedConversation:
    """A conversation that was read, as the change that creates it.

    ``number`` is that of its line, or of whatever it is in its source; ``size`` its length there, in bytes.
    """

    number: int
    change: Change
    size: int
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedConversation:
    """A line that holds no conversation, or one that the store cannot keep, and why."""

    number: int
    reason: str


def broken_off(number: int, error: Exception) -> RejectedConversation:
    """Reject the rest of a stream that cannot be read any further."""
    return RejectedConversation(number, f"the input cannot be read from here on: {error}")


def read_json(
    number: int, text: bytes, read: Callable[[Any], Change], *, limits: Limits = DEFAULT_LIMITS, id: str | None = None
) -> ParsedConversation | RejectedConversation:
    """Return the conversation that ``read`` finds in a JSON text, or the reason why there is none, which names an ``id``."""
    if limits.has_too_many_values(text):
        parsed: ParsedConversation | RejectedConversation = RejectedConversation(number, limits.too_many())
    else:
        parsed = try_parse(number, len(text), lambda: read(parse(text.decode())))
    if isinstance(parsed, RejectedConversation) and id is not None:
        return RejectedConversation(number, f"{id!r}: {parsed.reason}")
    return parsed


def parse(text: str | bytes) -> Any:
    """Parse a JSON text from another program; a key that an object has twice raises `InvalidValueError`.

    >>> parse('{"customer": "ada", "customer": "bob"}')
    Traceback (most recent call last):
        ...
    memory.errors.InvalidValueError: an object has the key 'customer' twice
    """
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise InvalidValueError(f"an object has the key {key!r:.60} twice")
            seen.add(key)
    return members


def try_parse(number: int, size: int, make: Callable[[], Change]) -> ParsedConversation | RejectedConversation:
    """Return the conversation that a function creates; if the JSON is invalid or is no conversation, return the reason."""
    try:
        return ParsedConversation(number, make(), size)
    except UnicodeDecodeError as error:
        return RejectedConversation(number, f"not UTF-8: {error.reason} at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return RejectedConversation(number, f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RejectedConversation(number, "it is nested too deeply")
    except ValueError as error:  # InvalidValueError, or json's own: an integer of too many digits
        return RejectedConversation(number, str(error))
