"""Run the revisions on the connection that `memory.adapters.sql.schema` passes in, inside its transaction and lock.

To create a revision: ``alembic -x url=sqlite:///scratch.db revision --autogenerate --rev-id 0003 -m "what changes"``.
"""

from alembic import context
from sqlalchemy import Connection, create_engine

from memory.adapters.sql.tables import PREFIX, VERSION_TABLE, metadata


def _is_ours(name: str | None, type_: str, *_: object) -> bool:
    return type_ != "table" or (name or "").startswith(PREFIX)


def _run(connection: Connection) -> None:
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        version_table_schema=schemas.get(None),  # Alembic does not apply the map to its version table
        include_name=_is_ours,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if (connection := context.config.attributes.get("connection")) is not None:
    _run(connection)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as own:
        _run(own)
