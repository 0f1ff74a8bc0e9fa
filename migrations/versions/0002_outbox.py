"""Create the outbox, with the change sets to deliver to replicas.

This only adds a table; existing tables do not change.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "memory_outbox",
        sa.Column("number", _key, autoincrement=True, nullable=False),
        sa.Column("replica", _name, nullable=False),
        sa.Column("namespace", _name, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_memory_outbox"),
    )
    op.create_index("ix_memory_outbox_replica_number", "memory_outbox", ["replica", "number"])


def downgrade() -> None:
    op.drop_table("memory_outbox")
