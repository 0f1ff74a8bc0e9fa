"""A count of the conversations of each namespace, and the time of each receipt.

Older code does not count the conversations that it creates or removes: stop it before this revision runs.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _schema() -> str | None:
    """Return the schema that the connection translates to: Alembic's ALTER TABLE does not translate it."""
    return (op.get_bind().get_execution_options().get("schema_translate_map") or {}).get(None)


def upgrade() -> None:
    counts = op.create_table(
        "memory_counts",
        sa.Column("namespace", _name, nullable=False),
        sa.Column("shard", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("conversations", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "shard", name="pk_memory_counts"),
        sqlite_with_rowid=False,
    )
    metadata = sa.MetaData()
    conversations = sa.Table("memory_conversations", metadata, sa.Column("namespace", _name))
    commits = sa.Table("memory_commits", metadata, sa.Column("at", sa.BigInteger))
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":  # no conversation is created between the count and the commit
        locked = sa.table("memory_conversations", schema=_schema())
        op.execute(f"LOCK TABLE {bind.dialect.identifier_preparer.format_table(locked)} IN SHARE MODE")
    counted = sa.select(conversations.c.namespace, sa.literal(0), sa.func.count()).group_by(conversations.c.namespace)
    op.execute(sa.insert(counts).from_select(["namespace", "shard", "conversations"], counted))
    op.add_column(
        "memory_commits", sa.Column("at", sa.BigInteger, server_default="0", nullable=False), schema=_schema()
    )
    op.execute(sa.update(commits).values(at=time.time_ns() // 1000))
    op.create_index("ix_memory_commits_at", "memory_commits", ["at"], schema=_schema())


def downgrade() -> None:
    op.drop_index("ix_memory_commits_at", "memory_commits", schema=_schema())
    with op.batch_alter_table("memory_commits", schema=_schema()) as commits:
        commits.drop_column("at")
    op.drop_table("memory_counts")
