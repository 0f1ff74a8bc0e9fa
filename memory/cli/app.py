"""The commands and their options."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Annotated

import typer

from memory.cli.files import STANDARD
from memory.cli.options import Settings, Where, criterion_of, option, with_settings
from memory.cli.removing import delete, erase, purge, retain
from memory.cli.reporting import FAILED, MISUSED, complain, counted, visible
from memory.errors import InvalidValueError, NotFoundError
from memory.formats.registry import check_options, describe
from memory.formats.targets import Target, describe_targets
from memory.transfer import DEFAULT_LIMITS, Limits, OnConflict, OnExisting, read_whole

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


_Expression = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPRESSION", help="Only these conversations, such as 'domain == \"Restaurants\" and party_size >= 4'."
    ),
]
_Order = Annotated[
    str,
    option(
        "FIELD", "last_run_at, updated_at, created_at, id, or such as metadata.priority; with - in front, descending."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON, one object per line.")]
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
        # The exceptions of the command line's parser have no public name; this attribute identifies them.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        complain(f"error: {error.format_message()} (see `{context.command_path if context else 'memory'} --help`)")
        return MISUSED


def _show_version(asked: bool) -> None:
    if asked:
        print(version("conversation-memory"))
        raise typer.Exit


@app.callback()
@with_settings
def options(
    _: Settings,
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Manage conversations and their runs, in a local file or in any store that a URL names."""


@app.command()
@with_settings
def tour(_: Settings) -> None:
    """Show the main functions step by step, on a temporary file."""
    from memory.cli.tour import tour as run_tour

    run_tour()


_IMPORT_HELP = f"""Import conversations from files or servers. Report what cannot be read, and import the rest.

The format is detected from the content of each file, of each file in a zip, and of each file in a folder. `export` writes one
conversation per line: {{"id": ..., "metadata": {{...}}, "runs": [{{"input": ..., "output": ..., "metadata": {{...}}}}]}}, and
optionally more. A conversation goes to the namespace that its line names, else to "default"; with --namespace all go to that
one. Formats, what they read, and the options they need or [take]:

\b
{describe()}
"""


@app.command("import", help=_IMPORT_HELP)
@with_settings
def import_(
    settings: Settings,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Files, plain or gzip; - for stdin; or the address of a server."),
    ],
    *,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="FORMAT", help="The format of the sources; by default it is detected."),
    ] = None,
    on_conflict: Annotated[
        OnExisting, typer.Option(help="What to do if an id exists; update adds what is new in the file.")
    ] = "skip",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; report what would be imported.")] = False,
    id: Annotated[str | None, option("ID", "The id of the conversation, if the file holds one.")] = None,
    index: Annotated[str | None, option("KEY", "The key of the Redis hash.")] = None,
    partition_key: Annotated[str | None, option("NAME", "The attribute that holds the id.")] = None,
    sort_key: Annotated[str | None, option("NAME", "The attribute that holds the second part of the id.")] = None,
    value_attribute: Annotated[str | None, option("NAME", "The attribute that holds the conversation.")] = None,
    region: Annotated[str | None, option("NAME", "The table's region; by default the configured one.")] = None,
    endpoint: Annotated[str | None, option("URL", "A DynamoDB service other than Amazon's.")] = None,
    max_line: Annotated[int, option("N", "Most bytes of one conversation.", min=1)] = DEFAULT_LIMITS.line,
    max_values: Annotated[int, option("N", "Most JSON values of one conversation.", min=1)] = DEFAULT_LIMITS.values,
    max_ratio: Annotated[
        int, option("N", "Most times its compressed size that a file unpacks to.", min=1)
    ] = DEFAULT_LIMITS.ratio,
) -> None:
    """Import conversations; `_IMPORT_HELP` is the help text."""
    from memory.cli.importing import Importing

    given = {"id": id, "index": index, "partition_key": partition_key, "sort_key": sort_key}
    given |= {"value_attribute": value_attribute, "region": region, "endpoint": endpoint}
    options = {name: value for name, value in given.items() if value is not None}
    if from_ is not None:
        check_options(from_, options)
    elif others := options.keys() - {"id"}:
        raise InvalidValueError(f"--{others.pop().replace('_', '-')} needs --from: the format of the sources")
    if dry_run and settings.file is not None and not settings.file.exists():
        settings = replace(settings, url="memory://")  # nothing is there yet, and nothing is created
    with settings.open() as store:
        limits = Limits(max_line, max_values, max_ratio)
        everywhere = settings.namespace is None
        totals = Importing(store, on_conflict, from_, options, limits, everywhere, dry_run).run(sources)
    if totals.refused:
        raise typer.Exit(FAILED)


