"""The command ``memory``: import, export, copy, find, show and maintain conversations in any store."""

import logging
import sys
from collections.abc import Sequence
from io import TextIOWrapper

_LIBRARIES = ("typer", "rich", "click")
_NO_LOG = logging.NullHandler()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default with this process's arguments, and return its exit code."""
    if isinstance(sys.stdout, TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # for JSON, whatever the locale is
    logging.getLogger("memory").addHandler(_NO_LOG)  # commands report to a person; Python would print warnings, too
    try:
        from memory.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in _LIBRARIES:
            raise
        print("error: the command line needs more packages: pip install 'conversation-memory[cli]'", file=sys.stderr)
        return 1
    return run(arguments)
