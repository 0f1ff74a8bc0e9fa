"""How much a source may hold. No honest file comes near the defaults; a small one that unpacks to gigabytes is refused."""

from dataclasses import dataclass
from typing import Final

_SMALL: Final = 2**24
"""Bytes that anything may unpack to: a small file of the same text again and again is no attack."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused in a source, because reading it would take memory or time that the data is not worth.

    Attributes:
        line: bytes of one conversation: of a line, an element of an array, or a file with one conversation.
        values: JSON values in one conversation, counted by their commas and brackets.
        unpacked: bytes that a compressed source unpacks to.
        ratio: how many times its own size that may be.
        refused: lines, or what else a conversation is in its source, that hold none: more are not looked at.

    >>> Limits(line=2**30).line
    1073741824
    """

    line: int = 2**28
    values: int = 5_000_000
    unpacked: int = 2**36
    ratio: int = 250
    refused: int = 100_000

    def refusal(self, name: str, what: str) -> str:
        """Return the reason for a refusal: what is beyond the limit of this name, and how to raise that.

        >>> Limits().refusal("ratio", "it is beyond 250")
        'it is beyond 250; if that is what it should be, raise the limit: --max-ratio, or Limits(ratio=...)'
        """
        return f"{what}; if that is what it should be, raise the limit: --max-{name}, or Limits({name}=...)"

    def too_long(self, what: str) -> str:
        """Return the reason for refusing what has more bytes than a ``line`` may have."""
        return self.refusal("line", f"{what} is longer than {self.line:,} bytes")

    def has_too_many_values(self, text: bytes) -> bool:
        """Return whether a JSON text has more than so many ``values``, without making them."""
        return len(text) > self.values and sum(map(text.count, (b",", b"[", b"{"))) > self.values

    def too_many(self) -> str:
        """Return the reason for refusing what has more ``values``."""
        return self.refusal("values", f"it has more than {self.values:,} values")

    def check_unpacked(self, unpacked: int, packed: int) -> None:
        """Refuse to unpack so many bytes out of so many.

        Raises:
            OSError: it is too much.
        """
        if unpacked > self.unpacked:
            what = f"it unpacks to more than {self.unpacked:,} bytes"
            raise OSError(self.refusal("unpacked", what))
        if unpacked > max(_SMALL, self.ratio * packed):
            what = f"{packed:,} bytes unpack to {unpacked:,} or more, which is over {self.ratio:,} times as much"
            raise OSError(self.refusal("ratio", what))


DEFAULT_LIMITS: Final = Limits()
