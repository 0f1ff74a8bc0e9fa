"""URLs of stores: the one form in which they are read, their options and files, and how they are shown without secrets."""

import re
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from memory.errors import ConfigurationError


def normalized(url: str) -> str:
    r"""Return a URL as everything else reads it: without white space at its end, with the scheme as adapters know it.

    The ARN of a DynamoDB table becomes its name and region.

    Raises:
        ConfigurationError: it is no URL, or looks as if a shell or an .env file had left something in it. The error never quotes
            the URL: any part of a wrong URL may be a password.

    >>> normalized("POSTGRES://localhost/app\n"), normalized("sqlite:///chats.db")
    ('postgresql://localhost/app', 'sqlite:///chats.db')
    """
    if not isinstance(url, str) or "://" not in url:
        raise ConfigurationError("a store's URL looks like sqlite:///conversations.db or postgresql+psycopg://host/db")
    url = url.rstrip()
    if url[0] in _QUOTES or url[-1] in _QUOTES:
        raise ConfigurationError(
            "the URL is in quotes, or has one at an end: write it without (%22 and %27 for its own)"
        )
    if not url.isprintable() or url[0].isspace():
        raise ConfigurationError("the URL begins with a blank, or contains a control character such as a line break")
    scheme, _, rest = url.partition("://")
    kind, plus, driver = scheme.lower().partition("+")
    if kind == "dynamodb":
        rest = _ARN.sub(r"\2?region=\1&", rest)
    url = f"{_SCHEMES.get(kind, kind)}{plus}{driver}://{rest}"
    if is_sqlite(kind):
        _check_sqlite(rest.partition("?")[0])
    elif has_stray_at(url):
        raise ConfigurationError(
            "the URL has an @ after a / ? or #: write %2F, %3F and %23 for these in a user name or password, elsewhere %40 for @"
        )
    return url


_QUOTES: Final = "\"'"
_SCHEMES: Final = {"postgres": "postgresql"}
# The account is not read: it is that of the credentials.
_ARN: Final = re.compile(r"^arn:aws[\w-]*:dynamodb:([\w-]+):\d+:table/([\w.-]+)(?:\?|$)")


def _check_sqlite(rest: str) -> None:
    if rest == "/":
        raise ConfigurationError(
            "the URL names no file: is a variable empty? Write sqlite:///file.db; sqlite:// alone is a database in memory"
        )
    if rest.startswith("/~") or "$" in rest:
        raise ConfigurationError(
            "~ and $ are not expanded in a sqlite URL: write the whole path (%7E and %24 if they are in the file's name)"
        )
    if unquote(rest).startswith("/file:"):
        raise ConfigurationError(
            "a sqlite URL has a path, not a file: URI: write sqlite:///file.db, with options such as ?mode=ro after it"
        )


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

    Raises:
        ConfigurationError: it is no URL, as for `normalized`.

    >>> sqlite_file("sqlite:///my%20chats.db"), sqlite_file("sqlite:////var/chats.db?synchronous=full")
    ('my chats.db', '/var/chats.db')
    >>> sqlite_file("sqlite://"), sqlite_file("redis://host")
    (None, None)
    """
    scheme, _, path = normalized(url).partition("?")[0].partition(":///")
    return unquote(path) if is_sqlite(scheme) and path not in ("", ":memory:") else None


def sqlite_url(file: Path) -> str:
    """Return the URL of a sqlite file.

    >>> sqlite_url(Path("my chats.db"))
    'sqlite:///my%20chats.db'
    """
    return f"sqlite:///{quote(str(file)).replace('~', '%7E')}"


def is_temporary(url: str) -> bool:
    """Whether each store that is opened by this URL is a new one, in memory."""
    url = normalized(url)
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
    >>> redact("griptape+https://ke:y@host"), redact("redis://a/b:secret@host"), redact("redis://:secret")
    ('griptape+https://***@host', 'redis://***', 'redis://:***')
    """
    scheme, mark, rest = url.partition("://")
    if not is_sqlite(scheme) and has_stray_at(url):
        return f"{scheme}{mark}***"
    credentials, at, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    is_key = scheme.lower().startswith("griptape")
    has_user = password and _PLAIN_NAME.fullmatch(user) and not is_key
    shown = (f"{user}:***@" if has_user else "***@") if at else ""
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
        read[name] = option(name, value, known[name])
    return read


def option(name: str, value: str, read: Callable[[str], object]) -> object:
    """Return the value of an option, read by a function that raises `ValueError` or `KeyError` if it is invalid."""
    with suppress(ValueError, KeyError):
        return read(value)
    # Raised here, so that it has no context that quotes the value.
    raise ConfigurationError(f"the value of the option {name} in the URL is invalid")
