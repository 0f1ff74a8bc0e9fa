"""Conversations in a relational database: sqlite (a local file is the embedded default) and PostgreSQL."""

from memory.adapters.sql.repository import SqlRepository, open_url
from memory.adapters.sql.tables import include_name, include_object

__all__ = ["SqlRepository", "include_name", "include_object", "open_url"]
