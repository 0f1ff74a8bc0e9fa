"""Reading a format as the command line does, into a store of its own."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import memory
from memory import Conversation, Run, Store
from memory.formats.opening import read_all
from memory.formats.registry import Source
from memory.testing.base import read_runs
from memory.transfer import RejectedConversation, Totals, restore

SAMPLES = Path(__file__).with_name("samples")
AT = 1_700_000_000_000_000


@pytest.fixture
def store() -> Iterator[Store]:
    with memory.connect("sqlite://") as opened:
        yield opened


Imported = tuple[Totals, list[str]]
Importing = Callable[..., Imported]


@pytest.fixture
def importing(store: Store) -> Importing:
    """Import the bytes of a file, or what an address names, into the store; return the totals and why some were refused."""
    return lambda *arguments, **options: import_into(store, *arguments, **options)


def import_into(
    store: Store,
    format: str | None,
    content: bytes | str | Path,
    name: str = "file",
    on_conflict: Any = "skip",
    **options: str,
) -> Imported:
    path = content if isinstance(content, Path) else None
    content = path.read_bytes() if path is not None and path.is_file() else content
    stream = io.BufferedReader(io.BytesIO(content)) if isinstance(content, bytes) else None
    source = Source(name if stream or path else str(content), AT, stream, options, path=path)
    refusals: list[RejectedConversation] = []
    totals = restore(store, read_all(format, source), on_conflict=on_conflict, on_refusal=refusals.append)
    return totals, [f"{refusal.number}: {refusal.reason}" for refusal in refusals]


def kept(store: Store, id: str) -> tuple[Conversation, list[Run]]:
    with store.begin() as uow:
        found = uow.conversations.get(id)
    return found, read_runs(store, id)


def pairs(store: Store) -> dict[str, list[tuple[Any, Any]]]:
    """Return the inputs and outputs of all conversations."""
    with store.begin() as uow:
        ids = [conversation.id for conversation in uow.conversations.iterate(order="id")]
    return {id: [(run.input, run.output) for run in read_runs(store, id)] for id in ids}
