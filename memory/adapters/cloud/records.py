"""What the service answers, read leniently, and what conversations and runs become there."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, cast

from memory.adapters.cloud import gaps
from memory.adapters.cloud.http import Fields
from memory.adapters.cloud.marks import RESERVED, RUN_ID, Book, Mark, is_plain, plain
from memory.adapters.cloud.names import alias_of, place_of
from memory.domain import ConversationRecord, Run, RunRecord
from memory.errors import InvalidValueError
from memory.values import Json, decode, encode, first_id, to_datetime, to_microseconds

Texts: TypeAlias = Literal["plain", "artifact"]
"""How a run's string is written: as it is, or as the TextArtifact that Griptape's own driver can load."""

JSON_TEXT: Final = "json"
ARTIFACT: Final = "artifact"
_NO_INDEX: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as the service has it; ``book`` is None where others made it."""

    id: str
    alias: str
    metadata: Fields
    count: int
    created_at: int
    updated_at: int
    book: Book | None
    name: str = ""

    @property
    def place(self) -> tuple[str, str] | None:
        """The namespace and id of the conversation that this is, if it can be one."""
        if self.alias == self.id:  # how the service may answer where there is no alias
            return None
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
        others = {key: value for key, value in self.metadata.items() if key != RESERVED}
        return Book(
            version=1,
            created_at=self.created_at,
            updated_at=self.updated_at,
            text=encode(only_json(others), "metadata"),
            count=-1,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the service has it, and our mark where it has one."""

    id: str
    index: float
    input: Any
    output: Any
    metadata: Fields
    created: object
    mark: Mark | None

    @property
    def created_at(self) -> int:
        """When the service made it, in microseconds since 1970."""
        return _microseconds(self.created)


def read_thread(fields: object) -> Thread | None:
    """Return what an answer says of a thread; None if it has not even an id."""
    if not isinstance(fields, dict) or not isinstance(fields.get("thread_id"), str):
        return None
    alias, name, metadata = fields.get("alias"), fields.get("name"), fields.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return Thread(
        fields["thread_id"],
        alias if isinstance(alias, str) else "",
        metadata,
        whole(fields.get("message_count")),
        _microseconds(fields.get("created_at")),
        _microseconds(fields.get("updated_at")),
        Book.load(metadata),
        name if isinstance(name, str) else "",
    )


def read_message(fields: object) -> Message | None:
    """Return what an answer says of a message; None if it has not even an id."""
    if not isinstance(fields, dict) or not isinstance(fields.get("message_id"), str):
        return None
    index, metadata = fields.get("index"), fields.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return Message(
        fields["message_id"],
        index if isinstance(index, int | float) else _NO_INDEX,
        fields.get("input"),
        fields.get("output"),
        metadata,
        fields.get("created_at"),
        Mark.load(metadata),
    )


def whole(value: object) -> int:
    """Return a number of an answer, which may be written as 3.0; 0 if it is none."""
    return int(value) if isinstance(value, int | float) and abs(value) < 2**53 else 0


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
        before = _decoded(thread.written.text)
        ours = plain(before) if isinstance(before, dict) else {}
        kept = {key: value for key, value in thread.metadata.items() if key not in ours}
    return {**kept, **plain(cast("dict[str, Json]", decode(book.text))), RESERVED: book.dump()}


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
    """Return the run that a message is, whoever wrote it; what cannot be read as we wrote it is taken as it stands."""
    mark = message.mark
    id_ = first_id(message.metadata.get(RUN_ID)) or message.id[:255]
    if mark is None:
        others = {key: value for key, value in message.metadata.items() if key not in (RUN_ID, RESERVED)}
        values = _foreign_value(message.input), _foreign_value(message.output)
        return Run(*values, only_json(others), id_, to_datetime(message.created_at), position)
    metadata = {} if mark.text == "{}" else _decoded(mark.text)
    return Run(
        _read_value(message.input, mark.input),
        _read_value(message.output, mark.output),
        metadata if isinstance(metadata, dict) else {},
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


def _read_value(text: Any, form: str | None) -> Json:
    """Return the value that a message has; where others have changed it, it is taken as it stands."""
    if form is None and isinstance(text, str):
        return text
    value = _decoded(text) if isinstance(text, str) else None
    if form == JSON_TEXT and (value is not None or text == "null"):
        return _json(value, text)
    if form == ARTIFACT and isinstance(value, dict) and isinstance(value.get("value"), str):
        return cast(str, value["value"])
    return _json(text)


def _foreign_value(text: Any) -> Json:
    """Return what others wrote: an artifact of Griptape's is the structure it serializes, all else is as it is."""
    if isinstance(text, str) and text.startswith("{"):
        value = _decoded(text)
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            return _json(value, text)
    return _json(text)


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


def _microseconds(moment: object) -> int:
    """Return a moment of an answer in microseconds since 1970, 0 if it is none."""
    try:
        return to_microseconds(datetime.fromisoformat(str(moment)), "a moment")
    except ValueError:
        return 0
