"""Conversion of conversations and runs to the service's threads and messages, and back.

Threads and messages carry an *envelope*: the exact record, as a JSON string under one key of their metadata. A service cannot
round numbers, sort keys or merge objects inside a string, so we read back exactly what we wrote.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote, unquote

from memory.adapters.cloud.http import Fields, member, whole
from memory.domain.entities import PENDING, Run
from memory.domain.records import ConversationRecord, RunRecord, check_record, check_run, decode_metadata, decode_object
from memory.domain.values import Json, check_id, compact, decode, encode, first_id, to_datetime, to_microseconds
from memory.errors import CorruptRecordError, InvalidValueError, PersistenceError
from memory.port.changes import Change

LONGEST: Final = 200
"""The maximum length of an alias or a name, in characters."""

DEFAULT_NAMESPACE: Final = "default"
"""The namespace whose aliases have no prefix, so that a thread created by Griptape is a conversation in it."""

_DIGEST: Final = re.compile(r"(^|/)\*[0-9a-f]{64}$")

RESERVED: Final = "conversation_memory"  # our key in the metadata of threads and messages
RUN_ID: Final = "run_id"  # the key of a message's metadata under which Griptape stores the run's id
# The errors that reading a damaged envelope raises:
UNREADABLE: Final = (LookupError, TypeError, ValueError, RecursionError, PersistenceError)
_FORMAT: Final = 1
_NOT_PLAIN: Final = re.compile(r"[0-9]{19}|\\u0000")


def alias_of(namespace: str, conversation_id: str) -> str:
    """Return the alias of the thread that this package creates for a conversation.

    >>> alias_of("default", "support-42"), alias_of("tenant a", "50%/x")
    ('support-42', 'tenant%20a/50%25%2Fx')
    """
    prefix = "" if namespace == DEFAULT_NAMESPACE else f"{quote(namespace, safe=':@')}/"
    alias = prefix + quote(conversation_id, safe=":@")
    if len(alias) <= LONGEST:
        return alias
    # Quoting escapes "*", so only a digest starts with it. Ids contain no newline, so no two pairs share a digest.
    digest = "*" + sha256(f"{namespace}\n{conversation_id}".encode()).hexdigest()
    return (prefix if len(prefix + digest) <= LONGEST else "") + digest


def place_of(alias: str) -> tuple[str, str] | None:
    """Return the namespace and id of an alias; None if it contains only a digest, or no valid conversation can have it."""
    if _DIGEST.search(alias) or len(alias) > LONGEST:
        return None
    namespace, slash, conversation_id = alias.rpartition("/")
    place = unquote(namespace) if slash else DEFAULT_NAMESPACE, unquote(conversation_id)
    try:
        if alias_of(*place) != alias:  # not our encoding: another program's alias, which becomes the id
            place = DEFAULT_NAMESPACE, alias
        return check_id(place[0], "namespace"), check_id(place[1], "id")
    except (InvalidValueError, UnicodeEncodeError):
        return None


class ThreadEnvelope(NamedTuple):
    """The exact state of a conversation, stored in its thread.

    ``record`` is the state after the commit that wrote it. While the thread has ``run_count`` messages, the record's times
    apply; otherwise runs were appended later, and the thread's own time applies. ``token`` identifies the change set that
    created the thread; ``place`` is the namespace and id, because the alias may contain only their digest. No run before the
    position ``open_from`` is open; 0 if no run is.
    """

    record: ConversationRecord
    token: str | None = None
    place: tuple[str, str] | None = None
    open_from: int = 0

    @classmethod
    def load(cls, metadata: Fields) -> Self:
        """Return the envelope in a thread's metadata."""
        record, *others = _load(metadata)
        if len(record) < len(ConversationRecord._fields):  # written before there were expires_after and last_run_at
            record = [*record, None, record[7]]
        one = cls(ConversationRecord(*record), *others)
        for position in (one.record.last_position, one.open_from):
            check_record(one.record._replace(last_position=position))
        return one._replace(place=one.place and (str(one.place[0]), str(one.place[1])))


