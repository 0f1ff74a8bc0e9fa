"""What the tests of mirrors compare."""

from typing import cast

from memory.adapters.sql import SqlRepository
from memory.transfer.mirroring import MirroredStore


def namespaces_of(store: MirroredStore) -> set[str]:
    """Return every namespace that something waits to be delivered in."""
    engine = cast(SqlRepository, store.repository).engine
    with engine.connect() as connection:
        return {row[0] for row in connection.exec_driver_sql("SELECT DISTINCT namespace FROM memory_outbox")}
