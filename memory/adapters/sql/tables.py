"""The tables, and the revision of `migrations/` that makes them. Their names begin alike, to live beside others'."""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    true,
)

HEAD: Final = "0005"
"""The newest revision in `migrations/versions`; here too, so that opening a store need not import Alembic (260 ms)."""

PREFIX: Final = "memory_"
VERSION_TABLE: Final = "memory_schema_version"

metadata: Final = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"})

# sqlite: only an INTEGER primary key counts by itself. PostgreSQL: ids sort by code point, as sqlite's and Python's do.
_Key = BigInteger().with_variant(Integer, "sqlite")
_Name = Text().with_variant(Text(collation="C"), "postgresql")

conversations: Final = Table(
    "memory_conversations",
    metadata,
    Column("key", _Key, primary_key=True, autoincrement=True),  # never given twice: it tells incarnations apart
    Column("namespace", _Name, nullable=False),
    Column("id", _Name, nullable=False),  # `key_of` the id: see long_id
    Column("metadata", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("run_count", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),  # times: microseconds since 1970
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("expires_after", BigInteger),
    Column("last_run_at", BigInteger, nullable=False, server_default="0"),
    Column("long_id", Text),  # the id, if it has more than 255 characters
    Index(None, "namespace", "id", unique=True),
    Index(None, "namespace", "last_run_at", "id"),
    Index(None, "namespace", "updated_at", "id"),
    Index(None, "namespace", "created_at", "id"),
    sqlite_autoincrement=True,  # else sqlite gives the highest key again once its row is gone
)
_expires = conversations.c.expires_at
_has_expiry = _expires.is_not(None)
Index(None, conversations.c.namespace, _expires, sqlite_where=_has_expiry, postgresql_where=_has_expiry)

runs: Final = Table(
    "memory_runs",
    metadata,
    Column("conversation_key", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("is_open", Boolean, nullable=False, server_default=false()),
    sqlite_with_rowid=False,  # clustered by conversation and position
)
is_open: Final = runs.c.is_open.is_(true())  # sqlite uses a partial index only for exactly its condition
Index(None, runs.c.conversation_key, runs.c.id, sqlite_where=is_open, postgresql_where=is_open)
Index(None, runs.c.created_at, sqlite_where=is_open, postgresql_where=is_open)

entries: Final = Table(
    "memory_metadata",  # one row for each index entry of a conversation: memory/port/index.py
    metadata,
    Column("conversation_key", BigInteger, primary_key=True, autoincrement=False),
    Column("path", LargeBinary, primary_key=True),
    Column("value", LargeBinary, primary_key=True),
    Column("namespace", _Name, nullable=False),
    Index(None, "namespace", "path", "value", "conversation_key"),
    sqlite_with_rowid=False,
)

commits: Final = Table(
    "memory_commits",  # the tokens of recent change sets, with what they wrote: a lost answer is found here
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("token", _Name, primary_key=True),
    Column("receipt", Text, nullable=False),
    Column("at", BigInteger, nullable=False, server_default="0"),  # by the server's clock, where it has one
    Index(None, "at"),
    sqlite_with_rowid=False,
)

counts: Final = Table(
    "memory_counts",  # the conversations of a namespace: the sum of its rows, so that writers seldom wait for each other
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("conversations", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

outbox: Final = Table(
    "memory_outbox",  # change sets that wait to be delivered to a replica: memory/transfer/mirroring.py
    metadata,
    Column("number", _Key, primary_key=True, autoincrement=True),
    Column("replica", _Name, nullable=False),
    Column("namespace", _Name, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("changes", Text, nullable=False),
    Index(None, "replica", "number"),
)


_views = MetaData()  # apart from the tables, which Alembic compares with the database

conversation_view: Final = Table(
    "memory_conversation_view",  # without conversations that have expired
    _views,
    Column("namespace", Text),
    Column("id", Text),
    Column("metadata", JSON),
    Column("version", BigInteger),
    Column("run_count", BigInteger),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_run_at", DateTime(timezone=True)),
    Column("long_id", Text),
)
"""A read-only view of the conversations with readable types. Its columns stay as they are in later releases.

An id of more than 255 characters is in ``long_id``; ``id`` is then its key, which the indexes contain.
"""

run_view: Final = Table(
    "memory_run_view",
    _views,
    Column("namespace", Text),
    Column("conversation_id", Text),
    Column("position", BigInteger),
    Column("id", Text),
    Column("input", JSON),
    Column("output", JSON),
    Column("metadata", JSON),
    Column("created_at", DateTime(timezone=True)),
    Column("is_open", Boolean),
)
"""A read-only view of the runs. The output of an open run is NULL before there is one."""

OURS: Final = frozenset([*metadata.tables, VERSION_TABLE])
"""The names of our tables."""


def include_name(name: str | None, type_: str, _: object = None) -> bool:
    """Leave our tables out of an application's Alembic: pass it to ``context.configure(..., include_name=include_name)``.

    >>> include_name("memory_runs", "table"), include_name("memory_usage", "table"), include_name("orders", "table")
    (False, True, True)
    """
    return type_ != "table" or name not in OURS


def include_object(_: object, name: str | None, type_: str, *__: object) -> bool:
    """Likewise, as ``include_object``: also if our tables were reflected into the application's ``MetaData``."""
    return include_name(name, type_)
