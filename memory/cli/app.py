"""The commands: what each takes, and nothing of how it is done."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from memory.cli.files import STANDARD
from memory.cli.options import Settings, before_the_command, with_settings
from memory.cli.reporting import FAILED, MISUSED, complain, visible
from memory.domain.criteria import Criterion
from memory.domain.expressions import parse
from memory.errors import InvalidValueError, NotFoundError
from memory.formats.registry import NATIVE, Target, check_options, describe
from memory.transfer import DEFAULT_LIMITS, Limits, OnConflict, read_whole

app = typer.Typer(
    callback=before_the_command,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_Expression = Annotated[
    str | None,
    typer.Argument(help="Which conversations, as 'domain == \"Restaurants\" and party_size >= 4'; all, when left out."),
]
_Where = Annotated[str | None, typer.Option(help="Which conversations, as an expression; all, when left out.")]
_Order = Annotated[str, typer.Option(help="updated_at, created_at or id; with - before it to descend.")]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON, one object a line.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return app(arguments or ["--help"], prog_name="memory", standalone_mode=False) or 0
    except typer.Abort:
        complain("error: aborted")
        return FAILED
    except Exception as error:
        # What the parser of the command line raises has no public name: it is told by what it can do.
        if not hasattr(error, "format_message"):
            raise
        complain(f"error: {error.format_message()} (memory --help shows what there is)")
        return MISUSED


def _criterion(expression: str | None) -> Criterion | None:
    return None if expression is None else parse(expression)


@app.command()
@with_settings
def tour(_: Settings) -> None:
    """Show the main job step by step, on a file that is gone afterwards."""
    from memory.cli.tour import tour as run_tour

    run_tour()


_IMPORT_HELP = f"""Import conversations from files or servers: what cannot be read is told, and the rest goes on.

By default a file has a conversation a line, as `export` writes them: {{"id": ..., "metadata": {{...}}, "runs": [{{"input": ...,
"output": ..., "metadata": {{...}}}}]}}, or more. Formats, what they read, and the options they need or [take]:

