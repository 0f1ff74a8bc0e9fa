"""Import and export, with a progress bar where somebody watches."""

import gc
from typing import Final

from memory.cli.files import open_input, open_output
from memory.cli.progress import progress
from memory.cli.reporting import complain
from memory.query import Criterion
from memory.store import Store
from memory.transfer import OnConflict, Refusal, Totals, dump, read_lines, restore

SELDOM: Final = 200_000
"""Objects until the cycle collector runs: records are in no cycles, and at 700 it took a sixth of the time."""


def import_files(store: Store, names: list[str], on_conflict: OnConflict) -> Totals:
    """Import files, tell what is wrong with their lines, and in the end what has been written, whatever happens."""
    totals = Totals()
    gc.set_threshold(SELDOM)
    store.begin()  # a store that cannot be used is told before anything is read
    try:
        for name in names:
            _import_file(store, name, on_conflict, totals)
    finally:
        skipped = f", skipped {totals.skipped:,} that exist already" if totals.skipped else ""
        refused = f", refused {totals.refused:,} lines" if totals.refused else ""
        print(f"imported {totals.conversations:,} conversations and {totals.runs:,} runs{skipped}{refused}")
    return totals


def _import_file(store: Store, name: str, on_conflict: OnConflict, totals: Totals) -> None:
    def tell(refusal: Refusal) -> None:
        complain(f"{name}:{refusal.number}: {refusal.reason}")

    with open_input(name) as source, progress(name, lambda: source.size) as advance:
        restore(
            store,
            read_lines(source.lines),
            on_conflict=on_conflict,
            on_refusal=tell,
            progress=lambda _: advance(source.position()),
            totals=totals,
        )


def export_file(store: Store, name: str, criterion: Criterion | None, order: str) -> int:
    """Export what matches, and return how many conversations that are."""
    exported = 0
    with open_output(name) as stream, progress(name, lambda: count(store, criterion)) as advance:
        for piece in dump(store, criterion, order=order):
            stream.write(piece)
            if piece.endswith("\n"):
                exported += 1
                advance(exported)
        stream.flush()
    return exported


def count(store: Store, criterion: Criterion | None) -> int:
    """Return how many conversations match."""
    with store.begin() as uow:
        return uow.conversations.count(criterion)
