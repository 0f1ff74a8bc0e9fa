"""What the tests of mirrors compare."""

from typing import cast

from memory.adapters.sql import SqlRepository
from memory.mirroring import MirroredStore


def namespaces_of(store: MirroredStore) -> set[str]:
    """Return every namespace that something was written to."""
    engine = cast(SqlRepository, store.repository).engine
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT namespace FROM memory_conversations UNION SELECT namespace FROM memory_outbox"
        )
        return {row[0] for row in rows}
