"""The command ``memory``: import, export, copy, find, show and maintain conversations in any store."""

import sys
from collections.abc import Sequence

_LIBRARIES = ("typer", "rich", "click")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default with this process's arguments, and return its exit code."""
    try:
        from memory.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in _LIBRARIES:
            raise
        print("error: the command line needs more packages: pip install 'conversation-memory[cli]'", file=sys.stderr)
        return 1
    return run(arguments)
