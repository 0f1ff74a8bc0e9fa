"""Read what the ``llm`` command logs: its database, and the JSON of ``llm logs --json``."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from memory.domain.values import Json, first_id
from memory.errors import InvalidValueError
from memory.formats import sqlite_files
from memory.formats.builders import Draft, build
from memory.formats.documents import documents
from memory.formats.openai import read_message
from memory.formats.registry import Source
from memory.formats.sqlite_files import MAGIC, Query, Row, json_of, kept
from memory.formats.turns import Message
from memory.port.changes import Change
from memory.transfer.parsing import ParsedConversation, RejectedConversation, parse, try_parse

KEY: Final = "llm"
TABLES: Final = frozenset(["responses", "conversations"])


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of the database, or of a list of responses."""
    if source.path is not None and source.path.is_file() and _is_database(source):
        yield from sqlite_files.read(source, KEY, _find)
        return
    for found in documents(source, recognizes):
        if isinstance(found, RejectedConversation):
            yield found
        else:
            yield from _read_rows(source, found.number, found.text)


def _is_database(source: Source) -> bool:
    with source.path.open("rb") as file:  # type: ignore[union-attr]  # the caller has checked it
        return file.read(len(MAGIC)) == MAGIC


def recognizes(value: Any) -> bool:
    """Return whether a value is a response that was logged."""
    return isinstance(value, dict) and "prompt" in value and "response" in value and "conversation_id" in value


def _read_rows(source: Source, number: int, text: bytes) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of a list of responses, which are in the order of their times and not of their conversations."""
    conversations: dict[Any, list[Row]] = {}
    try:
        if source.limits.has_too_many_values(text):
            raise InvalidValueError(source.limits.too_many())  # one place makes all refusals
        rows = parse(text.decode())
        for row in rows if isinstance(rows, list) else [rows]:
            if not recognizes(row):
                raise InvalidValueError(
                    'not a response of llm, which has a "prompt", a "response" and a "conversation_id"'
                )
            conversations.setdefault(str(row["conversation_id"]), []).append(row)
    except (ValueError, RecursionError) as error:
        yield RejectedConversation(number, str(error))
    for id, rows in conversations.items():
        yield try_parse(number, len(text) // len(conversations), partial(_make, source, id, rows))


def _make(source: Source, id: str, rows: list[Row]) -> Change:
    return build(KEY, _draft_of_rows({"id": id}, rows), source.name, source.at)


def _find(query: Query) -> Iterator[Callable[[], Draft]]:
    threads: set[str] = set()
    if query("SELECT 1 FROM sqlite_master WHERE name = 'turns'"):
        for thread in query("SELECT * FROM threads ORDER BY id"):
            threads.add(thread["id"])
            yield partial(_read_thread, query, thread)
    for row in query("SELECT * FROM conversations ORDER BY id"):
        if row["id"] not in threads:  # a migration copies what was logged before
            yield partial(_read_conversation, query, row)


def _read_conversation(query: Query, conversation: Row) -> Draft:
    """Return a conversation of a release before 0.32, which logged one row for each response."""
    rows = query("SELECT * FROM responses WHERE conversation_id = ? ORDER BY id", conversation["id"])
    return _draft_of_rows(conversation, [kept(row) for row in rows])


def _draft_of_rows(conversation: Row, rows: list[Row]) -> Draft:
    messages: list[Message] = []
    for row in rows:
        rest = {**row, "prompt": None, "response": None}
        at = row.get("datetime_utc")
        messages.append(Message("question", row.get("prompt"), rest, row, row.get("id"), at))
        if row.get("response"):
            messages.append(Message("answer", row["response"], None, None, at=at))
    return Draft(messages, conversation["id"], _metadata(conversation))


def _metadata(conversation: Row) -> Row:
    return {
        name: conversation[column]
        for column, name in (("name", "title"), ("model", "model"))
        if conversation.get(column)
    }


def _read_thread(query: Query, thread: Row) -> Draft:
    """Return a thread: the messages from its tip up to its first one, each with its parts."""
    times = {
        row["tip_message_hash"]: row["datetime_utc"]
        for row in query("SELECT * FROM turns WHERE thread_id = ? ORDER BY datetime_utc", thread["id"])
    }
    found: list[Message] = []
    seen, hash, at = set[str](), thread["tip_message_hash"], None
    while hash is not None and hash not in seen:
        seen.add(hash)
        at = times.get(hash, at)
        for row in query("SELECT * FROM messages WHERE hash = ?", hash):
            found.append(_message(query, row)._replace(at=at))
            hash = row["parent_hash"]
    found.reverse()
    rest: dict[str, Json] = {"thread": kept(thread, "id", "name")}
    return Draft(found, first_id(thread["id"]), _metadata(thread), rest, updated_at=thread["datetime_utc"])


def _message(query: Query, row: Row) -> Message:
    parts: list[Json] = [
        {
            **kept(part, "id", "message_hash", "position", "payload"),
            **({"payload": json_of(part["payload"])} if part["payload"] else {}),
        }
        for part in query("SELECT * FROM parts WHERE message_hash = ? ORDER BY position", row["hash"])
    ]
    return read_message({**kept(row, "parent_hash"), "content": parts})
