"""What the service answers, read leniently, and what conversations and runs become there."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, TypeAlias, cast

from memory.adapters.cloud import gaps
from memory.adapters.cloud.http import Fields, member, whole
from memory.adapters.cloud.marks import ARTIFACT, JSON_TEXT, RESERVED, RUN_ID, UNREADABLE, Book, Mark, is_plain, plain
from memory.adapters.cloud.names import alias_of, is_digest, place_of
from memory.domain.entities import Run
from memory.domain.records import ConversationRecord, RunRecord, decode_metadata
from memory.domain.values import Json, decode, encode, first_id, to_datetime, to_microseconds
from memory.errors import CorruptRecordError, InvalidValueError

Texts: TypeAlias = Literal["plain", "artifact"]
"""How a run's string is written: as it is, or as the TextArtifact that Griptape's own driver can load."""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as the service has it; ``book`` is None where others made it, or where it is ``damaged``."""

    id: str
    alias: str
    metadata: Fields
    count: int
    created_at: int
    updated_at: int
    book: Book | None
    name: str = ""
    damaged: bool = False

    @property
    def place(self) -> tuple[str, str] | None:
        """The namespace and id of the conversation that this is, if it can be one."""
        if self.alias == self.id:  # how the service may answer where there is no alias
            return None
        if self.damaged and is_digest(self.alias):
            self._refuse()
        return place_of(self.alias, self.book.place if self.book else None)

    @property
    def age(self) -> tuple[bool, int, str]:
        """The order of threads of one conversation: the first is it. An alias written as ours goes before others' spelling."""
        place = self.place
        return place is None or alias_of(*place) != self.alias, self.created_at, self.id

    @property
    def written(self) -> Book:
        """Our bookkeeping; for a thread of others what it would have been."""
        if self.book is not None:
            return self.book
        if self.damaged:
            self._refuse()
        others = {key: value for key, value in self.metadata.items() if key != RESERVED}
        return Book(
            version=1,
            created_at=self.created_at,
            updated_at=self.updated_at,
            text=encode(only_json(others), "metadata"),
            count=-1,
        )

    def _refuse(self) -> NoReturn:
        raise CorruptRecordError(f"the bookkeeping in the metadata of thread {self.id} ({self.alias!r}) cannot be read")


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the service has it, and our mark where it has one; ``created_at`` by the service's clock."""

    id: str
    thread_id: str
    index: float
    input: str
    output: str
    metadata: Fields
    created_at: int
    mark: Mark | None


def read_thread(fields: object) -> Thread:
    """Return what an answer says of a thread.

    Raises:
        CorruptRecordError: it is none. Damaged bookkeeping is an error of who reads that thread, not of who lists all.
    """
    id_ = _id(fields, "thread_id")
    fields, what = cast(Fields, fields), f"thread {id_}"
    name, metadata = fields.get("name"), _metadata(fields, what)
    try:
        book, damaged = Book.load(metadata), False
    except UNREADABLE:
        book, damaged = None, True
    return Thread(
        id_,
        "" if fields.get("alias", 0) is None else member(fields, "alias", str, what),
        metadata,
        whole(fields, "message_count", what),
        _microseconds(fields, "created_at", what),
        _microseconds(fields, "updated_at", what),
        book,
        name if isinstance(name, str) else "",
        damaged,
    )


def read_message(fields: object, thread_id: str) -> Message:
    """Return what an answer says of a message of a thread.

    Raises:
        CorruptRecordError: it is none, or of another thread, or its mark is damaged.
    """
    id_ = _id(fields, "message_id")
    fields, what = cast(Fields, fields), f"message {id_} of thread {thread_id}"
    index: Any = fields.get("index")
    metadata = _metadata(fields, what)
    if fields.get("thread_id") != thread_id:
        raise CorruptRecordError(
            f"the service was asked for thread {thread_id}, and answered with a message of another"
        )
    if type(index) not in (int, float) or not abs(index) < 2**53:
        raise CorruptRecordError(f"{what} has no index")
    try:
        mark = Mark.load(metadata)
    except UNREADABLE as error:
        raise CorruptRecordError(f"what we keep in the metadata of {what} cannot be read") from error
    return Message(
        id_,
        thread_id,
        index,
        member(fields, "input", str, what),
        member(fields, "output", str, what),
        metadata,
        _microseconds(fields, "created_at", what),
        mark,
    )


def _id(fields: object, name: str) -> str:
    id_ = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(id_, str) or not id_:
        raise CorruptRecordError(f"the service answered with something that has no {name}")
    return id_


def _metadata(fields: Fields, what: str) -> Fields:
    return {} if fields.get("metadata", 0) is None else member(fields, "metadata", dict, what)


# Conversations


