"""In the place of Griptape's own drivers: one line is changed, and the conversation goes on where they left it."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
import redis as redis_py
from griptape.drivers.memory.conversation.amazon_dynamodb import AmazonDynamoDbConversationMemoryDriver
from griptape.drivers.memory.conversation.griptape_cloud import GriptapeCloudConversationMemoryDriver
from griptape.drivers.memory.conversation.local import LocalConversationMemoryDriver
from griptape.drivers.memory.conversation.redis import RedisConversationMemoryDriver

import memory
from memory import (
    ConfigurationError,
    Conversation,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    SchemaError,
    StoreUnavailableError,
)
from memory.bridges.griptape import RepositoryConversationMemoryDriver as Driver
from memory.cli import main
from memory.domain.values import new_id
from tests.adapters.dynamodb.test_answers import Cutter
from tests.bridges.talking import said
from tests.cloud_server import CloudServer
from tests.servers import Server
from tests.servers.redis import fresh_prefix

OLD = [said(1, meta={"user": "ada"}), said(2, meta={}), said(3)]


def assert_goes_on(driver: Driver, again: Callable[[], Driver]) -> None:
    """The old conversation is there, goes on here, and is brought in only once."""
    with closing(driver):
        runs, meta = driver.load()
        assert [run.to_dict() for run in runs] == [run.to_dict() for run in OLD]
        assert meta == {"customer": "ada"}
        driver.store([*runs, said(4)], {**meta, "n": 1})
    with closing(again()) as other:
        runs, meta = other.load()
        assert [run.id for run in runs] == ["r1", "r2", "r3", "r4"]
        assert meta == {"customer": "ada", "n": 1}


# local


def test_a_file_of_the_local_driver_goes_on_in_a_sqlite_file_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    LocalConversationMemoryDriver(persist_file=str(file)).store(OLD, {"customer": "ada"})
    before = file.read_bytes()
    assert_goes_on(Driver.local(persist_file=str(file)), lambda: Driver.local(str(file), last=100))
    assert file.read_bytes() == before
    with memory.connect(f"sqlite:///{file}.sqlite") as store, store.begin() as uow:
        assert uow.conversations.get("chat").metadata == {"customer": "ada", "n": 1}  # as `memory import` names it


@pytest.mark.parametrize("name", ["john.doe", "v1.2.json", "a%2Fb.json", "chat", "chat.gz", ".json"])
def test_the_conversation_of_a_file_has_the_id_that_the_import_gives_it(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    LocalConversationMemoryDriver(persist_file=str(file)).store(OLD, {})
    assert main(["import", "--from", "griptape-local", str(file), "--store", f"sqlite:///{tmp_path}/imported.db"]) == 0
    with closing(Driver.local(str(file))) as driver:
        driver.load()
    found = []
    for database in (tmp_path / "imported.db", f"{file}.sqlite"):
        with memory.connect(f"sqlite:///{quote(str(database))}") as store, store.begin() as uow:
            found.append([conversation.id for conversation in uow.conversations.iterate()])
    assert found[0] == found[1]


def test_a_file_of_an_old_release_is_brought_in(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    run = '{"type": "Run", "id": "1", "input": "q", "output": "a"}'
    file.write_text(
        '{"type": "SummaryConversationMemory", "runs": ['
        + run
        + '], "max_runs": null, "summary": "S", "summary_index": 1}'
    )
    with closing(Driver.local(str(file))) as driver:
        runs, meta = driver.load()
        assert [(run.id, run.input.value, run.output.value) for run in runs] == [("1", "q", "a")]
        assert (meta["summary"], meta["summary_index"]) == ("S", 1)
        driver.store([*runs, said(2)], meta)
        assert [run.id for run in driver.load()[0]] == ["1", "r2"]


def test_what_is_stored_before_anything_was_loaded_comes_after_the_old_runs(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    LocalConversationMemoryDriver(persist_file=str(file)).store(OLD, {"customer": "ada"})
    with closing(Driver.local(str(file))) as driver:
        driver.store([said(4)], {})
        assert [run.id for run in driver.load()[0]] == ["r1", "r2", "r3", "r4"]


def test_without_a_file_nothing_is_kept() -> None:
    with closing(Driver.local()) as driver:
        driver.store([said(1)], {})
        assert driver.conversation_id != Driver.local().conversation_id


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"runs": 1}', b"\xff\xfe"])
def test_a_broken_file_is_told_of_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "chat.json"
    file.write_bytes(content)
    with closing(Driver.local(str(file))) as driver, pytest.raises(CorruptRecordError, match="chat"):
        driver.load()
    assert file.read_bytes() == content


# Redis


@pytest.fixture
def redis_place(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Where Griptape's driver is told to be; our keys begin as ever, so the test takes another beginning."""
    prefix = f"bridge-{new_id()}"
    monkeypatch.setattr("memory.adapters.redis.repository.DEFAULT_PREFIX", prefix)
    address = urlsplit(redis_server.url)
    index = f"griptape-{new_id()}"
    with fresh_prefix(redis_server, prefix), redis_py.Redis.from_url(redis_server.url) as client:
        yield {"host": address.hostname, "port": address.port, "index": index}
        client.delete(index)


