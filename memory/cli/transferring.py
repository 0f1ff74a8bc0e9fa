"""`memory import` and `memory export`, with a progress bar on a terminal."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from memory.cli.files import STANDARD, open_input, open_output
from memory.cli.progress import progress
from memory.cli.reporting import complain, counted, visible
from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.domain.entities import Conversation, Run
from memory.domain.values import now
from memory.errors import AlreadyExistsError, ConfigurationError, InvalidValueError
from memory.formats import registry as formats
from memory.formats.envelopes import write_envelope
from memory.formats.griptape_local import ENDING, stem_of
from memory.formats.registry import FORMATS, NATIVE
from memory.port.urls import redact
from memory.transfer import Limits, OnConflict, RejectedConversation, Totals, dump, read_whole, restore
from memory.transfer.verifying import has_any

_NAMED: Final = 3  # skipped conversations that are named
GC_THRESHOLD: Final = 200_000
"""Objects until the garbage collector runs: records form no cycles, and at Python's 700 it took a sixth of the time."""


def import_sources(
    store: Store,
    names: list[str],
    on_conflict: OnConflict,
    format: str,
    options: Mapping[str, str],
    *,
    limits: Limits,
    all_namespaces: bool,
) -> Totals:
    """Import from files (``-`` is stdin) or servers; report what cannot be read as it occurs, and a summary even on error."""
    if "id" in options and len(names) > 1:
        raise ConfigurationError(f"--id is for one conversation, and there are {len(names)} files")
    totals, skipped = Totals(), list[str]()

    def skip(id: str) -> None:
        if len(skipped) < _NAMED:
            skipped.append(id)

    gc.set_threshold(GC_THRESHOLD)
    store.ensure_ready()  # a store that cannot be used is reported before anything is read
    try:
        for name in names:
            shown = name if FORMATS[format].is_file else format  # an address may contain a password
            with _opened(name, format, options, limits) as (source, advance):
                try:
                    restore(
                        store,
                        formats.read(format, source),
                        all_namespaces=all_namespaces,
                        on_conflict=on_conflict,
                        on_refusal=partial(_report_refusal, shown),
                        on_skipped=skip,
                        progress=lambda _, advance=advance: advance(),  # type: ignore[misc]
                        totals=totals,
                    )
                except AlreadyExistsError as error:
                    raise AlreadyExistsError(f"{shown}: {error}") from error
    finally:
        print(visible(_summary(totals, skipped, "line" if format == NATIVE else "conversation")))
    return totals


@contextmanager
def _opened(
    name: str, format: str, options: Mapping[str, str], limits: Limits
) -> Iterator[tuple[formats.Source, Callable[[], object]]]:
    """Open a source while inside, with a function that updates its progress bar."""
    if not FORMATS[format].is_file:
        with progress(redact(name), lambda: None):
            yield formats.Source(name, now(), None, options, limits), lambda: None
        return
    with open_input(name, limits) as file, progress(name, lambda: file.size) as advance:
        stem = "stdin" if name == STANDARD else formats.name_of(name)
        source = formats.Source(stem, file.modified_at, file.lines, options, limits)
        yield source, lambda: advance(file.position())


def _report_refusal(source: str, refusal: RejectedConversation) -> None:
    complain(f"{source}:{refusal.number}: {refusal.reason}")


def _summary(totals: Totals, skipped: list[str], unit: str) -> str:
    parts = [f"imported {counted(totals.conversations, 'conversation')} and {counted(totals.runs, 'run')}"]
    if totals.skipped:
        more = f" and {totals.skipped - len(skipped):,} more" if totals.skipped > len(skipped) else ""
        parts.append(f"skipped {totals.skipped:,} that already exist ({', '.join(skipped)}{more})")
    if totals.refused:
        parts.append(f"refused {counted(totals.refused, unit)}")
    return ", ".join(parts)


def check_namespace(store: Store) -> None:
    """Check that a namespace that was named has conversations: a mistyped name must not look like an empty namespace."""
    if not has_any(store):
        raise ConfigurationError(
            f"there are no conversations in the namespace {store.namespace_name!r}: `memory namespaces` lists the namespaces"
        )


def export_file(
    store: Store, name: str, criterion: Criterion | None, order: str, *, all_namespaces: bool = False
) -> int:
    """Export the conversations that match; return how many."""
    exported = 0
    total = partial(count, store, criterion, all_namespaces=all_namespaces)
    with open_output(name) as stream, progress(name, total) as advance:
        for piece in dump(store, criterion, all_namespaces=all_namespaces, order=order):
            stream.write(piece)
            if piece.endswith("\n"):
                exported += 1
                advance(exported)
        stream.flush()
    return exported


def export_griptape(store: Store, name: str, criterion: Criterion | None, order: str) -> int:
    """Export for Griptape's local driver: one conversation to a file, or each conversation to its own file in a folder."""
    if name != STANDARD and (name.endswith(os.sep) or Path(name).is_dir()):
        return _export_folder(store, Path(name), criterion, order)
    with store.begin() as uow:
        found = list(islice(uow.conversations.iterate(criterion, order=order), 2))
    if len(found) != 1:
        raise InvalidValueError(
            f"{'several conversations match' if found else 'no conversation matches'}, but a file holds one: "
            "choose it by --where 'id == \"...\"', or name a folder, with / at its end"
        )
    return int(_export_griptape(store, found[0], name))


def _export_folder(store: Store, folder: Path, criterion: Criterion | None, order: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    exported = 0
    with store.begin() as uow, progress(str(folder), lambda: count(store, criterion)) as advance:
        for conversation in uow.conversations.iterate(criterion, order=order):
            exported += _export_griptape(store, conversation, str(folder / f"{stem_of(conversation.id)}{ENDING}"))
            advance(exported)
    return exported


def _export_griptape(store: Store, found: Conversation, name: str) -> bool:
    """Write the file of a conversation; return False, without writing, if the conversation no longer exists."""
    with read_whole(store, found.id, found.record) as read:
        if read is None:
            return False
        metadata = Conversation.from_record(read.record).metadata
        with open_output(name) as stream:
            for piece in write_envelope(metadata, (Run.from_record(found.id, run) for run in read.runs)):
                stream.write(piece)
            stream.flush()
    return True


def count(store: Store, criterion: Criterion | None, *, all_namespaces: bool = False) -> int:
    """Return how many conversations match."""
    stores = map(store.namespace, store.namespaces()) if all_namespaces else [store]
    return sum(each.begin().conversations.count(criterion) for each in stores)