@app.command("formats")
@with_settings
def list_formats(_: Settings) -> None:
    """List the formats that can be imported and exported."""
    print(f"import --from\n\n{describe()}\n\nexport --to\n\n{describe_targets()}")


@app.command()
@with_settings
def export(
    settings: Settings,
    file: Annotated[
        str, typer.Argument(help="The file to write, compressed if it ends in .gz; - for stdout.")
    ] = STANDARD,
    where: Where = None,
    order: _Order = "id",
    to: Annotated[Target, typer.Option(help="The format to write.")] = "memory",
) -> None:
    """Export conversations with all their runs, one per line. `import` restores them exactly.

    Exports all namespaces, or the one given by --namespace.

    With --to, export one namespace in the format of another program: see `memory formats`. For griptape-local and markdown, one
    conversation to a file, or each to its own file in a folder, named with / at its end.
    """
    from memory.cli.transferring import Exporting, check_namespace, export_file

    with settings.open_existing() as store:
        if settings.namespace is not None:
            check_namespace(store)
        if to == "memory":
            exported = export_file(store, file, criterion_of(where), order, all_namespaces=settings.namespace is None)
        else:
            exported = Exporting(store, to, criterion_of(where), order).run(file)
    print(f"exported {counted(exported, 'conversation')}", file=sys.stderr)


@app.command()
@partial(with_settings, names_stores=True)
def copy(
    settings: Settings,
    source: Annotated[str, typer.Argument(metavar="SOURCE_URL", help="The store to copy from; it is only read.")],
    target: Annotated[str, typer.Argument(metavar="TARGET_URL", help="The store to copy to.")],
    where: Where = None,
    *,
    on_conflict: Annotated[
        OnConflict, typer.Option(help="What to do if the target has something else under an id.")
    ] = "skip",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete from the target what the source does not have.")
    ] = False,
    target_namespace: Annotated[
        str | None, option("NAME", "With --namespace: the target's namespace, if it is another one.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare all contents afterwards.")] = False,
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Compare all contents and copy nothing.")] = False,
) -> None:
    """Copy conversations from one store to another, exactly.

    If it is interrupted, run it again: it resumes. Copies all namespaces, or the one given by --namespace. The exit code is 1
    if something was not copied, or differs.
    """
    from memory.cli.copying import copy_all, opened, verify_all
    from memory.cli.transferring import check_namespace

    if verify_only and delete:
        raise InvalidValueError("--verify-only changes nothing, so it excludes --delete")
    if target_namespace is not None and settings.namespace is None:
        raise InvalidValueError("--target-namespace needs --namespace: the namespace to copy from")
    everywhere, criterion = settings.namespace is None, criterion_of(where)
    other = replace(
        settings, url=target, namespace=settings.namespace if target_namespace is None else target_namespace
    )
    with (
        opened(replace(settings, url=source), may_create=False) as here,
        opened(other, may_create=not verify_only) as there,
    ):
        if not (everywhere or delete or verify_only):
            check_namespace(here)
        is_done = verify_only or copy_all(here, there, criterion, on_conflict, all_namespaces=everywhere, delete=delete)
        is_same = not (verify or verify_only) or verify_all(here, there, criterion, all_namespaces=everywhere)
    if not (is_done and is_same):
        raise typer.Exit(FAILED)


