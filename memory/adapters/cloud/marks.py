"""What we write beside a thread's and a message's own fields, under one reserved key of their metadata.

It is a text, so that no service changes a number in it, sorts its keys or merges it with what was there before.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

from memory.adapters.cloud.gaps import Gaps
from memory.adapters.cloud.http import Fields
from memory.domain.values import Json, compact, to_microseconds
from memory.port.changes import ALL_RUNS

RESERVED: Final = "conversation_memory"
"""The key in the metadata of threads and messages that is ours."""

RUN_ID: Final = "run_id"
"""The key in a message's metadata where Griptape keeps the run's id."""

JSON_TEXT: Final = "json"
ARTIFACT: Final = "artifact"
_FORMS: Final = {form: form for form in (None, JSON_TEXT, ARTIFACT)}

UNREADABLE: Final = (LookupError, TypeError, ValueError, RecursionError)
"""What reading our own text raises where it is damaged."""

_FORMAT: Final = 1
_TOKENS_KEPT: Final = 8
_LARGEST_PLAIN: Final = 2**63
_FIRST_MOMENT: Final = to_microseconds(datetime.min.replace(tzinfo=UTC), "the first moment")
_LAST_MOMENT: Final = to_microseconds(datetime.max.replace(tzinfo=UTC), "the last moment")

T = TypeVar("T")


class Outcome(NamedTuple):
    """What a commit made of a conversation: kept beside its token, for one that comes again."""

    token: str
    version: int
    run_count: int
    last_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Our bookkeeping of one thread.

    Attributes:
        version, created_at, updated_at, expires_at: of the conversation, exactly.
        text: of its metadata; what stands beside is a copy for others to read.
        count: how many runs there were when this was written: if there are as many still, ``updated_at`` holds.
        gaps: the positions that have no run.
        hidden: ids of messages that are being deleted: they do not count any more.
        open: the token of a change set that is written in part.
        outcomes: of the change sets written last.
        place: namespace and id, where the alias is only their digest.
    """

    version: int
    created_at: int
    updated_at: int
    expires_at: int | None = None
    text: str = "{}"
    count: int = 0
    gaps: Gaps = ()
    hidden: tuple[str, ...] = ()
    open: str | None = None
    outcomes: tuple[Outcome, ...] = ()
    place: tuple[str, str] | None = None

    def outcome(self, token: str) -> Outcome | None:
        """Return what a change set made of this conversation, if it is one of the last."""
        return next((outcome for outcome in self.outcomes if outcome.token == token), None)

    def closed(self, token: str, run_count: int, last_position: int) -> "Book":
        """Return this with a change set written completely."""
        outcome = Outcome(token, self.version, run_count, last_position)
        others = [one for one in self.outcomes if one.token != token]
        return replace(self, open=None, hidden=(), outcomes=(*others, outcome)[-_TOKENS_KEPT:])

    def dump(self) -> str:
        """Return the text that is kept."""
        return compact(
            {
                "format": _FORMAT,
                **{name: getattr(self, name) for name in self.__slots__ if getattr(self, name) not in (None, ())},
            }
        )

    @classmethod
    def load(cls, metadata: Fields) -> "Book | None":
        """Return the bookkeeping of a thread; None where there is none. One of `UNREADABLE` where it cannot be read."""
        fields = _load(metadata)
        if fields is None:
            return None
        place = fields.get("place")
        return cls(
            version=_count(fields["version"]),
            created_at=_moment(fields["created_at"]),
            updated_at=_moment(fields["updated_at"]),
            expires_at=None if fields.get("expires_at") is None else _moment(fields["expires_at"]),
            text=_is(str, fields["text"]),
            count=_count(fields["count"] + 1) - 1,  # -1: never counted
            gaps=_gaps(fields.get("gaps", ())),
            hidden=tuple([_is(str, one) for one in fields.get("hidden", ())]),
            open=None if fields.get("open") is None else _is(str, fields["open"]),
            outcomes=tuple([Outcome(_is(str, one[0]), *map(_count, one[1:])) for one in fields.get("outcomes", ())]),
            place=None if place is None else (_is(str, place[0]), _is(str, place[1])),
        )


class Mark(NamedTuple):
    """What we keep of one run beside its message.

    Attributes:
        token: of the change set that wrote it.
        number: which of its runs this is: with the token, what tells a run that was sent twice.
        position: what its writer took for its position; less than the true one if others appended at the same moment.
        created_at: the run's, exactly.
        text: of its metadata.
        input, output: how the message has them, if not as plain text: one of `JSON_TEXT`, `ARTIFACT`.
    """

    token: str
    number: int
    position: int
    created_at: int
    text: str
    input: str | None = None
    output: str | None = None

    def dump(self) -> str:
        """Return the text that is kept."""
        fields = {name: value for name, value in self._asdict().items() if value is not None}
        if self.text == "{}":
            del fields["text"]
        return compact({"format": _FORMAT, **fields})

    @classmethod
    def load(cls, metadata: Fields) -> "Mark | None":
        """Return the mark of a message; None where there is none. One of `UNREADABLE` where it cannot be read."""
        fields = _load(metadata)
        if fields is None:
            return None
        return cls(
            _is(str, fields["token"]),
            _is(int, fields["number"]),
            _count(fields["position"]),
            _moment(fields["created_at"]),
            _is(str, fields.get("text", "{}")),
            _FORMS[fields.get("input")],
            _FORMS[fields.get("output")],
        )


def plain(metadata: dict[str, Json], *taken: str) -> Fields:
    """Return the part of a metadata dict that others can read as it is: what JSON carries through any service.

    Args:
        metadata: the user's.
        taken: keys that have another meaning there.
    """
    return {
        key: value
        for key, value in metadata.items()
        if key != RESERVED and key not in taken and is_plain(key) and is_plain(value)
    }


def is_plain(value: Json) -> bool:
    """Tell whether every service takes this: no NUL, no lone surrogate, no integer beyond 64 bits."""
    if isinstance(value, str):
        return "\x00" not in value and (value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value))
    if isinstance(value, list):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(one) for key, one in value.items())
    return not isinstance(value, int) or -_LARGEST_PLAIN <= value < _LARGEST_PLAIN


def _load(metadata: Fields) -> Fields | None:
    if RESERVED not in metadata:
        return None
    fields = json.loads(metadata[RESERVED])
    if fields["format"] != _FORMAT:
        raise ValueError(f"format {fields['format']!r}")
    return _is(dict, fields)


def _is(kind: type[T], value: Any) -> T:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _count(value: Any) -> int:
    if not 0 <= _is(int, value) <= ALL_RUNS:
        raise ValueError(f"{value} is no count")
    return _is(int, value)


def _gaps(value: Any) -> Gaps:
    gaps = tuple([(_count(first), _count(last)) for first, last in value])
    bounds = [0, *[bound for first, last in gaps for bound in (first, last + 1)]]
    if any(before >= after for before, after in pairwise(bounds)):
        raise ValueError(f"{gaps} do not rise")
    return gaps


def _moment(value: Any) -> int:
    if not _FIRST_MOMENT <= _is(int, value) <= _LAST_MOMENT:
        raise ValueError(f"{value} lies outside the years 1 to 9999")
    return _is(int, value)
