r"""Conversations as lines of JSON: `dump` writes them, `restore` brings them back exactly as they were.

One conversation a line, UTF-8, in one object::

    {"id": "42", "metadata": {"customer": "ada"}, "runs": [{"input": "Where?", "output": "Here.", "metadata": {}}]}

That much is enough to be read; ``metadata`` and ``runs`` can be left out too. What is written has all that a store
keeps:

==================  ===================================================================================================
of a conversation   ``version``, ``created_at``, ``updated_at``, ``expires_at`` (left out where it never expires) and
                    ``last_position``: given last, it is beyond the last run's if that run was removed
of a run            ``position``, beyond that of the run before (the next one, where left out), ``id``, ``created_at``
of both             ``byte_strings``: the names of those fields in which each string stands for its bytes, a character
                    a byte, in UTF-8 that also encodes surrogates. JSON cannot tell the two code points ``\ud83d`` and
                    ``\ude00`` from the one they make; a value with two such neighbours is written this way.
==================  ===================================================================================================

Times are ISO 8601, as ``2026-01-31T12:00:00.000000Z``. An unknown key is an error: what it means would be lost.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

from memory.changes import ALL_RUNS, Change, ChangeSet
from memory.domain import ConversationRecord, Run, RunRecord
from memory.errors import AlreadyExistsError, InvalidValueError
from memory.moments import read_microseconds, write_moment
from memory.query import Criterion
from memory.store import Store
from memory.values import Json, check_id, decode, encode, encode_parsed, new_id, now

if TYPE_CHECKING:
    from io import BufferedReader

OnConflict: TypeAlias = Literal["skip", "replace", "fail"]
"""What `restore` does with a conversation whose id is taken: leave the stored one, put this in its place, or stop."""

LONGEST_LINE: Final = 2**30
"""Bytes; a longer line is refused, for it has to be read whole."""

BROKEN_STREAM: Final = (OSError, EOFError, zlib.error)
"""What reading a stream raises where it breaks off, or where compressed data is damaged."""

_ToText: TypeAlias = Callable[[Json, str], str]

_BYTE_STRINGS: Final = ("input", "output", "metadata")  # the fields that can be written in byte strings
_GROUP_BYTES = (
    4_000_000  # one commit of `restore` has no more lines than these, no more runs, and no more conversations
)
_GROUP_RUNS = 5_000
_GROUP_CONVERSATIONS = 1_000
_GZIP_MAGIC = b"\x1f\x8b"
_CONVERSATION_KEYS: Final = frozenset(
    ["id", "metadata", "version", "created_at", "updated_at", "expires_at", "last_position", "byte_strings", "runs"]
)
_RUN_KEYS: Final = frozenset(["position", "id", "created_at", "input", "output", "metadata", "byte_strings"])


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


@dataclass(slots=True)
class Totals:
    """What `restore` has done so far; ``skipped`` conversations existed already, ``refused`` lines held none."""

    conversations: int = 0
    runs: int = 0
    skipped: int = 0
    refused: int = 0


def dump(store: Store, criterion: Criterion | None = None, *, order: str = "id") -> Iterator[str]:
    r"""Yield the text of all committed conversations that match, in pieces; a conversation's last piece ends its line.

    Memory is constant, whatever the number of conversations or of their runs. What is appended to a conversation after
    it was read is left out of its line.

    Raises:
        InvalidValueError: the criterion or the order is none.

    >>> import memory
    >>> store = memory.connect("memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    >>> "".join(dump(store))  # doctest: +ELLIPSIS
    '{"id":"support-42","metadata":{},"version":1,"created_at":"...Z","updated_at":"...Z","last_position":0,"runs":[]}\n'
    """
    with store.begin() as uow:
        for conversation in uow.conversations.iterate(criterion, order=order):
            record = cast("ConversationRecord", conversation.record)
            # A unit of work remembers whose runs it has read; one for each conversation forgets it again.
            with store.begin() as reading:
                yield from write_line(record, reading.runs.iterate(conversation.id))


def write_line(record: ConversationRecord, runs: Iterable[Run]) -> Iterator[str]:
    """Yield a conversation's line in pieces, with these of its runs, as far as the record knows of them."""
    yield f'{{{write_head(record)},"last_position":{record.last_position},"runs":['
    comma = ""
    for run in known_runs(record, runs):
        yield comma + _write_run(run.to_record(cast("int", run.position)))
        comma = ","
    yield "]}\n"


def known_runs(record: ConversationRecord, runs: Iterable[Run]) -> Iterator[Run]:
    """Yield the runs that were there when a conversation's record was read, and none that was appended since."""
    return takewhile(lambda run: cast("int", run.position) <= record.last_position, runs)


def write_head(record: ConversationRecord) -> str:
    """Return the members of a line's object that tell of the conversation itself, without braces."""
    expiry = "" if record.expires_at is None else f',"expires_at":"{write_moment(record.expires_at)}"'
    return (
        f'"id":{json.dumps(record.id)},"metadata":{record.metadata.lstrip(" ")}{_marker(metadata=record.metadata)},'
        f'"version":{record.version},"created_at":"{write_moment(record.created_at)}",'
        f'"updated_at":"{write_moment(record.updated_at)}"{expiry}'
    )


def _write_run(record: RunRecord) -> str:
    return (
        f'{{"position":{record.position},"id":{json.dumps(record.id)},"created_at":"{write_moment(record.created_at)}",'
        f'"input":{record.input.lstrip(" ")},"output":{record.output.lstrip(" ")},'
        f'"metadata":{record.metadata.lstrip(" ")}'
        f"{_marker(input=record.input, output=record.output, metadata=record.metadata)}}}"
    )


def _marker(**texts: str) -> str:
    """Name the texts that `memory.values.encode` marked by a leading space, which is lost inside of a line."""
    names = sorted(name for name, text in texts.items() if text[0] == " ")
    return f',"byte_strings":{json.dumps(names)}' if names else ""


def uncompressed(stream: "BufferedReader[Any]") -> IO[bytes]:
    """Return the stream of what this one holds: itself, or what gzip compressed in it, told by the first bytes."""
    return cast("IO[bytes]", gzip.open(stream)) if stream.peek(2)[:2] == _GZIP_MAGIC else stream


def read_lines(stream: IO[bytes], *, longest: int = LONGEST_LINE) -> Iterator[Arrival | Refusal]:
    """Yield what each line of a stream holds, one by one; blank lines hold nothing.

    A stream that breaks off (compressed data that is cut or damaged, say) ends in a `Refusal`.
    """
    for number, line in split_lines(stream, longest=longest):
        if isinstance(line, Refusal):
            yield line
        else:
            yield _read(number, line)


def split_lines(stream: IO[bytes], *, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes | Refusal]]:
    """Yield the lines of a stream that are not blank, with their numbers; a `Refusal` for one that cannot be read."""
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(longest)
            if len(line) == longest and _skip_rest(stream, line):
                yield number, Refusal(number, f"the line is longer than {longest:,} bytes")
                continue
        except BROKEN_STREAM as error:
            yield number, broken_off(number, error)
            return
        if not line:
            return
        if not line.isspace():
            yield number, line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"")


