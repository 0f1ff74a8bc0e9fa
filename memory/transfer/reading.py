"""Conversations read from lines."""

import codecs
from collections.abc import Callable, Iterator
from typing import IO, Final, TypeAlias

from memory.changes import ALL_RUNS, Change
from memory.domain import ConversationRecord, RunRecord
from memory.errors import InvalidValueError
from memory.moments import read_microseconds
from memory.transfer.arrivals import BROKEN_STREAM, Arrival, Refusal, broken_off, read_json
from memory.transfer.limits import DEFAULT_LIMITS, Limits
from memory.values import Json, check_id, decode, encode, encode_parsed, new_id, now

_ToText: TypeAlias = Callable[[Json, str], str]
_BYTE_STRINGS: Final = ("input", "output", "metadata")  # the fields that can be written in byte strings
_MOST: Final = ALL_RUNS // 2  # as many positions and versions are left to go on with
_CONVERSATION_KEYS: Final = frozenset(
    ["id", "metadata", "version", "created_at", "updated_at", "expires_at", "last_position", "byte_strings", "runs"]
)
_RUN_KEYS: Final = frozenset(["position", "id", "created_at", "input", "output", "metadata", "byte_strings"])


def read_lines(stream: IO[bytes], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Arrival | Refusal]:
    """Yield what each line of a stream holds, one by one; blank lines hold nothing.

    A stream that breaks off (compressed data that is cut or damaged, say) ends in a `Refusal`.
    """
    for number, line in split_lines(stream, limits=limits):
        if isinstance(line, Refusal):
            yield line
        else:
            yield _read(number, line, limits)


def split_lines(stream: IO[bytes], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[int, bytes | Refusal]]:
    """Yield the lines of a stream that are not blank, with their numbers; a `Refusal` for one that cannot be read."""
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(limits.line)
            if len(line) == limits.line and _skip_rest(stream, line):
                yield number, Refusal(number, limits.too_long("the line"))
                continue
            if line.isspace():
                number += _skip_blank_lines(stream)
                continue
        except BROKEN_STREAM as error:
            yield number, broken_off(number, error)
            return
        if not line:
            return
        yield number, line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"")


def _skip_rest(stream: IO[bytes], line: bytes) -> bool:
    skipped = False
    while line and not line.endswith(b"\n") and (line := stream.readline(2**20)):
        skipped = True
    return skipped


def _skip_blank_lines(stream: IO[bytes]) -> int:
    """Skip what is buffered of them, and return how many: a file can have millions, and none costs a call."""
    ahead: bytes = stream.peek() if hasattr(stream, "peek") else b""
    blank = ahead[: len(ahead) - len(ahead.lstrip())]
    size = blank.rfind(b"\n") + 1
    stream.read(size)
    return blank.count(b"\n")


def _read(number: int, line: bytes, limits: Limits) -> Arrival | Refusal:
    return read_json(number, line, lambda value: _read_conversation(value, now()), limits=limits)


def _read_conversation(value: object, at: int) -> Change:
    fields, to_text = _read_object(value, _CONVERSATION_KEYS)
    if "id" not in fields:
        raise InvalidValueError("it has no id")
    conversation_id = check_id(fields["id"], "id")
    runs = _read_runs(fields.get("runs", []), at)
    created_at = _read_time(fields, "created_at", at)
    record = ConversationRecord(
        conversation_id,
        _read_metadata(fields, to_text),
        _read_integer(fields, "version", 1),
        "",
        len(runs),
        _read_integer(fields, "last_position", runs[-1].position if runs else 0),
        created_at,
        _read_time(fields, "updated_at", created_at),
        read_microseconds(fields["expires_at"], "expires_at") if "expires_at" in fields else None,
    )
    return Change(conversation_id, create=record, append=runs)


def _read_runs(values: object, at: int) -> tuple[RunRecord, ...]:
    if not isinstance(values, list):
        raise InvalidValueError(f"runs must be a list, not {type(values).__name__}")
    runs: list[RunRecord] = []
    new_ids = new_id()  # one for all that bring none, and their number: making so many costs as much as writing them
    last = 0
    for index, value in enumerate(values):
        try:
            run = _read_run(value, last + 1, f"{new_ids}-{index + 1}", at)
        except KeyError as error:
            raise InvalidValueError(f"runs[{index}]: it has no {error.args[0]}") from error
        except InvalidValueError as error:
            raise InvalidValueError(f"runs[{index}]: {error}") from error
        last = run.position
        runs.append(run)
    return tuple(runs)


def _read_run(value: object, next_position: int, new_id: str, at: int) -> RunRecord:
    fields, to_text = _read_object(value, _RUN_KEYS)
    return RunRecord(
        _read_integer(fields, "position", next_position),
        check_id(fields["id"], "id") if "id" in fields else new_id,
        to_text(fields["input"], "input"),
        to_text(fields["output"], "output"),
        _read_metadata(fields, to_text),
        _read_time(fields, "created_at", at),
    )


def _read_object(value: object, known: frozenset[str]) -> tuple[dict[str, Json], _ToText]:
    """Return an object's fields, and what makes texts of them."""
    if not isinstance(value, dict):
        raise InvalidValueError(f"it must be an object, not {type(value).__name__}")
    if not known.issuperset(value):
        raise InvalidValueError(f"unknown key {min(value.keys() - known)!r:.60}; there are: {', '.join(sorted(known))}")
    return (value, encode_parsed) if "byte_strings" not in value else (_without_byte_strings(value), encode)


def _without_byte_strings(fields: dict[str, Json]) -> dict[str, Json]:
    marked = fields["byte_strings"]
    names = [name for name in _BYTE_STRINGS if name in fields and isinstance(marked, list) and name in marked]
    if sorted(names) != marked:
        raise InvalidValueError(f"byte_strings must be a sorted list of fields with JSON in them, not {marked!r:.60}")
    decoded: dict[str, Json] = {}
    for name in names:
        try:
            decoded[name] = decode(" " + encode(fields[name], name))
        except UnicodeError as error:
            raise InvalidValueError(f"{name} is in byte_strings, and not all its strings are bytes: {error}") from error
    return {**fields, **decoded}


def _read_metadata(fields: dict[str, Json], to_text: _ToText) -> str:
    metadata = fields.get("metadata", {})
    if not isinstance(metadata, dict):
        raise InvalidValueError(f"metadata must be an object, not {type(metadata).__name__}")
    return to_text(metadata, "metadata") if metadata else "{}"


def _read_integer(fields: dict[str, Json], name: str, least: int) -> int:
    if name not in fields:
        return least
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise InvalidValueError(f"{name} must be an integer from {least} to {_MOST}, not {value!r:.60}")
    return value


def _read_time(fields: dict[str, Json], name: str, default: int) -> int:
    return read_microseconds(fields[name], name) if name in fields else default
