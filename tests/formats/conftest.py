"""Reading a format as the command line does, into a store of its own."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import memory
from memory import Conversation, Run, Store
from memory.formats.registry import Source, read
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
    store: Store, format: str, content: bytes | str, name: str = "file", on_conflict: Any = "skip", **options: str
) -> Imported:
    stream = io.BufferedReader(io.BytesIO(content)) if isinstance(content, bytes) else None
    source = Source(name if stream else str(content), AT, stream, options)
    refusals: list[RejectedConversation] = []
    totals = restore(store, read(format, source), on_conflict=on_conflict, on_refusal=refusals.append)
    return totals, [f"{refusal.number}: {refusal.reason}" for refusal in refusals]


def kept(store: Store, id: str) -> tuple[Conversation, list[Run]]:
    with store.begin() as uow:
        found = uow.conversations.get(id)
    return found, read_runs(store, id)
