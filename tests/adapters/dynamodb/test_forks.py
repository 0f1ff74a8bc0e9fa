"""Processes that fork: each has connections, guesses and locks of its own."""

import os
import traceback
from collections.abc import Callable
from contextlib import closing

import boto3
import pytest

from memory import Store
from memory.adapters.dynamodb import DynamoDbRepository
from memory.testing.base import put, read, read_runs, run
from tests.rounds import rounds
from tests.servers import Server

# Python warns of forks where there are threads: what may happen then is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def in_children(count: int, work: Callable[[int], object], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Do something in so many forked processes at once, and something here; each must end well."""
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            status = 1
            try:
                work(number)
                status = 0
            except BaseException:  # noqa: BLE001  # whatever it is, the child must end here
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    meanwhile()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count


def work_of(store: Store, number: int) -> None:
    """Write to a conversation of one's own and to one of all, and read what was put for each: never another's."""
    for turn in range(rounds(10)):
        for name in (f"c{number}", "shared"):
            store.run(lambda uow, name=name, turn=turn: uow.runs.append(name, run([number, turn])))  # type: ignore[misc]
        for other in range(5):
            conversation = read(store, f"c{other}")
            assert (conversation.id, conversation.metadata) == (f"c{other}", {"n": other})
            assert all(one.input[0] == other for one in read_runs(store, f"c{other}"))
        assert len(store.begin().conversations.find(order="id").items) == 6


def check_forks(store: Store) -> None:
    for n in range(5):
        put(store, f"c{n}", {"n": n})
    put(store, "shared")
    read(store, "c0")  # a connection that the children inherit
    in_children(4, lambda number: work_of(store, number), lambda: work_of(store, 4))
    expected = [[number, turn] for number in range(5) for turn in range(rounds(10))]
    assert sorted(one.input for one in read_runs(store, "shared")) == expected
    for n in range(5):
        assert [one.input for one in read_runs(store, f"c{n}")] == [[n, turn] for turn in range(rounds(10))]


def test_parent_and_children_read_and_write_at_once(store: Store) -> None:
    check_forks(store)


def test_a_session_of_the_applications_gives_each_process_a_client(
    table_name: str, namespace: str, dynamodb_server: Server
) -> None:
    session = boto3.Session(region_name="eu-central-1")
    with closing(DynamoDbRepository(table_name, session=session, endpoint=dynamodb_server.url)) as repository:
        check_forks(Store(repository, namespace))


def test_a_lock_that_a_thread_held_at_the_fork_is_free_in_the_child(
    repository: DynamoDbRepository, store: Store
) -> None:
    put(store, "a")
    with repository._clients._lock:
        in_children(1, lambda _: store.run(lambda uow: uow.runs.append("a", run(1))))
    assert [one.input for one in read_runs(store, "a")] == [1]


def test_a_child_never_uses_a_connection_of_its_parent(repository: DynamoDbRepository, store: Store) -> None:
    put(store, "a")
    inherited = repository.client

    def work(_: int) -> None:
        assert repository.client is not inherited
        assert read(store, "a").id == "a"

    in_children(2, work)
    assert repository.client is inherited
