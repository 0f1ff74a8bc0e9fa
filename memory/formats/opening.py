"""Find out what a file is: an archive with files, or a file of one of the formats."""

import codecs
import io
import os
import re
import struct
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from importlib import import_module
from itertools import islice
from operator import attrgetter
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast

from memory.errors import InvalidValueError
from memory.formats.documents import Document, documents
from memory.formats.others import check_known
from memory.formats.registry import FORMATS, NATIVE, Source, name_of, read
from memory.formats.sqlite_files import MAGIC, tables_of
from memory.transfer.parsing import BROKEN_STREAM, ParsedConversation, RejectedConversation, broken_off, parse
from memory.transfer.unpacking import uncompressed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ZIP: Final = b"PK\x03\x04"
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UNREADABLE: Final = (*BROKEN_STREAM, OverflowError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile)
"""The exceptions that `zipfile` raises for a damaged or unsupported archive."""

_MEMBER: Final = re.compile(r".*\.(json|jsonl|ndjson)(\.gz)?", re.IGNORECASE)
_UNPACK_FIRST: Final = re.compile(r".*\.(zip|db|sqlite|sqlite3)", re.IGNORECASE)
_TRIED: Final = 100  # documents of a file of unknown format
_BUFFER: Final = 2**16


class Part(NamedTuple):
    """A file with conversations: its name in its archive (empty if it is in none), its format, and itself."""

    name: str
    format: str
    source: Source


class Unread(NamedTuple):
    """A file of an archive that has no conversations of a known format, and why."""

    name: str
    reason: str


