"""The options of all commands: which store it uses, and how."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Concatenate, Final, ParamSpec

import typer

from memory.cli.reporting import reported
from memory.core.connect import connect
from memory.core.store import MAX_METADATA_VALUES, Store
from memory.errors import ConfigurationError
from memory.port.urls import sqlite_file

P = ParamSpec("P")

DEFAULT_URL: Final = "sqlite:///conversations.db"

_STORE_HELP = f"URL of the store; by default the environment variable MEMORY_URL, else {DEFAULT_URL}."
_NAMESPACE_HELP = 'Namespace; by default "default", or all if the command says so.'
_VALUES_HELP = "Most values in one conversation's metadata."


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of these options; the constructor's parameters are those of every command."""

    url: Annotated[
        str,
        typer.Option(
            "--store", metavar="URL", help=_STORE_HELP, envvar="MEMORY_URL", show_envvar=False, show_default=False
        ),
    ] = DEFAULT_URL
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help=_NAMESPACE_HELP)] = None
    max_metadata_values: Annotated[int, typer.Option(min=1, metavar="N", help=_VALUES_HELP)] = MAX_METADATA_VALUES
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False

    def open(self) -> Store:
        """Open the store; a missing file is created."""
        namespace = "default" if self.namespace is None else self.namespace
        return connect(self.url, namespace=namespace, max_metadata_values=self.max_metadata_values)

    def open_existing(self) -> Store:
        """Open the store; a file has to exist: a mistyped name must not look like an empty store."""
        if self.file is not None and not self.file.exists():
            if not self.file.parent.exists():
                raise ConfigurationError(f"there is no folder {self.file.parent}")
            raise ConfigurationError(
                f"there is no file {self.file}: create it by `memory import`, or name another store by --store"
            )
        return self.open()

    @property
    def file(self) -> Path | None:
        file = sqlite_file(self.url)
        return None if file is None else Path(file)


def _show_version(asked: bool) -> None:
    if asked:
        print(version("conversation-memory"))
        raise typer.Exit


def program(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Manage conversations and their runs, in a local file or in any store that a URL names."""


def with_settings(
    command: Callable[Concatenate[Settings, P], None], *, names_stores: bool = False
) -> Callable[..., None]:
    """Add the options of `Settings` to a command, pass a `Settings` as its first argument, and report its errors.

    With ``names_stores``, the command's arguments name the stores, so it has no ``--store``.
    """
    options = dict(inspect.signature(Settings).parameters)
    if names_stores:
        del options["url"]

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        settings = Settings(**{name: kwargs.pop(name) for name in options})  # type: ignore[arg-type]
        with reported(debug=settings.debug):
            command(settings, *args, **kwargs)

    signature = inspect.signature(command)
    own = list(signature.parameters.values())[1:]
    run.__signature__ = signature.replace(parameters=[*own, *options.values()])  # type: ignore[attr-defined]
    return run