@app.command()
@with_settings
def relay(
    settings: Settings,
    replicas: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=URL", help="The replicas, such as search=redis://host, named as in `memory.mirror`."
        ),
    ] = None,
    *,
    forget: Annotated[str | None, option("NAME", "Discard what waits for a former replica.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Continue until the process is ended.")] = False,
    interval: Annotated[float, option("SECONDS", "With --follow: the time between two deliveries.", min=0.0)] = 1.0,
) -> None:
    """Deliver the changes of a mirrored store to its replicas.

    --store names the primary. The changes of all namespaces are delivered. It can be killed at any moment. `memory stats` lists
    the names for which changes wait.
    """
    from memory.cli.relaying import named_replicas, relay_on, relay_once
    from memory.transfer.mirroring import check_distinct, mirror

    urls = named_replicas(replicas or [])
    if not urls and forget is None:
        raise InvalidValueError("name the replicas, such as search=redis://host, as in `memory.mirror`")
    check_distinct(settings.url, urls)  # `mirror` sees the primary opened, without its URL
    with settings.open_existing() as primary, mirror(primary, **urls) as store:
        if forget is not None:
            discarded = store.forget(forget)
            nothing = f"nothing waits for a replica {forget!r}: `memory stats` lists the names"
            print(f"discarded {counted(discarded, 'change set')}" if discarded else nothing)
        if not urls:
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
    order: _Order = "-last_run_at",
    limit: Annotated[int, option("N", "The most conversations to show.", min=1)] = 20,
    after: Annotated[str | None, option("CURSOR", "Continue after this cursor of a previous page.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how the query is answered, and what each step reads.")
    ] = False,
    json: _Json = False,
) -> None:
    """Find conversations by their metadata.

    Writes a table on a terminal, else lines of JSON.
    """
    from memory.cli.showing import show_page

    if explain:
        with settings.open_existing() as store:
            print(store.explain(criterion_of(expression), order=order, limit=limit, after=after))
        return
    with settings.open_existing() as store, store.begin() as uow:
        show_page(uow.conversations.find(criterion_of(expression), order=order, limit=limit, after=after), as_json=json)


@app.command()
@with_settings
def show(
    settings: Settings,
    id: _Id,
    last: Annotated[int | None, option("N", "Only the last N runs.", min=0)] = None,
    json: _Json = False,
) -> None:
    """Show a conversation as a transcript.

    With --json, write the line that `export` writes.
    """
    from memory.cli.showing import show_transcript

    with settings.open_existing() as store, read_whole(store, id, last=last) as read:
        if read is None:
            raise NotFoundError(f"there is no conversation {id!r}")
        show_transcript(*read, namespace=store.namespace_name, as_json=json)


@app.command()
@with_settings
def count(settings: Settings, expression: _Expression = None) -> None:
    """Count conversations."""
    with settings.open_existing() as store, store.begin() as uow:
        print(uow.conversations.count(criterion_of(expression)))


@app.command()
@with_settings
def stats(settings: Settings, json: _Json = False) -> None:
    """Show what is in the store."""
    from memory.cli.maintenance import facts
    from memory.cli.showing import show_facts

    with settings.open_existing() as store:
        show_facts(facts(settings, store), as_json=json)


@app.command()
@with_settings
def namespaces(settings: Settings) -> None:
    """List the namespaces, one per line."""
    with settings.open_existing() as store:
        for name in store.namespaces():
            print(visible(name))


for command in (delete, purge, retain, erase):
    app.command()(with_settings(command))


@app.command("upgrade-metadata")
@with_settings
def upgrade_metadata(
    settings: Settings,
    type_: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:OBJECT", help="The type of the metadata, as the application passes it to memory.connect."
        ),
    ],
) -> None:
    """Rewrite metadata that earlier versions of the application's type have written.

    Upgrades all namespaces, or the one given by --namespace. Others may write meanwhile. If it is interrupted, run it again. The
    exit code is 1 if the metadata of a conversation does not fit the type.
    """
    from memory.cli.maintenance import import_named, upgrade_reported

    with settings.open_existing(import_named(type_)) as store:
        upgraded, is_done = upgrade_reported(store, all_namespaces=settings.namespace is None)
    print(f"upgraded {counted(upgraded, 'conversation')}")
    if not is_done:
        raise typer.Exit(FAILED)


@app.command()
@with_settings
def migrate(
    settings: Settings,
    *,
    status: Annotated[
        bool, typer.Option("--status", help="Change nothing; exit code 1 if the schema is not current.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be done.")] = False,
    print_as: Annotated[
        str | None,
        typer.Option(
            "--print", metavar="FORMAT", help="Change nothing; print a DynamoDB table as cloudformation or terraform."
        ),
    ] = None,
) -> None:
    """Create or upgrade the store's schema.

    All data is kept.
    """
    from memory.cli.maintenance import migrate_watched

    with settings.open_existing() if status or dry_run or print_as else settings.open() as store:
        if print_as:
            print(store.repository.definition(print_as))
            return
        if dry_run:
            print("\n".join(store.repository.migration_steps()) or "nothing to do")
            return
        schema = store.schema_status() if status else migrate_watched(store)
    print(f"current: {schema.current or 'none'}\nhead:    {schema.head or 'none'}")
    if not schema.is_current:
        raise typer.Exit(FAILED)