def test_a_field_of_the_redis_driver_goes_on_in_keys_of_ours(redis_place: dict[str, Any]) -> None:
    for place in (redis_place, {**redis_place, "db": 1, "username": "default", "password": "any"}):
        with closing(redis_py.Redis(host=place["host"], port=place["port"], db=place.get("db", 0))) as client:
            RedisConversationMemoryDriver(**place, conversation_id="c", client=client).store(OLD, {"customer": "ada"})
            assert_goes_on(
                Driver.redis(**place, conversation_id="c", migrate=True),
                lambda place=place: Driver.redis(**place, conversation_id="c"),  # type: ignore[misc]
            )
            client.delete(place["index"])


def test_each_redis_driver_has_a_conversation_of_its_own_unless_it_is_told(redis_place: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="memory migrate"):
        Driver.redis(**redis_place)
    one, other = (Driver.redis(**redis_place, migrate=True) for _ in range(2))
    with closing(one), closing(other):
        assert one.conversation_id != other.conversation_id
        assert one.namespace == redis_place["index"]
        assert one.load() == ([], {})


def test_why_the_redis_hash_cannot_be_read_is_told_as_the_store_tells_it(redis_place: dict[str, Any]) -> None:
    with redis_py.Redis(host=redis_place["host"], port=redis_place["port"]) as client:
        client.set(redis_place["index"], "no hash")
    place = {**redis_place, "conversation_id": "c", "migrate": True}
    with closing(Driver.redis(**place)) as driver, pytest.raises(CorruptRecordError, match=place["index"]):
        driver.load()
    place["client"] = redis_py.Redis(port=9)
    with closing(Driver.redis(**place)) as driver, pytest.raises(StoreUnavailableError, match=place["index"]):
        driver.load()


# DynamoDB


@pytest.fixture
def dynamodb_place(dynamodb_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_server.url)
    name = f"griptape-{new_id()}"
    session = boto3.Session()
    with closing(session.client("dynamodb")) as client:
        client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "n", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "id", "AttributeType": "S"},
                {"AttributeName": "n", "AttributeType": "N"},
            ],
        )
        yield {
            "session": session,
            "table_name": name,
            "partition_key": "id",
            "partition_key_value": "ada/1",
            "sort_key": "n",
            "sort_key_value": 7,
            "value_attribute_key": "memory",
        }
        client.delete_table(TableName=name)


def test_an_item_of_the_dynamodb_driver_goes_on_in_a_table_of_ours(dynamodb_place: dict[str, Any]) -> None:
    theirs = AmazonDynamoDbConversationMemoryDriver(**dynamodb_place)
    theirs.store(OLD, {"customer": "ada"})
    theirs.table.meta.client.close()
    with pytest.raises(ConfigurationError, match="memory migrate"):
        Driver.dynamodb(**dynamodb_place)
    place = {**dynamodb_place, "memory_table": f"memory-{new_id()}"}
    with memory.connect(f"dynamodb://{place['memory_table']}") as store:
        store.migrate()
    assert_goes_on(Driver.dynamodb(**place), lambda: Driver.dynamodb(**place))
    with closing(Driver.dynamodb(**place)) as driver:
        assert (driver.conversation_id, driver.namespace) == ("ada%2F1/7", f"{place['table_name']}:memory")


