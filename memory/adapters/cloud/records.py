"""What conversations and runs become in the service, and what the service's threads and messages are here."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

from memory.adapters.cloud.aliases import is_digest, place_of
from memory.adapters.cloud.envelopes import (
    ARTIFACT,
    JSON_TEXT,
    RESERVED,
    RUN_ID,
    UNREADABLE,
    MessageEnvelope,
    ThreadEnvelope,
    dump,
    is_plain,
    plain,
)
from memory.adapters.cloud.http import Fields, member, whole
from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, RunRecord, decode_metadata
from memory.domain.values import Json, compact, decode, encode, first_id, to_datetime, to_microseconds
from memory.errors import CorruptRecordError, InvalidValueError

Texts: TypeAlias = Literal["plain", "artifact"]
"""How a run's string is written: as it is, or as the TextArtifact that Griptape's own driver can load."""


@dataclass(frozen=True)
class Thread:
    """A thread as the service has it."""

    id: str
    alias: str
    name: str
    metadata: Fields
    count: int
    created_at: int
    updated_at: int

    @cached_property
    def envelope(self) -> ThreadEnvelope | None:
        """Our envelope, None if another program made the thread. Damage is an error only for whoever reads this thread."""
        try:
            return ThreadEnvelope.load(self.metadata)
        except UNREADABLE as error:
            raise CorruptRecordError(f"our envelope in thread {self.id} ({self.alias!r}) cannot be read") from error

    @cached_property
    def place(self) -> tuple[str, str] | None:
        """The namespace and id of the thread's conversation; None if it cannot be one."""
        if self.alias == self.id:  # how the service may show that there is no alias (A8)
            return None
        envelope = self.envelope if is_digest(self.alias) else None
        return place_of(self.alias, envelope and envelope.place)

    @cached_property
    def state(self) -> ThreadEnvelope:
        """Our envelope; for a thread of another program, what it would be."""
        text = encode(only_json(self.metadata), "metadata") if self.envelope is None else ""
        times = self.created_at, self.updated_at, None
        return self.envelope or ThreadEnvelope(ConversationRecord("", text, 1, "", -1, -1, *times))

    @property
    def missing(self) -> int:
        """How many positions of the conversation have no run."""
        return self.state.record.last_position - self.state.record.run_count

    def record(self, conversation_id: str) -> ConversationRecord:
        """Return the conversation, from the thread alone, as every list of the service has it."""
        record, count = self.state.record, self.count
        updated_at = record.updated_at if count == record.run_count else max(record.updated_at, self.updated_at)
        named = record._replace(id=conversation_id, incarnation=self.id)  # the service never gives a thread's id twice
        return named._replace(run_count=count, last_position=count + self.missing, updated_at=updated_at)

    def metadata_with(self, envelope: ThreadEnvelope) -> Fields:
        """Return the whole metadata for another envelope; what other programs keep there stays."""
        ours = plain(decode_metadata(self.state.record.metadata, f"the metadata of thread {self.id}"))
        return {key: value for key, value in self.metadata.items() if key not in ours} | thread_metadata(envelope)


@dataclass(frozen=True)
class Message:
    """A message as the service has it; ``envelope`` is None if another program wrote it."""

    id: str
    thread_id: str
    index: int
    input: str
    output: str
    metadata: Fields
    created_at: int
    envelope: MessageEnvelope | None

    def position(self, rank: int, missing: int) -> int:
        """Return the run's position; ``rank`` counts the thread's messages from 1, ``missing`` the positions without a run."""
        if self.envelope is None:
            return rank + missing
        return max(self.envelope.run.position, rank + self.envelope.shift)


def read_thread(fields: object, asked: str | None = None) -> Thread:
    """Return the thread in an answer; raise `CorruptRecordError` if there is none, or not the one that was asked for."""
    id_ = member(fields, "thread_id", str, "a thread of the service")
    what = f"thread {id_}"
    if asked not in (None, id_):
        raise CorruptRecordError(f"the service answered for thread {asked} with {what}")
    return Thread(
        id_,
        member(fields, "alias", str | None, what) or "",
        member(fields, "name", str, what),
        member(fields, "metadata", dict | None, what) or {},
        whole(fields, "message_count", what),
        _microseconds(fields, "created_at", what),
        _microseconds(fields, "updated_at", what),
    )


