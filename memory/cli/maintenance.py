"""What `memory stats` and `memory migrate` show."""

from pathlib import Path

from memory.cli.options import Settings
from memory.cli.progress import progress
from memory.core.store import Store
from memory.domain.timestamps import format_timestamp
from memory.domain.values import Json
from memory.port.repository import SchemaStatus
from memory.port.urls import redact


def facts(settings: Settings, store: Store) -> dict[str, Json]:
    """Return what is in the store, by name."""
    schema = store.schema_status()
    conversations = runs = 0
    created: list[int] = []
    with store.begin() as uow:
        for conversation in uow.conversations.iterate(order="created_at"):
            if conversation.record is not None:
                created[1:] = [conversation.record.created_at]
            conversations += 1
            runs += conversation.run_count
    return {
        "store": redact(settings.url),
        "namespace": store.namespace_name,
        "schema": schema.current,
        "conversations": conversations,
        "runs": runs,
        "oldest": format_timestamp(created[0]) if created else None,
        "newest": format_timestamp(created[-1]) if created else None,
        "bytes": None if settings.file is None else _size(settings.file),
        **_waiting(store),
        **{f"warning {number}": warning for number, warning in enumerate(store.repository.warnings(), 1)},
    }


def _waiting(store: Store) -> dict[str, Json]:
    facts: dict[str, Json] = {}
    for replica, waiting in store.repository.waiting().items():
        facts[f"waiting for {replica}"] = waiting.change_sets
        facts[f"oldest for {replica}"] = format_timestamp(waiting.oldest)
    return facts


def migrate_watched(store: Store) -> SchemaStatus:
    """Migrate; show the progress on stderr, if that is a terminal."""
    with progress("migrating", lambda: 100) as advance:
        return store.migrate(lambda what, part: advance(round(100 * (part or 0)), what))


def _size(file: Path) -> int:
    """Return the size of a sqlite file with its write-ahead log."""
    log = file.with_name(f"{file.name}-wal")
    return file.stat().st_size + (log.stat().st_size if log.exists() else 0)
