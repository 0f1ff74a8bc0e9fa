"""The command ``memory``: conversations imported, exported, found, shown and looked after, in any store."""

import sys
from collections.abc import Sequence

_LIBRARIES = ("typer", "rich", "click")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: what follows the command's name; those of this process, when left out.
    """
    try:
        from memory.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in _LIBRARIES:
            raise
        print("error: the command line needs more: pip install 'conversation-memory[cli]'", file=sys.stderr)
        return 1
    return run(arguments)
