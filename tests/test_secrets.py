"""No password or key is in anything that we say, wherever a person has put it and whatever characters it has."""

import io
import logging
import traceback
from collections.abc import Iterator
from typing import Final

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import memory
from memory import PersistenceError
from memory.cli.app import app
from memory.port.urls import redact
from tests.rounds import rounds

SECRET: Final = "s3cr3t"
RESERVED: Final = ":/?#[]@!$&'()*+,;=%\\ \"<>|^`{}\n\t\u00e9"
URLS: Final = (
    "postgresql+psycopg://{user}:{password}@127.0.0.1:1/app?connect_timeout=1",
    "postgresql+psycopg://127.0.0.1:1/app?sslpassword={password}&connect_timeout=1",
    "postgresql+psycopg://ada:s3cr3t",  # no host: with an odd password it would have one
    "redis://{user}:{password}@127.0.0.1:1",
    "redis://:{password}@127.0.0.1:1/0?timeout=1",
    "rediss://{user}:{password}@127.0.0.1:1?ssl_keyfile={password}",
    "redis://:s3cr3t",
    "dynamodb://{user}:{password}@table?region=eu-central-1&endpoint=http://127.0.0.1:1",
    "dynamodb://table?region=eu-central-1&endpoint=http://{user}:{password}@127.0.0.1:1",
    "griptape+http://{password}@127.0.0.1:1",
    "griptape+http://{user}:{password}@127.0.0.1:1?timeout=1",
    "griptape+http://127.0.0.1:1?key={password}",
    "sqlite://{user}:{password}@127.0.0.1/file.db",
    "unknown+{user}://{user}:{password}@host",
)

secrets = (
    st.lists(st.sampled_from(RESERVED), max_size=3)
    .map("".join)
    .flatmap(
        lambda odd: st.sampled_from(
            [f"{SECRET}{odd}{SECRET}", f"{odd}{SECRET}{odd}", f"{SECRET}{odd}", f"1{odd}{SECRET}"]
        )
    )
)
users = st.sampled_from(["ada", "", "a/b", "a?b", "a#b"])


def said_by(error: BaseException | None) -> Iterator[str]:
    """Yield what an error, and those behind it that a traceback shows, say of themselves."""
    if error is not None:
        yield from ("".join(traceback.format_exception(error)), repr(error))
        if isinstance(error, PersistenceError):
            yield str(vars(error))
        yield from said_by(error.__cause__)


def used(url: str) -> Iterator[str]:
    """Yield all that is said of a URL, by opening and using it."""
    try:
        store = memory.connect(url)
    except PersistenceError as error:
        yield from said_by(error)
        return
    with store:
        yield from (repr(store), str(store), repr(store.repository))
        try:
            store.schema_status()
        except PersistenceError as error:
            yield from said_by(error)


@settings(max_examples=rounds(70), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(URLS), users, secrets)
@example(URLS[0], "ada", f"pa?{SECRET}")
@example(URLS[0], "ada", f"pa?timeout={SECRET}")
@example(URLS[10], "", SECRET)
def test_the_library_says_no_secret(url: str, user: str, password: str) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        for text in used(url.format(user=user, password=password)):
            assert SECRET not in text
    finally:
        logging.getLogger().removeHandler(handler)
    assert SECRET not in log.getvalue()


@settings(max_examples=rounds(30), suppress_health_check=list(HealthCheck))
@given(st.sampled_from(URLS), users, secrets, st.sampled_from(["count", "stats", "migrate"]), st.booleans())
def test_the_command_line_says_no_secret(url: str, user: str, password: str, command: str, debug: bool) -> None:  # noqa: FBT001
    arguments = [command, "--store", url.format(user=user, password=password), *(["--debug"] if debug else [])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert SECRET not in result.output


@given(st.sampled_from(URLS), users, secrets)
@example(URLS[9], "", f"{SECRET}:{SECRET}")
def test_a_redacted_url_has_no_secret(url: str, user: str, password: str) -> None:
    assert SECRET not in redact(url.format(user=user, password=password))


def test_advice_is_shown_whole() -> None:
    result = CliRunner().invoke(app, ["count", "--store", "postgresql://ada:p@ss@127.0.0.1/app"])
    assert "in a password %40 for @, %2F for /" in result.output
