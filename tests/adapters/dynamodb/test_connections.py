"""Connections and credentials that fail: what was not sent, what leaves doubt, what can never become right."""

import socket
import ssl
from contextlib import closing
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.credentials import DeferredRefreshableCredentials
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    MetadataRetrievalError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)

import memory
from memory import Store
from memory.adapters.dynamodb import DynamoDbRepository
from memory.errors import (
    CommitInDoubtError,
    ConfigurationError,
    PersistenceError,
    StoreUnavailableError,
)
from memory.testing.base import put, read, read_runs, run
from tests.adapters.dynamodb.watching import after_each, before_each
from tests.servers import Server, free_port

COMMIT = "TransactWriteItems"
pytestmark = pytest.mark.usefixtures("no_waiting")


def raised_while(error: Exception, inner: BaseException) -> Exception:
    """Return an error as if it had been raised while another was handled."""
    error.__context__ = inner
    return error


def append(store: Store) -> None:
    with store.begin() as uow:
        uow.runs.append("a", run("new"))


BROKEN = ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]")
UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed")
LOST = (
    raised_while(SSLError(endpoint_url="x", error=BROKEN), BROKEN),
    SSLError(endpoint_url="x", error=ssl.SSLEOFError(8, "EOF occurred in violation of protocol")),
    ReadTimeoutError(endpoint_url="x"),
    ConnectionClosedError(endpoint_url="x"),
    ResponseStreamingError(error="cut"),
    HTTPClientError(error=OSError("broken")),
)
AWAY = (
    CredentialRetrievalError(provider="iam-role", error_msg="throttled"),
    MetadataRetrievalError(error_msg="throttled"),
    ClientError({"Error": {"Code": "Throttling"}}, "AssumeRole"),
    ClientError({"Error": {"Code": "ExpiredToken"}}, "AssumeRole"),
    ClientError({"Error": {"Code": "InternalFailure"}}, "GetRoleCredentials"),
)
UNSENT = (
    EndpointConnectionError(endpoint_url="x"),
    ConnectTimeoutError(endpoint_url="x"),
    ProxyConnectionError(proxy_url="x"),
    raised_while(EndpointConnectionError(endpoint_url="x"), socket.gaierror(socket.EAI_AGAIN, "try again")),
)
NEVER = (
    raised_while(EndpointConnectionError(endpoint_url="x"), socket.gaierror(socket.EAI_NONAME, "not known")),
    raised_while(SSLError(endpoint_url="x", error=UNTRUSTED), UNTRUSTED),
    ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole"),
)


def ids(errors: tuple[Exception, ...]) -> list[str]:
    return [f"{type(error).__name__}{number}" for number, error in enumerate(errors)]


@pytest.mark.parametrize("error", LOST, ids=ids(LOST))
def test_a_connection_that_fails_after_the_request_leaves_doubt_which_the_token_ends(
    repository: DynamoDbRepository, store: Store, error: Exception
) -> None:
    put(store, "a")

    def lose(number: int) -> None:
        if number == 0:
            raise error

    with after_each(repository.client, COMMIT, lose):
        append(store)
    assert [one.input for one in read_runs(store, "a")] == ["new"]

    def lose_all(_: int) -> None:
        raise error

    with after_each(repository.client, COMMIT, lose_all), pytest.raises(CommitInDoubtError):
        append(store)
    with after_each(repository.client, "GetItem", lose):  # a read is asked for again
        assert read(store, "a").id == "a"
    with after_each(repository.client, "GetItem", lose_all), pytest.raises(StoreUnavailableError):
        read(store, "a")


def fails_with(repository: DynamoDbRepository, store: Store, error: Exception, kind: type[PersistenceError]) -> None:
    put(store, "a")

    def fail(_: int) -> None:
        raise error

    for use in (append, lambda store: store.begin().conversations.get("a"), lambda store: store.repository.migrate()):
        with before_each(repository.client, "*", fail), pytest.raises(kind) as caught:
            use(store)
        assert type(caught.value) is kind
        assert caught.value.__cause__ is not None
    assert read_runs(store, "a") == []


