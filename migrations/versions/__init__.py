"""The Alembic revisions, in ascending order."""
