"""Conversations as lines of JSON: reading them and writing them."""

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import IO, Any, Final, TypeAlias

from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.timestamps import format_timestamp, parse_microseconds
from memory.domain.values import (
    LONGEST,
    Json,
    check_conversation_id,
    check_id,
    compact,
    decode,
    encode,
    encode_parsed,
    now,
)
from memory.errors import InvalidValueError
from memory.port.changes import ALL_RUNS, Change
from memory.transfer.limits import DEFAULT_LIMITS, Limits
from memory.transfer.parsing import BROKEN_STREAM, ParsedConversation, RejectedConversation, broken_off, read_json
from memory.transfer.reading import read_whole

_ToText: TypeAlias = Callable[[Json, str], str]
_BYTE_STRINGS: Final = ("input", "output", "metadata")  # the fields that may hold byte strings
_MOST: Final = ALL_RUNS // 2  # half of all positions and versions are left for what is appended later
_RUN_KEYS: Final = frozenset([*RunRecord._fields, "byte_strings"])
_CONVERSATION_KEYS: Final = frozenset([*ConversationRecord._fields, "namespace", "byte_strings", "runs"]) - {
    "incarnation",
    "run_count",
}


def read_lines(
    stream: IO[bytes], *, limits: Limits = DEFAULT_LIMITS
) -> Iterator[ParsedConversation | RejectedConversation]:
    """Parse the lines of a stream one by one; skip blank lines.

    If the stream cannot be read to its end (compressed data that is cut or damaged, for example), the last item is a
    `RejectedConversation`.
    """
    for number, line in split_lines(stream, limits=limits):
        if isinstance(line, RejectedConversation):
            yield line
        else:
            yield _read(number, line, limits)


def split_lines(
    stream: IO[bytes], *, limits: Limits = DEFAULT_LIMITS, first: int = 1
) -> Iterator[tuple[int, bytes | RejectedConversation]]:
    """Yield the non-blank lines of a stream with their numbers; and a `RejectedConversation` for a line that cannot be read.

    ``first`` is the number of the first line.
    """
    number = first - 1
    while True:
        number += 1
        try:
            line = stream.readline(limits.line)
            if len(line) == limits.line and _skip_rest(stream, line):
                yield number, RejectedConversation(number, limits.too_long("the line"))
                continue
        except BROKEN_STREAM as error:
            yield number, broken_off(number, error)
            return
        if not line:
            return
        if not line.isspace():
            yield number, line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"")


def _skip_rest(stream: IO[bytes], line: bytes) -> bool:
    skipped = False
    while line and not line.endswith(b"\n") and (line := stream.readline(2**20)):
        skipped = True
    return skipped


def _read(number: int, line: bytes, limits: Limits) -> ParsedConversation | RejectedConversation:
    namespace: str | None = None

    def read(value: object) -> Change:
        nonlocal namespace
        fields, to_text = _read_object(value, _CONVERSATION_KEYS)
        namespace = check_id(fields["namespace"], "namespace") if "namespace" in fields else None
        return _read_conversation(fields, to_text, now())

    parsed = read_json(number, line, read, limits=limits)
    return replace(parsed, namespace=namespace) if namespace and isinstance(parsed, ParsedConversation) else parsed


def _read_conversation(fields: dict[str, Json], to_text: _ToText, at: int) -> Change:
    if "id" not in fields:
        raise InvalidValueError("it has no id")
    conversation_id = check_conversation_id(fields["id"])
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
        parse_microseconds(fields["expires_at"], "expires_at") if "expires_at" in fields else None,
        _read_duration(fields, "expires_after"),
        _read_time(fields, "last_run_at", max([created_at, *[run.created_at for run in runs]])),
    )
    return Change(conversation_id, create=record, append=runs)


def _read_runs(values: object, at: int) -> tuple[RunRecord, ...]:
    if not isinstance(values, list):
        raise InvalidValueError(f"runs must be a list, not {type(values).__name__}")
    runs: list[RunRecord] = []
    last = 0
    for index, value in enumerate(values):
        try:
            run = _read_run(value, last + 1, at)
        except KeyError as error:
            raise InvalidValueError(f"runs[{index}]: it has no {error.args[0]}") from error
        except InvalidValueError as error:
            raise InvalidValueError(f"runs[{index}]: {error}") from error
        last = run.position
        runs.append(run)
    return tuple(runs)


def _read_run(value: object, next_position: int, at: int) -> RunRecord:
    fields, to_text = _read_object(value, _RUN_KEYS)
    is_open = fields.get("is_open", False)
    if not isinstance(is_open, bool):
        raise InvalidValueError(f"is_open must be true or false, not {is_open!r:.60}")
    position = _read_integer(fields, "position", next_position)
    return RunRecord(
        position,
        check_id(fields["id"], "id") if "id" in fields else str(position),  # the same if the file is imported again
        to_text(fields["input"], "input"),
        "" if is_open and "output" not in fields else to_text(fields["output"], "output"),
        _read_metadata(fields, to_text),
        _read_time(fields, "created_at", at),
        is_open,
    )


