"""The table: made, waited for, checked; opened by URL, or with a session or client of the application's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

import memory
from memory import Conversation, Store
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.cli import main
from memory.domain.values import new_id
from memory.errors import ConfigurationError, SchemaError, StoreUnavailableError
from memory.testing.base import put, read
from tests.adapters.dynamodb.watching import before_each, failure, watched
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


def test_a_table_is_made_with_more_arguments(name: str, dynamodb_server: Server, client: Any) -> None:
    options = {
        "BillingMode": "PROVISIONED",
        "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6},
    }
    with closing(open_table(name, dynamodb_server, table_options=options)) as repository:
        assert repository.migrate().is_current
    throughput = client.describe_table(TableName=name)["Table"]["ProvisionedThroughput"]
    assert (throughput["ReadCapacityUnits"], throughput["WriteCapacityUnits"]) == (5, 6)


def test_a_table_is_printed_for_cloudformation(name: str, dynamodb_server: Server, client: Any) -> None:
    """The template says what `migrate` does: a table made by it needs nothing but the version."""
    with closing(open_table(name, dynamodb_server)) as repository:
        (resource,) = json.loads(repository.definition("cloudformation"))["Resources"].values()
        properties = resource["Properties"]
        time_to_live = properties.pop("TimeToLiveSpecification")
        client.create_table(**properties)
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=time_to_live)
        assert [step.split()[0] for step in repository.migration_steps()] == ["write"]
        with pytest.raises(ConfigurationError, match="cloudformation or terraform, not as 'pulumi'"):
            repository.definition("pulumi")


def test_a_table_is_printed_for_terraform() -> None:
    with closing(DynamoDbRepository("chats", region="eu-central-1")) as repository:
        printed = repository.definition("terraform")
    assert printed == (Path(__file__).parent / "table.tf").read_text().rstrip()


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
