"""How runs are hidden: they stay in the store, and are not loaded.

A run's metadata can hold a mark. Its ``position`` says from where the conversation is loaded; 0 stands for the run that has
the mark. The last run with such a mark decides. It is written with an appended run, so hiding costs no edit and conflicts with
nobody. Where runs of others lie in between, ``hidden`` hides single runs. ``of`` is when the conversation was created: in
another conversation under the same id a mark means nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from memory.domain.entities import Run
from memory.formats.griptape import SHOWN_FROM


def shown_from(runs: Sequence[Run], created_at: int) -> int:
    """Return the position from which these runs are loaded, as the last mark among them says; 0 if there is none."""
    for run in reversed(runs):
        position = _mark(run, created_at).get("position")
        if isinstance(position, int):
            return position or (run.position or 0)
    return 0


def visible(runs: Iterable[Run], first: int, created_at: int) -> list[Run]:
    """Return the runs that are loaded: from this position on, without those that are hidden one by one."""
    return [run for run in runs if (run.position or 0) >= first and not _mark(run, created_at).get("hidden")]


def has_mark(run: Run, created_at: int) -> bool:
    """Return whether the run says from where the conversation is loaded."""
    return "position" in _mark(run, created_at)


def mark(run: Run, created_at: int, position: int) -> Run:
    """Return the run with a mark that the conversation is loaded from this position."""
    return _with(run, {**_mark(run, created_at), "position": position, "of": created_at})


def hide(run: Run, created_at: int) -> Run:
    """Return the run hidden."""
    return _with(run, {**_mark(run, created_at), "hidden": True, "of": created_at})


def in_place_of(run: Run, stored: Run, created_at: int) -> Run:
    """Return the run with the mark of the run that it replaces, visible."""
    kept = _mark(stored, created_at)
    return _with(run, {name: value for name, value in kept.items() if name != "hidden"} if "position" in kept else None)


def _mark(run: Run, created_at: int) -> dict[str, Any]:
    found = run.metadata.get(SHOWN_FROM)
    return found if isinstance(found, dict) and found.get("of") == created_at else {}


def _with(run: Run, value: dict[str, Any] | None) -> Run:
    metadata = {name: part for name, part in run.metadata.items() if name != SHOWN_FROM}
    return replace(run, metadata=metadata if value is None else {**metadata, SHOWN_FROM: value})
