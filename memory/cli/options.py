"""The options of all commands, which can be given before the command or after it: which store it uses, and how."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec, cast

import typer

from memory.cli.reporting import reported
from memory.core.connect import connect
from memory.core.store import MAX_METADATA_VALUES, Store
from memory.domain.criteria import Criterion
from memory.domain.expressions import parse
from memory.errors import ConfigurationError
from memory.port.urls import sqlite_file

P = ParamSpec("P")


def option(metavar: str, help: str, **settings: float) -> Any:
    """Return an option whose value the help shows as ``metavar``."""
    return typer.Option(metavar=metavar, help=help, **settings)  # type: ignore[arg-type]


Where = Annotated[str | None, option("EXPRESSION", "Only the conversations that match.")]

DEFAULT_URL: Final = "sqlite:///conversations.db"

_URL_VARIABLE = "MEMORY_URL"
_STORE_HELP = f"URL of the store; by default the environment variable {_URL_VARIABLE}, else {DEFAULT_URL}."
_NAMESPACE_HELP = 'Namespace; by default "default", or all if the command says so.'
_VALUES_HELP = f"Most values in one conversation's metadata; by default {MAX_METADATA_VALUES:,}."
_DEBUG_HELP = "Show the traceback of an error."


def criterion_of(expression: str | None) -> Criterion | None:
    """Return the criterion of an expression, None without one."""
    return None if expression is None else parse(expression)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of these options."""

    url: str = DEFAULT_URL
    namespace: str | None = None
    max_metadata_values: int = MAX_METADATA_VALUES
    debug: bool = False

    def open(self, metadata: Any = None) -> Store:
        """Open the store, with a type of metadata as for `connect`; a missing file is created."""
        namespace = "default" if self.namespace is None else self.namespace
        return connect(self.url, metadata=metadata, namespace=namespace, max_metadata_values=self.max_metadata_values)

    def open_existing(self, metadata: Any = None) -> Store:
        """Open the store; a file has to exist: a mistyped name must not look like an empty store."""
        if self.file is not None and not self.file.exists():
            if not self.file.parent.exists():
                raise ConfigurationError(f"there is no folder {self.file.parent}")
            raise ConfigurationError(
                f"there is no file {self.file}: create it by `memory import`, or name another store by --store"
            )
        return self.open(metadata)

    @property
    def file(self) -> Path | None:
        file = sqlite_file(self.url)
        return None if file is None else Path(file)


def _settings(
    *,
    context: typer.Context,
    store: Annotated[str | None, typer.Option(metavar="URL", help=_STORE_HELP)] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help=_NAMESPACE_HELP)] = None,
    max_metadata_values: Annotated[int | None, typer.Option(min=1, metavar="N", help=_VALUES_HELP)] = None,
    debug: Annotated[bool, typer.Option("--debug", help=_DEBUG_HELP)] = False,
) -> Settings:
    """Return the settings given here; by default those given before the command, else the environment's."""
    before = context.obj or Settings(os.environ.get(_URL_VARIABLE) or DEFAULT_URL)
    given: dict[str, Any] = {"url": store, "namespace": namespace, "max_metadata_values": max_metadata_values}
    given = {name: value for name, value in given.items() if value is not None}
    return replace(before, debug=debug or before.debug, **given)


def with_settings(
    command: Callable[Concatenate[Settings, P], None], *, names_stores: bool = False
) -> Callable[..., None]:
    """Add the options of `Settings` to a command, pass a `Settings` as its first argument, and report its errors.

    With ``names_stores``, the command's arguments name the stores, so it has no ``--store``.
    """
    options = dict(inspect.signature(_settings).parameters)
    if names_stores:
        del options["store"]

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        context = cast("typer.Context", kwargs["context"])
        settings = context.obj = _settings(**{name: kwargs.pop(name) for name in options})  # type: ignore[arg-type]
        with reported(debug=settings.debug):
            command(settings, *args, **kwargs)

    signature = inspect.signature(command)
    own = list(signature.parameters.values())[1:]
    run.__signature__ = signature.replace(parameters=[*own, *options.values()])  # type: ignore[attr-defined]
    return run
