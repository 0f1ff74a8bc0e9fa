"""URLs of stores: reading their options, and showing them without secrets."""

import re
from collections.abc import Callable
from math import inf
from typing import Final
from urllib.parse import parse_qsl

from memory.errors import ConfigurationError


def seconds(text: str) -> float:
    """Return a time-out that is given as an option.

    Raises:
        ValueError: it is no positive, finite number.

    >>> seconds("2.5")
    2.5
    """
    read = float(text)
    if not 0 < read < inf:
        raise ValueError(text)
    return read


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
    if scheme.partition("+")[0] != "sqlite" and has_stray_at(url):
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
