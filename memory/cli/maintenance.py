"""What `memory stats`, `memory migrate` and `memory upgrade-metadata` do and show."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from memory.cli.options import Settings
from memory.cli.progress import progress
from memory.cli.reporting import complain
from memory.core.store import Store
from memory.domain.timestamps import format_timestamp
from memory.domain.values import Json
from memory.errors import ConfigurationError, CorruptRecordError
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


def import_named(name: str) -> Any:
    """Return the object that ``module:object`` names. The module may be in the current folder.

    Raises:
        ConfigurationError: there is no such module or object.
    """
    module, _, path = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{name!r} names no object: {error}; write module:object") from error
    return found


def upgrade_reported(store: Store, *, all_namespaces: bool) -> tuple[int, bool]:
    """Upgrade the metadata, and report what does not fit the type. Return the number of changes, and whether everything fits."""
    corrupt: list[CorruptRecordError] = []

    def report(error: CorruptRecordError) -> None:
        corrupt[:] = [error]
        complain(f"not upgraded: {error}")

    return store.upgrade_metadata(all_namespaces=all_namespaces, on_corrupt=report), not corrupt


def _size(file: Path) -> int:
    """Return the size of a sqlite file with its write-ahead log."""
    log = file.with_name(f"{file.name}-wal")
    return file.stat().st_size + (log.stat().st_size if log.exists() else 0)