def read_message(fields: object, thread_id: str, asked: str | None = None) -> Message:
    """Return the message of a thread in an answer; raise `CorruptRecordError` if there is none, or not the one asked for."""
    id_ = member(fields, "message_id", str, f"a message of thread {thread_id}")
    what = f"message {id_} of thread {thread_id}"
    metadata = member(fields, "metadata", dict | None, what) or {}
    if member(fields, "thread_id", str, what) != thread_id or asked not in (None, id_):
        raise CorruptRecordError(f"the service answered for message {asked} of thread {thread_id} with another message")
    try:
        envelope = MessageEnvelope.load(metadata)
    except UNREADABLE as error:
        raise CorruptRecordError(f"our envelope in {what} cannot be read") from error
    texts = member(fields, "input", str, what), member(fields, "output", str, what)
    index, created_at = whole(fields, "index", what), _microseconds(fields, "created_at", what)
    return Message(id_, thread_id, index, *texts, metadata, created_at, envelope)


def _microseconds(fields: object, name: str, what: str) -> int:
    """Return a time of an answer in microseconds since 1970; without a time zone it is UTC."""
    try:
        moment = datetime.fromisoformat(member(fields, name, str, what))
        return to_microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC), name)
    except ValueError as error:
        raise CorruptRecordError(f"{what} has no {name} that is a time") from error


def thread_metadata(envelope: ThreadEnvelope) -> Fields:
    """Return the metadata of a new thread: a readable copy of the user's, and our envelope."""
    return {**plain(decode_metadata(envelope.record.metadata, "the metadata to be written")), RESERVED: dump(envelope)}


def message_body(run: RunRecord, token: str, number: int, shift: int, texts: Texts) -> Fields:
    """Return the message that a run at its position becomes; see `MessageEnvelope`."""
    input_, input_form = _written_text(run.input, f"{run.id}-input", texts)
    output, output_form = _written_text(run.output, f"{run.id}-output", texts)
    envelope = MessageEnvelope(token, number, run._replace(input="", output=""), input_form, output_form, shift)
    beside = plain(cast("dict[str, Json]", decode(run.metadata)), RUN_ID)
    return {"input": input_, "output": output, "metadata": {**beside, RUN_ID: run.id, RESERVED: dump(envelope)}}


def run_of(message: Message, position: int) -> Run:
    """Return the run that a message is, whoever wrote it; a text that another program has edited is returned as it is."""
    envelope = message.envelope
    id_ = first_id(message.metadata.get(RUN_ID), envelope and envelope.run.id, message.id[:255]) or "unknown"
    if envelope is None:
        others = {key: value for key, value in message.metadata.items() if key != RUN_ID}
        values = _foreign_value(message.input), _foreign_value(message.output)
        return Run(*values, only_json(others), id_, to_datetime(message.created_at), position)
    values = _read_value(message.input, envelope.input), _read_value(message.output, envelope.output)
    what = f"the run's metadata in message {message.id} of thread {message.thread_id}"
    metadata = decode_metadata(envelope.run.metadata, what)
    return Run(*values, metadata, id_, to_datetime(envelope.run.created_at), position)


def _written_text(text: str, name: str, texts: Texts) -> tuple[str, str | None]:
    """Return what a message holds for a value's text, and in which form."""
    value = decode(text) if text.startswith('"') else None
    if not isinstance(value, str) or not is_plain(value):
        return text, JSON_TEXT
    if texts == "plain":
        return value, None
    artifact: Fields = {"type": "TextArtifact", "id": name, "reference": None, "meta": {}, "name": name, "value": value}
    return compact(artifact), ARTIFACT


def _read_value(text: str, form: str | None) -> Json:
    """Return the value in a message; a text that another program has edited is returned as it is."""
    value = text if form is None else _decoded(text)
    if form != ARTIFACT:
        return value
    return value["value"] if isinstance(value, dict) and isinstance(value.get("value"), str) else text


def _foreign_value(text: str) -> Json:
    """Return what another program wrote: an artifact of Griptape's as the dict it serializes, anything else as it is."""
    value = _decoded(text) if text.startswith("{") else text
    return value if isinstance(value, dict) and isinstance(value.get("type"), str) else text


def _decoded(text: str) -> Json:
    """Return the value of a JSON text; the text itself if it has none that can be written again."""
    try:
        value = decode(text)
    except (ValueError, RecursionError):
        return text
    return value if _is_json(value) else text


def only_json(metadata: Fields) -> dict[str, Json]:
    """Return metadata of another program without what is not JSON (NaN, for example), and without a damaged envelope."""
    return {key: value for key, value in metadata.items() if key != RESERVED and _is_json({key: value})}


def _is_json(value: Any) -> bool:
    try:
        encode(value, "value")
    except InvalidValueError:
        return False
    return True