def read_all(format: str | None, source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of a source, of all files if it is an archive. The format is detected if it is None."""
    for part in parts(source, format):
        if isinstance(part, Part):
            yield from read(part.format, part.source)
        else:
            yield RejectedConversation(1, part.reason)


def parts(source: Source, format: str | None = None, *, prefix: str = "") -> Iterator[Part | Unread]:
    """Yield the files of an archive, or the file itself, with their formats.

    A file that cannot be read, and an archive that has no conversations, is an `Unread` with an empty name.

    Args:
        source: the file, folder or address.
        format: its format; by default it is detected.
        prefix: what the names of an archive's members begin with.
    """
    if source.stream is None:
        yield _recognized("", source, format)
        return
    try:
        start = _peek(source.file)
        if start.startswith(_ZIP):
            yield from _members(source, format, prefix)
        elif start.startswith(_UTF_16):
            yield Unread("", "it is UTF-16: convert it to UTF-8, for example by iconv -f UTF-16 -t UTF-8")
        else:
            yield _recognized("", source, format)
    except _UNREADABLE as error:  # truncated, damaged, encrypted, or too large
        yield Unread("", broken_off(1, error).reason)


def _peek(stream: IO[bytes]) -> bytes:
    return bytes(cast("Any", stream).peek(len(MAGIC))[: len(MAGIC)]) if hasattr(stream, "peek") else b""


def _recognized(name: str, source: Source, format: str | None) -> Part | Unread:
    if format is not None and not name:
        return Part(name, format, source)
    try:
        return Part(name, *detect(source, FORMATS if format is None else [format]))
    except InvalidValueError as error:
        return Unread(name, str(error))


def _members(source: Source, format: str | None, prefix: str) -> Iterator[Part | Unread]:
    is_found = False
    unread: list[str] = []
    with tempfile.TemporaryFile() as copy, zipfile.ZipFile(_seekable(source.file, copy)) as archive:
        members = sorted(archive.infolist(), key=attrgetter("filename"))
        readable = [each for each in members if _MEMBER.fullmatch(each.filename)]
        # `zipfile` never yields more bytes than a member declares, but members may overlap in the file (a zip bomb).
        size = cast("IO[bytes]", archive.fp).seek(0, os.SEEK_END)
        source.limits.check_unpacked(sum(each.file_size for each in readable), size)
        for member in members:
            if _UNPACK_FIRST.fullmatch(member.filename):
                yield Unread(member.filename, "unpack it from the archive and import it by itself")
        for member in readable:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NotImplementedError(f"{member.filename} is compressed in a way that no export uses")
            with archive.open(member) as packed:
                stream = uncompressed(cast("io.BufferedReader[Any]", packed), limits=source.limits)
                folder, slash, _ = member.filename.rpartition("/")
                name = prefix + folder + slash + name_of(member.filename)
                found = _recognized(member.filename, replace(source, stream=stream, name=name, path=None), format)
                is_found = is_found or isinstance(found, Part)
                unread += [member.filename] if isinstance(found, Unread) else []
                yield found
    if not is_found:
        others = f", only {', '.join(unread[:5])}" if unread else ""
        yield Unread("", f"the archive has no file with conversations{f' of {format}' if format else ''}{others}")


def _seekable(stream: IO[bytes], copy: IO[bytes]) -> IO[bytes]:
    """Return the stream, or its copy in a file if it cannot be sought, as a pipe."""
    if stream.seekable():
        return stream
    while chunk := stream.read(_BUFFER):
        copy.write(chunk)
    copy.seek(0)
    return copy


def detect(source: Source, formats: Collection[str] = FORMATS) -> tuple[str, Source]:
    """Return the format of a file, and the file as it was before.

    Args:
        source: the file or folder.
        formats: the names of the formats to try.

    Raises:
        InvalidValueError: it is of none of these formats; the error says what it looks like.
    """
    if source.stream is None or (_peek(source.stream) == MAGIC and source.path is not None):
        return _of_path(source, formats), source
    if _peek(source.stream) == MAGIC:
        raise InvalidValueError("a database can only be read from a file of its own, not from a pipe")
    seen = _Recorded(source.stream)
    read_from = replace(source, stream=io.BufferedReader(seen, _BUFFER))
    name, reason = _of_json(read_from, formats)
    if name is None:
        raise InvalidValueError(reason)
    return name, replace(source, stream=io.BufferedReader(_Recorded(source.stream, seen.data), _BUFFER))


def _of_path(source: Source, formats: Collection[str]) -> str:
    kind = "folder" if source.path is not None and source.path.is_dir() else "sqlite"
    tables = tables_of(source) if kind == "sqlite" and source.path is not None else set()
    for name in formats:
        needed = getattr(import_module(FORMATS[name].module), "TABLES", None) if FORMATS[name].is_file else None
        if needed and kind == "sqlite" and needed <= tables:
            return name
        if FORMATS[name].kind == kind == "folder":
            return name
    raise InvalidValueError(f"a database with the tables {', '.join(sorted(tables)) or '(none)'} is of no known format")


def _of_json(source: Source, formats: Collection[str]) -> tuple[str | None, str]:
    modules = {name: import_module(FORMATS[name].module) for name in formats if FORMATS[name].kind == "json"}
    reason = ""
    for found in islice(documents(source), _TRIED):
        if isinstance(found, RejectedConversation):
            reason = reason or found.reason
            continue
        try:
            value = _value_of(found, source)
            check_known(value)
        except (ValueError, RecursionError) as error:
            reason = reason or _described(error)
            continue
        name = next((name for name, module in modules.items() if module.recognizes(value)), None)
        if name is not None:
            return name, ""
        reason = f"of no known format: {_outline(value)}"
    return (None, reason) if reason else (NATIVE if NATIVE in formats else next(iter(formats)), "")


def _value_of(found: Document, source: Source) -> Any:
    if source.limits.has_too_many_values(found.text):
        raise InvalidValueError(source.limits.too_many())
    return parse(found.text.decode())


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, InvalidValueError) else f"not JSON: {error}"


def _outline(value: Any) -> str:
    """Return what a value looks like, without what was said.

    >>> _outline([{"prompt": "Where?", "answer": "Here."}])
    'a list of objects with the keys prompt, answer'
    """
    if isinstance(value, list):
        return f"a list of {_outline(value[0]).replace('an object', 'objects')}" if value else "an empty list"
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(list(value)[:8])}" if value else "an empty object"
    return f"a {type(value).__name__}"


class _Recorded(io.RawIOBase):
    """A stream that begins with this data, and keeps what was read of it."""

    def __init__(self, stream: IO[bytes], begun: bytes | bytearray = b"") -> None:
        self._stream = stream
        self._begun = io.BytesIO(begun)
        self.data = bytearray(begun)
        self._keeps = not begun

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        size = self._begun.readinto(view)
        if size == 0:
            read = self._stream.read(len(view))
            size = len(read)
            view[:size] = read
            if self._keeps:
                self.data += read
        return size