def conversation_record(
    thread: Thread, conversation_id: str, run_count: int, newest: int | None = None
) -> ConversationRecord:
    """Return the conversation that a thread is.

    Args:
        thread: as it was read.
        conversation_id: the id that its alias means.
        run_count: how many runs it has.
        newest: the time of its newest message, where the thread's own ``updated_at`` does not tell.
    """
    book = thread.written
    moved = run_count != book.count  # since the bookkeeping was written: runs were appended
    return ConversationRecord(
        conversation_id,
        book.text,
        book.version,
        thread.id,  # the service never gives an id twice
        run_count,
        run_count + gaps.size(book.gaps),
        book.created_at,
        max(book.updated_at, newest or thread.updated_at) if moved else book.updated_at,
        book.expires_at,
    )


def thread_metadata(thread: Thread | None, book: Book) -> Fields:
    """Return the whole metadata of a thread: what others keep there, a readable copy of the user's, and our bookkeeping."""
    kept: Fields = {}
    if thread is not None:
        ours = plain(decode_metadata(thread.written.text, f"the metadata of thread {thread.id}"))
        kept = {key: value for key, value in thread.metadata.items() if key not in ours}
    return {**kept, **plain(decode_metadata(book.text, "the metadata to be written")), RESERVED: book.dump()}


# Runs


def message_body(run: RunRecord, token: str, number: int, position: int, texts: Texts) -> Fields:
    """Return the message that a run becomes."""
    input_text, input_form = _written_text(run.input, f"{run.id}-input", texts)
    output_text, output_form = _written_text(run.output, f"{run.id}-output", texts)
    mark = Mark(token, number, position, run.created_at, run.metadata, input_form, output_form)
    beside = {} if run.metadata == "{}" else plain(cast("dict[str, Json]", decode(run.metadata)), RUN_ID)
    return {
        "input": input_text,
        "output": output_text,
        "metadata": {**beside, RUN_ID: run.id, RESERVED: mark.dump()},
    }


def run_of(message: Message, position: int) -> Run:
    """Return the run that a message is, whoever wrote it; a text that others have changed is taken as it stands.

    Raises:
        CorruptRecordError: it is one of ours, and its id or metadata cannot be read.
    """
    mark = message.mark
    id_ = first_id(message.metadata.get(RUN_ID))
    if mark is None:
        others = {key: value for key, value in message.metadata.items() if key not in (RUN_ID, RESERVED)}
        values = _foreign_value(message.input), _foreign_value(message.output)
        return Run(*values, only_json(others), id_ or message.id[:255], to_datetime(message.created_at), position)
    what = f"message {message.id} of thread {message.thread_id}"
    if id_ is None:
        raise CorruptRecordError(f"{what} has lost the id of its run")
    return Run(
        _read_value(message.input, mark.input),
        _read_value(message.output, mark.output),
        decode_metadata(mark.text, f"the run's metadata in {what}"),
        id_,
        to_datetime(mark.created_at),
        position,
    )


def _written_text(text: str, name: str, texts: Texts) -> tuple[str, str | None]:
    """Return what a message has for a value's text, and how that is to be read."""
    value = decode(text) if text.startswith('"') else None
    if not isinstance(value, str) or not is_plain(value):
        return text, JSON_TEXT
    if texts == "plain":
        return value, None
    artifact: Fields = {"type": "TextArtifact", "id": name, "reference": None, "meta": {}, "name": name, "value": value}
    return json.dumps(artifact), ARTIFACT


def _read_value(text: str, form: str | None) -> Json:
    """Return the value that a message has; where others have changed it, it is taken as it stands."""
    if form is None:
        return text
    value = _decoded(text)
    if form == JSON_TEXT and (value is not None or text == "null"):
        return _json(value, text)
    if form == ARTIFACT and isinstance(value, dict) and isinstance(value.get("value"), str):
        return cast(str, value["value"])
    return text


def _foreign_value(text: str) -> Json:
    """Return what others wrote: an artifact of Griptape's is the structure it serializes, all else is as it is."""
    if text.startswith("{"):
        value = _decoded(text)
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            return _json(value, text)
    return text


def _json(value: Any, otherwise: Json = "") -> Json:
    """Return a value if it is one that can be written again."""
    try:
        encode(value, "value")
    except InvalidValueError:
        return otherwise
    return cast(Json, value)


def _decoded(text: str) -> Json:
    """Return the value of a text, None if it has none."""
    try:
        return decode(text)
    except (ValueError, RecursionError):
        return None


def only_json(metadata: Fields) -> dict[str, Json]:
    """Return metadata that others wrote, without what is no JSON of ours (NaN, say)."""
    return {key: value for key, value in metadata.items() if _json([value], None) is not None}


def _microseconds(fields: Fields, name: str, what: str) -> int:
    """Return a moment of an answer in microseconds since 1970; without a time zone it is UTC."""
    try:
        moment = datetime.fromisoformat(member(fields, name, str, what))
        return to_microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC), name)
    except ValueError as error:
        raise CorruptRecordError(f"{what} has no {name} that is a time") from error
