"""A bar on stderr for what takes long, where somebody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """What moves a bar on: to how much is done, with a note on it."""

    def __call__(self, completed: int, note: str = "") -> None:
        """Show this."""


@contextmanager
def progress(description: str, total: Callable[[], int | None], unit: str = "") -> Iterator[Advance]:
    """Show a bar on stderr while inside, if that is a terminal; yield what moves it on.

    Args:
        description: what is being done.
        total: says how much there is, if anybody watches; None where that cannot be known.
        unit: of what is done, if a rate is to be shown: ``"conversations"``.
    """
    if not sys.stderr.isatty():
        yield lambda completed, note="": None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, Task, TextColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            self.text_format = f"{task.speed:,.0f} {unit}/s" if unit and task.speed else ""
            return super().render(task)

    columns = [*Progress.get_default_columns(), Rate(""), TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(description), total=total(), note="")
        yield lambda completed, note="": bar.update(task, completed=completed, note=escape(note))
