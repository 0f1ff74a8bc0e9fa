"""Conversations written as lines."""

import json
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import cast

from memory.domain import ConversationRecord, Run, RunRecord
from memory.moments import write_moment
from memory.query import Criterion
from memory.store import Store


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
