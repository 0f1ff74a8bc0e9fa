"""From a URL to a repository: which module serves which scheme, imported only then."""

import re
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, NamedTuple, cast
from urllib.parse import parse_qsl

from memory.errors import ConfigurationError
from memory.repository import Repository


class _Adapter(NamedTuple):
    module: str
    extra: str | None = None


_ADAPTERS: Final = {
    "memory": _Adapter("memory.adapters.in_memory"),
    "sqlite": _Adapter("memory.adapters.sql"),
    "postgresql": _Adapter("memory.adapters.sql", "postgres"),
    "redis": _Adapter("memory.adapters.redis", "redis"),
    "rediss": _Adapter("memory.adapters.redis", "redis"),
    "dynamodb": _Adapter("memory.adapters.dynamodb", "dynamodb"),
    "griptape": _Adapter("memory.adapters.cloud", "cloud"),
}
ENTRY_POINTS: Final = "memory.adapters"
"""The group of entry points by which other packages add schemes: a name, and a function from a URL to a `Repository`."""


def open_repository(url: str) -> Repository:
    """Open the repository that a URL names.

    Raises:
        ConfigurationError: the URL cannot be one, or its store needs an extra that is not installed.
    """
    if not isinstance(url, str) or "://" not in url:
        raise ConfigurationError(
            "a store's URL looks like sqlite:///conversations.db or postgresql+psycopg://host/database"
        )
    scheme = url.split("://", 1)[0].split("+", 1)[0]
    adapter = _ADAPTERS.get(scheme)
    try:
        if adapter is not None:
            return cast(Repository, import_module(adapter.module).open_url(url))
        return _find_opener(scheme)(url)
    except ModuleNotFoundError as error:
        if adapter is None or adapter.extra is None:
            raise
        raise ConfigurationError(
            f"{redact(url)} needs the module {error.name}: pip install 'conversation-memory[{adapter.extra}]'"
        ) from error


def redact(url: str) -> str:
    """Return the URL without its password.

    >>> redact("postgresql://ada:secret@localhost/app?password=secret")
    'postgresql://ada:***@localhost/app?password=***'
    """
    url = re.sub(r"(://[^:/?#@]*):.*@", r"\1:***@", url)  # to the last @: a password may hold any character, by mistake
    return re.sub(r"(?i)([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&#]*", r"\1***", url)


def options(url: str, known: dict[str, Callable[[str], object]]) -> dict[str, object]:
    """Return the options of a URL's query, each read by its function.

    Raises:
        ConfigurationError: an option is not known, or its value is none.
    """
    read: dict[str, object] = {}
    for name, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        if name not in known:
            raise ConfigurationError(f"there is no option {name!r} here; there are: {', '.join(known) or 'none'}")
        try:
            read[name] = known[name](value)
        except (ValueError, KeyError) as error:
            raise ConfigurationError(f"the option {name} cannot be {value!r}") from error
    return read


def _find_opener(scheme: str) -> Callable[[str], Repository]:
    for entry_point in entry_points(group=ENTRY_POINTS, name=scheme):
        return cast(Callable[[str], Repository], entry_point.load())
    raise ConfigurationError(f"there is no store for {scheme}://; there are: {', '.join(sorted(_ADAPTERS))}")
