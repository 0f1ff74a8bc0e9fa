"""The files of import and export: plain or gzip, by name, or ``-`` for the standard streams."""

import gzip
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from memory.cli.reporting import visible_json
from memory.domain.values import now
from memory.errors import ConfigurationError
from memory.formats.registry import name_of
from memory.formats.strands import SESSION
from memory.port.urls import redact
from memory.transfer import Limits, uncompressed

STANDARD = "-"
_SQLITE = b"SQLite format 3\x00"
_SHORT: Final = 50  # characters of up to 4 bytes each: a name of 255 bytes leaves no room for an ending


_READABLE: Final = re.compile(r".*\.(json|jsonl|ndjson|zip|db|sqlite|sqlite3)(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Input:
    """A source that the command line names, or a file in a folder that it names.

    ``name`` is its path below the folder that all have in common, without its ending: what has no id of its own is called so.
    """

    path: str
    name: str


def expand(names: Sequence[str]) -> list[Input]:
    """Return the files to import: those that are named, and those in the folders that are named.

    Raises:
        ConfigurationError: a folder has no file that could be imported, or an address was named without a format.
    """
    found: list[tuple[Path, Path]] = []
    for name in names:
        if "://" in name:
            raise ConfigurationError(f"{redact(name)} is an address: name its format by --from")
        path = Path(name)
        if name != STANDARD and path.is_dir():
            inside = list(_inside(path))
            if not inside:
                raise ConfigurationError(f"{name} is a folder without files to import: .json, .jsonl, .zip or .db")
            found += [(file, path) for file in inside]
        else:
            found.append((path, path.parent))
    common = Path(os.path.commonpath([folder.absolute() for _, folder in found])) if found else Path()
    return [
        Input(STANDARD, "stdin") if str(file) == STANDARD else Input(str(file), _below(file, common))
        for file, _ in found
    ]


def _inside(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that could hold conversations; a session of Strands is one folder."""
    if (folder / SESSION).is_file():
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _inside(path)
        elif _READABLE.fullmatch(path.name):
            yield path


def _below(file: Path, common: Path) -> str:
    below = file.absolute().relative_to(common)
    return below.with_name(name_of(file.name)).as_posix() if below.name else name_of(file.name)


@dataclass(frozen=True, slots=True)
class Source:
    """An open input: its uncompressed bytes; its size, and a function that says how many of these bytes have been read."""

    lines: IO[bytes]
    size: int | None
    position: Callable[[], int]
    modified_at: int


@contextmanager
def open_input(name: str, limits: Limits) -> Iterator[Source]:
    """Open a file for reading; gzip is recognized by its first bytes, whatever the name."""
    if name == STANDARD:
        stdin = cast("io.BufferedReader[Any]", sys.stdin.buffer)
        yield Source(uncompressed(stdin, limits=limits), None, lambda: 0, now())
        return
    with Path(name).open("rb", buffering=0) as raw, io.BufferedReader(raw, 2**16) as stream:
        status = os.fstat(raw.fileno())
        size, at = (status.st_size, status.st_mtime_ns // 1000) if Path(name).is_file() else (None, now())
        yield Source(uncompressed(stream, limits=limits), size, raw.tell, at)


@contextmanager
def open_output(name: str) -> Iterator[IO[str]]:
    """Open a file for writing text in UTF-8, compressed if its name ends in ``.gz``. It gets its name when it is complete."""
    if name == STANDARD:
        yield cast("IO[str]", _Terminal()) if sys.stdout.isatty() else sys.stdout
        return
    with (
        open_binary(name) as raw,
        _compressed(raw, name) as stream,
        io.TextIOWrapper(stream, "utf-8", newline="\n") as text,
    ):
        yield text


@contextmanager
def open_binary(name: str) -> Iterator[io.BufferedWriter]:
    """Open a file for writing. It gets its name when it is complete."""
    target = Path(name).resolve()
    _check_is_no_database(target, name)
    in_place = target.exists() and not target.is_file()  # a pipe, or /dev/null
    part = target if in_place else target.with_name(f"{target.name[:_SHORT]}.{os.getpid()}.part")
    try:
        with part.open("wb") as raw:
            yield raw
        if not in_place:
            part.replace(target)
    except BaseException:
        if not in_place:
            part.unlink(missing_ok=True)
        raise


class _Terminal(io.TextIOBase):
    """A terminal to which JSON is written."""

    def write(self, text: str) -> int:
        return sys.stdout.write(visible_json(text))

    def flush(self) -> None:
        sys.stdout.flush()


def _check_is_no_database(target: Path, name: str) -> None:
    if target.is_file():
        with target.open("rb") as file:
            if file.read(len(_SQLITE)) == _SQLITE:
                raise ConfigurationError(f"{name} is a database, which the export would overwrite: name another file")


def _compressed(raw: io.BufferedWriter, name: str) -> io.BufferedWriter:
    if not name.endswith(".gz"):
        return raw
    # No name and no time inside: equal conversations give equal files. Buffered, because gzip is slow with small pieces.
    return io.BufferedWriter(gzip.GzipFile("", "wb", 6, raw, mtime=0), 2**16)
