"""What goes wrong between us and DynamoDB, and what becomes of it: errors of ours, with the code of AWS in them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

import memory
from memory import Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, table
from memory.domain.values import new_id
from memory.errors import (
    CommitInDoubtError,
    ConfigurationError,
    CorruptRecordError,
    InvalidValueError,
    PersistenceError,
    SchemaError,
    StoreUnavailableError,
)
from memory.testing.base import put, read, read_runs, run
from tests.adapters.dynamodb.watching import Reply, after_each, before_each, check_tidy, failure, items_of, watched
from tests.servers import dynamodb as dynamodb_servers

COMMIT = "TransactWriteItems"
pytestmark = pytest.mark.usefixtures("no_waiting")


def first(times: int, reply: Reply) -> Callable[[int], Reply | None]:
    """Give this reply to so many requests, and let the server answer the others."""
    return lambda number: reply if number < times else None


def name_of(value: object) -> str:
    """Return the name of a parameter in a test's id."""
    if isinstance(value, type):
        return value.__name__
    assert isinstance(value, tuple)
    return "-".join(code_of(value))


def code_of(reply: Reply) -> list[str]:
    """Return the code of an error; of a cancelled transaction, the reason's."""
    reasons = [each["Code"] for each in reply[1].get("CancellationReasons", []) if each["Code"] != "None"]
    return [reply[1]["Error"]["Code"], *reasons]


def append(store: Store) -> None:
    with store.begin() as uow:
        uow.runs.append("a", run("new"))


PASSING = (
    failure("ThrottlingException"),
    failure("ProvisionedThroughputExceededException"),
    failure("RequestLimitExceeded"),
    failure("InternalServerError", status=500),
    failure("ServiceUnavailable", status=503),
)


@pytest.mark.parametrize(
    "reply",
    [
        *PASSING,
        failure("TransactionInProgressException"),
        failure("TransactionCanceledException", "None", "None", "TransactionConflict", "None", "None"),
        failure("TransactionCanceledException", "ThrottlingError", "None", "None", "None", "None"),
        failure("TransactionCanceledException", "None", "ProvisionedThroughputExceeded", "None", "None", "None"),
    ],
    ids=name_of,
)
def test_a_commit_goes_on_when_it_may(repository: DynamoDbRepository, store: Store, reply: Reply) -> None:
    put(store, "a", None, run(1))
    with before_each(repository.client, COMMIT, first(3, reply)), watched(repository.client) as calls:
        append(store)
    assert calls.counted() == {COMMIT: 4}
    assert [one.input for one in read_runs(store, "a")] == [1, "new"]


@pytest.mark.parametrize("reply", PASSING, ids=name_of)
def test_a_read_goes_on_when_it_may(repository: DynamoDbRepository, store: Store, reply: Reply) -> None:
    put(store, "a", {"n": 1}, run(1))
    for operation, look in (
        ("GetItem", lambda: store.begin().conversations.get("a")),
        ("Query", lambda: store.begin().runs.last("a", 1)),
        ("BatchGetItem", lambda: store.begin().conversations.find(order="id").items[0]),
    ):
        if operation == "BatchGetItem":
            put(store, new_id())  # two heads: a batch
        with before_each(repository.client, operation, first(2, reply)):
            assert look()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (failure("ThrottlingException"), StoreUnavailableError),
        (
            failure("TransactionCanceledException", "TransactionConflict", "None", "None", "None", "None"),
            StoreUnavailableError,
        ),
        (failure("InternalServerError", status=500), CommitInDoubtError),
        (failure("ExpiredTokenException"), ConfigurationError),
        (failure("UnrecognizedClientException"), ConfigurationError),
        (failure("AccessDeniedException"), ConfigurationError),
        (failure("ResourceNotFoundException"), SchemaError),
        (failure("ValidationException"), InvalidValueError),
        (
            failure("TransactionCanceledException", "None", "ValidationError", "None", "None", "None"),
            InvalidValueError,
        ),
        (failure("SomethingNewException", status=500), CommitInDoubtError),
    ],
    ids=name_of,
)
def test_a_commit_that_cannot_be_is_an_error_of_ours(
    repository: DynamoDbRepository, store: Store, namespace: str, reply: Reply, error: type[PersistenceError]
) -> None:
    put(store, "a", None, run(1))
    code = code_of(reply)[-1]
    with before_each(repository.client, COMMIT, first(10_000, reply)), pytest.raises(error, match=code) as caught:
        append(store)
    assert type(caught.value) is error
    assert caught.value.__cause__ is not None
    assert [one.input for one in read_runs(store, "a")] == [1]
    check_tidy(repository, namespace)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (failure("ThrottlingException"), StoreUnavailableError),
        (failure("InternalServerError", status=500), StoreUnavailableError),
        (failure("ExpiredTokenException"), ConfigurationError),
        (failure("ResourceNotFoundException"), SchemaError),
    ],
    ids=name_of,
)
def test_a_read_that_cannot_be_is_an_error_of_ours(
    repository: DynamoDbRepository, store: Store, reply: Reply, error: type[PersistenceError]
) -> None:
    put(store, "a", {"n": 1}, run(1))
    uow = store.begin()
    for operation, look in (
        ("GetItem", lambda: uow.conversations.get("a")),
        ("Query", lambda: uow.runs.last("a", 1)),
        ("Query", uow.conversations.find),
        ("Query", lambda: uow.conversations.count(where("n") == 1)),
    ):
        with (
            before_each(repository.client, operation, first(10_000, reply)),
            pytest.raises(error, match=str(reply[1]["Error"]["Code"])),
        ):
            look()


