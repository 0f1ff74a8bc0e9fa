"""What a source yields: a `ParsedConversation` for each conversation, or a `RejectedConversation` with the reason."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from memory.errors import InvalidValueError
from memory.port.changes import Change
from memory.transfer.limits import DEFAULT_LIMITS, Limits

BROKEN_STREAM: Final = (OSError, EOFError, zlib.error)
"""What reading a stream raises where it breaks off, or where compressed data is damaged."""


@dataclass(frozen=True, slots=True)
class ParsedConversation:
    """A conversation that a line holds, as the change that makes it; ``size`` is the line's length in bytes."""

    number: int
    change: Change
    size: int


@dataclass(frozen=True, slots=True)
class RejectedConversation:
    """A line that holds no conversation, and why."""

    number: int
    reason: str


def broken_off(number: int, error: Exception) -> RejectedConversation:
    """Return the refusal of all that would follow in a stream that cannot be read on."""
    return RejectedConversation(number, f"the input cannot be read on from here: {error}")


def read_json(
    number: int, text: bytes, read: Callable[[Any], Change], *, limits: Limits = DEFAULT_LIMITS
) -> ParsedConversation | RejectedConversation:
    """Return the conversation that a JSON text holds, or why it holds none.

    Args:
        number: of the line, or of whatever it is in its source.
        text: UTF-8.
        read: makes the change of the value; raises `InvalidValueError` where it is no conversation.
        limits: what is refused.
    """
    if limits.has_too_many_values(text):
        return RejectedConversation(number, limits.too_many())
    return arrive(number, len(text), lambda: read(parse(text.decode())))


def parse(text: str | bytes) -> Any:
    """Return the value that a JSON text from elsewhere stands for.

    Raises:
        InvalidValueError: an object in it has a key twice: which of both is meant is not known.
        ValueError: it is no JSON, or has an integer of too many digits.
        RecursionError: it nests too deep.

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


def arrive(number: int, size: int, make: Callable[[], Change]) -> ParsedConversation | RejectedConversation:
    """Return the conversation that a function makes, or why it makes none: JSON cannot be parsed, or is no conversation."""
    try:
        return ParsedConversation(number, make(), size)
    except UnicodeDecodeError as error:
        return RejectedConversation(number, f"not UTF-8: {error.reason} at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return RejectedConversation(number, f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return RejectedConversation(number, "it nests too deep")
    except ValueError as error:  # InvalidValueError, or json's own: an integer of too many digits
        return RejectedConversation(number, str(error))
