"""Read the database of LangChain's ``SQLChatMessageHistory``, if it is a sqlite file."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from memory.formats import sqlite_files
from memory.formats.builders import Draft
from memory.formats.langchain import KEY, convert
from memory.formats.registry import Source
from memory.formats.sqlite_files import Query, json_of
from memory.transfer.parsing import ParsedConversation, RejectedConversation

TABLES: Final = frozenset(["message_store"])


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the sessions of a file one by one."""
    return sqlite_files.read(source, KEY, _find)


def _find(query: Query) -> Iterator[Callable[[], Draft]]:
    for row in query("SELECT session_id FROM message_store GROUP BY session_id ORDER BY min(id)"):
        yield partial(_read, query, row["session_id"])


def _read(query: Query, session_id: str) -> Draft:
    rows = query("SELECT message FROM message_store WHERE session_id = ? ORDER BY id", session_id)
    return convert({"session_id": session_id, "messages": [json_of(row["message"]) for row in rows]})
