"""Copying from one store to another, and comparing them, with a progress bar where somebody watches."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from memory.cli.options import Settings
from memory.cli.progress import progress
from memory.cli.reporting import complain, visible
from memory.cli.transferring import SELDOM, count
from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.errors import ConfigurationError, SchemaError
from memory.port.urls import redact
from memory.transfer import CopyTotals, OnConflict, copy
from memory.transfer.verifying import Compared, Side, has_any, verify


@dataclass(frozen=True, slots=True)
class Stores:
    """The two stores of a command, open; of each one namespace, or all."""

    source: Store
    target: Store
    one_namespace: bool

    @classmethod
    @contextmanager
    def opened(cls, source: Settings, target: Settings, *, may_make: bool) -> Iterator[Self]:
        """Open both stores while inside.

        Args:
            source: where it is.
            target: likewise.
            may_make: the target may be a file that is not there yet.

        Raises:
            PersistenceError: one of them cannot be used.
        """
        gc.set_threshold(SELDOM)
        with source.open_existing() as here, target.open() if may_make else target.open_existing() as there:
            for settings, store in ((source, here), (target, there)):
                try:
                    store.ensure_ready()
                except SchemaError as error:
                    raise SchemaError(f"{redact(settings.url)}: {error}") from error
            yield cls(here, there, source.namespace is not None)

    def check_source(self) -> None:
        """Raise where one namespace is named that has nothing: a mistyped name must not look like an empty one.

        Raises:
            ConfigurationError: so it is.
        """
        if self.one_namespace and not has_any(self.source):
            raise ConfigurationError(
                f"the source has nothing in the namespace {self.source.namespace_name!r}: "
                "`memory namespaces` lists the namespaces that it has"
            )

    def copy(self, criterion: Criterion | None, on_conflict: OnConflict, *, delete: bool) -> bool:
        """Copy, tell what could not be, and in the end what has been, whatever happens; return whether all is copied."""
        totals = CopyTotals()
        begin = time.monotonic()
        try:
            with progress("copying", lambda: self._count(criterion), "conversations") as advance:
                copy(
                    self.source,
                    self.target,
                    criterion,
                    all_namespaces=not self.one_namespace,
                    on_conflict=on_conflict,
                    delete=delete,
                    on_not_copied=lambda one: complain(str(one)),
                    progress=lambda totals: advance(totals.seen, f"{totals.runs:,} runs"),
                    totals=totals,
                )
        finally:
            print(_told(totals, time.monotonic() - begin))
        return not (totals.kept or totals.failed)

    def verify(self, criterion: Criterion | None) -> bool:
        """Compare, and tell what is not the same and what was compared; return whether all is."""
        compared = Compared()
        with progress("comparing", lambda: self._count(criterion), "conversations") as advance:
            for difference in verify(
                self.source,
                self.target,
                criterion,
                all_namespaces=not self.one_namespace,
                progress=lambda compared: advance(compared.source.conversations, f"{compared.source.runs:,} runs"),
                compared=compared,
            ):
                print(visible(str(difference)))
        print(f"source: {_side(compared.source)}\ntarget: {_side(compared.target)}")
        print(f"{compared.differing:,} conversations differ" if compared.differing else "both are the same")
        return not compared.differing

    def _count(self, criterion: Criterion | None) -> int:
        if self.one_namespace:
            return count(self.source, criterion)
        return sum(count(self.source.namespace(name), criterion) for name in self.source.namespaces())


def _told(totals: CopyTotals, seconds: float) -> str:
    parts = [
        f"copied {totals.conversations:,} conversations and {totals.runs:,} runs in {seconds:,.1f} s, "
        f"{totals.conversations / max(seconds, 0.001):,.0f} conversations/s"
    ]
    parts += [f"{totals.equal:,} were the same already"] if totals.equal else []
    parts += [f"removed {totals.removed:,}"] if totals.removed else []
    parts += [f"skipped {totals.kept:,} that the target has otherwise"] if totals.kept else []
    parts += [f"failed at {totals.failed:,}"] if totals.failed else []
    return "; ".join(parts)


def _side(side: Side) -> str:
    return f"{side.conversations:,} conversations and {side.runs:,} runs, sha256 {side.digest}"