\b
{describe()}
"""


@app.command("import", help=_IMPORT_HELP)
@with_settings
def import_(
    settings: Settings,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Files, plain or gzip, - for stdin; else an address.")
    ],
    *,
    from_: Annotated[str, typer.Option("--from", metavar="FORMAT", help="What they are written in.")] = NATIVE,
    on_conflict: Annotated[OnConflict, typer.Option(help="What to do where an id is taken.")] = "skip",
    id: Annotated[str | None, typer.Option(help="The id of the one conversation in the file.")] = None,
    index: Annotated[str | None, typer.Option(help="The key of the hash.")] = None,
    partition_key: Annotated[str | None, typer.Option(help="The table's attribute with the id.")] = None,
    sort_key: Annotated[str | None, typer.Option(help="The attribute that is the second part of the id.")] = None,
    value_attribute: Annotated[str | None, typer.Option(help="The attribute with the conversation.")] = None,
    region: Annotated[str | None, typer.Option(help="The table's region; else as AWS is configured.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of a DynamoDB other than Amazon's.")] = None,
    max_line: Annotated[int, typer.Option(min=1, help="Bytes of one conversation.")] = DEFAULT_LIMITS.line,
    max_values: Annotated[int, typer.Option(min=1, help="JSON values in one.")] = DEFAULT_LIMITS.values,
    max_unpacked: Annotated[int, typer.Option(min=1, help="Bytes of a file, unpacked.")] = DEFAULT_LIMITS.unpacked,
    max_ratio: Annotated[int, typer.Option(min=1, help="How many times its size that is.")] = DEFAULT_LIMITS.ratio,
    max_refused: Annotated[int, typer.Option(min=1, help="What of it may be refused.")] = DEFAULT_LIMITS.refused,
) -> None:
    """Import conversations, as `_IMPORT_HELP` tells."""
    from memory.cli.transferring import import_sources

    given = {
        "id": id,
        "index": index,
        "partition_key": partition_key,
        "sort_key": sort_key,
        "value_attribute": value_attribute,
        "region": region,
        "endpoint": endpoint,
    }
    options = {name: value for name, value in given.items() if value is not None}
    check_options(from_, options)
    with settings.open() as store:
        limits = Limits(max_line, max_values, max_unpacked, max_ratio, max_refused)
        totals = import_sources(store, sources, on_conflict, from_, options, limits=limits)
    if totals.refused:
        if from_ == NATIVE and not totals.conversations + totals.skipped:
            complain("what other programs wrote comes in with --from: see `memory import --help`")
        raise typer.Exit(FAILED)


@app.command()
@with_settings
def export(
    settings: Settings,
    file: Annotated[str, typer.Argument(help="Where to; compressed if it ends in .gz; - for stdout.")] = STANDARD,
    where: _Where = None,
    order: _Order = "id",
    to: Annotated[Target, typer.Option(help="What to write.")] = "memory",
) -> None:
    """Export conversations with all their runs, one a line, so that `import` brings them back exactly.

    With --to griptape-local, a file is one conversation that Griptape's LocalConversationMemoryDriver loads (1.13); name a
    folder, with / at its end, for a file of each.
    """
    from memory.cli.transferring import export_file, export_griptape

    with settings.open_existing() as store:
        write = export_file if to == "memory" else export_griptape
        exported = write(store, file, _criterion(where), order)
    print(f"exported {exported:,} conversations", file=sys.stderr)


@app.command()
@partial(with_settings, names_stores=True)
def copy(
    settings: Settings,
    source: Annotated[str, typer.Argument(metavar="SOURCE_URL", help="The store to copy from; it is only read.")],
    target: Annotated[str, typer.Argument(metavar="TARGET_URL", help="The store to copy to.")],
    where: _Where = None,
    *,
    on_conflict: Annotated[
        OnConflict, typer.Option(help="What to do where the target has something newer, or else, under an id.")
    ] = "skip",
    delete: Annotated[bool, typer.Option("--delete", help="Remove from the target what the source lacks.")] = False,
    target_namespace: Annotated[
        str | None, typer.Option(help="With --namespace: the one in the target, if it is to be another.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare all contents afterwards.")] = False,
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Compare all contents, and copy nothing.")] = False,
) -> None:
    """Copy conversations from one store to another, exactly as they are; run it again to go on where it was interrupted.

    All namespaces, unless one is given. The exit code is 1 if something was not copied, or is not the same.
    """
    from memory.cli.copying import Stores

    if verify_only and delete:
        raise InvalidValueError("--verify-only changes nothing, so it cannot --delete")
    if target_namespace is not None and settings.namespace is None:
        raise InvalidValueError(
            "--target-namespace is for the conversations of one namespace: name it with --namespace"
        )
    with Stores.opened(
        replace(settings, url=source),
        replace(settings, url=target, namespace=settings.namespace if target_namespace is None else target_namespace),
        may_make=not verify_only,
    ) as stores:
        if not delete:
            stores.check_source()
        is_done = verify_only or stores.copy(_criterion(where), on_conflict, delete=delete)
        is_same = not (verify or verify_only) or stores.verify(_criterion(where))
    if not (is_done and is_same):
        raise typer.Exit(FAILED)


@app.command()
@with_settings
def relay(
    settings: Settings,
    replicas: Annotated[
        list[str] | None, typer.Argument(metavar="REPLICA_URL...", help="As given to `memory.mirror`.")
    ] = None,
    *,
    forget: Annotated[
        str | None, typer.Option(metavar="NAME", help="Throw away what waits for this one, as `memory stats` names it.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the process is ended.")] = False,
    interval: Annotated[float, typer.Option(min=0.0, help="Seconds between two looks, with --follow.")] = 1.0,
) -> None:
    """Deliver to replicas what was written to a mirrored store (--store), in all namespaces. It may be killed at any moment."""
    from memory.cli.relaying import relay_on, relay_once
    from memory.transfer.mirroring import mirror

    if not replicas and forget is None:
        raise InvalidValueError("name the replicas, as they were given to `memory.mirror`")
    with settings.open_existing() as primary, mirror(primary, *(replicas or ())) as store:
        if forget is not None:
            print(f"forgot {store.forget(forget):,} change sets")
        if not replicas:
            return
        if follow:
            relay_on(store, interval)
        elif not relay_once(store):
            raise typer.Exit(FAILED)


@app.command()
@with_settings
def find(
    settings: Settings,
    expression: _Expression = None,
    *,
    order: _Order = "-updated_at",
    limit: Annotated[int, typer.Option(min=1, help="The most that are shown.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="Go on where a page ended.")] = None,
    explain: Annotated[bool, typer.Option(help="Show how the query is answered, and what each step reads.")] = False,
    json: _Json = False,
) -> None:
    """Find conversations by their metadata: a table on a terminal, JSON lines in a pipe."""
    from memory.cli.showing import show_page

    if explain:
        with settings.open_existing() as store:
            print(store.explain(_criterion(expression), order=order, limit=limit, after=after))
        return
    with settings.open_existing() as store, store.begin() as uow:
        show_page(uow.conversations.find(_criterion(expression), order=order, limit=limit, after=after), as_json=json)


@app.command()
@with_settings
def show(
    settings: Settings,
    id: _Id,
    last: Annotated[int | None, typer.Option(min=0, help="Only so many runs, the last ones.")] = None,
    json: _Json = False,
) -> None:
    """Show a conversation as a transcript, or as the line that `export` writes."""
    from memory.cli.showing import show_transcript

    with settings.open_existing() as store, read_whole(store, id, last=last) as read:
        if read is None:
            raise NotFoundError(f"there is no conversation {id!r}")
        show_transcript(*read, as_json=json)


@app.command()
@with_settings
def count(settings: Settings, expression: _Expression = None) -> None:
    """Count conversations."""
    with settings.open_existing() as store, store.begin() as uow:
        print(uow.conversations.count(_criterion(expression)))


@app.command()
@with_settings
def stats(settings: Settings, json: _Json = False) -> None:
    """Tell what is in the store."""
    from memory.cli.maintenance import facts
    from memory.cli.showing import show_facts

    with settings.open_existing() as store:
        show_facts(facts(settings, store), as_json=json)


@app.command()
@with_settings
def namespaces(settings: Settings) -> None:
    """List the namespaces, one a line."""
    with settings.open_existing() as store:
        for name in store.namespaces():
            print(visible(name))


@app.command()
@with_settings
def delete(
    settings: Settings,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The conversations' ids.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete conversations and their runs: all that are named, or none if one is not there."""
    named = set(ids)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidValueError("nobody is there to be asked: --yes deletes without asking")
        typer.confirm(f"Delete {len(named)} conversations with their runs?", abort=True)
    with settings.open_existing() as store:
        with store.begin() as uow:
            for conversation_id in named:
                uow.conversations.remove(conversation_id)
        print(f"deleted {len(named):,} conversations")


@app.command()
@with_settings
def purge(settings: Settings) -> None:
    """Remove the conversations that have expired."""
    with settings.open_existing() as store:
        print(f"removed {store.purge_expired():,} expired conversations")


@app.command()
@with_settings
def migrate(
    settings: Settings,
    *,
    status: Annotated[bool, typer.Option("--status", help="Change nothing; exit code 1 if not current.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; tell what would be done.")] = False,
) -> None:
    """Bring the store's schema to the one this version needs, keeping all data."""
    from memory.cli.maintenance import migrate_watched

    with settings.open_existing() if status or dry_run else settings.open() as store:
        if dry_run:
            print("\n".join(store.repository.migration_steps()) or "nothing to do")
            return
        schema = store.schema_status() if status else migrate_watched(store)
    print(f"current: {schema.current or 'none'}\nhead:    {schema.head or 'none'}")
    if not schema.is_current:
        raise typer.Exit(FAILED)
