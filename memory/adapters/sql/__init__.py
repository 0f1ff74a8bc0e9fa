"""Conversations in a relational database: sqlite (a local file is the embedded default) and PostgreSQL."""

from memory.adapters.sql.repository import SqlRepository, open_url
from memory.adapters.sql.tables import not_ours

__all__ = ["SqlRepository", "not_ours", "open_url"]
