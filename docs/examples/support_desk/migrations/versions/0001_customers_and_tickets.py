"""Customers and tickets; on PostgreSQL, every row is seen by its tenant only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

POLICIES = {
    "customers": "tenant = current_setting('desk.tenant', true)",
    "tickets": "tenant = current_setting('desk.tenant', true)",
    "memory_conversations": "namespace = current_setting('desk.tenant', true)",
    "memory_metadata": "namespace = current_setting('desk.tenant', true)",
    "memory_commits": "namespace = current_setting('desk.tenant', true)",
    "memory_counts": "namespace = current_setting('desk.tenant', true)",
    "memory_runs": "EXISTS (SELECT FROM memory_conversations WHERE key = conversation_key)",  # those that are seen
}


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
    )
    op.create_table(
        "tickets",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "customer_id"], ["customers.tenant", "customers.id"], name="fk_tickets_customers"
        ),
    )
    op.create_index("ix_tickets_customer", "tickets", ["tenant", "customer_id"])
    if op.get_bind().dialect.name == "postgresql":
        for table, policy in POLICIES.items():
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            op.execute(f"CREATE POLICY tenant ON {table} USING ({policy})")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in POLICIES:
            op.execute(f"DROP POLICY tenant ON {table}")
            op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.drop_table("tickets")
    op.drop_table("customers")
