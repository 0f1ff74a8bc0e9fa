"""A repository that is open when its process forks: each process has sockets, and locks, of its own."""

import os
import signal
import traceback
from collections.abc import Callable

import requests

from memory import ConfigurationError, Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.adapters.cloud.repository import GriptapeCloudRepository as Repository
from memory.testing.base import put, read, read_runs, run
from tests.adapters.cloud.troubles import append
from tests.cloud_server import CloudServer

Connect = Callable[..., GriptapeCloudRepository]


def in_child(work: Callable[[], object]) -> str:
    """Do something in a forked process; return the traceback of what it raised."""
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # what waits for ever is not to outlive the test
        try:
            work()
        except BaseException:  # noqa: BLE001  # the child must not go on as the test
            os.write(here, traceback.format_exc().encode())
        os._exit(0)
    os.close(here)
    with os.fdopen(there) as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    return text or (f"ended with {status}" if status else "")


def test_each_process_has_connections_of_its_own(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect())
    put(store, "a", {"n": 1}, run("1"))

    def work() -> None:
        append(store, "2")
        assert read(store, "a").metadata == {"n": 1}

    ports = cloud_server.connections
    assert in_child(work) == ""
    assert cloud_server.connections == ports + 1  # the child's
    append(store, "3")
    assert cloud_server.connections == ports + 1  # the parent's is open still
    assert [one.input for one in read_runs(store, "a")] == ["1", "2", "3"]


def test_a_session_of_the_application_is_refused_in_the_child_only(connect: Connect) -> None:
    with requests.Session() as session:
        store = Store(connect(session=session))
        put(store, "a", None, run("1"))
        said = in_child(lambda: read(store, "a"))
        assert ConfigurationError.__name__ in said
        assert "after the fork" in said
        append(store, "2")
        assert [one.input for one in read_runs(store, "a")] == ["1", "2"]


def test_locks_that_another_thread_holds_at_the_fork_are_free_in_the_child(connect: Connect) -> None:
    repository = connect()
    assert isinstance(repository, Repository)
    store = Store(repository)
    put(store, "a", None, run("1"))
    with repository._lock:
        assert in_child(lambda: append(store, "2")) == ""
    assert [one.input for one in read_runs(store, "a")] == ["1", "2"]
