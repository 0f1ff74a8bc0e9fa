"""Build the changes that `memory.transfer.restore` writes."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, encode_metadata
from memory.domain.timestamps import parse_microseconds
from memory.domain.values import LAST_TIME, Json, check_id, first_id, to_datetime
from memory.errors import InvalidValueError
from memory.formats import extras
from memory.formats.texts import has_text
from memory.formats.turns import Message, rest_of, turns, values_of
from memory.port.changes import Change

_SCALES: Final = ((10**11, 10**6), (10**14, 10**3), (10**17, 1))
"""Numbers below these limits are seconds, milliseconds and microseconds; above them, nanoseconds."""

_NANOSECOND: Final = Fraction(1, 1000)

_TIMES: Final = ("created_at", "create_time", "createdAt", "created", "timestamp", "time", "date")


@dataclass(frozen=True, slots=True)
class Draft:
    """A conversation of another program: its messages, in order, and what it says about itself.

    Attributes:
        messages: the messages of the branch that was shown last.
        id: its own id; if it is None or not valid, the conversation gets another.
        metadata: what becomes metadata under these names.
        rest: what is kept beside it in the metadata, under the format's key.
        created_at: as the program writes times; by default the time of the first message.
        updated_at: likewise; by default the time of the last message.
        branches: nodes of other branches, by the index of the message where their branch forks.
    """

    messages: Sequence[Message]
    id: Json = None
    metadata: dict[str, Json] = field(default_factory=dict)
    rest: dict[str, Json] = field(default_factory=dict)
    created_at: Json = None
    updated_at: Json = None
    branches: Mapping[int, list[Json]] = field(default_factory=dict)


def build(key: str, draft: Draft, id: str, at: int, *, plain: Callable[[Run], list[Json]] | None = None) -> Change:
    """Return the change that creates the conversation of a draft. Its runs have the same ids whenever it is built.

    Args:
        key: the format's key in the metadata of the conversation and of its runs.
        draft: the conversation.
        id: its id, if it has none of its own.
        at: its time in microseconds since 1970, if it has none of its own.
        plain: returns the messages that a run stands for by itself; beside such a run nothing is kept.

    Raises:
        InvalidValueError: its messages have texts, but none is a question or an answer.
    """
    messages = draft.messages
    times = [time for message in messages if (time := microseconds(message.at, -1)) >= 0]
    created_at = microseconds(draft.created_at, min(times, default=at))
    updated_at = microseconds(draft.updated_at, max([created_at, *times]))
    runs: list[Run] = []
    for turn in turns([message.role for message in messages]):
        part = messages[turn.start : turn.stop]
        asked = next((message for message in part if message.role == "question"), part[0])
        made_at = next((time for each in (asked, *part) if (time := microseconds(each.at, -1)) >= 0), created_at)
        branches = [node for index in turn for node in draft.branches.get(index, [])]
        run = Run(*values_of(part), {}, first_id(asked.id) or f"{len(runs) + 1}", to_datetime(made_at))
        if branches or plain is None or not _is_same(plain(run), [message.whole for message in part]):
            run.metadata[key] = {**rest_of(part), **({"branches": branches} if branches else {})}
        runs.append(run)
    _check_values(runs, messages)
    metadata = extras.join(draft.metadata, key, draft.rest)
    return conversation(first_id(draft.id) or id, metadata, runs, created_at, updated_at)


def _is_same(one: list[Json], other: list[Json]) -> bool:
    return json.dumps(one) == json.dumps(other)  # unlike `==`, distinguishes 1 from True, and the order of keys


def _check_values(runs: Sequence[Run], messages: Sequence[Message]) -> None:
    """Refuse a conversation that would be stored as if nothing had been said in it."""
    if any(run.input is not None or run.output is not None for run in runs):
        return
    if any(has_text(message.whole) for message in messages):
        raise InvalidValueError(f"its {len(messages)} messages have texts, but there is no question and no answer")


def digest(value: Json) -> str:
    """Return an id for a value without one: the same for the same value, wherever it stands in a file.

    >>> digest([{"role": "user", "content": "Hi"}])
    'c5477e859d73a158'
    """
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def conversation(
    id: Json, metadata: dict[str, Json], runs: Sequence[Run], created_at: int, updated_at: int | None = None
) -> Change:
    """Return the change that creates a conversation with these runs, at positions from 1."""
    id_ = check_id(id, "id")
    records = tuple([run.to_record(position) for position, run in enumerate(runs, 1)])
    record = ConversationRecord(
        id=id_,
        metadata=encode_metadata(metadata),
        version=1,
        incarnation="",
        run_count=len(records),
        last_position=len(records),
        created_at=created_at,
        updated_at=created_at if updated_at is None else updated_at,
        expires_at=None,
    )
    return Change(id_, create=record, append=records)


def time_of(value: Any) -> Json:
    """Return the time under the first of the keys by which programs name it; None if there is none.

    >>> time_of({"role": "user", "content": "Hi", "timestamp": 1700000000})
    1700000000
    """
    return (
        next((value[name] for name in _TIMES if value.get(name) is not None), None) if isinstance(value, dict) else None
    )


def microseconds(time: Json, default: int) -> int:
    """Convert a time to microseconds since 1970; return the default if the value is not a valid time.

    A time is a number, or the text of one, of seconds, milliseconds, microseconds or nanoseconds since 1970, or ISO 8601.

    >>> microseconds(1700000000.25, 0), microseconds(1700000000250, 0), microseconds("2023-11-14T22:13:20.25Z", 0)
    (1700000000250000, 1700000000250000, 1700000000250000)
    >>> microseconds("yesterday", 7)
    7
    """
    if isinstance(time, str):
        try:
            return max(parse_microseconds(time, "time"), 0)
        except InvalidValueError:
            try:
                time = float(time)
            except ValueError:
                return default
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 10**20:
        return default
    scale = next((factor for limit, factor in _SCALES if time < limit), _NANOSECOND)
    return min(round(time * scale), LAST_TIME)
