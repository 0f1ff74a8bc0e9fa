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

    Errors never quote the URL: whatever is wrong with it, a part of it may be a password.

    Raises:
        ConfigurationError: the URL cannot be one, or its store needs an extra that is not installed.
    """
    if not isinstance(url, str) or "://" not in url:
        raise ConfigurationError(
            "a store's URL looks like sqlite:///conversations.db or postgresql+psycopg://host/database"
        )
    if not url.isprintable() or url != url.strip():
        raise ConfigurationError(
            "the URL begins or ends with a blank, or holds a control character such as a line break"
        )
    scheme = url.split("://", 1)[0].split("+", 1)[0]
    if scheme != "sqlite" and _has_stray_at(url):
        raise ConfigurationError(
            "the URL has an @ behind a / ? or #: in a user name or password write %2F, %3F and %23 for these, elsewhere %40 for @"
        )
    adapter = _ADAPTERS.get(scheme)
    try:
        if adapter is not None:
            return cast(Repository, import_module(adapter.module).open_url(url))
        return _find_opener(scheme)(url)
    except ModuleNotFoundError as error:
        if adapter is None or adapter.extra is None:
            raise
        raise ConfigurationError(
            f"a {scheme}:// store needs the module {error.name}: pip install 'conversation-memory[{adapter.extra}]'"
        ) from error


def redact(url: str) -> str:
    """Return the URL without passwords, keys and tokens.

    Everything before the last ``@`` counts as credentials. Where an ``@`` stands behind the host, what is what cannot be told,
    and nothing is shown.

    >>> redact("postgresql://ada:secret@localhost/app?sslpassword=secret")
    'postgresql://ada:***@localhost/app?sslpassword=***'
    >>> redact("griptape+https://key@host"), redact("redis://a/b:secret@host"), redact("redis://:secret")
    ('griptape+https://***@host', 'redis://***', 'redis://:***')
    """
    scheme, mark, rest = url.partition("://")
    if scheme.partition("+")[0] != "sqlite" and _has_stray_at(url):
        return f"{scheme}{mark}***"
    credentials, at, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    shown = (f"{user}:***@" if password and _PLAIN_NAME.fullmatch(user) else "***@") if at else ""
    place, question, query = place.partition("?")
    if mark and _NO_PORT.match(place):
        place = place.partition(":")[0] + ":***"
    query = "&".join(_without_secret(*option.partition("=")) for option in query.split("&"))
    return f"{scheme}{mark}{shown}{place}{question}{query}"


def _has_stray_at(url: str) -> bool:
    """Whether an ``@`` comes after the end of the host, as it does when a password has a slash or a question mark."""
    return "@" in "".join(re.split("[/?#]", url.partition("://")[2], maxsplit=1)[1:])


_NO_PORT: Final = re.compile(r"[^:/#\[\]]*:(?![0-9]+(?:[/#]|$))")
_PLAIN_NAME: Final = re.compile(r"[\w.-]*")
_SECRET_NAME: Final = re.compile(r"(?i)pass|pwd|secret|token|key|auth|credential|sig")


def _without_secret(name: str, equals: str, value: str) -> str:
    is_secret = not _PLAIN_NAME.fullmatch(name) or _SECRET_NAME.search(name)
    return f"{name}={'***' if is_secret and value else value}" if equals else name and "***"


def options(url: str, known: dict[str, Callable[[str], object]]) -> dict[str, object]:
    """Return the options of a URL's query, each read by its function.

    Raises:
        ConfigurationError: an option is not known, or its value cannot be read. Neither is quoted: a password with a question
            mark in it looks like an option.
    """
    read: dict[str, object] = {}
    for number, (name, value) in enumerate(parse_qsl(url.partition("?")[2], keep_blank_values=True), 1):
        if name not in known:
            raise ConfigurationError(
                f"option {number} of the URL is not known here; there are: {', '.join(known) or 'none'}"
            )
        try:
            read[name] = known[name](value)
        except (ValueError, KeyError):
            is_valid = False
        else:
            is_valid = True
        if not is_valid:  # raised here, so that no exception that quotes the value hangs on it
            raise ConfigurationError(f"the option {name} of the URL cannot have the value given")
    return read


def _find_opener(scheme: str) -> Callable[[str], Repository]:
    for entry_point in entry_points(group=ENTRY_POINTS, name=scheme):
        return cast(Callable[[str], Repository], entry_point.load())
    raise ConfigurationError(f"there is no store for the URL's scheme; there are: {', '.join(sorted(_ADAPTERS))}")
