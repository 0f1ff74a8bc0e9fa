"""Read the sqlite files in which other programs keep conversations. They are opened read-only."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final, TypeAlias

from memory.domain.values import Json
from memory.errors import ConfigurationError
from memory.formats.builders import Draft, build
from memory.formats.registry import Source
from memory.port.changes import Change
from memory.transfer.parsing import ParsedConversation, RejectedConversation, parse, try_parse

MAGIC: Final = b"SQLite format 3\0"

Row: TypeAlias = dict[str, Any]
Query: TypeAlias = Callable[..., list[Row]]
"""Returns the rows of a statement with these parameters."""


def read(
    source: Source, key: str, find: Callable[[Query], Iterator[Callable[[], Draft]]]
) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of a file one by one.

    ``find`` yields, for each conversation, a function that reads it. What such a function raises refuses this conversation.
    """
    number = 0
    try:
        with closing(_open(source)) as connection:
            query = partial(_query, connection)
            for number, read_draft in enumerate(find(query), 1):  # the number of the last one
                yield try_parse(number, 0, partial(_make, source, key, number, read_draft))
    except sqlite3.Error as error:
        yield RejectedConversation(number + 1, f"the database cannot be read from here on: {error}")


def tables_of(source: Source) -> set[str]:
    """Return the names of the tables of a file; none if it cannot be read."""
    try:
        with closing(_open(source)) as connection:
            return {row["name"] for row in _query(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return set()


def _open(source: Source) -> sqlite3.Connection:
    if source.path is None:
        raise ConfigurationError(f"{source.name} is a database: it can only be read from a file of its own")
    connection = sqlite3.connect(f"{source.path.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def _query(connection: sqlite3.Connection, statement: str, *parameters: object) -> list[Row]:
    return [dict(row) for row in connection.execute(statement, parameters)]


def _make(source: Source, key: str, number: int, read_draft: Callable[[], Draft]) -> Change:
    return build(key, read_draft(), f"{source.name}-{number}", source.at)


def json_of(text: object) -> Any:
    """Return the value of a column with JSON; what is not text is returned as it is."""
    return parse(text) if isinstance(text, str) else text


def kept(row: Row, *without: str) -> dict[str, Json]:
    """Return what a row has beside these columns: values that are not null, and no binary data."""
    return {
        name: value
        for name, value in row.items()
        if name not in without and value is not None and type(value) is not bytes
    }