@pytest.mark.parametrize("lost", [ConnectionClosedError, ReadTimeoutError])
def test_a_lost_answer_is_found_out(repository: DynamoDbRepository, store: Store, lost: type[Exception]) -> None:
    """The commit was written, and nobody heard of it: it is in doubt, and the second try finds its token."""
    put(store, "a", None, run(1))

    def lose(number: int) -> None:
        if number == 0:
            raise lost(endpoint_url="somewhere", error=OSError())  # type: ignore[call-arg]

    with after_each(repository.client, COMMIT, lose), watched(repository.client) as calls:
        append(store)
    assert calls.counted() == {COMMIT: 2}
    assert [one.input for one in read_runs(store, "a")] == [1, "new"]
    assert (read(store, "a").run_count, read(store, "a").last_position) == (2, 2)


def test_a_lost_answer_is_found_out_though_others_write_meanwhile(store: Store, other_store: Store) -> None:
    """The second try has the first one's `ClientRequestToken`: DynamoDB does not ask whether its conditions hold now."""
    put(store, "a", None, run(1))

    def lose(number: int) -> None:
        if number == 0:
            with other_store.begin() as uow:
                uow.runs.append("a", run("other"))
            raise ReadTimeoutError(endpoint_url="somewhere")

    client = store.repository.client  # type: ignore[attr-defined]
    with after_each(client, COMMIT, lose), watched(client) as calls:
        append(store)
    assert calls.counted() == {COMMIT: 2}
    assert [one.input for one in read_runs(store, "a")] == [1, "new", "other"]