def test_an_answer_that_is_cut_off_is_not_taken_for_no_old_conversation(
    dynamodb_place: dict[str, Any], dynamodb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = AmazonDynamoDbConversationMemoryDriver(**dynamodb_place)
    theirs.store(OLD, {"customer": "ada"})
    theirs.table.meta.client.close()
    place = {**dynamodb_place, "memory_table": f"memory-{new_id()}", "session": boto3.Session()}
    with memory.connect(f"dynamodb://{place['memory_table']}") as store:
        store.migrate()
    with Cutter(dynamodb_server.url) as cutter:
        cutter.cut = lambda _, answer: len(answer) - 40 if b"ada/1" in answer else None
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", cutter.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with closing(Driver.dynamodb(**place)) as driver, pytest.raises(StoreUnavailableError):
            driver.load()
        cutter.shutdown()


def test_why_the_item_cannot_be_read_is_told_as_the_store_tells_it(dynamodb_place: dict[str, Any]) -> None:
    place = {**dynamodb_place, "memory_table": f"memory-{new_id()}", "partition_key": "no key of the table"}
    with memory.connect(f"dynamodb://{place['memory_table']}") as store:
        store.migrate()
    with closing(Driver.dynamodb(**place)) as driver, pytest.raises(InvalidValueError, match=place["table_name"]):
        driver.load()


def test_griptapes_own_table_is_refused_with_what_to_do(dynamodb_place: dict[str, Any]) -> None:
    with pytest.raises(memory.PersistenceError):
        Driver.dynamodb(**dynamodb_place, memory_table=dynamodb_place["table_name"])


# Griptape Cloud


def test_a_thread_of_the_cloud_driver_goes_on_as_it_is(cloud_server: CloudServer) -> None:
    place = {"base_url": cloud_server.host, "api_key": "key-of-org-a"}
    theirs = GriptapeCloudConversationMemoryDriver(alias="c", **place)
    theirs.store([said(1), said(2)], {})
    for ours in (Driver.cloud(alias="c", **place), Driver.cloud(thread_id=theirs.thread["thread_id"], **place)):
        with closing(ours):
            assert ours.conversation_id == "c"
            assert "key-of-org-a" not in repr(ours) + str(ours.to_dict())
            assert ours.url == f"griptape+{cloud_server.host}"
            runs, meta = ours.load()
            assert [run.id for run in runs] == ["r1", "r2"]
            assert [run.output.value for run in runs] == ["answer 1", "answer 2"]
            ours.store(runs, meta)
    with closing(Driver.cloud(alias="c", **place)) as ours:
        runs, meta = ours.load()
        ours.store([*runs, said(3)], meta)
    assert [run.id for run in GriptapeCloudConversationMemoryDriver(alias="c", **place).load()[0]] == ["r1", "r2", "r3"]


def test_the_environment_names_the_thread_as_it_does_for_griptape(
    cloud_server: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GT_CLOUD_BASE_URL", cloud_server.host)
    monkeypatch.setenv("GT_CLOUD_API_KEY", "key-of-org-a")
    theirs = GriptapeCloudConversationMemoryDriver(alias="named")
    theirs.store([said(1)], {})
    monkeypatch.setenv("GT_CLOUD_THREAD_ID", theirs.thread["thread_id"])
    with closing(Driver.cloud()) as driver:
        assert driver.conversation_id == "named"
    with closing(Driver.cloud(alias="other")) as driver:
        assert driver.load() == ([], {})
    monkeypatch.setenv("GT_CLOUD_THREAD_ID", new_id())
    with pytest.raises(NotFoundError):
        Driver.cloud()
    without = GriptapeCloudConversationMemoryDriver().thread["thread_id"]
    monkeypatch.setenv("GT_CLOUD_THREAD_ID", without)
    with pytest.raises(ConfigurationError, match="alias"):
        Driver.cloud()


def test_what_was_removed_here_comes_from_the_old_place_again_unless_that_is_removed_too(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    LocalConversationMemoryDriver(persist_file=str(file)).store(OLD, {})
    with closing(Driver.local(str(file))) as driver:
        driver.load()
        with driver._store.begin() as uow:
            uow.conversations.remove("chat")
        assert len(driver.load()[0]) == 3
        with driver._store.begin() as uow:
            uow.conversations.remove("chat")
            uow.conversations.add(Conversation("chat"))
        assert driver.load() == ([], {})
