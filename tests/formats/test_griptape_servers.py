"""What Griptape's drivers keep in servers, written there by themselves, and what older releases did."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import redis

import memory
from memory import Run, Store
from memory.cli import main
from memory.errors import ConfigurationError, StoreUnavailableError
from memory.formats.griptape import KEY, run_json
from memory.formats.registry import Source, read
from tests.cloud_server import Assumptions, CloudServer
from tests.formats.conftest import SAMPLES, Importing, kept
from tests.servers import Server, free_port

PROGRAM = Path(__file__).with_name("griptape_servers.py")


def griptape(*command: str) -> dict[str, Any]:
    """Let a driver of Griptape's store runs; return what it stored."""
    done = subprocess.run([sys.executable, PROGRAM, *command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


# Redis


@pytest.fixture
def index(redis_server: Server) -> Iterator[str]:
    name = f"griptape-{uuid4().hex}"
    yield name
    with redis.Redis.from_url(redis_server.url) as client:
        client.delete(name)


def test_the_hash_of_the_redis_driver_is_imported(
    redis_server: Server, index: str, importing: Importing, store: Store
) -> None:
    written = griptape("redis", redis_server.url, index, "first", "one", "two")
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(index, "second", (SAMPLES / "redis_hash_value.json").read_bytes())
        for n in range(500):
            client.hset(index, f"more {n}", '{"runs": [], "metadata": {}}')
        client.hset(index, "bad", "nonsense")
        client.hset(index, b"\xff", "{}")
    totals, refusals = importing("griptape-redis", redis_server.url, index=index)
    assert (totals.conversations, totals.runs) == (502, 5)
    assert sorted(refusal.partition(": ")[2] for refusal in refusals) == [
        "'bad': not JSON: Expecting value at column 1",
        "the field name b'\\xff' is not UTF-8 and cannot be an id",
    ]
    conversation, runs = kept(store, "first")
    assert [run_json(run) for run in runs] == written["runs"]
    assert conversation.metadata == {"customer": "ada"}
    sample = json.loads((SAMPLES / "redis_hash_value.json").read_text())
    assert [run_json(run) for run in kept(store, "second")[1]] == sample["runs"]
    again, _ = importing("griptape-redis", redis_server.url, index=index)
    assert (again.conversations, again.skipped) == (0, 502)


def test_what_is_wrong_with_a_redis_is_told_without_its_password(
    redis_server: Server,
    index: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(index, "x")
    host = redis_server.url.removeprefix("redis://")
    import_ = ["import", "--from", "griptape-redis"]
    with_password = f"redis://:sesame@127.0.0.1:{free_port()}/0"
    for arguments, told in [
        (
            [redis_server.url, "--index", "nobody"],
            "has no key 'nobody': set --index to the `index` of Griptape's driver",
        ),
        ([redis_server.url, "--index", index], "WRONGTYPE"),
        ([with_password, "--index", index], "the server could not be reached"),
        ([f"redis://ada:sesame@{host}", "--index", index], "rejected the user, password or permissions"),
        ([f"nonsense://:sesame@{host}", "--index", index], "is not the URL of a Redis server"),
        ([with_password], "--from griptape-redis needs --index"),
        ([with_password, "--index", index, "--region", "x", "--id", "y"], "does not take --id or --region"),
    ]:
        assert main([*import_, *arguments]) == 1
        output = capsys.readouterr()
        assert told in output.err
        assert "sesame" not in output.out + output.err


def test_a_bad_field_is_told_by_its_whole_name(
    redis_server: Server,
    index: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(index, "ada@example.org", "nonsense")
        client.acl_setuser("tester", enabled=True, nopass=True, keys=["*"], categories=["+@all"])
    url = redis_server.url.replace("redis://", "redis://tester:sesame@")
    assert main(["import", "--from", "griptape-redis", url, "--index", index]) == 1
    output = capsys.readouterr()
    assert output.err == "griptape-redis:1: 'ada@example.org': not JSON: Expecting value at column 1\n"
    assert output.out == "imported 0 conversations and 0 runs, refused 1 conversation\n"
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_deluser("tester")


# DynamoDB


@pytest.fixture
def tables(dynamodb_server: Server) -> Iterator[list[str]]:
    """Two tables, of which one has a sort key that is a number."""
    client = boto3.client("dynamodb", endpoint_url=dynamodb_server.url)
    names = [f"griptape-{uuid4().hex}", f"griptape-{uuid4().hex}"]
    key: Any = [{"AttributeName": "entryId", "KeyType": "HASH"}]
    kinds: Any = [{"AttributeName": "entryId", "AttributeType": "S"}]
    sort: Any = [{"AttributeName": "sortKey", "KeyType": "RANGE"}]
    sorts: Any = [{"AttributeName": "sortKey", "AttributeType": "N"}]
    pay: Any = {"BillingMode": "PAY_PER_REQUEST"}
    client.create_table(TableName=names[0], KeySchema=key, AttributeDefinitions=kinds, **pay)
    client.create_table(TableName=names[1], KeySchema=key + sort, AttributeDefinitions=kinds + sorts, **pay)
    yield names
    for name in names:
        client.delete_table(TableName=name)
    client.close()


def test_the_tables_of_the_dynamodb_driver_are_imported(
    dynamodb_server: Server, tables: list[str], importing: Importing, store: Store
) -> None:
    simple, composite = tables
    options = {"partition_key": "entryId", "value_attribute": "memory", "endpoint": dynamodb_server.url}
    written = griptape("dynamodb", dynamodb_server.url, simple, "first", "", "one", "two")
    client = boto3.client("dynamodb", endpoint_url=dynamodb_server.url)
    samples = json.loads((SAMPLES / "dynamodb_items.json").read_text())
    client.put_item(TableName=simple, Item=samples["griptape"][0])
    bad: Any = [{"memory": {"S": "nonsense"}}, {"other": {"S": "x"}}, {"memory": {"N": "5"}}]
    for number, attributes in enumerate(bad):
        client.put_item(TableName=simple, Item={"entryId": {"S": f"bad {number}"}, **attributes})
    odd: Any = {
        "ttl": {"N": "17"},
        "raw": {"B": b"\xff"},
        "raws": {"BS": [b"\xff"]},
        "map": {"M": {"a": {"NULL": True}}},
    }
    client.put_item(TableName=simple, Item={"entryId": {"S": "odd"}, "memory": {"S": '{"runs": []}'}, **odd})
    totals, refusals = importing("griptape-dynamodb", simple, **options)
    assert (totals.conversations, totals.runs) == (3, 5)
    assert sorted(refusal.partition(": ")[2] for refusal in refusals) == [
        "'bad 0': not JSON: Expecting value at column 1",
        "'bad 1': the attribute 'memory' of the item is not a string",
        "'bad 2': the attribute 'memory' of the item is not a string",
    ]
    conversation, runs = kept(store, "first")
    assert [run_json(run) for run in runs] == written["runs"]
    assert conversation.metadata == {"customer": "ada"}
    assert kept(store, "conv-1")[0].metadata["foo"] == "bar"
    raw = {"raw": {"B": "/w=="}, "raws": {"BS": ["/w=="]}}
    assert kept(store, "odd")[0].metadata == {KEY: {"attributes": {**odd, **raw}}}

    griptape("dynamodb", dynamodb_server.url, composite, "a/b", "8", "three")
    client.put_item(TableName=composite, Item=samples["griptape_composite_n"][0])
    client.close()
    totals, refusals = importing("griptape-dynamodb", composite, sort_key="sortKey", **options)
    assert (totals.conversations, totals.runs, refusals) == (2, 4, [])
    conversation, runs = kept(store, "a%2Fb/8")
    assert (conversation.metadata["customer"], runs[0].input["value"]) == ("ada", "three")
    assert conversation.metadata[KEY] == {"key": {"entryId": {"S": "a/b"}, "sortKey": {"N": "8"}}}
    assert kept(store, "conv-1/7")[0].run_count == 3


def test_what_is_wrong_with_a_table_is_told(dynamodb_server: Server) -> None:
    given = {"partition_key": "entryId", "value_attribute": "memory"}

    def attempt(table: str, **options: str) -> None:
        list(read("griptape-dynamodb", Source(table, 0, None, {**given, **options})))

    with pytest.raises(ConfigurationError, match="table 'nobody' does not exist in this region and account"):
        attempt("nobody", endpoint=dynamodb_server.url)
    with pytest.raises(ConfigurationError, match="Invalid endpoint"):
        attempt("nobody", endpoint="nonsense")
    with pytest.raises(StoreUnavailableError, match="the connection was lost or could not be established"):
        attempt("nobody", endpoint=f"http://127.0.0.1:{free_port()}")


# Griptape Cloud


@pytest.fixture
def host(cloud_server: CloudServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("GT_CLOUD_API_KEY", "key-of-org-a")
    return cloud_server.host


def test_threads_with_and_without_an_alias_are_imported(
    host: str, cloud_server: CloudServer, importing: Importing, store: Store
) -> None:
    named = griptape("cloud", host, "support-42", "one", "two")
    unnamed = griptape("cloud", host, "", "three")
    with memory.connect(f"griptape+{host}") as ours, ours.begin() as uow:
        uow.conversations.add(memory.Conversation("ours", metadata={"n": 1.0}))
        uow.runs.append("ours", Run("Hi", {"a": 1}, {"cost": 0.5}, id="r1"))
    with memory.connect(f"griptape+{host}", namespace="elsewhere") as ours, ours.begin() as uow:
        uow.conversations.add(memory.Conversation("not this"))
    totals, refusals = importing("griptape-cloud", host)
    assert (totals.conversations, totals.runs, refusals) == (3, 4, [])
    conversation, runs = kept(store, "support-42")
    assert [(run.id, run.input, run.output) for run in runs] == [
        (run["id"], run["input"], run["output"]) for run in named["runs"]
    ]
    assert conversation.metadata[KEY]["thread"]["alias"] == "support-42"
    assert kept(store, unnamed["thread"])[1][0].input["value"] == "three"
    conversation, runs = kept(store, "ours")
    assert conversation.metadata == {"n": 1.0}
    assert [(run.id, run.input, run.output, run.metadata) for run in runs] == [("r1", "Hi", {"a": 1}, {"cost": 0.5})]
    assert len(cloud_server.service.threads) == 4


def test_a_thread_of_0_30_has_its_memory_in_the_metadata(
    host: str, cloud_server: CloudServer, importing: Importing, store: Store
) -> None:
    runs = json.loads((SAMPLES / "local_0.30.2.json").read_text())["runs"]
    messages = [{"input": json.dumps(run["input"]), "output": json.dumps(run["output"])} for run in runs]
    memory_fields = {"type": "ConversationMemory", "max_runs": 50}
    for alias, metadata in (("old", memory_fields), ("new", {"type": "ConversationMemory", "customer": "ada"})):
        body = {"name": "a name", "alias": alias, "metadata": metadata, "messages": messages}
        request(cloud_server, "POST", "/api/threads", body)
    totals, refusals = importing("griptape-cloud", host)
    assert (totals.conversations, totals.runs, refusals) == (2, 2 * len(runs), [])
    conversation, found = kept(store, "old")
    assert [(run.input, run.output) for run in found] == [(run["input"], run["output"]) for run in runs]
    thread = conversation.metadata[KEY]["thread"]
    assert conversation.metadata == {KEY: {"thread": thread, "envelope": memory_fields}}
    assert (thread["name"], thread["alias"]) == ("a name", "old")
    assert kept(store, "new")[0].metadata["customer"] == "ada"


def test_two_threads_of_one_alias_are_two_conversations(
    host: str, cloud_server: CloudServer, importing: Importing, store: Store
) -> None:
    cloud_server.service.assumptions = Assumptions(unique_alias=False)
    ids = [request(cloud_server, "POST", "/api/threads", {"name": "x", "alias": "x"})["thread_id"] for _ in range(2)]
    assert importing("griptape-cloud", host)[0].conversations == 2
    with store.begin() as uow:
        found = [conversation.id for conversation in uow.conversations.iterate()]
    assert len(set(found) & {"x", *ids}) == 2
    assert "x" in found


def request(server: CloudServer, method: str, path: str, body: Any) -> Any:
    import requests

    answer = requests.request(
        method, server.host + path, json=body, headers={"Authorization": "Bearer key-of-org-a"}, timeout=10
    )
    answer.raise_for_status()
    return answer.json()


def test_what_is_no_host_or_has_no_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GT_CLOUD_API_KEY", raising=False)
    wrong = {
        "cloud.griptape.ai": "set GT_CLOUD_API_KEY",
        "ftp://x": "is not a host",
        "https://a:sesame@x": "is not a host",
    }
    for name, told in wrong.items():
        with pytest.raises(ConfigurationError, match=told) as raised:
            list(read("griptape-cloud", Source(name, 0)))
        assert "sesame" not in str(raised.value)
