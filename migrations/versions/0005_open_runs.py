"""Open runs, sliding expiry, the time of the last run, and ids of up to 2,048 characters.

Older code appends without `last_run_at`, and does not move an expiry: stop it before this revision runs. One statement sets
`last_run_at` of all conversations; on PostgreSQL the tables are locked meanwhile.
"""

from types import ModuleType
from typing import cast

import sqlalchemy as sa
from alembic import op
from alembic.script import ScriptDirectory

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CONVERSATIONS, _RUNS = "memory_conversations", "memory_runs"
_INDEX_BY_TIME = "ix_memory_conversations_namespace_last_run_at_id"
_INDEXES_OF_OPEN_RUNS = {
    "ix_memory_runs_conversation_key_id": ["conversation_key", "id"],
    "ix_memory_runs_created_at": ["created_at"],
}


def _schema() -> str | None:
    """Return the schema that the connection translates to: Alembic's ALTER TABLE does not translate it."""
    return (op.get_bind().get_execution_options().get("schema_translate_map") or {}).get(None)


def _views() -> ModuleType:
    """Return revision 0004, which makes the views."""
    return cast(ScriptDirectory, op.get_context().script).get_revision("0004").module


def _set_last_run_at() -> None:
    metadata = sa.MetaData()
    times = [sa.Column(name, sa.BigInteger) for name in ("key", "created_at", "last_run_at")]
    conversations = sa.Table(_CONVERSATIONS, metadata, *times)
    runs = sa.Table(
        _RUNS, metadata, *[sa.Column(name, sa.BigInteger) for name in ("conversation_key", "position", "created_at")]
    )
    created_at = conversations.c.created_at
    last = (
        sa.select(runs.c.created_at)
        .where(runs.c.conversation_key == conversations.c.key)
        .order_by(runs.c.position.desc())
        .limit(1)
        .scalar_subquery()
    )
    op.execute(sa.update(conversations).values(last_run_at=sa.case((last > created_at, last), else_=created_at)))


def upgrade() -> None:
    schema = _schema()
    for column in (
        sa.Column("expires_after", sa.BigInteger),
        sa.Column("last_run_at", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("long_id", sa.Text),
    ):
        op.add_column(_CONVERSATIONS, column, schema=schema)
    op.add_column(_RUNS, sa.Column("is_open", sa.Boolean, server_default=sa.false(), nullable=False), schema=schema)
    _set_last_run_at()
    op.create_index(_INDEX_BY_TIME, _CONVERSATIONS, ["namespace", "last_run_at", "id"], schema=schema)
    is_open = sa.column("is_open").is_(sa.true())
    for name, columns in _INDEXES_OF_OPEN_RUNS.items():
        op.create_index(name, _RUNS, columns, schema=schema, sqlite_where=is_open, postgresql_where=is_open)
    _create_views()


def _create_views() -> None:
    """Add columns to the views: on PostgreSQL in their place, so that grants and other views on them are kept."""
    views = _views()
    prefix, options, dialect = views.prefix(), views.options(), op.get_bind().dialect.name
    forms = views.COLUMNS[dialect]
    time, json = forms["time"].format, forms["json"].format
    present = f"c.expires_at IS NULL OR c.expires_at > {forms['now']}"
    if dialect == "sqlite":
        views.downgrade()
    create = "CREATE VIEW" if dialect == "sqlite" else "CREATE OR REPLACE VIEW"
    op.execute(
        f"{create} {prefix}memory_conversation_view{options} AS SELECT c.namespace, c.id, "
        f"{json('c.metadata')} AS metadata, c.version, c.run_count, "
        f"{time('c.created_at')} AS created_at, {time('c.updated_at')} AS updated_at, "
        f"{time('c.expires_at')} AS expires_at, {time('c.last_run_at')} AS last_run_at, c.long_id "
        f"FROM {prefix}memory_conversations c WHERE {present}"
    )
    output = "NULLIF(r.output, '')"  # there is none yet
    op.execute(
        f"{create} {prefix}memory_run_view{options} AS SELECT c.namespace, c.id AS conversation_id, r.position, r.id, "
        f"{json('r.input')} AS input, {json(output)} AS output, {json('r.metadata')} AS metadata, "
        f"{time('r.created_at')} AS created_at, r.is_open FROM {prefix}memory_runs r "
        f"JOIN {prefix}memory_conversations c ON c.key = r.conversation_key WHERE {present}"
    )


def downgrade() -> None:
    """Drop what older code cannot read: open runs become runs without an output, and long ids their keys."""
    schema = _schema()
    views = _views()
    views.downgrade()
    runs = sa.Table(_RUNS, sa.MetaData(), sa.Column("output", sa.Text))
    op.execute(sa.update(runs).where(runs.c.output == "").values(output="null"))
    for name in _INDEXES_OF_OPEN_RUNS:
        op.drop_index(name, _RUNS, schema=schema)
    op.drop_index(_INDEX_BY_TIME, _CONVERSATIONS, schema=schema)
    op.drop_column(_RUNS, "is_open", schema=schema)
    for name in ("long_id", "last_run_at", "expires_after"):
        op.drop_column(_CONVERSATIONS, name, schema=schema)
    views.upgrade()
