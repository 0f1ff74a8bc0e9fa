"""Commits whose answer was lost, and what happened before anybody could ask: reported as written or not, never wrongly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from memory import Store
from memory.adapters.dynamodb import DynamoDbRepository
from memory.core.unit_of_work import UnitOfWork
from memory.errors import CommitInDoubtError
from memory.testing.base import put, read_runs, run
from tests.adapters.dynamodb.watching import Reply, before_each, check_tidy, failure

COMMIT = "TransactWriteItems"
pytestmark = pytest.mark.usefixtures("no_waiting")


def append(uow: UnitOfWork) -> None:
    uow.runs.append("a", run("new"))


@contextmanager
def unheard(client: Any, *numbers: int) -> Iterator[None]:
    """Let commits of these numbers be written, and the server fail after that."""
    calls = iter(range(10**9))

    def fail(http_response: Any, parsed: dict[str, Any], **_: object) -> None:
        if next(calls) in numbers:
            http_response.status_code = 500
            parsed.clear()
            parsed.update(failure("InternalServerError", status=500)[1])

    event = f"after-call.dynamodb.{COMMIT}"
    client.meta.events.register(event, fail)
    try:
        yield
    finally:
        client.meta.events.unregister(event, fail)


def _throttled(_: int) -> Reply:
    return failure("ThrottlingException")


def _in_conflict(_: int) -> Reply:
    return failure("TransactionCanceledException", "None", "TransactionConflict", "None", "None", "None")


def _out_of_rights(_: int) -> Reply:
    return failure("ExpiredTokenException")


def _out_of_reach(_: int) -> Reply:
    raise EndpointConnectionError(endpoint_url="somewhere")


@pytest.mark.parametrize("then", [_throttled, _in_conflict, _out_of_rights, _out_of_reach])
def test_a_try_that_may_have_been_written_leaves_doubt_however_the_last_one_ends(
    repository: DynamoDbRepository, store: Store, namespace: str, then: Callable[[int], Reply]
) -> None:
    put(store, "a")
    uow = store.begin()
    append(uow)
    with (
        unheard(repository.client, 0),
        before_each(repository.client, COMMIT, lambda number: then(number) if number else None),
        pytest.raises(CommitInDoubtError) as caught,
    ):
        uow.commit()
    assert "nothing was written" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert len(read_runs(store, "a")) == 1
    check_tidy(repository, namespace)


def test_a_commit_whose_first_try_was_written_is_not_done_twice(repository: DynamoDbRepository, store: Store) -> None:
    """The server is at its throughput for longer than the tries of one commit, and well again after that."""
    put(store, "a")
    with (
        unheard(repository.client, 0),
        before_each(repository.client, COMMIT, lambda number: _throttled(number) if 1 <= number <= 12 else None),
    ):
        store.run(append)
    assert [one.input for one in read_runs(store, "a")] == ["new"]
