"""Conversations for people (tables, transcripts) and for programs (JSON lines)."""

import json
import sys
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Final

from memory.cli.reporting import counted, visible, visible_json
from memory.domain.entities import PENDING, Conversation, Run
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.timestamps import format_timestamp
from memory.domain.values import Json
from memory.formats.artifacts import text_of
from memory.formats.texts import readable
from memory.port.paging import Page
from memory.transfer.jsonl import write_head, write_line

if TYPE_CHECKING:
    from rich.text import Text

_INDENT: Final = "    "
_LONGEST_ID: Final = 40  # characters in a table
_LONGEST_CELL: Final = 500  # characters of metadata that a table may need


def show_page(page: Page[Conversation], *, as_json: bool) -> None:
    """Write a page to stdout, as a table on a terminal, else as lines of JSON; write the cursor of the next page to stderr."""
    if as_json or not sys.stdout.isatty():
        for record in [conversation.record for conversation in page if conversation.record]:
            print(visible_json(f'{{{write_head(record)},"run_count":{record.run_count}}}'))
    else:
        _show_table(page)
    if page.cursor is not None:
        sys.stdout.flush()
        print(f"next page: --after {page.cursor}", file=sys.stderr)


def _show_table(page: Page[Conversation]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True)
    width = min(_LONGEST_ID, max((len(conversation.id) for conversation in page), default=0))
    table.add_column("id", no_wrap=True, overflow="ellipsis", min_width=width, max_width=_LONGEST_ID)
    table.add_column("updated", no_wrap=True, min_width=len("2026-01-31 12:00:00"))
    table.add_column("runs", no_wrap=True, min_width=len("runs"), justify="right")
    table.add_column("metadata", no_wrap=True, overflow="ellipsis", ratio=1)  # the rest of the line
    for conversation in page:
        table.add_row(
            _text(conversation.id),
            _text(f"{conversation.updated_at:%Y-%m-%d %H:%M:%S}"),
            _text(str(conversation.run_count)),
            _text(json.dumps(conversation.metadata, ensure_ascii=False)[:_LONGEST_CELL]),
        )
    Console().print(table)


def show_transcript(record: ConversationRecord, runs: Iterable[RunRecord], *, namespace: str, as_json: bool) -> None:
    """Write a conversation and these of its runs to stdout, run by run."""
    if as_json:
        sys.stdout.writelines(map(visible_json, write_line(record, runs, namespace=namespace)))
        return
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    console.print(_text(record.id, "bold"))
    expiry = "" if record.expires_at is None else f", expires {format_timestamp(record.expires_at)}"
    created, updated = format_timestamp(record.created_at), format_timestamp(record.updated_at)
    console.print(f"created {created}, updated {updated}{expiry}")
    console.print(f"version {record.version}, {counted(record.run_count, 'run')}")
    metadata = Conversation.from_record(record).metadata
    console.print(_text(f"metadata {json.dumps(metadata, ensure_ascii=False)}"))
    for run in (Run.from_record(record.id, run) for run in runs):
        console.print()
        console.print(_text(f"#{run.position}  {run.created_at:%Y-%m-%d %H:%M:%S}  {run.id}", "dim"))
        is_message = (run.input is None) != (run.output is None)  # as bridges write them: the other side has nothing
        if run.input is not None or not is_message:
            console.print(_said("> ", run.input, "cyan"))
        if run.output is not None or not is_message:
            console.print(_text("< (no output yet)", "dim") if run.output is PENDING else _said("< ", run.output, ""))
        if run.is_open and run.output is not PENDING:
            console.print(_text(_INDENT + "(the output is not final)", "dim"))
        if run.metadata:
            console.print(_text(_INDENT + json.dumps(run.metadata, ensure_ascii=False), "dim"))


def show_facts(facts: dict[str, Json], *, as_json: bool) -> None:
    """Write names and values to stdout, one per line."""
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {f'{value:,}' if isinstance(value, int) else visible(str(value))}")


def _said(mark: str, value: Json, style: str) -> "Text":
    """Return an input or output as text or indented JSON, with a mark before it."""
    text = text_of(value)
    if text is None:
        text = readable(value)
    if text is None:
        text = json.dumps(value, ensure_ascii=False, indent=2)
    first, *rest = visible(text, keep="\n\t").split("\n")
    return _text("\n".join(chain([mark + first], (_INDENT[: len(mark)] + line for line in rest))), style, keep="\n\t")


def _text(text: str, style: str = "", *, keep: str = "") -> "Text":
    """Return text that is shown literally, without markup and control characters."""
    from rich.text import Text

    return Text(visible(text, keep=keep), style)
