"""Create the tables of conversations, runs, the metadata index, and commit tokens.

This is the first revision, so there is no older code that could run with it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "memory_conversations",
        sa.Column("key", _key, autoincrement=True, nullable=False),
        sa.Column("namespace", _name, nullable=False),
        sa.Column("id", _name, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("run_count", sa.BigInteger, nullable=False),
        sa.Column("last_position", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("key", name="pk_memory_conversations"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_memory_conversations_namespace_id", "memory_conversations", ["namespace", "id"], unique=True)
    for time in ("updated_at", "created_at"):
        name = f"ix_memory_conversations_namespace_{time}_id"
        op.create_index(name, "memory_conversations", ["namespace", time, "id"])
    op.create_index(
        "ix_memory_conversations_namespace_expires_at",
        "memory_conversations",
        ["namespace", "expires_at"],
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_table(
        "memory_runs",
        sa.Column("conversation_key", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("input", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("conversation_key", "position", name="pk_memory_runs"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "memory_metadata",
        sa.Column("conversation_key", sa.BigInteger, nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("namespace", _name, nullable=False),
        sa.PrimaryKeyConstraint("conversation_key", "path", "value", name="pk_memory_metadata"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_memory_metadata_namespace_path_value_conversation_key",
        "memory_metadata",
        ["namespace", "path", "value", "conversation_key"],
    )
    op.create_table(
        "memory_commits",
        sa.Column("namespace", _name, nullable=False),
        sa.Column("token", _name, nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "token", name="pk_memory_commits"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("memory_commits", "memory_metadata", "memory_runs", "memory_conversations"):
        op.drop_table(table)
