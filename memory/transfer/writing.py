"""Conversations written as lines."""

import json
from collections.abc import Iterable, Iterator

from memory.domain import Conversation, ConversationRecord, RunRecord
from memory.moments import write_moment
from memory.query import Criterion
from memory.store import Store
from memory.transfer.states import whole


def dump(store: Store, criterion: Criterion | None = None, *, order: str = "id") -> Iterator[str]:
    r"""Yield the text of all committed conversations that match, in pieces; a conversation's last piece ends its line.

    Each line is one state of its conversation, whatever others write meanwhile; one that is removed meanwhile is left out.
    Memory is constant, whatever the number of conversations or of their runs.

    Raises:
        InvalidValueError: the criterion or the order is none.
        CorruptRecordError: a conversation cannot be read.
        PersistenceError: the store failed, or a conversation was changed faster than it could be read.

    >>> import memory
    >>> store = memory.connect("memory://")
    >>> with store.begin() as uow:
    ...     uow.conversations.add(memory.Conversation("support-42"))
    >>> "".join(dump(store))  # doctest: +ELLIPSIS
    '{"id":"support-42","metadata":{},"version":1,"created_at":"...Z","updated_at":"...Z","last_position":0,"runs":[]}\n'
    """
    with store.begin() as uow:
        for conversation in uow.conversations.iterate(criterion, order=order):
            with whole(store, conversation.id, conversation.record) as read:
                if read is not None and (read.record is conversation.record or _still_matches(criterion, read.record)):
                    yield from write_line(*read)


def _still_matches(criterion: Criterion | None, record: ConversationRecord) -> bool:
    return criterion is None or criterion.matches(Conversation.from_record(record))


def write_line(record: ConversationRecord, runs: Iterable[RunRecord]) -> Iterator[str]:
    """Yield a conversation's line in pieces, with these runs."""
    yield f'{{{write_head(record)},"last_position":{record.last_position},"runs":['
    comma = ""
    for run in runs:
        yield comma + _write_run(run)
        comma = ","
    yield "]}\n"


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
