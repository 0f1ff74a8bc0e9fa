"""URLs of stores: their options, the files that they name, and how they are shown without secrets."""

import re
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from memory.errors import ConfigurationError


def seconds(text: str) -> float:
    """Return the time-out in an option's text; raise `ValueError` unless it is a positive, finite number.

    >>> seconds("2.5")
    2.5
    """
    read = float(text)
    if not 0 < read < inf:
        raise ValueError(text)
    return read


def sqlite_file(url: str) -> str | None:
    """Return the path of the file that a sqlite URL names; None for sqlite in memory, and for URLs of other stores.

    >>> sqlite_file("sqlite:///my%20chats.db"), sqlite_file("sqlite:////var/chats.db?synchronous=full")
    ('my chats.db', '/var/chats.db')
    >>> sqlite_file("sqlite://"), sqlite_file("redis://host")
    (None, None)
    """
    scheme, _, path = url.partition("?")[0].partition(":///")
    return unquote(path) if is_sqlite(scheme) and path not in ("", ":memory:") else None


def sqlite_url(file: Path) -> str:
    """Return the URL of a sqlite file.

    >>> sqlite_url(Path("my chats.db"))
    'sqlite:///my%20chats.db'
    """
    return f"sqlite:///{quote(str(file))}"


def is_temporary(url: str) -> bool:
    """Whether each store that is opened by this URL is a new one, in memory."""
    return url.startswith("memory://") or (is_sqlite(url) and sqlite_file(url) is None)


def is_sqlite(url: str) -> bool:
    """Whether a URL, or its scheme, is sqlite's."""
    return re.split("[+:]", url, maxsplit=1)[0] == "sqlite"


def redact(url: str) -> str:
    """Return the URL without passwords, keys and tokens.

    Everything before the last ``@`` counts as credentials. If an ``@`` comes after the host, the parts cannot be distinguished,
    and nothing but the scheme is shown.

    >>> redact("postgresql://ada:secret@localhost/app?sslpassword=secret")
    'postgresql://ada:***@localhost/app?sslpassword=***'
    >>> redact("griptape+https://key@host"), redact("redis://a/b:secret@host"), redact("redis://:secret")
    ('griptape+https://***@host', 'redis://***', 'redis://:***')
    """
    scheme, mark, rest = url.partition("://")
    if not is_sqlite(scheme) and has_stray_at(url):
        return f"{scheme}{mark}***"
    credentials, at, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    shown = (f"{user}:***@" if password and _PLAIN_NAME.fullmatch(user) else "***@") if at else ""
    place, question, query = place.partition("?")
    if mark and _NO_PORT.match(place):
        place = place.partition(":")[0] + ":***"
    query = "&".join(_without_secret(*option.partition("=")) for option in query.split("&"))
    return f"{scheme}{mark}{shown}{place}{question}{query}"


def has_stray_at(url: str) -> bool:
    """Whether an ``@`` comes after the end of the host, as it does when a password has a slash or a question mark."""
    return "@" in "".join(re.split("[/?#]", url.partition("://")[2], maxsplit=1)[1:])


_NO_PORT: Final = re.compile(r"[^:/#\[\]]*:(?![0-9]+(?:[/#]|$))")


_PLAIN_NAME: Final = re.compile(r"[\w.-]*")


_SECRET_NAME: Final = re.compile(r"(?i)pass|pwd|secret|token|key|auth|credential|sig")


def _without_secret(name: str, equals: str, value: str) -> str:
    is_secret = not _PLAIN_NAME.fullmatch(name) or _SECRET_NAME.search(name)
    return f"{name}={'***' if is_secret and value else value}" if equals else name and "***"


def options(url: str, known: dict[str, Callable[[str], object]]) -> dict[str, object]:
    """Return the options of a URL's query, each parsed by its function.

    Errors quote neither an option nor its value, because part of a password with a question mark looks like an option.
    """
    read: dict[str, object] = {}
    for number, (name, value) in enumerate(parse_qsl(url.partition("?")[2], keep_blank_values=True), 1):
        if name not in known:
            raise ConfigurationError(
                f"option {number} of the URL is unknown to this store; it takes {', '.join(known) or 'none'}"
            )
        with suppress(ValueError, KeyError):
            read[name] = known[name](value)
            continue
        # Raised here, so that it has no context that quotes the value.
        raise ConfigurationError(f"the value of the option {name} in the URL is invalid")
    return read
