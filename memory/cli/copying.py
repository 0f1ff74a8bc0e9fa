"""`memory copy`: copy from one store to another and compare them, with a progress bar on a terminal."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from memory.cli.options import Settings
from memory.cli.progress import progress
from memory.cli.reporting import complain, counted, visible
from memory.cli.transferring import GC_THRESHOLD, count
from memory.core.store import Store
from memory.domain.criteria import Criterion
from memory.errors import SchemaError
from memory.port.urls import redact
from memory.transfer import Compared, OnConflict, Totals, copy, verify
from memory.transfer.verifying import Side


@contextmanager
def opened(settings: Settings, *, may_create: bool) -> Iterator[Store]:
    """Open a store while inside. It may be a file that does not exist if ``may_create``."""
    gc.set_threshold(GC_THRESHOLD)
    with settings.open() if may_create else settings.open_existing() as store:
        try:
            store.ensure_ready()
        except SchemaError as error:
            raise SchemaError(f"{redact(settings.url)}: {error}") from error
        yield store


def copy_all(
    source: Store,
    target: Store,
    criterion: Criterion | None,
    on_conflict: OnConflict,
    *,
    all_namespaces: bool,
    delete: bool,
) -> bool:
    """Copy; report failures as they occur and a summary at the end, even on error. Return True if everything was copied."""
    totals = Totals()
    begin = time.monotonic()
    total = partial(count, source, criterion, all_namespaces=all_namespaces)
    try:
        with progress("copying", total) as advance:
            copy(
                source,
                target,
                criterion,
                all_namespaces=all_namespaces,
                on_conflict=on_conflict,
                delete=delete,
                on_not_copied=lambda one: complain(str(one)),
                progress=lambda totals: advance(totals.seen, counted(totals.runs, "run")),
                totals=totals,
            )
    finally:
        print(_summary(totals, time.monotonic() - begin))
    return not (totals.skipped or totals.refused)


def verify_all(source: Store, target: Store, criterion: Criterion | None, *, all_namespaces: bool) -> bool:
    """Compare; report the differences and what was compared. Return True if both sides are equal."""
    compared = Compared()
    total = partial(count, source, criterion, all_namespaces=all_namespaces)
    with progress("comparing", total) as advance:
        for difference in verify(
            source,
            target,
            criterion,
            all_namespaces=all_namespaces,
            progress=lambda compared: advance(compared.source.conversations, counted(compared.source.runs, "run")),
            compared=compared,
        ):
            print(visible(str(difference)))
    print(f"source: {_side(compared.source)}\ntarget: {_side(compared.target)}")
    differ = "1 conversation differs" if compared.differing == 1 else f"{compared.differing:,} conversations differ"
    print(differ if compared.differing else "both are the same")
    return not compared.differing


def _summary(totals: Totals, seconds: float) -> str:
    parts = [
        f"copied {counted(totals.conversations, 'conversation')} and {counted(totals.runs, 'run')} in {seconds:,.1f} s, "
        f"{totals.conversations / max(seconds, 0.001):,.0f} conversations/s"
    ]
    parts += [f"equal before: {totals.equal:,}"] if totals.equal else []
    parts += [f"deleted: {totals.removed:,}"] if totals.removed else []
    parts += [f"skipped, different in the target: {totals.skipped:,}"] if totals.skipped else []
    parts += [f"failed: {totals.refused:,}"] if totals.refused else []
    return "; ".join(parts)


def _side(side: Side) -> str:
    return f"{counted(side.conversations, 'conversation')} and {counted(side.runs, 'run')}, sha256 {side.digest}"