def _read_object(value: object, known: frozenset[str]) -> tuple[dict[str, Json], _ToText]:
    """Return an object's fields, and the function that encodes them."""
    if not isinstance(value, dict):
        raise InvalidValueError(f"it must be an object, not {type(value).__name__}")
    if not known.issuperset(value):
        raise InvalidValueError(f"unknown key {min(value.keys() - known)!r:.60}; there are: {', '.join(sorted(known))}")
    return (value, encode_parsed) if "byte_strings" not in value else (_without_byte_strings(value), encode)


def _without_byte_strings(fields: dict[str, Json]) -> dict[str, Json]:
    marked = fields["byte_strings"]
    names = [name for name in _BYTE_STRINGS if name in fields and isinstance(marked, list) and name in marked]
    if sorted(names) != marked:
        raise InvalidValueError(f"byte_strings must be a sorted list of fields that hold JSON, not {marked!r:.60}")
    decoded: dict[str, Json] = {}
    for name in names:
        try:
            decoded[name] = decode(" " + encode(fields[name], name))
        except UnicodeError as error:
            raise InvalidValueError(f"{name} is in byte_strings, but not all its strings are bytes: {error}") from error
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


def _read_duration(fields: dict[str, Json], name: str) -> int | None:
    if name not in fields:
        return None
    seconds = fields[name]
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds * 1_000_000 <= LONGEST:
        raise InvalidValueError(f"{name} must be a positive number of seconds, not {seconds!r:.60}")
    return round(seconds * 1_000_000)


def _read_time(fields: dict[str, Json], name: str, default: int) -> int:
    return parse_microseconds(fields[name], name) if name in fields else default


def dump(
    store: Store[Any], criterion: Criterion | None = None, *, all_namespaces: bool = False, order: str = "id"
) -> Iterator[str]:
    r"""Yield the lines of all committed conversations that match, in pieces; only a conversation's last piece ends in a newline.

    Each line is one state of its conversation, whatever others write meanwhile; a conversation that is removed meanwhile is left
    out. Memory is constant, whatever the number of conversations or of their runs.

    Args:
        store: the store to read.
        criterion: only the conversations that match.
        all_namespaces: all namespaces of the store, in the order of their names; by default only that of ``store``.
        order: the order of the conversations of a namespace, as for `find`.

    Raises:
        InvalidValueError: the criterion or the order is invalid.
        CorruptRecordError: a conversation cannot be read.
        PersistenceError: the store failed, or a conversation was changed faster than it could be read.

    >>> import memory
    >>> store = memory.connect("memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    >>> "".join(dump(store))  # doctest: +ELLIPSIS
    '{"namespace":"default","id":"support-42","metadata":{},"version":1,"created_at":"...Z",...,"runs":[]}\n'
    """
    for each in map(store.namespace, store.namespaces()) if all_namespaces else [store]:
        with each.untyped().begin() as uow:
            for conversation in uow.conversations.iterate(criterion, order=order):
                with read_whole(each, conversation.id, conversation.record) as read:
                    if read and (read.record is conversation.record or _still_matches(criterion, read.record)):
                        yield from write_line(*read, namespace=each.namespace_name)


def _still_matches(criterion: Criterion | None, record: ConversationRecord) -> bool:
    return criterion is None or criterion.matches(Conversation.from_record(record))


def write_line(record: ConversationRecord, runs: Iterable[RunRecord], *, namespace: str) -> Iterator[str]:
    """Yield a conversation's line in pieces, with these runs."""
    yield f'{{"namespace":{compact(namespace)},{write_head(record)},"last_position":{record.last_position},"runs":['
    comma = ""
    for run in runs:
        yield comma + _write_run(run)
        comma = ","
    yield "]}\n"


def write_head(record: ConversationRecord) -> str:
    """Return the members of a line's object that describe the conversation itself, without braces."""
    expiry = "" if record.expires_at is None else f',"expires_at":"{format_timestamp(record.expires_at)}"'
    if record.expires_after is not None:
        expiry += f',"expires_after":{record.expires_after / 1_000_000}'
    return (
        f'"id":{compact(record.id)},"metadata":{record.metadata.lstrip(" ")}{_marker(metadata=record.metadata)},'
        f'"version":{record.version},"created_at":"{format_timestamp(record.created_at)}",'
        f'"updated_at":"{format_timestamp(record.updated_at)}","last_run_at":"{format_timestamp(record.last_run_at)}"{expiry}'
    )


def _write_run(record: RunRecord) -> str:
    output = f'"output":{record.output.lstrip(" ")},' if record.output else ""
    is_open = ',"is_open":true' if record.is_open else ""
    return (
        f'{{"position":{record.position},"id":{compact(record.id)},"created_at":"{format_timestamp(record.created_at)}",'
        f'"input":{record.input.lstrip(" ")},{output}"metadata":{record.metadata.lstrip(" ")}{is_open}'
        f"{_marker(input=record.input, output=record.output, metadata=record.metadata)}}}"
    )


def _marker(**texts: str) -> str:
    """Name the texts that `memory.domain.values.encode` marked by a leading space, which a line does not keep."""
    names = sorted(name for name, text in texts.items() if text[:1] == " ")
    return f',"byte_strings":{compact(names)}' if names else ""