def broken_off(number: int, error: Exception) -> Refusal:
    """Return the refusal of all that would follow in a stream that cannot be read on."""
    return Refusal(number, f"the input cannot be read on from here: {error}")


def _skip_rest(stream: IO[bytes], line: bytes) -> bool:
    skipped = False
    while line and not line.endswith(b"\n") and (line := stream.readline(2**20)):
        skipped = True
    return skipped


def _read(number: int, line: bytes) -> Arrival | Refusal:
    return read_json(number, line, lambda value: _read_conversation(value, now()))


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
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < ALL_RUNS:
        raise InvalidValueError(f"{name} must be an integer from {least} to {ALL_RUNS - 1}, not {value!r:.60}")
    return value


def _read_time(fields: dict[str, Json], name: str, default: int) -> int:
    return read_microseconds(fields[name], name) if name in fields else default


def restore(
    store: Store,
    lines: Iterable[Arrival | Refusal],
    *,
    on_conflict: OnConflict = "skip",
    on_refusal: Callable[[Refusal], object] = lambda _: None,
    progress: Callable[[Totals], object] = lambda _: None,
    totals: Totals | None = None,
) -> Totals:
    """Write the conversations that lines hold, each wholly or not at all, and go on after a line that holds none.

    Memory is constant: some megabytes of lines are written in one commit, in their order.

    Args:
        store: where to.
        lines: as `read_lines` yields them.
        on_conflict: ``"skip"``, ``"replace"`` or ``"fail"``, see `OnConflict`; an id that comes twice is
            taken the second time.
        on_refusal: called with each line that holds no conversation, or one that the store cannot keep.
        progress: called after each commit.
        totals: counts up, and is returned; a new one when left out. It tells what is written when this raises.

    Raises:
        InvalidValueError: ``on_conflict`` is something else.
        AlreadyExistsError: an id was taken and ``on_conflict`` is ``"fail"``; all lines before that one are written.
        PersistenceError: the store failed; what ``totals`` counts is written.
    """
    if on_conflict not in get_args(OnConflict):
        raise InvalidValueError(f"on_conflict must be one of {', '.join(get_args(OnConflict))}, not {on_conflict!r}")
    totals = Totals() if totals is None else totals
    restoring = _Restoring(store, on_conflict, on_refusal, totals)
    groups = _groups(lines, restoring.refuse)
    for group in groups:
        restoring.write(group)
        group.clear()  # before the next one is read
        progress(totals)
    return totals


