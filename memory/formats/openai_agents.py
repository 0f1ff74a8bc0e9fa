"""Read the database of the OpenAI Agents SDK's ``SQLiteSession``."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from memory.formats import sqlite_files
from memory.formats.builders import Draft
from memory.formats.openai import read_message
from memory.formats.registry import Source
from memory.formats.sqlite_files import Query, Row, json_of
from memory.formats.turns import Message
from memory.transfer.parsing import ParsedConversation, RejectedConversation

KEY: Final = "openai"
TABLES: Final = frozenset(["agent_sessions", "agent_messages"])


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the sessions of a file one by one."""
    return sqlite_files.read(source, KEY, _find)


def _find(query: Query) -> Iterator[Callable[[], Draft]]:
    for session in query("SELECT * FROM agent_sessions ORDER BY created_at, session_id"):
        yield partial(_read, query, session)


def _read(query: Query, session: Row) -> Draft:
    rows = query("SELECT * FROM agent_messages WHERE session_id = ? ORDER BY id", session["session_id"])
    messages = [_message(json_of(row["message_data"]), row["created_at"]) for row in rows]
    return Draft(messages, session["session_id"], created_at=session["created_at"], updated_at=session["updated_at"])


def _message(item: Any, at: str) -> Message:
    message = read_message(item)
    return message._replace(at=message.at or at)