class MessageEnvelope(NamedTuple):
    """The exact state of a run, stored in its message.

    ``token`` (of the change set) and ``number`` (of the run in it) identify a run if the response to its append was lost.
    ``run`` is the record without input and output, at the position that the writer expected: the message's rank in the thread
    plus ``shift``. If other writers appended runs first, the rank is higher, and the actual position is rank plus ``shift``.
    """

    token: str
    number: int
    run: RunRecord
    shift: int = 0
    input_is_json: bool = True
    output_is_json: bool = True

    @classmethod
    def load(cls, metadata: Fields) -> Self:
        """Return the envelope in a message's metadata."""
        one = cls(*_load(metadata))
        one = one._replace(run=RunRecord(*one.run))
        for position in (one.run.position, one.shift):
            check_run(one.run._replace(position=position), "the run")
        return one


def dump(envelope: ThreadEnvelope | MessageEnvelope) -> str:
    """Return the string that an envelope is stored as."""
    return compact([_FORMAT, *envelope])


def _load(metadata: Fields) -> list[Any]:
    fields: list[Any]
    format, *fields = json.loads(metadata[RESERVED])
    if format != _FORMAT:
        raise ValueError(f"format {format!r}")
    return fields


def plain(metadata: dict[str, Json], *taken: str) -> Fields:
    """Return the metadata that other programs can read: the items that every service stores, without the ``taken`` keys."""
    taken = RESERVED, *taken
    return {key: value for key, value in metadata.items() if key not in taken and is_plain({key: value})}


def is_plain(value: Json) -> bool:
    """Return whether every service accepts this value: it has no NUL, lone surrogate, or integer of more than 64 bits."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return _NOT_PLAIN.search(text) is None


@dataclass(frozen=True)
class Thread:
    """A thread as returned by the service."""

    id: str
    alias: str
    name: str
    metadata: Fields
    count: int
    created_at: int
    updated_at: int

    @cached_property
    def envelope(self) -> ThreadEnvelope | None:
        """Our envelope, or None if another program created the thread. It is parsed lazily, so damage fails only its readers."""
        try:
            return ThreadEnvelope.load(self.metadata) if RESERVED in self.metadata else None
        except UNREADABLE as error:
            raise CorruptRecordError(f"our envelope in thread {self.id} ({self.alias!r}) cannot be read") from error

    @cached_property
    def place(self) -> tuple[str, str] | None:
        """The namespace and id of the thread's conversation, or None if the thread is not a conversation."""
        if self.alias == self.id:  # a service may return the id for a thread without an alias (A8)
            return None
        if (place := place_of(self.alias)) is not None:
            return place
        written = self.envelope and self.envelope.place
        return written if written and alias_of(*written) == self.alias else None

    @cached_property
    def state(self) -> ThreadEnvelope:
        """Our envelope, or an equivalent one for a thread that another program created."""
        text = encode(self.metadata, "metadata") if self.envelope is None else ""
        times = self.created_at, self.updated_at, None
        return self.envelope or ThreadEnvelope(ConversationRecord("", text, 1, "", -1, -1, *times))

    @property
    def missing(self) -> int:
        """The number of positions without a run."""
        return self.state.record.last_position - self.state.record.run_count

    def record(self, conversation_id: str) -> ConversationRecord:
        """Return the conversation's record. The thread contains all of it, so lists need no further requests."""
        record = self.state.record
        if (
            self.count != record.run_count
        ):  # appends leave the envelope alone: the thread's time is that of the last one
            at = self.updated_at
            appended = Change(conversation_id, append=(RunRecord(0, "", "", "", "", at),))
            record = appended.applied(record, self.count, self.count + self.missing, at)
        return record._replace(id=conversation_id, incarnation=self.id)  # the service never reuses a thread's id

    def metadata_with(self, envelope: ThreadEnvelope) -> Fields:
        """Return the thread's metadata with another envelope; keys that other programs have set are preserved."""
        ours = plain(decode_metadata(self.state.record.metadata, f"the metadata of thread {self.id}"))
        return {key: value for key, value in self.metadata.items() if key not in ours} | thread_metadata(envelope)


@dataclass(frozen=True)
class Message:
    """A message as returned by the service; ``envelope`` is None if another program wrote it."""

    id: str
    thread_id: str
    index: int
    input: str
    output: str
    metadata: Fields
    created_at: int
    envelope: MessageEnvelope | None

    @property
    def is_open(self) -> bool:
        return self.envelope is not None and self.envelope.run.is_open


