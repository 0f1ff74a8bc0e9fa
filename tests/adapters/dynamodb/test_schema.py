"""The table: made, waited for, checked; opened by URL, or with a session of the application's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

import memory
from memory import Conversation, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, TableOptions, keys, schema
from memory.cli import main
from memory.domain.values import new_id, now
from memory.errors import ConfigurationError, SchemaError, StoreUnavailableError
from memory.testing.base import put, read, walk
from tests.adapters.dynamodb.watching import before_each, check_tidy, failure, watched
from tests.servers import Server


@pytest.fixture
def name() -> str:
    return f"schema-{new_id()}"


@pytest.fixture
def client(dynamodb_server: Server) -> Iterator[Any]:
    with closing(boto3.client("dynamodb", endpoint_url=dynamodb_server.url)) as client:
        yield client


def open_table(name: str, server: Server, **options: Any) -> DynamoDbRepository:
    return DynamoDbRepository(name, endpoint=server.url, **options)


def make_table(client: Any, name: str, *attributes: tuple[str, str]) -> None:
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": each, "KeyType": kind}
            for (each, _), kind in zip(attributes, ("HASH", "RANGE"), strict=False)
        ],
        AttributeDefinitions=[{"AttributeName": each, "AttributeType": kind} for each, kind in attributes],
    )


def test_the_first_use_asks_for_a_migration(name: str, dynamodb_server: Server) -> None:
    with memory.connect(f"dynamodb://{name}?endpoint={dynamodb_server.url}") as store:
        assert store.schema_status().current is None
        assert not store.repository.is_new()
        with pytest.raises(SchemaError, match="memory migrate"):
            store.begin()
        assert store.migrate().is_current
        put(store, "a")
        assert read(store, "a").version == 1


def test_each_step_is_told_before_it_is_done(name: str, dynamodb_server: Server, client: Any) -> None:
    with closing(open_table(name, dynamodb_server)) as repository:
        planned = repository.migration_steps()
        assert [step.split()[0] for step in planned] == ["create", "enable", "write"]
        assert name not in client.list_tables()["TableNames"]  # a dry run
        told: list[tuple[str, float | None]] = []
        for _ in range(2):  # the second time there is nothing to do
            assert repository.migrate(lambda what, part: told.append((what, part))).is_current
            assert told == [(step, number / 3) for number, step in enumerate(planned)]
            assert repository.migration_steps() == []
    description = client.describe_table(TableName=name)["Table"]
    assert description["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"


def test_what_an_existing_table_lacks_is_added(name: str, dynamodb_server: Server, client: Any) -> None:
    make_table(client, name, ("pk", "S"), ("sk", "S"))
    with closing(open_table(name, dynamodb_server)) as repository:
        assert [step.split()[0] for step in repository.migration_steps()] == ["enable", "write"]
        assert repository.migrate().is_current


@pytest.mark.parametrize(
    ("attributes", "wrong"),
    [
        ([("hash", "S"), ("sk", "S")], r"keys are hash \(S\), sk \(S\), not pk \(S\), sk \(S\)"),
        ([("pk", "S"), ("range", "S")], r"keys are pk \(S\), range \(S\), not"),
        ([("pk", "N"), ("sk", "S")], r"keys are pk \(N\), sk \(S\), not"),
        ([("pk", "S"), ("sk", "B")], r"keys are pk \(S\), sk \(B\), not"),
        ([("pk", "B"), ("sk", "B")], "was made by an older release: export it with that release"),
        ([("pk", "S")], r"keys are pk \(S\), not pk \(S\), sk \(S\)"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    name: str, dynamodb_server: Server, client: Any, attributes: list[tuple[str, str]], wrong: str
) -> None:
    make_table(client, name, *attributes)
    with closing(open_table(name, dynamodb_server)) as repository:
        for do in (repository.migrate, repository.migration_steps, repository.schema_status):
            with pytest.raises(SchemaError, match=wrong):
                do()


def test_another_time_to_live_is_wrong(name: str, dynamodb_server: Server, client: Any) -> None:
    make_table(client, name, ("pk", "S"), ("sk", "S"))
    client.update_time_to_live(TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"})
    with closing(open_table(name, dynamodb_server)) as repository, pytest.raises(SchemaError, match="'expires'"):
        repository.migrate()


def test_shards_grow_on_a_live_table(name: str, dynamodb_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """New shards are written to when every process knows of them: each reads the number again after a minute at most."""
    begin = now()
    with (
        closing(open_table(name, dynamodb_server)) as old,
        closing(open_table(name, dynamodb_server, shards=4)) as new,
    ):
        old.migrate()
        stores = Store(old), Store(new)
        for n in range(8):
            put(stores[n % 2], f"before{n}", {"n": n})
        assert {head_of(new, f"before{n}").shard for n in range(8)} == {0}
        assert new.migration_steps() == ["spread new conversations over 4 partitions instead of 1"]
        new.migrate()
        put(stores[1], "soon", {"n": 8})
        assert head_of(new, "soon").shard == 0
        monkeypatch.setattr(schema, "now", lambda: begin + 300_000_000)
        monkeypatch.setattr(schema, "_READ_AGAIN_AFTER", -1)
        for n in range(9, 29):
            put(stores[n % 2], f"after{n}", {"n": n})
        assert {head_of(new, f"after{n}").shard for n in range(9, 29)} == {0, 1, 2, 3}
        for store in stores:
            for order in ("created_at", "updated_at", "metadata.n"):
                assert [one.metadata["n"] for one in walk(store, order=order, limit=5)] == list(range(29))
            assert [one.metadata["n"] for one in walk(store, where("n").between(7, 10), order="metadata.n")] == [
                7,
                8,
                9,
                10,
            ]
            assert store.begin().conversations.count() == 29
        with stores[0].begin() as uow:
            uow.conversations.get("before0").metadata = {"n": 100}
        assert [one.id for one in walk(stores[1], where("n") == 100)] == ["before0"]
        assert (old.migration_steps(), new.migration_steps()) == ([], [])
        check_tidy(new, "default")


def head_of(repository: DynamoDbRepository, conversation_id: str) -> Any:
    return repository._space("default").head(conversation_id)


OPTIONS = TableOptions(
    point_in_time_recovery=True,
    deletion_protection=True,
    kms_key="alias/chats",
    read_units=5,
    write_units=6,
    tags={"team": "chat", "note": "${not} %{one}"},
)


def test_a_table_is_made_with_its_options(name: str, dynamodb_server: Server, client: Any) -> None:
    """DynamoDB Local knows neither keys of customers nor deletion protection: what is asked for is looked at."""
    asked: list[Any] = []

    def look(params: dict[str, Any], **_: object) -> None:
        asked.append({**params})
        del params["SSESpecification"], params["Tags"]

    with closing(
        open_table(name, dynamodb_server, table_options=replace(OPTIONS, point_in_time_recovery=False))
    ) as repository:
        repository.client.meta.events.register("provide-client-params.dynamodb.CreateTable", look)
        assert "with provisioned capacity" in repository.migration_steps()[0]
        assert repository.migrate().is_current
    assert asked[0]["SSESpecification"] == {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": "alias/chats"}
    assert asked[0]["DeletionProtectionEnabled"] is True
    assert asked[0]["Tags"][0] == {"Key": "team", "Value": "chat"}
    throughput = client.describe_table(TableName=name)["Table"]["ProvisionedThroughput"]
    assert (throughput["ReadCapacityUnits"], throughput["WriteCapacityUnits"]) == (5, 6)


def test_a_table_is_printed_for_cloudformation(name: str, dynamodb_server: Server, client: Any) -> None:
    """The template says what `migrate` does: a table made by it needs nothing but the version."""
    with closing(open_table(name, dynamodb_server, table_options=OPTIONS)) as repository:
        (resource,) = json.loads(repository.definition("cloudformation"))["Resources"].values()
        properties = resource["Properties"]
        assert properties.pop("TimeToLiveSpecification") == {"AttributeName": "ttl", "Enabled": True}
        assert properties.pop("PointInTimeRecoverySpecification") == {"PointInTimeRecoveryEnabled": True}
        assert properties.pop("SSESpecification") == {
            "SSEEnabled": True,
            "SSEType": "KMS",
            "KMSMasterKeyId": "alias/chats",
        }
        del properties["Tags"]
        client.create_table(**properties)
        assert [step.split()[0] for step in repository.migration_steps()] == ["enable", "enable", "write"]
        with pytest.raises(ConfigurationError, match="cloudformation or terraform, not as 'pulumi'"):
            repository.definition("pulumi")


def test_a_table_is_printed_for_terraform() -> None:
    with closing(DynamoDbRepository("chats", region="eu-central-1", table_options=OPTIONS)) as repository:
        printed = repository.definition("terraform")
    assert printed == (Path(__file__).parent / "table.tf").read_text().rstrip()
    with closing(DynamoDbRepository("chats", region="eu-central-1")) as repository:
        assert 'billing_mode = "PAY_PER_REQUEST"' in repository.definition("terraform")


def test_the_command_line_prints_a_table(
    name: str, dynamodb_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"dynamodb://{name}?endpoint={dynamodb_server.url}"
    assert main(["migrate", "--store", url, "--print", "terraform"]) == 0
    with closing(open_table(name, dynamodb_server)) as repository:
        assert capsys.readouterr().out == repository.definition("terraform") + "\n"
        assert repository.schema_status().current is None  # nothing was created
    assert main(["migrate", "--store", "memory://", "--print", "terraform"]) != 0
    assert "only a DynamoDB table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("deletion_protection=yes&kms_key=alias/a", TableOptions(deletion_protection=True, kms_key="alias/a")),
        ("read_units=5&write_units=6", TableOptions(read_units=5, write_units=6)),
        ("tags=team:chat,stage:", TableOptions(tags={"team": "chat", "stage": ""})),
    ],
)
def test_the_options_of_a_table_are_options_of_the_url(options: str, expected: TableOptions) -> None:
    with memory.connect(f"dynamodb://t?region=eu-central-1&{options}") as store:
        assert store.repository._options == expected  # type: ignore[attr-defined]


def test_a_newer_schema_is_refused(name: str, dynamodb_server: Server, client: Any) -> None:
    with closing(open_table(name, dynamodb_server)) as repository:
        repository.migrate()
        client.update_item(
            TableName=name,
            Key={"pk": {"S": keys.SCHEMA[0]}, "sk": {"S": keys.SCHEMA[1]}},
            UpdateExpression="SET version = :v",
            ExpressionAttributeValues={":v": {"S": "9999"}},
        )
        assert not repository.schema_status().is_current
        for do in (repository.migrate, Store(repository).begin):
            with pytest.raises(SchemaError, match="upgrade"):
                do()


def test_many_migrate_at_once(name: str, dynamodb_server: Server) -> None:
    def migrate(_: int) -> bool:
        with closing(open_table(name, dynamodb_server)) as repository:
            return repository.migrate().is_current

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, range(4))) == [True] * 4


def test_point_in_time_recovery_where_there_is_none(name: str, dynamodb_server: Server) -> None:
    """DynamoDB Local has no back-ups: it says so, with the code."""
    with closing(
        open_table(name, dynamodb_server, table_options=TableOptions(point_in_time_recovery=True))
    ) as repository:
        assert "enable point-in-time recovery" in repository.migration_steps()
        with pytest.raises(memory.UnsupportedError, match="UnknownOperationException"):
            repository.migrate()


def test_point_in_time_recovery(name: str, dynamodb_server: Server) -> None:
    asked: list[int] = []
    with closing(
        open_table(name, dynamodb_server, table_options=TableOptions(point_in_time_recovery=True))
    ) as repository:
        from types import SimpleNamespace

        def answer(number: int) -> Any:
            asked.append(number)
            return SimpleNamespace(status_code=200), {}

        with before_each(repository.client, "UpdateContinuousBackups", answer):
            assert repository.migrate().is_current
    assert asked == [0]


def test_a_schema_that_cannot_be_looked_at(name: str, dynamodb_server: Server) -> None:
    with closing(open_table(name, dynamodb_server)) as repository:
        for operation, do in (("DescribeTable", repository.migrate), ("CreateTable", repository.migrate)):
            with (
                before_each(repository.client, operation, lambda _: failure("AccessDeniedException")),
                pytest.raises(ConfigurationError, match="AccessDeniedException"),
            ):
                do()


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("dynamodb://", "write dynamodb://TABLE"),
        ("dynamodb:///", "write dynamodb://TABLE"),
        ("dynamodb://a/b?region=x", "write dynamodb://TABLE"),
        ("dynamodb://table?nonsense=1", "option 1"),
        ("dynamodb://table?shards=many", "shards"),
        ("dynamodb://table?shards=0", "shards"),
        ("dynamodb://table?shards=1000", "shards"),
        ("dynamodb://table?point_in_time_recovery=maybe", "point_in_time_recovery"),
        ("dynamodb://table?read_units=5", "write_units"),
        ("dynamodb://table?read_units=5&write_units=0", "write_units"),
        ("dynamodb://table?region=eu-central-1&profile=no-such-profile", "no-such-profile"),
        ("dynamodb://table?region=eu-central-1&endpoint=nonsense", "nonsense"),
    ],
)
def test_an_impossible_url_is_refused(url: str, wrong: str, dynamodb_server: Server) -> None:
    del dynamodb_server  # which sets credentials
    with pytest.raises(ConfigurationError, match=wrong):
        memory.connect(url)


def test_opening_it_loads_its_own_drivers_only(dynamodb_server: Server) -> None:
    opening = f"import memory; memory.connect('dynamodb://table?endpoint={dynamodb_server.url}').close()"
    code = f"{opening}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    drivers = {"alembic", "boto3", "botocore", "psycopg", "pynamodb", "redis", "sqlalchemy", "typer"}
    assert drivers & set(loaded) == {"boto3", "botocore"}


def test_no_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="region"):
        memory.connect("dynamodb://table")


def test_a_session_of_the_applications(
    table_name: str, dynamodb_server: Server, repository: DynamoDbRepository
) -> None:
    session = boto3.Session(aws_access_key_id="other", aws_secret_access_key="other", region_name="eu-west-1")
    namespace = new_id()
    with closing(DynamoDbRepository(table_name, session=session, endpoint=dynamodb_server.url)) as by_session:
        assert "eu-west-1" in repr(by_session)
        put(Store(by_session, namespace), "a", {"n": 1})
        assert read(Store(repository, namespace), "a").metadata == {"n": 1}


def test_several_stores_at_once(name: str, dynamodb_server: Server) -> None:
    """Other endpoints, other tables: none talks to another's."""
    with (
        closing(open_table(name, dynamodb_server)) as first,
        closing(open_table(f"{name}-2", dynamodb_server)) as second,
        closing(DynamoDbRepository(name, endpoint="http://127.0.0.1:1", region="eu-central-1")) as nowhere,
    ):
        for repository in (first, second):
            repository.migrate()
        with first_is_used(first), Store(second).begin() as uow:
            uow.conversations.add(Conversation("only in the second"))
        assert Store(first).begin().conversations.count() == 0
        with pytest.raises(StoreUnavailableError):
            nowhere.schema_status()


def first_is_used(repository: DynamoDbRepository) -> Any:
    """Assert that a block sends nothing by this repository."""

    class _Nothing:
        def __enter__(self) -> None:
            self.watching = watched(repository.client)
            self.calls = self.watching.__enter__()

        def __exit__(self, *error: object) -> None:
            self.watching.__exit__(None, None, None)
            assert self.calls.names == []

    return _Nothing()
