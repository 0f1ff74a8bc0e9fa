"""Errors as one line on stderr and an exit code; and text that is safe to show on a terminal."""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from memory.errors import PersistenceError
from memory.port.urls import redact

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130  # a shell's exit code for SIGINT
_PIPE_CLOSED: Final = 141  # and for SIGPIPE

# Control characters, characters that break lines or change the direction of text, and lone surrogates.
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_URL: Final = re.compile(r"[a-zA-Z][\w+.-]*://[^\s'\"]+")


def visible(text: str, *, keep: str = "") -> str:
    r"""Return the text with escapes for the characters, except ``keep``, that a terminal would execute instead of showing.

    >>> print(visible("\x1b[2Jgone"))
    \x1b[2Jgone
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    r"""Return the same JSON, in which these characters are escaped; line breaks between values stay.

    >>> print(visible_json('"\x9b2J"'))
    "\u009b2J"
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def counted(number: int, thing: str) -> str:
    """Return a number with a noun.

    >>> counted(1, "run"), counted(1_000, "run")
    ('1 run', '1,000 runs')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def complain(message: str) -> None:
    """Write one line to stderr."""
    print(visible(message.replace("\n", " ")), file=sys.stderr)


def _without_passwords(text: str) -> str:
    """Redact each URL in a traceback: errors of drivers may quote one; ours never do."""
    return _URL.sub(lambda found: redact(found[0]), text)


@contextmanager
def reported(*, debug: bool) -> Iterator[None]:
    """Report an exception as one line on stderr, after the traceback if ``debug``, and raise `typer.Exit` with its exit code."""
    try:
        yield
        sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError as error:  # `memory find ... | head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_PIPE_CLOSED) from error
    except KeyboardInterrupt as error:
        complain("error: interrupted")
        raise typer.Exit(INTERRUPTED) from error
    except Exception as error:
        if debug:
            print(_without_passwords(traceback.format_exc()), file=sys.stderr)
        complain(f"error: {_describe(error)}")
        raise typer.Exit(FAILED) from error


def _describe(error: Exception) -> str:
    if isinstance(error, PersistenceError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (this is a fault of the program; --debug shows where)"