def read_thread(fields: object) -> Thread:
    """Parse a thread in a response; raise `CorruptRecordError` if it is malformed."""
    id_ = member(fields, "thread_id", str, "a thread of the service")
    what = f"thread {id_}"
    return Thread(
        id_,
        member(fields, "alias", str | None, what) or "",
        member(fields, "name", str, what),
        member(fields, "metadata", dict | None, what) or {},
        whole(fields, "message_count", what),
        _microseconds(fields, "created_at", what),
        _microseconds(fields, "updated_at", what),
    )


def read_message(fields: object, thread_id: str) -> Message:
    """Parse a message of a thread in a response; raise `CorruptRecordError` if it is malformed."""
    id_ = member(fields, "message_id", str, f"a message of thread {thread_id}")
    what = f"message {id_} of thread {thread_id}"
    metadata = member(fields, "metadata", dict | None, what) or {}
    if member(fields, "thread_id", str, what) != thread_id:
        raise CorruptRecordError(f"the service answered for thread {thread_id} with a message of another thread")
    try:
        envelope = MessageEnvelope.load(metadata) if RESERVED in metadata else None
    except UNREADABLE as error:
        raise CorruptRecordError(f"our envelope in {what} cannot be read") from error
    texts = member(fields, "input", str, what), member(fields, "output", str, what)
    index, created_at = whole(fields, "index", what), _microseconds(fields, "created_at", what)
    return Message(id_, thread_id, index, *texts, metadata, created_at, envelope)


def _microseconds(fields: object, name: str, what: str) -> int:
    """Return a time in a response as microseconds since 1970; a time without a time zone is UTC."""
    try:
        moment = datetime.fromisoformat(member(fields, name, str, what))
        return to_microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC), name)
    except ValueError as error:
        raise CorruptRecordError(f"the {name} of {what} is not a time") from error


def thread_metadata(envelope: ThreadEnvelope) -> Fields:
    """Return the metadata of a new thread: a readable copy of the conversation's metadata, and our envelope."""
    return {**plain(decode_metadata(envelope.record.metadata, "the metadata to be written")), RESERVED: dump(envelope)}


def message_body(run: RunRecord, token: str, number: int, shift: int = 0) -> Fields:
    """Return the request body of the message for a run; for the arguments see `MessageEnvelope`."""
    input, output = _plain_string(run.input), _plain_string(run.output)
    envelope = MessageEnvelope(token, number, run._replace(input="", output=""), shift, input is None, output is None)
    texts = {"input": run.input if input is None else input, "output": run.output if output is None else output}
    metadata = {**plain(decode_object(run.metadata), RUN_ID), RUN_ID: run.id, RESERVED: dump(envelope)}
    return {**texts, "metadata": metadata}


def _plain_string(text: str) -> str | None:
    """Return the string that a JSON text encodes; None if it encodes another type, or not every service can store it."""
    value = decode(text) if text.startswith('"') else None
    return value if isinstance(value, str) and is_plain(value) else None


def run_of(message: Message, position: int) -> Run:
    """Return the run of a message, ours or another program's. Text that is no longer valid JSON is returned unchanged."""
    envelope = message.envelope
    id_ = first_id(message.metadata.get(RUN_ID), envelope and envelope.run.id, message.id[:255]) or "unknown"
    if envelope is None:
        others = {key: value for key, value in message.metadata.items() if key != RUN_ID}
        values = _foreign_value(message.input), _foreign_value(message.output)
        return Run(*values, others, id_, to_datetime(message.created_at), position)
    input = _decoded(message.input) if envelope.input_is_json else message.input
    output = _decoded(message.output) if envelope.output_is_json else message.output
    is_pending = envelope.run.is_open and envelope.output_is_json and not message.output
    what = f"the run's metadata in message {message.id} of thread {message.thread_id}"
    metadata = decode_metadata(envelope.run.metadata, what)
    created_at, is_open = to_datetime(envelope.run.created_at), envelope.run.is_open
    return Run(input, PENDING if is_pending else output, metadata, id_, created_at, position, is_open)


def _foreign_value(text: str) -> Json:
    """Return a value that another program wrote: a Griptape artifact as its serialized dict, anything else as a string."""
    value = _decoded(text) if text.startswith("{") else text
    return value if isinstance(value, dict) and isinstance(value.get("type"), str) else text


def _decoded(text: str) -> Json:
    """Decode a JSON text; return the text itself if it is not valid JSON, or its value cannot be encoded again."""
    try:
        value = decode(text)
        encode(value, "value")
    except (ValueError, RecursionError):
        return text
    return value
