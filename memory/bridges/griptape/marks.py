"""Hide runs: they stay in the store but are not loaded.

A run's metadata can hold a mark. Its ``position`` is the position from which the conversation is loaded; 0 means the run with
the mark. The last such mark in the conversation applies. It is written with an appended run, so that hiding needs no edit and
never conflicts. If runs of others lie in between, ``hidden`` hides single runs. ``of`` is when the conversation was created: a
mark of another conversation under the same id is ignored.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from memory.domain.entities import Run
from memory.formats.griptape import SHOWN_FROM


def shown_from(runs: Sequence[Run], created_at: int) -> int:
    """Return the position of the last mark among these runs, from which they are loaded; 0 if there is no mark."""
    for run in reversed(runs):
        position = _mark(run, created_at).get("position")
        if isinstance(position, int):
            return position or (run.position or 0)
    return 0


def visible(runs: Iterable[Run], first: int, created_at: int) -> list[Run]:
    """Return the visible runs: those from this position on that are not hidden one by one."""
    return [run for run in runs if (run.position or 0) >= first and not _mark(run, created_at).get("hidden")]


def has_mark(run: Run, created_at: int) -> bool:
    """Return whether the run has a mark with a position."""
    return "position" in _mark(run, created_at)


def mark(run: Run, created_at: int, position: int) -> Run:
    """Return the run with a mark to load the conversation from this position."""
    return _with(run, {**_mark(run, created_at), "position": position, "of": created_at})


def hide(run: Run, created_at: int) -> Run:
    """Return the run with a mark that hides it."""
    return _with(run, {**_mark(run, created_at), "hidden": True, "of": created_at})


def in_place_of(run: Run, stored: Run, created_at: int) -> Run:
    """Return the run, visible, with the position mark of the run that it replaces."""
    kept = _mark(stored, created_at)
    return _with(run, {name: value for name, value in kept.items() if name != "hidden"} if "position" in kept else None)


def _mark(run: Run, created_at: int) -> dict[str, Any]:
    found = run.metadata.get(SHOWN_FROM)
    return found if isinstance(found, dict) and found.get("of") == created_at else {}


def _with(run: Run, value: dict[str, Any] | None) -> Run:
    metadata = {name: part for name, part in run.metadata.items() if name != SHOWN_FROM}
    return replace(run, metadata=metadata if value is None else {**metadata, SHOWN_FROM: value})
