"""Read-only views of conversations and runs with readable types, for an application's own queries.

Their columns stay as they are in later revisions: memory/adapters/sql/tables.py describes them.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = {
    "postgresql": {
        "time": "timestamptz 'epoch' + {} * interval '1 microsecond'",
        "json": "{}::json",
        "now": "CAST(extract(epoch FROM now()) * 1000000 AS bigint)",
    },
    "sqlite": {
        "time": "strftime('%Y-%m-%d %H:%M:%f', {} / 1000000.0, 'unixepoch')",
        "json": "{}",
        "now": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    },
}


def prefix() -> str:
    """Return the schema in front of a table: Alembic does not translate texts of statements."""
    bind = op.get_bind()
    schema = (bind.get_execution_options().get("schema_translate_map") or {}).get(None)
    return f"{bind.dialect.identifier_preparer.quote_schema(schema)}." if schema else ""


def options() -> str:
    """Let a view show what its reader may see, under row-level security too; without the option, what its owner may see."""
    dialect = op.get_bind().dialect
    has_option = dialect.name == "postgresql" and (dialect.server_version_info or ()) >= (15,)
    return " WITH (security_invoker = true)" if has_option else ""


def upgrade() -> None:
    schema, option = prefix(), options()
    forms = COLUMNS[op.get_bind().dialect.name]
    time, json = forms["time"].format, forms["json"].format
    present = f"c.expires_at IS NULL OR c.expires_at > {forms['now']}"
    op.execute(
        f"CREATE VIEW {schema}memory_conversation_view{option} AS SELECT c.namespace, c.id, "
        f"{json('c.metadata')} AS metadata, c.version, c.run_count, "
        f"{time('c.created_at')} AS created_at, {time('c.updated_at')} AS updated_at, "
        f"{time('c.expires_at')} AS expires_at FROM {schema}memory_conversations c WHERE {present}"
    )
    op.execute(
        f"CREATE VIEW {schema}memory_run_view{option} AS SELECT c.namespace, c.id AS conversation_id, r.position, r.id, "
        f"{json('r.input')} AS input, {json('r.output')} AS output, {json('r.metadata')} AS metadata, "
        f"{time('r.created_at')} AS created_at FROM {schema}memory_runs r "
        f"JOIN {schema}memory_conversations c ON c.key = r.conversation_key WHERE {present}"
    )


def downgrade() -> None:
    for view in ("memory_run_view", "memory_conversation_view"):
        op.execute(f"DROP VIEW {prefix()}{view}")
