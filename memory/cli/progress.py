"""A progress bar on stderr, if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """A function that updates the bar: how much is done, and a note."""

    def __call__(self, completed: int, note: str = "") -> None:
        """Update the bar."""


@contextmanager
def progress(description: str, total: Callable[[], int | None], unit: str = "") -> Iterator[Advance]:
    """Show a progress bar while inside, if stderr is a terminal; yield the function that updates it.

    ``total`` is called only if the bar is shown. The rate is shown in ``unit``, for example ``"conversations"``; "" hides it.
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
