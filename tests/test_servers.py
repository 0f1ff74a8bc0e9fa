"""The servers that the other tests rely on: they start, they answer, and what they were told survives SIGKILL."""

import subprocess
import sys
import time
from typing import NoReturn

import boto3
import psycopg
import pytest
import redis as redis_py

from tests.servers import KillableServer, Server, ServerError, first_that_starts, given, postgres


def test_postgres_answers_in_an_empty_database(postgres_url: str) -> None:
    with postgres.connect(postgres_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        settings = connection.execute(
            "SELECT current_setting('fsync'), current_setting('server_version_num')::int"
        ).fetchone()
    assert tables == (0,)
    assert settings is not None
    assert settings[0] == "on"
    assert settings[1] >= 150000


def test_a_fresh_database_is_dropped(postgres_server: Server) -> None:
    with postgres.fresh_database(postgres_server) as url:
        postgres.answers(url)
    with pytest.raises(psycopg.OperationalError):
        postgres.answers(url)


def test_redis_answers_with_search(redis_server: Server) -> None:
    with redis_py.Redis.from_url(redis_server.url) as client:
        assert isinstance(client.execute_command("FT._LIST"), list | set)


def test_dynamodb_answers(dynamodb_server: Server) -> None:
    client = boto3.client("dynamodb", endpoint_url=dynamodb_server.url)
    try:
        assert isinstance(client.list_tables()["TableNames"], list)
    finally:
        client.close()


def test_postgres_survives_being_killed(killable_postgres: KillableServer) -> None:
    with postgres.connect(killable_postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    killable_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        postgres.answers(killable_postgres.url)
    killable_postgres.restart()
    with postgres.connect(killable_postgres.url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_redis_survives_being_killed(killable_redis: KillableServer) -> None:
    with redis_py.Redis.from_url(killable_redis.url, decode_responses=True) as client:
        client.set("answer", "42")
        killable_redis.kill()
        killable_redis.restart()
        assert client.get("answer") == "42"


def _fail(error: Exception) -> NoReturn:
    raise error


def test_without_docker_the_next_way_has_its_turn_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    started = time.monotonic()
    with pytest.raises(ServerError, match=r"docker: [\s\S]+other: LookupError\('its turn'\)"):
        first_that_starts("postgres", docker=postgres.from_docker, other=lambda: _fail(LookupError("its turn")))
    assert time.monotonic() - started < 5


def test_a_server_that_cannot_start_says_what_was_tried() -> None:
    with pytest.raises(ServerError, match=r"--without redis[\s\S]+magic: OSError\('there is none'\)"):
        first_that_starts("redis", magic=lambda: _fail(OSError("there is none")))


def test_a_given_server_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_URL", "postgresql://127.0.0.1:1/postgres")
    with pytest.raises(ServerError, match="SOME_URL"):
        given("SOME_URL", postgres.answers)


def test_without_leaves_tests_out_by_name() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "--without",
        "redis",
        "--without",
        "dynamodb",
        __file__,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "test_postgres_answers" in result.stdout
    assert "test_redis_answers" not in result.stdout
    assert "LEFT OUT by --without: redis, dynamodb (3 tests)" in result.stdout
