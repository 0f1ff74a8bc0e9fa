"""What a URL of a store names: its file, and its options."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

import memory
from memory import ConfigurationError
from memory.port.urls import is_temporary, sqlite_file, sqlite_url


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///my%20chats.db", "my chats.db"),
        ("sqlite:///my chats.db", "my chats.db"),
        ("sqlite:////var/größe.db", "/var/größe.db"),
        ("sqlite+pysqlite:///100%25.db?synchronous=full&timeout=3", "100%.db"),
        ("sqlite:///a%3Fb.db", "a?b.db"),
        ("sqlite:///dir #1/x.db", "dir #1/x.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql+psycopg:///db", None),
        ("memory://", None),
    ],
)
def test_the_file_that_a_url_names(url: str, file: str | None) -> None:
    assert sqlite_file(url) == file
    assert is_temporary(url) == (file is None and not url.startswith("postgresql"))
    if file is not None:
        assert make_url(url.partition("?")[0]).database == file  # as SQLAlchemy's users expect


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(lambda name: name != "."))
def test_the_url_of_a_file_names_that_file(name: str) -> None:
    file = Path("folder", name)
    assert sqlite_file(sqlite_url(file)) == str(file)


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("url", ["memory://", "sqlite:///x.db"])
def test_a_time_out_is_a_positive_number(url: str, timeout: str) -> None:
    with pytest.raises(ConfigurationError, match="the value of the option timeout in the URL is invalid"):
        memory.connect(f"{url}?timeout={timeout}")
