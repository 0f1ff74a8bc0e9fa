"""Which store a command works on: options that stand before the command or after it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Concatenate, Final, ParamSpec, cast

import typer

from memory.cli.reporting import reported
from memory.core.connect import connect
from memory.core.store import Store
from memory.errors import ConfigurationError

P = ParamSpec("P")

DEFAULT_URL: Final = "sqlite:///conversations.db"

_STORE_HELP = f"URL of the store; else the environment variable MEMORY_URL; else {DEFAULT_URL}."
_NAMESPACE_HELP = 'Namespace in it; else "default", or all where the command says so.'
_DEBUG_HELP = "Show the traceback of an error."


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options say."""

    url: str = DEFAULT_URL
    namespace: str | None = None
    debug: bool = False

    def open(self) -> Store:
        """Open the store; a file is made if there is none.

        Raises:
            PersistenceError: as `memory.connect`.
        """
        return connect(self.url, namespace="default" if self.namespace is None else self.namespace)

    def open_existing(self) -> Store:
        """Open the store; a file has to be there already: a mistyped name must not look like an empty store.

        Raises:
            PersistenceError: as `memory.connect`.
            ConfigurationError: there is no such file.
        """
        if self.file is not None and not self.file.exists():
            if not self.file.parent.exists():
                raise ConfigurationError(f"there is no folder {self.file.parent}")
            raise ConfigurationError(f"there is no file {self.file}: `memory import` makes it, --store names another")
        return self.open()

    @property
    def file(self) -> Path | None:
        """The file that the store is, if it is one of sqlite's."""
        scheme, _, path = self.url.partition("?")[0].partition(":///")
        return Path(path) if scheme.partition("+")[0] == "sqlite" and path and not path.startswith(":memory:") else None


def _tell_version(asked: bool) -> None:
    if asked:
        print(version("conversation-memory"))
        raise typer.Exit


def before_the_command(
    context: typer.Context,
    store: Annotated[str, typer.Option(help=_STORE_HELP, envvar="MEMORY_URL", show_envvar=False)] = DEFAULT_URL,
    namespace: Annotated[str | None, typer.Option(help=_NAMESPACE_HELP)] = None,
    debug: Annotated[bool, typer.Option("--debug", help=_DEBUG_HELP)] = False,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Keep conversations and their runs: in a local file, or in any store that a URL names."""
    context.obj = Settings(store, namespace, debug)


def _after_the_command(
    *,
    context: typer.Context,
    store_url: Annotated[str | None, typer.Option("--store", metavar="URL", help=_STORE_HELP)] = None,
    namespace: Annotated[str | None, typer.Option(help=_NAMESPACE_HELP)] = None,
    debug: Annotated[bool, typer.Option("--debug", help=_DEBUG_HELP)] = False,
) -> Settings:
    before = cast("Settings", context.obj)
    return Settings(
        before.url if store_url is None else store_url,
        before.namespace if namespace is None else namespace,
        debug or before.debug,
    )


def with_settings(
    command: Callable[Concatenate[Settings, P], None], *, names_stores: bool = False
) -> Callable[..., None]:
    """Give a command the options of `Settings`, and them to it as its first argument; report its errors.

    Args:
        command: the function that Typer will call.
        names_stores: its arguments say which stores: it has no ``--store``.
    """
    options = dict(inspect.signature(_after_the_command).parameters)
    if names_stores:
        del options["store_url"]

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        settings = _after_the_command(**{name: kwargs.pop(name) for name in options})  # type: ignore[arg-type]
        with reported(debug=settings.debug):
            command(settings, *args, **kwargs)

    signature = inspect.signature(command)
    own = list(signature.parameters.values())[1:]
    run.__signature__ = signature.replace(parameters=[*own, *options.values()])  # type: ignore[attr-defined]
    return run
