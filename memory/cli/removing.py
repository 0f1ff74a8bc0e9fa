"""The commands that remove conversations: `delete`, `purge`, `retain` and `erase`."""

import json
import re
import sys
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Final

import typer

from memory.cli.files import STANDARD, open_output
from memory.cli.options import Settings, Where, criterion_of, option
from memory.cli.progress import progress
from memory.cli.reporting import FAILED, complain, counted, visible
from memory.core.erasure import Erased
from memory.core.retention import Retained, Retention
from memory.domain.expressions import parse
from memory.domain.timestamps import format_timestamp
from memory.domain.values import to_microseconds
from memory.errors import InvalidValueError
from memory.port.urls import redact

_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", help="In all namespaces of the store.")]

_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def delete(
    settings: Settings,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The conversations' ids.")],
    yes: _Yes = False,
) -> None:
    """Delete conversations with their runs.

    If one of them does not exist, none is deleted.
    """
    named = set(ids)
    if not yes:
        _check_terminal("delete")
        _confirm(f"Delete {counted(len(named), 'conversation')} with all runs?")
    with settings.open_existing() as store:
        with store.begin() as uow:
            for conversation_id in named:
                uow.conversations.remove(conversation_id)
        print(f"deleted {counted(len(named), 'conversation')}")


def purge(settings: Settings, all_namespaces: _AllNamespaces = False) -> None:
    """Delete the conversations that have expired, and what removals have left (DynamoDB)."""
    _check_namespace(settings, all_namespaces=all_namespaces)
    with settings.open_existing() as store:
        purged = store.purge_expired(all_namespaces=all_namespaces)
        print(f"deleted {counted(purged, 'expired conversation')}")


def retain(
    settings: Settings,
    *,
    idle: Annotated[
        str | None, option("TIME", "Remove conversations whose last run is older, such as 90d; units: m, h, d, w.")
    ] = None,
    keep_last: Annotated[int | None, option("N", "Keep the last N runs of the other conversations.", min=1)] = None,
    where: Where = None,
    all_namespaces: _AllNamespaces = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be done.")] = False,
) -> None:
    """Remove idle conversations, trim the others to their last runs, and purge what has expired.

    It is safe beside writers, and can be interrupted: run it again. A conversation that somebody writes to meanwhile is skipped.
    """
    _check_namespace(settings, all_namespaces=all_namespaces)
    if idle is None and keep_last is None:
        raise InvalidValueError("say what to keep: --idle, --keep-last or both")
    retention = Retention(idle=None if idle is None else duration(idle), keep_last=keep_last, where=criterion_of(where))
    with settings.open_existing() as store, progress("retaining", lambda: None) as advance:
        retained = store.retain(
            retention,
            all_namespaces=all_namespaces,
            dry_run=dry_run,
            progress=lambda what, _: advance(None, what),
        )
    print(_retained(retained))


def erase(
    settings: Settings,
    expression: Annotated[
        str, typer.Argument(metavar="EXPRESSION", help="The conversations to erase, such as 'customer == \"ada\"'.")
    ],
    *,
    all_namespaces: _AllNamespaces = False,
    yes: _Yes = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all conversations afterwards, and compare each with the expression.")
    ] = False,
    report: Annotated[str | None, option("FILE", "Write a report as JSON; - for stdout.")] = None,
) -> None:
    """Erase everything that belongs to one person: conversations, runs, receipts, and what waits in the outbox.

    The exit code is 1 if something is left. On a mirrored store, run it for the primary and for each replica.
    """
    _check_namespace(settings, all_namespaces=all_namespaces)
    wanted = parse(expression)
    if not yes:
        _check_terminal("erase")
    with settings.open_existing() as store:
        if not yes:
            stores = map(store.namespace, store.namespaces()) if all_namespaces else [store]
            number = sum(each.conversations.count(wanted) for each in stores)
            _confirm(f"Erase {counted(number, 'conversation')} with all runs?")
        # The file is opened first, so that an erasure whose report cannot be written does not begin.
        output = nullcontext() if report is None else open_output(report)
        with output as file, progress("erasing", lambda: None) as advance:
            erased = store.erase(
                wanted,
                all_namespaces=all_namespaces,
                verify=verify,
                progress=lambda what, _: advance(None, what),
            )
            if file is not None:
                filed = {"store": redact(settings.url), **replace(erased, criterion=expression).to_dict()}
                file.write(json.dumps(filed, indent=2, ensure_ascii=False) + "\n")
    if report != STANDARD:
        print(_erased(erased))
    if not erased.is_complete:
        complain(f"error: {counted(erased.left, 'conversation')} left: run the command again")
        raise typer.Exit(FAILED)


def duration(text: str) -> timedelta:
    """Return the duration of text such as ``90d``: a number of minutes, hours, days or weeks.

    >>> duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text, re.ASCII)
    if found is None:
        raise InvalidValueError(f"write a time as a number with m, h, d or w, such as 90d, not {text!r:.60}")
    return int(found[1]) * _UNITS[found[2]]


def _check_namespace(settings: Settings, *, all_namespaces: bool) -> None:
    if all_namespaces and settings.namespace is not None:
        raise InvalidValueError("--all-namespaces excludes --namespace")


def _check_terminal(command: str) -> None:
    if not sys.stdin.isatty():
        raise InvalidValueError(f"stdin is not a terminal, so nobody can confirm: {command} without asking by --yes")


def _confirm(question: str) -> None:
    typer.confirm(question, abort=True)


def _retained(retained: Retained) -> str:
    parts = [
        f"{'would remove' if retained.dry_run else 'removed'} {counted(retained.removed, 'idle conversation')}, "
        f"{'trim' if retained.dry_run else 'trimmed'} {retained.trimmed:,}: {counted(retained.runs, 'run')}"
    ]
    parts += [f"purged {counted(retained.expired, 'expired conversation')}"] if retained.expired else []
    parts += [f"skipped {retained.skipped:,}, written to meanwhile"] if retained.skipped else []
    return "; ".join(parts)


def _erased(erased: Erased) -> str:
    lines = [
        f"erased {counted(erased.conversations, 'conversation')} with {counted(erased.runs, 'run')} in "
        f"{counted(len(erased.found_in), 'namespace')}; deleted {counted(erased.receipts, 'receipt')}"
    ]
    if erased.expired:
        lines.append(f"purged {counted(erased.expired, 'expired conversation')}")
    if erased.outbox:
        lines.append(f"deleted texts in {erased.outbox:,} entries of the outbox")
    if erased.receipts_until is not None:
        until = format_timestamp(to_microseconds(erased.receipts_until, "until"))
        lines.append(f"other receipts, which contain ids, are deleted by {until}")
    lines += [f"{name}: {counted(number, 'change set')} left to relay" for name, number in erased.waiting.items()]
    if erased.checked is not None:
        lines.append(f"compared {counted(erased.checked, 'conversation')}: {erased.left or 'none'} left")
    return visible("\n".join(lines), keep="\n")
