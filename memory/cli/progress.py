"""A progress bar on stderr, if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(description: str, total: Callable[[], int | None]) -> Iterator[Callable[..., object]]:
    """Show a progress bar while inside, if stderr is a terminal; yield the function that updates it.

    The function takes how much is done, and a note. ``total`` is called only if the bar is shown.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, TextColumn

    columns = [*Progress.get_default_columns(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(description), total=total(), note="")
        yield lambda completed, note="": bar.update(task, completed=completed, note=escape(note))
