"""The schema of the SQL store, revision by revision (Alembic)."""