class _Restoring:
    """One call of `restore`."""

    def __init__(
        self, store: Store, on_conflict: OnConflict, on_refusal: Callable[[Refusal], object], totals: Totals
    ) -> None:
        self._store = store
        self._on_conflict = on_conflict
        self._on_refusal = on_refusal
        self._totals = totals

    def refuse(self, refusal: Refusal) -> None:
        self._totals.refused += 1
        self._on_refusal(refusal)

    def write(self, group: list[Arrival]) -> None:
        while group:
            try:
                self._store.commit(ChangeSet.of(map(self._change, group), now()))
            except AlreadyExistsError:
                group = self._without_taken(group)
            except InvalidValueError as error:
                group = self._without_invalid(group, error)
            else:
                self._totals.conversations += len(group)
                self._totals.runs += sum(len(arrival.change.append) for arrival in group)
                return

    def _without_invalid(self, group: list[Arrival], error: InvalidValueError) -> list[Arrival]:
        """Write one half and return the other, to find what the store cannot keep; refuse it when it is found."""
        if len(group) == 1:
            self.refuse(Refusal(group[0].number, str(error)))
            return []
        half = len(group) // 2
        self.write(group[:half])
        return group[half:]

    def _change(self, arrival: Arrival) -> Change:
        return replace(arrival.change, remove=True) if self._on_conflict == "replace" else arrival.change

    def _without_taken(self, group: list[Arrival]) -> list[Arrival]:
        with self._store.begin() as uow:
            taken = {arrival.change.id for arrival in group if arrival.change.id in uow.conversations}
        free = [arrival for arrival in group if arrival.change.id not in taken]
        if self._on_conflict == "fail" and taken:
            first = next(arrival for arrival in group if arrival.change.id in taken)
            self.write([arrival for arrival in free if arrival.number < first.number])
            raise AlreadyExistsError(f"line {first.number}: conversation {first.change.id!r} exists already")
        self._totals.skipped += len(group) - len(free)
        return free


def _groups(lines: Iterable[Arrival | Refusal], refuse: Callable[[Refusal], None]) -> Iterator[list[Arrival]]:
    """Gather what can be written in one commit: not too much, and no id twice."""
    group: list[Arrival] = []
    ids: set[str] = set()
    size = runs = 0
    for line in lines:
        if isinstance(line, Refusal):
            refuse(line)
            continue
        size += line.size
        runs += len(line.change.append)
        is_full = size > _GROUP_BYTES or runs > _GROUP_RUNS or len(group) == _GROUP_CONVERSATIONS
        if group and (is_full or line.change.id in ids):
            yield group
            group, ids, size, runs = [], set(), line.size, len(line.change.append)
        group.append(line)
        ids.add(line.change.id)
    if group:
        yield group
