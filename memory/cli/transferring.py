"""Import and export, with a progress bar where somebody watches."""

import errno
import gc
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final

import typer

from memory.cli.files import STANDARD, open_input, open_output
from memory.cli.progress import progress
from memory.cli.reporting import FAILED, complain, visible
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
from memory.transfer import DEFAULT_LIMITS, Limits, OnConflict, RejectedConversation, Totals, dump, read_whole, restore

_NAMED: Final = 3  # conversations that were skipped
SELDOM: Final = 200_000
"""Objects until the cycle collector runs: records are in no cycles, and at 700 it took a sixth of the time."""

_UNNAMEABLE: Final = frozenset([errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR])
"""What a file system says to a name it cannot give to a file: of this conversation, not of the next one."""


def import_sources(
    store: Store,
    names: list[str],
    on_conflict: OnConflict,
    format: str = NATIVE,
    options: Mapping[str, str] | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Totals:
    """Import files, or what addresses name; tell what cannot be read, and in the end what has been written, whatever happens.

    Args:
        store: where to.
        names: of files, ``-`` for stdin; or addresses, where the format is read from a server.
        on_conflict: as `restore`.
        format: a name in `memory.formats.registry.FORMATS`.
        options: the format's.
        limits: what is refused.

    Raises:
        ConfigurationError: an option or an address cannot work.
        PersistenceError: as `restore`; or a source could not be read on.
    """
    options = options or {}
    if "id" in options and len(names) > 1:
        raise ConfigurationError(f"--id names one conversation, and there are {len(names)} files")
    totals, skipped = Totals(), list[str]()
    gc.set_threshold(SELDOM)
    store.ensure_ready()  # a store that cannot be used is told before anything is read
    try:
        for name in names:
            _import_one(store, name, format, options, limits, on_conflict=on_conflict, totals=totals, skipped=skipped)
    finally:
        what = "lines" if format == NATIVE else "conversations"
        refused = f", refused {totals.refused:,} {what}" if totals.refused else ""
        told = f"imported {totals.conversations:,} conversations and {totals.runs:,} runs"
        print(visible(told + _skipped(totals.skipped, skipped) + refused))
    return totals


def _skipped(count: int, first: list[str]) -> str:
    more = f" and {count - len(first):,} more" if count > len(first) else ""
    return f", skipped {count:,} that exist already ({', '.join(first)}{more})" if count else ""


def _import_one(
    store: Store,
    name: str,
    format: str,
    options: Mapping[str, str],
    limits: Limits,
    *,
    on_conflict: OnConflict,
    totals: Totals,
    skipped: list[str],
) -> None:
    is_file = FORMATS[format].is_file

    def skip(id: str) -> None:
        if len(skipped) < _NAMED:
            skipped.append(id)

    def tell(refusal: RejectedConversation) -> None:
        complain(f"{name if is_file else format}:{refusal.number}: {refusal.reason}")  # an address may hold a password

    with ExitStack() as stack:
        if is_file:
            opened = stack.enter_context(open_input(name, limits))
            stem = "stdin" if name == STANDARD else formats.name_of(name)
            source = formats.Source(stem, opened.modified_at, opened.lines, options, limits)
            size, position = opened.size, opened.position
        else:
            source = formats.Source(name, now(), None, options, limits)
            size, position = None, int
        advance = stack.enter_context(progress(redact(name), lambda: size))
        try:
            restore(
                store,
                formats.read(format, source),
                on_conflict=on_conflict,
                on_refusal=tell,
                on_skipped=skip,
                progress=lambda _: advance(position()),
                totals=totals,
            )
        except AlreadyExistsError as error:
            raise AlreadyExistsError(f"{name if is_file else format}: {error}") from error


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


def export_griptape(store: Store, name: str, criterion: Criterion | None, order: str) -> int:
    """Export what matches for Griptape's local driver: one conversation to a file, or each to one of its own in a folder.

    A conversation whose file cannot be named so is told, and the rest goes on.

    Raises:
        InvalidValueError: a file is named, and not just one conversation matches.
        typer.Exit: there were such conversations; all others are exported.
    """
    if name != STANDARD and (name.endswith(os.sep) or Path(name).is_dir()):
        return _export_folder(store, Path(name), criterion, order)
    with store.begin() as uow:
        found = list(islice(uow.conversations.iterate(criterion, order=order), 2))
    if len(found) != 1:
        raise InvalidValueError(
            f"{'several conversations match' if found else 'no conversation matches'}, and a file is one: "
            "choose it by --where 'id == \"...\"', or name a folder, with / at its end"
        )
    return int(_export_griptape(store, found[0], name))


def _export_folder(store: Store, folder: Path, criterion: Criterion | None, order: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    exported = refused = 0
    is_complete = False
    try:
        with store.begin() as uow, progress(str(folder), lambda: count(store, criterion)) as advance:
            for conversation in uow.conversations.iterate(criterion, order=order):
                try:
                    exported += _export_griptape(
                        store, conversation, str(folder / f"{stem_of(conversation.id)}{ENDING}")
                    )
                except OSError as error:
                    if error.errno not in _UNNAMEABLE:
                        raise
                    complain(f"conversation {conversation.id!r} was not exported: {error.strerror}")
                    refused += 1
                    continue
                advance(exported)
        is_complete = True
    finally:
        if refused or not is_complete:
            print(f"exported {exported:,} conversations, refused {refused:,}", file=sys.stderr)
    if refused:
        raise typer.Exit(FAILED)
    return exported


def _export_griptape(store: Store, found: Conversation, name: str) -> bool:
    """Write the file of a conversation; return False, and write none, if it is gone by now."""
    with read_whole(store, found.id, found.record) as read:
        if read is None:
            return False
        metadata = Conversation.from_record(read.record).metadata
        with open_output(name) as stream:
            for piece in write_envelope(metadata, (Run.from_record(found.id, run) for run in read.runs)):
                stream.write(piece)
            stream.flush()
    return True


def count(store: Store, criterion: Criterion | None) -> int:
    """Return how many conversations match."""
    with store.begin() as uow:
        return uow.conversations.count(criterion)
