"""What a source of conversations yields: an `Arrival` for each, or a `Refusal` with the reason why there is none."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from memory.changes import Change

LONGEST_LINE: Final = 2**30
"""Bytes; a longer line is refused, for it has to be read whole."""

BROKEN_STREAM: Final = (OSError, EOFError, zlib.error)
"""What reading a stream raises where it breaks off, or where compressed data is damaged."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A conversation that a line holds, as the change that makes it; ``size`` is the line's length in bytes."""

    number: int
    change: Change
    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that holds no conversation, and why."""

    number: int
    reason: str


def broken_off(number: int, error: Exception) -> Refusal:
    """Return the refusal of all that would follow in a stream that cannot be read on."""
    return Refusal(number, f"the input cannot be read on from here: {error}")


def read_json(number: int, text: bytes, read: Callable[[Any], Change]) -> Arrival | Refusal:
    """Return the conversation that a JSON text holds, or why it holds none.

    Args:
        number: of the line, or of whatever it is in its source.
        text: UTF-8.
        read: makes the change of the value; raises `InvalidValueError` where it is no conversation.
    """
    return arrive(number, len(text), lambda: read(json.loads(text.decode())))


def arrive(number: int, size: int, make: Callable[[], Change]) -> Arrival | Refusal:
    """Return the conversation that a function makes, or why it makes none: JSON cannot be parsed, or is no conversation."""
    try:
        return Arrival(number, make(), size)
    except UnicodeDecodeError as error:
        return Refusal(number, f"not UTF-8: {error.reason} at byte {error.start + 1}")
    except json.JSONDecodeError as error:
        return Refusal(number, f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return Refusal(number, "it nests too deep")
    except ValueError as error:  # InvalidValueError, or json's own: an integer of too many digits
        return Refusal(number, str(error))
