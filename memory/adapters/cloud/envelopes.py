"""What we keep beside a thread's and a message's own fields: JSON as one *text* under one key of their metadata.

A service changes no number in a text, sorts no keys in it and merges it with nothing, so what we read is what we wrote.
"""

import json
import re
from typing import Any, Final, NamedTuple, Self

from memory.adapters.cloud.http import Fields
from memory.domain.records import ConversationRecord, RunRecord, check_record, check_run
from memory.domain.values import Json, compact
from memory.errors import PersistenceError

RESERVED: Final = "conversation_memory"  # our key in the metadata of threads and messages
RUN_ID: Final = "run_id"  # the key in a message's metadata under which Griptape keeps the run's id
JSON_TEXT, ARTIFACT = "json", "artifact"  # how a message holds a value that is not a plain text
# Raised by a damaged envelope:
UNREADABLE: Final = (LookupError, TypeError, ValueError, RecursionError, PersistenceError)
_FORMATS: Final = (1, 2)  # 1: older, with ranges of missing positions
_NOT_PLAIN: Final = re.compile(r"[0-9]{19}|\\u0000")


class ThreadEnvelope(NamedTuple):
    """The exact state of a conversation, in its thread.

    ``record`` is as it is once the commit that wrote it is complete. While the thread has ``run_count`` messages, its
    ``updated_at`` is the conversation's; otherwise runs were appended since, and the thread's own time is. ``token`` is of the
    change set that created the thread; ``place`` is the namespace and id where the alias is only their digest.
    """

    record: ConversationRecord
    token: str | None = None
    place: tuple[str, str] | None = None

    @classmethod
    def load(cls, metadata: Fields) -> Self | None:
        """Return the envelope in a thread's metadata; None if there is none."""
        if (fields := _load(metadata)) is None:
            return None
        if fields["format"] == 1:
            count, gaps = fields["count"], fields.get("gaps", ())
            counts = count, count + sum(last - first + 1 for first, last in gaps)
            times = fields["created_at"], fields["updated_at"], fields.get("expires_at")
            fields["record"] = "", fields["text"], fields["version"], "", *counts, *times
        record, place = ConversationRecord(*fields["record"]), fields.get("place")
        check_record(record)
        return cls(record, fields.get("token"), place and (str(place[0]), str(place[1])))


class MessageEnvelope(NamedTuple):
    """The exact state of a run, in its message.

    ``token`` and ``number`` find a run whose answer was lost: the change set that appended it, and which of its runs it is.
    ``run`` is the record without input and output, at the position the writer expected, which is ``shift`` positions after the
    last known run: if runs of others came in between, the message's rank plus ``shift`` is the true position. ``input`` and
    ``output`` say how the message holds them, if not as plain text: `JSON_TEXT` or `ARTIFACT`.
    """

    token: str
    number: int
    run: RunRecord
    input: str | None = None
    output: str | None = None
    shift: int = 0

    @classmethod
    def load(cls, metadata: Fields) -> Self | None:
        """Return the envelope in a message's metadata; None if there is none."""
        if (fields := _load(metadata)) is None:
            return None
        if fields["format"] == 1:
            fields["run"] = fields["position"], "", "", "", fields.get("text", "{}"), fields["created_at"]
        one = cls(**{name: fields[name] for name in cls._fields if name in fields})
        one = one._replace(run=RunRecord(*one.run))
        for number in (one.run.position, one.shift):
            check_run(one.run._replace(position=number), "the run")
        if not {one.input, one.output} <= {None, JSON_TEXT, ARTIFACT}:
            raise ValueError(f"{one.input!r}, {one.output!r}")
        return one


def dump(envelope: ThreadEnvelope | MessageEnvelope) -> str:
    """Return the text that is kept of an envelope."""
    fields = {name: value for name, value in envelope._asdict().items() if value is not None}
    return compact({"format": _FORMATS[-1], **fields})


def _load(metadata: Fields) -> Fields | None:
    if RESERVED not in metadata:
        return None
    fields: Any = json.loads(metadata[RESERVED])
    if fields["format"] not in _FORMATS:
        raise ValueError(f"format {fields['format']!r}")
    return dict(fields)


def plain(metadata: dict[str, Json], *taken: str) -> Fields:
    """Return the part of a metadata dict that any service keeps, for other programs; ``taken`` keys have another meaning."""
    taken = RESERVED, *taken
    return {key: value for key, value in metadata.items() if key not in taken and is_plain({key: value})}


def is_plain(value: Json) -> bool:
    """Return whether every service takes this value: no NUL, no lone surrogate, no integer beyond 64 bits."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return _NOT_PLAIN.search(text) is None
