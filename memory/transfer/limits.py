"""Limits on imported files. No ordinary file comes near the defaults; a small file that unpacks to gigabytes is rejected."""

from dataclasses import dataclass
from typing import Final

_SMALL: Final = 2**24
"""Bytes that any file may unpack to, whatever its ratio: a small file of repeated text is no attack."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is read of a source, so that a small file cannot take gigabytes of memory, or minutes.

    Attributes:
        line: bytes of one conversation: a line, an element of an array, or a file with one conversation.
        values: JSON values of one conversation, counted by their commas and brackets.
        ratio: how many times its compressed size a compressed file unpacks to.

    >>> Limits(line=2**30).line
    1073741824
    """

    line: int = 2**28
    values: int = 5_000_000
    ratio: int = 250

    def refusal(self, name: str, what: str) -> str:
        """Return the reason for a rejection: what exceeds the limit of this name, and how to raise the limit.

        >>> Limits().refusal("ratio", "it exceeds 250")
        'it exceeds 250; if that is intended, raise the limit: --max-ratio, or Limits(ratio=...)'
        """
        return f"{what}; if that is intended, raise the limit: --max-{name}, or Limits({name}=...)"

    def too_long(self, what: str) -> str:
        return self.refusal("line", f"{what} is longer than {self.line:,} bytes")

    def has_too_many_values(self, text: bytes) -> bool:
        """Whether a JSON text has more than ``values`` values; it is not parsed."""
        return len(text) > self.values and sum(map(text.count, (b",", b"[", b"{"))) > self.values

    def too_many(self) -> str:
        return self.refusal("values", f"it has more than {self.values:,} values")

    def check_unpacked(self, unpacked: int, packed: int) -> None:
        """Check how many bytes were unpacked from how many.

        Raises:
            OSError: too many.
        """
        if unpacked > max(_SMALL, self.ratio * packed):
            what = f"{packed:,} bytes unpack to {unpacked:,} or more, which is over {self.ratio:,} times as much"
            raise OSError(self.refusal("ratio", what))


DEFAULT_LIMITS: Final = Limits()