def test_a_lost_answer_that_cannot_be_found_out(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", None, run(1))

    def lose(_: int) -> None:
        raise ConnectionClosedError(endpoint_url="somewhere")

    with after_each(repository.client, COMMIT, lose), pytest.raises(CommitInDoubtError):
        append(store)


def test_a_lost_question_is_written_once(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", None, run(1))

    def lose(number: int) -> None:
        if number == 0:
            raise ReadTimeoutError(endpoint_url="somewhere")

    with before_each(repository.client, COMMIT, lose):
        append(store)
    assert [one.input for one in read_runs(store, "a")] == [1, "new"]


def test_a_lost_answer_of_a_staged_commit(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    for at in range(8):
        put(store, f"a{at}")

        def lose(number: int, at: int = at) -> None:
            if number == at:
                raise ConnectionClosedError(endpoint_url="somewhere")

        with after_each(repository.client, COMMIT, lose):
            store.run(lambda uow, at=at: uow.runs.append(f"a{at}", *(run(n) for n in range(250))))  # type: ignore[misc]
        assert [one.position for one in read_runs(store, f"a{at}")] == list(range(1, 251))
        store.purge_expired()
        check_tidy(repository, namespace)


def test_a_lost_answer_of_a_read_is_asked_for_again(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", None, run(1))

    def lose(number: int) -> None:
        if number == 0:
            raise ReadTimeoutError(endpoint_url="somewhere")

    with after_each(repository.client, "Query", lose):
        assert len(store.begin().runs.last("a", 1)) == 1


def test_a_commit_that_did_not_go_out_was_not_written(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a", None, run(1))

    def refuse(_: int) -> None:
        raise EndpointConnectionError(endpoint_url="somewhere")

    with before_each(repository.client, COMMIT, refuse), pytest.raises(StoreUnavailableError):
        append(store)


def test_what_a_batch_leaves_unprocessed_is_asked_for_again(repository: DynamoDbRepository, store: Store) -> None:
    for n in range(30):
        put(store, f"c{n}", {"n": n})
    answered = SimpleNamespace(status_code=200)
    with watched(repository.client) as calls:
        assert len(store.begin().conversations.find(order="id")) == 30
    assert calls.counted() == {"Query": 1, "BatchGetItem": 1}

    asked: list[Any] = []

    def half(params: dict[str, Any], **_: object) -> None:
        asked.append(params)

    def leave_unprocessed(number: int) -> Reply | None:
        if number > 1:
            return None
        (requests,) = asked[-1]["RequestItems"].values()
        return answered, {"Responses": {}, "UnprocessedKeys": {repository._table.name: {"Keys": requests["Keys"]}}}

    repository.client.meta.events.register("provide-client-params.dynamodb.BatchGetItem", half)
    with before_each(repository.client, "BatchGetItem", leave_unprocessed), watched(repository.client) as calls:
        assert len(store.begin().conversations.find(order="id")) == 30
    assert calls.counted() == {"Query": 1, "BatchGetItem": 3}
    with (
        before_each(repository.client, "BatchGetItem", lambda _: leave_unprocessed(0)),
        pytest.raises(StoreUnavailableError, match="throughput"),
    ):
        store.begin().conversations.find(order="id")


def test_what_cannot_be_read_is_corrupt(repository: DynamoDbRepository, store: Store, namespace: str) -> None:
    put(store, "a", {"n": 1}, run(1), Run("x" * 1_000_000, ""))
    from memory.adapters.dynamodb import keys

    partition = keys.partition("conversation", namespace, "a")
    client, name = repository.client, repository._table.name
    record = repository._space(namespace).head("a").record
    assert record is not None

    def spoil(sort_key: str, attribute: str) -> None:
        client.update_item(
            TableName=name,
            Key={"pk": {"S": partition}, "sk": {"S": sort_key}},
            UpdateExpression="REMOVE #a",
            ExpressionAttributeNames={"#a": attribute},
        )

    spoil(keys.run(record.incarnation, 1), "input")
    with pytest.raises(CorruptRecordError):
        store.begin().runs.first("a", 1)
    part = next(key for key in items_of(repository, namespace) if key[1].startswith(keys.PARTS))
    client.delete_item(TableName=name, Key={"pk": {"S": part[0]}, "sk": {"S": part[1]}})
    with pytest.raises(CorruptRecordError, match="'a'"):
        store.begin().runs.last("a", 1)
    spoil(keys.STATE, "run_count")
    with pytest.raises(CorruptRecordError):
        store.begin().conversations.get("a")


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with (
        memory.connect("dynamodb://none?region=eu-central-1&endpoint=http://127.0.0.1:1") as store,
        pytest.raises(ConfigurationError, match="credentials"),
    ):
        store.begin()


@pytest.fixture
def own_server() -> Iterator[Any]:
    server = dynamodb_servers.from_packages()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.needs("dynamodb")
@pytest.mark.usefixtures("dynamodb_server")  # which sets credentials
def test_a_server_that_dies(own_server: Any) -> None:
    with closing(DynamoDbRepository(f"dies-{new_id()}", endpoint=own_server.url)) as repository:
        store = Store(repository)
        store.migrate()
        put(store, "a", None, run(1))
        own_server.kill()
        for look in (
            lambda: store.begin().conversations.get("a"),
            lambda: store.begin().runs.last("a", 1),
            lambda: append(store),
            repository.migrate,
        ):
            with pytest.raises(StoreUnavailableError):
                look()


def test_a_transaction_is_never_too_large() -> None:
    assert (table.MOST_ACTIONS, table.MOST_BYTES) <= (100, 4 * 1024 * 1024)
