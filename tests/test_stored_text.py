"""Text is stored as people write it, so that other tools find it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import boto3
import pytest
import redis

import memory
from memory import Conversation, Run, Store
from memory.domain.values import new_id
from tests.servers import Server, postgres
from tests.servers.redis import fresh_prefix

PATTERNS = ("%viele Grüße%", "%世界%", "%😀%")


def fill(url: str) -> None:
    with memory.connect(url) as store:
        store.migrate()
        put(store)


def put(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("müller", metadata={"müßig": ["viele Grüße", "世界", "😀"]}))
        uow.runs.append("müller", Run("viele Grüße", {"你好": "世界"}, {"ответ": "😀"}))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_like_finds_text_in_sqlite(tmp_path: Path, pattern: str) -> None:
    fill(f"sqlite:///{tmp_path}/x.db")
    with closing(sqlite3.connect(tmp_path / "x.db")) as database:
        count = "SELECT count(*) FROM memory_conversations WHERE metadata LIKE ?"
        assert database.execute(count, [pattern]).fetchone() == (1,)
        count = "SELECT count(*) FROM memory_runs WHERE input || output || metadata LIKE ?"
        assert database.execute(count, [pattern]).fetchone() == (1,)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ilike_finds_text_in_postgresql(postgres_url: str, pattern: str) -> None:
    fill(postgres_url)
    with postgres.connect(postgres_url) as connection:
        count = "SELECT count(*) FROM memory_conversations WHERE metadata ILIKE %s"
        assert connection.execute(count, [pattern.title()]).fetchone() == (1,)
        count = "SELECT count(*) FROM memory_runs WHERE input || output || metadata ILIKE %s"
        assert connection.execute(count, [pattern]).fetchone() == (1,)
    connection.close()


def test_redis_cli_shows_text(redis_server: Server) -> None:
    with fresh_prefix(redis_server) as url, redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        fill(url)
        prefix = url.partition("prefix=")[2]
        hashes = client.scan_iter(f"{prefix}:*", _type="hash")
        runs = client.scan_iter(f"{prefix}:*", _type="zset")
        values = str([*map(client.hgetall, hashes), *[client.zrange(key, 0, -1) for key in runs]])
        for text in ('"viele Grüße"', '{"你好":"世界"}', '{"ответ":"😀"}', '{"müßig":["viele Grüße","世界","😀"]}'):
            assert text in values


def test_boto3_reads_text(dynamodb_server: Server) -> None:
    table = f"text-{new_id()}"
    fill(f"dynamodb://{table}?endpoint={dynamodb_server.url}")
    values = str(boto3.client("dynamodb", endpoint_url=dynamodb_server.url).scan(TableName=table)["Items"])
    for text in ('"viele Grüße"', '{"你好":"世界"}', '{"ответ":"😀"}', '{"müßig":["viele Grüße","世界","😀"]}'):
        assert text in values
