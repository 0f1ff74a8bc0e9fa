"""`memory import`: open the sources, find out their formats, write what they hold, and report it."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from memory.cli.files import STANDARD, Input, expand, open_input
from memory.cli.progress import progress
from memory.cli.reporting import complain, counted, visible
from memory.cli.transferring import GC_THRESHOLD
from memory.core.store import Store
from memory.domain.values import now
from memory.errors import AlreadyExistsError, ConfigurationError
from memory.formats.opening import Part, Unread, parts
from memory.formats.registry import FORMATS, NATIVE, Source, read
from memory.port.urls import redact
from memory.transfer import Limits, OnExisting, Totals, restore

_NAMED: Final = 3  # skipped conversations that are named


@dataclass
class Importing:
    """An import from files (``-`` is stdin) or servers, into a store: the options of the command, and what is done so far."""

    store: Store
    on_conflict: OnExisting
    format: str | None
    options: Mapping[str, str]
    limits: Limits
    all_namespaces: bool
    dry_run: bool
    totals: Totals = field(default_factory=Totals)
    skipped: list[str] = field(default_factory=list)
    formats: set[str] = field(default_factory=set)

    def run(self, names: list[str]) -> Totals:
        """Import; report what cannot be read as it occurs, and a summary even on error."""
        is_address = self.format is not None and not FORMATS[self.format].is_file
        inputs = [Input(name, name) for name in names] if is_address else expand(names)
        if "id" in self.options and len(inputs) > 1:
            raise ConfigurationError(f"--id is for one conversation, and there are {len(inputs)} files")
        gc.set_threshold(GC_THRESHOLD)
        self.store.ensure_ready()  # a store that cannot be used is reported before anything is read
        try:
            for each in inputs:
                shown = self.format or "" if is_address else each.path  # an address may contain a password
                with self._opened(each, is_address=is_address) as (source, advance):
                    prefix = f"{source.name}/" if len(inputs) > 1 else ""
                    for part in parts(source, self.format, prefix=prefix):
                        self._import_part(shown, part, advance)
        finally:
            print(visible(self._summary()))
        return self.totals

    @contextmanager
    def _opened(self, each: Input, *, is_address: bool) -> Iterator[tuple[Source, Callable[[], object]]]:
        """Open a source while inside, with a function that updates its progress bar."""
        if is_address or Path(each.path).is_dir():
            path = None if is_address else Path(each.path)
            with progress(redact(each.path), lambda: None):
                yield Source(each.name, now(), None, self.options, self.limits, path), lambda: None
            return
        with open_input(each.path, self.limits) as file, progress(each.path, lambda: file.size) as advance:
            path = None if each.path == STANDARD else Path(each.path)
            source = Source(each.name, file.modified_at, file.lines, self.options, self.limits, path)
            yield source, lambda: advance(file.position())

    def _import_part(self, shown: str, part: Part | Unread, advance: Callable[[], object]) -> None:
        where = f"{shown}:{part.name}" if part.name else shown
        if isinstance(part, Unread):
            complain(f"{where}: not read: {part.reason}")
            self.totals.refused += not part.name
            return
        self.formats.add(part.format)
        if self.format is None and part.format != NATIVE:
            complain(f"{where}: format {part.format}")
        try:
            restore(
                self.store,
                read(part.format, part.source),
                all_namespaces=self.all_namespaces,
                on_conflict=self.on_conflict,
                on_refusal=lambda refusal: complain(f"{where}:{refusal.number}: {refusal.reason}"),
                on_skipped=self._skip,
                on_newer=self._name_newer,
                progress=lambda _: advance(),
                totals=self.totals,
                dry_run=self.dry_run,
            )
        except AlreadyExistsError as error:
            raise AlreadyExistsError(f"{where}: {error}") from error

    def _skip(self, id: str) -> None:
        if len(self.skipped) < _NAMED:
            self.skipped.append(id)

    def _name_newer(self, id: str) -> None:
        self._skip(id)
        complain(f"{id!r} has more in the file than in the store: to add it, use --on-conflict update")

    def _summary(self) -> str:
        totals = self.totals
        done = "would import" if self.dry_run else "imported"
        parts = [f"{done} {counted(totals.conversations, 'conversation')} and {counted(totals.runs, 'run')}"]
        if totals.updated:
            parts.append(f"{'would update' if self.dry_run else 'updated'} {counted(totals.updated, 'conversation')}")
        if totals.skipped:
            more = totals.skipped - len(self.skipped)
            named = f"{', '.join(self.skipped)}{f' and {more:,} more' if more else ''}"
            parts.append(f"skipped {totals.skipped:,} that already exist ({named})")
        if totals.refused:
            unit = "line" if self.formats == {NATIVE} else "conversation" if self.formats else "file"
            parts.append(f"refused {counted(totals.refused, unit)}")
        return ", ".join(parts)
