"""Compressed streams, read only as far as the limits allow."""

import gzip
import io
from typing import IO, TYPE_CHECKING, Any, Final, cast

from memory.transfer.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP_MAGIC: Final = b"\x1f\x8b"
_BUFFER: Final = 2**16


def uncompressed(stream: "io.BufferedReader[Any]", *, limits: Limits = DEFAULT_LIMITS) -> IO[bytes]:
    """Return the stream itself, or its uncompressed content if its first bytes are those of gzip.

    Reading raises `OSError` when the uncompressed content exceeds the limits.
    """
    if stream.peek(2)[:2] != _GZIP_MAGIC:
        return stream
    return io.BufferedReader(_Unpacked(stream, limits), _BUFFER)


class _Unpacked(io.RawIOBase):
    """The uncompressed content of a gzip stream."""

    def __init__(self, packed: IO[bytes], limits: Limits) -> None:
        self._packed = _Counted(packed)
        self._unpacked = gzip.GzipFile(fileobj=cast("IO[bytes]", self._packed))
        self._size = 0
        self._limits = limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        size = self._unpacked.readinto(buffer)
        self._size += size
        self._limits.check_unpacked(self._size, self._packed.size)
        return size


class _Counted:
    """A stream that counts the bytes read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = 0

    def read(self, size: int) -> bytes:
        read = self._stream.read(size)
        self.size += len(read)
        return read