@pytest.mark.parametrize("error", UNSENT, ids=ids(UNSENT))
def test_a_request_that_was_not_sent_was_not_written(
    repository: DynamoDbRepository, store: Store, error: Exception
) -> None:
    fails_with(repository, store, error, StoreUnavailableError)


@pytest.mark.parametrize("error", AWAY, ids=ids(AWAY))
def test_credentials_that_are_away_for_a_moment_make_the_store_unavailable(
    repository: DynamoDbRepository, store: Store, error: Exception
) -> None:
    fails_with(repository, store, error, StoreUnavailableError)


@pytest.mark.parametrize("error", NEVER, ids=ids(NEVER))
def test_what_can_never_become_right_is_not_retryable(
    repository: DynamoDbRepository, store: Store, error: Exception
) -> None:
    fails_with(repository, store, error, ConfigurationError)


def test_a_role_whose_credentials_cannot_be_renewed_for_a_moment(
    table_name: str, namespace: str, dynamodb_server: Server
) -> None:
    """By botocore's own credentials, which are renewed through a service that does not answer once."""
    answers: list[dict[str, str]] = []
    core: Any = botocore.session.get_session()
    core._credentials = DeferredRefreshableCredentials(lambda: answers[-1] if answers else {}, "iam-role")
    session = boto3.Session(botocore_session=core, region_name="eu-central-1")
    with closing(DynamoDbRepository(table_name, session=session, endpoint=dynamodb_server.url)) as repository:
        store = Store(repository, namespace)
        with pytest.raises(StoreUnavailableError, match="credentials"):
            store.begin()
        given = {"access_key": "test", "secret_key": "test", "token": "", "expiry_time": "2200-01-01T00:00:00Z"}
        answers.append(given)
        put(store, "a")
        assert read(store, "a").id == "a"


def test_credentials_that_come_later_are_found(
    table_name: str, namespace: str, dynamodb_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Botocore's client keeps for good that there were none."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with closing(DynamoDbRepository(table_name, endpoint=dynamodb_server.url)) as repository:
        store = Store(repository, namespace)
        with pytest.raises(ConfigurationError, match="credentials"):
            store.begin()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        put(store, "a")


@pytest.fixture
def no_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.mark.usefixtures("no_region", "dynamodb_server")
def test_the_region_of_aws_region_is_taken_where_boto3_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="region"):
        memory.connect("dynamodb://t")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    with (
        closing(DynamoDbRepository("t")) as repository,
        closing(DynamoDbRepository("t", session=boto3.Session())) as other,
    ):
        assert repository.client.meta.region_name == other.client.meta.region_name == "eu-west-3"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    with closing(DynamoDbRepository("t")) as repository:
        assert repository.client.meta.region_name == "eu-north-1"


@pytest.mark.usefixtures("dynamodb_server")
@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("dynamodb://t?endpoint=http://nowhere.invalid", (ConfigurationError, StoreUnavailableError)),
        ("dynamodb://t?region=not%20one", ConfigurationError),
        ("dynamodb://t?profile=none", ConfigurationError),
        (f"dynamodb://t?endpoint=http://127.0.0.1:{free_port()}", StoreUnavailableError),
    ],
    ids=["host", "region", "profile", "port"],
)
def test_a_server_that_is_not_there(url: str, error: Any) -> None:
    def use() -> None:
        with memory.connect(url) as store:
            store.begin()

    with pytest.raises(error):
        use()


def test_a_server_without_tls(dynamodb_server: Server) -> None:
    url = dynamodb_server.url.replace("http:", "https:")
    with closing(DynamoDbRepository("t", endpoint=url)) as repository, pytest.raises(ConfigurationError, match="SSL"):
        repository.get("n", "a")
