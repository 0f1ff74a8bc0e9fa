"""What a URL of a store names: its file, and its options."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

import memory
from memory import ConfigurationError
from memory.core.connect import open_repository
from memory.port.urls import is_temporary, normalized, sqlite_file, sqlite_url


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


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgres://ada:x@host:5432/db?sslmode=require", "postgresql://ada:x@host:5432/db?sslmode=require"),
        ("postgres+psycopg://host/Db", "postgresql+psycopg://host/Db"),
        ("POSTGRESQL+Psycopg://Host/Db\r\n", "postgresql+psycopg://Host/Db"),
        ("SQLite:///Chats.db \n", "sqlite:///Chats.db"),
        ("Griptape+HTTPS://cloud.griptape.ai", "griptape+https://cloud.griptape.ai"),
        ("dynamodb://chats", "dynamodb://chats"),
        (
            "dynamodb://arn:aws:dynamodb:eu-central-1:123456789012:table/Chats.v1",
            "dynamodb://Chats.v1?region=eu-central-1&",
        ),
        ("dynamodb://arn:aws-cn:dynamodb:cn-north-1:1:table/a?timeout=3", "dynamodb://a?region=cn-north-1&timeout=3"),
    ],
)
def test_urls_as_hosters_and_env_files_give_them(given: str, url: str) -> None:
    assert normalized(given) == url
    assert normalized(url) == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (" postgresql://ada:s3cret@host/db", "begins with a blank"),
        ("\npostgresql://ada:s3cret@host/db", "line break"),
        ("postgresql://ada:s3cret@host/db\nX=1", "line break"),
        ('"postgresql://ada:s3cret@host/db"', "quotes"),
        ("'postgresql://ada:s3cret@host/db'\n", "quotes"),
        ('sqlite:///s3cret.db"', "quotes"),
        ("postgresql://ada:s3cret?@host/db", "%3F"),
        ("sqlite:///", "is a variable empty"),
        ("sqlite:///?timeout=3", "is a variable empty"),
        ("sqlite+pysqlite:///\n", "is a variable empty"),
        ("sqlite:///$S3CRET", "not expanded"),
        ("sqlite:////data/${S3CRET}.db", "not expanded"),
        ("sqlite:///~/s3cret.db", "not expanded"),
        ("sqlite:///file:s3cret.db", "not a file: URI"),
        ("sqlite:///file%3As3cret.db", "not a file: URI"),
        ("s3cret.db", "looks like"),
        ("s3cret://ada:s3cret@host", "no store has the scheme"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_with_what_to_write(
    url: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (memory.connect, memory.mirror):
        with pytest.raises(ConfigurationError, match=says) as refused:
            use(url)
        assert "s3cret" not in str(refused.value).lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["~/a", "~", "$HOME", "a b", "a'", '"a"', "a\n"])
def test_any_name_can_be_written_with_percent_signs(name: str) -> None:
    assert sqlite_file(sqlite_url(Path(name))) == name


def test_white_space_after_the_name_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    with memory.connect(f"sqlite:///{tmp_path}/x.db \n") as store:
        store.migrate()
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]


@pytest.mark.needs("postgres")
def test_postgres_means_postgresql(postgres_url: str) -> None:
    with memory.connect(postgres_url.replace("postgresql+psycopg", "POSTGRES") + "\n") as store:
        assert store.migrate().is_current


def test_an_arn_names_the_table_and_its_region() -> None:
    repository = open_repository("dynamodb://arn:aws:dynamodb:eu-west-3:123456789012:table/chats?shards=2")
    assert repr(repository).startswith("DynamoDbRepository('chats', region='eu-west-3'"), repr(repository)
    repository.close()


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("url", ["memory://", "sqlite:///x.db"])
def test_a_time_out_is_a_positive_number(url: str, timeout: str) -> None:
    with pytest.raises(ConfigurationError, match="the value of the option timeout in the URL is invalid"):
        memory.connect(f"{url}?timeout={timeout}")
