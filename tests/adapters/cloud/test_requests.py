"""How many requests an operation takes, and what they carry."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.cloud import GriptapeCloudRepository
from memory.testing.base import put, read, read_runs, run
from tests.cloud_server import CloudServer

Connect = Callable[..., GriptapeCloudRepository]


@contextmanager
def costing(server: CloudServer, *expected: str) -> Iterator[None]:
    """Assert which requests the block makes."""
    before = len(server.requests)
    yield
    made = [f"{one.method} {_shape(one.path)}" for one in server.requests[before:]]
    assert made == list(expected)


def _shape(path: str) -> str:
    parts = path.partition("?")[0].split("/")[2:]
    return "/".join("*" if number % 2 else part for number, part in enumerate(parts))


LIST, MAKE = "GET threads", "POST threads"
GET, CHANGE, DROP = "GET threads/*", "PATCH threads/*", "DELETE threads/*"
ADD, READ = "POST threads/*/messages", "GET threads/*/messages"
REPLACE, REMOVE = "PATCH messages/*", "DELETE messages/*"


@pytest.fixture
def long(store: Store) -> None:
    put(store, "long", {"n": 1}, *[run(n) for n in range(100)])
    with store.begin() as uow:
        uow.runs.append("long", *[run(n) for n in range(100, 350)])


@pytest.mark.usefixtures("long")
def test_an_append_is_one_request(store: Store, cloud_server: CloudServer) -> None:
    connections = cloud_server.connections
    with costing(cloud_server, ADD), store.begin() as uow:
        uow.runs.append("long", run("one"))
    with costing(cloud_server, *[ADD] * 5), store.begin() as uow:
        uow.runs.append("long", *[run(n) for n in range(5)])
    assert cloud_server.connections == connections  # kept alive


@pytest.mark.usefixtures("long")
def test_the_first_append_of_a_process_finds_the_thread(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect())
    with costing(cloud_server, LIST, ADD, ADD, ADD), store.begin() as uow:
        uow.runs.append("long", run(1), run(2), run(3))
    with costing(cloud_server, ADD), store.begin() as uow:
        uow.runs.append("long", run(4))
    assert read(store, "long").run_count == 354


@pytest.mark.usefixtures("long")
def test_an_append_whose_index_does_not_tell_its_position_looks_for_it(
    store: Store, connect: Connect, cloud_server: CloudServer
) -> None:
    with store.begin() as uow:
        uow.runs.remove("long", 7)
    with costing(cloud_server, ADD, ADD, GET, READ, READ), store.begin() as uow:  # one look for all of them
        uow.runs.append("long", run(1), run(2))
    with costing(cloud_server, ADD), store.begin() as uow:
        uow.runs.append("long", run(3))
    put(store, "short", None, run())
    other = Store(connect())
    read(other, "short")
    with store.begin() as uow:
        uow.runs.append("short", run())
    with costing(cloud_server, ADD, GET, READ), other.begin() as uow:
        uow.runs.append("short", run())
    assert (read(store, "long").last_position, read(other, "short").last_position) == (353, 3)


@pytest.mark.usefixtures("long")
def test_get_is_one_request(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect())
    with costing(cloud_server, LIST, READ):  # the second looks whether message_count is what it is taken for, once
        read(store, "long")
    put(store, "other", None, run())
    fresh = Store(connect())
    read(fresh, "long")
    with costing(cloud_server, GET):
        read(fresh, "long")
    with costing(cloud_server, LIST):
        read(fresh, "other")
    with costing(cloud_server, LIST):
        assert "missing" not in fresh.begin().conversations


@pytest.mark.usefixtures("long")
def test_last_runs_are_two_requests(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect())
    for first in (LIST, GET):
        with costing(cloud_server, first, READ):
            assert [one.input for one in store.begin().runs.last("long", 20)] == list(range(330, 350))
    for length in range(350, 380):  # however the pages fall
        with costing(cloud_server, GET, READ):
            assert [one.input for one in store.begin().runs.last("long", 20)] == list(range(length - 20, length))
        with store.begin() as uow:
            uow.runs.append("long", run(length))
    with costing(cloud_server, GET, READ):
        assert store.begin().runs.get("long", 123).input == 122


def test_making_and_editing(store: Store, cloud_server: CloudServer) -> None:
    with costing(cloud_server, LIST, MAKE, LIST):  # looked for before, and again in case two were made at once
        put(store, "a", {"n": 1}, *[run(n) for n in range(50)])
    uow = store.begin()
    uow.conversations.get("a").metadata["n"] = 2
    with costing(cloud_server, GET, CHANGE):
        uow.commit()
    with costing(cloud_server, GET, READ, REPLACE, CHANGE), store.begin() as uow:
        uow.runs.replace("a", Run("in", "out", position=3))
    with costing(cloud_server, GET, READ, CHANGE, REMOVE, REMOVE, CHANGE), store.begin() as uow:
        uow.runs.remove("a", 7, 9)
    with costing(cloud_server, LIST, DROP), store.begin() as uow:
        uow.conversations.remove("a")


def test_once_the_alias_is_known_to_be_unique_making_is_two_requests(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a")
    store.repository._conversations.threads.unique = True  # type: ignore[attr-defined]
    with costing(cloud_server, LIST, MAKE):
        put(store, "b", None, run())


def test_a_query_reads_every_page_once(connect: Connect, cloud_server: CloudServer) -> None:
    told: list[tuple[str, float | None]] = []
    store = Store(connect(progress=lambda what, part: told.append((what, part))))
    with store.begin() as uow:
        for n in range(250):
            uow.conversations.add(Conversation(f"c{n:03}", {"n": n}))
    read(store, "c000"), read(store, "c001"), read(store, "c002")  # empty, and said to be
    with costing(cloud_server, LIST, LIST, LIST):
        page = store.begin().conversations.find(where("n") >= 200, order="id", limit=10)
    assert [one.id for one in page] == [f"c{n:03}" for n in range(200, 210)]
    assert told == [("100 of 250 threads", 0.4), ("200 of 250 threads", 0.8), ("250 of 250 threads", 1.0)]
    with costing(cloud_server, LIST, LIST, LIST):
        assert store.begin().conversations.count(where("n") < 40) == 40


def test_a_prefix_filter_where_it_was_asked_for(connect: Connect, cloud_server: CloudServer) -> None:
    for repository, asked in ((connect(), False), (connect(prefix_filter=True), True)):
        mine, other = Store(repository, f"tenant/{asked}"), Store(repository, f"other/{asked}")
        for each in (mine, other):
            put(each, "a", {"n": 1}, run())
            put(each, "x" * 255, {"n": 1}, run())
        before = len(cloud_server.requests)
        assert [one.id for one in mine.begin().conversations.find(order="id")] == ["a", "x" * 255]
        lists = [one.path for one in cloud_server.requests[before:] if "threads?" in one.path]
        assert all(("starts_with=tenant%252F" in path) == asked for path in lists)


def test_what_a_request_says_of_itself(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a")
    headers = cloud_server.requests[-1].headers
    assert headers["User-Agent"].startswith("conversation-memory/")
    assert headers["Authorization"] == "Bearer key-of-org-a"


def test_what_a_thread_and_a_message_look_like(store: Store, cloud_server: CloudServer) -> None:
    metadata: dict[str, Any] = {"customer": "ada", "tier": 1.0}
    put(store, "support-42", metadata, Run("Where is it?", {"type": "TextArtifact", "value": "On its way."}, {"k": 1}))
    (thread,) = cloud_server.service.threads.values()
    assert (thread.name, thread.alias) == ("support-42", "support-42")
    assert {key: value for key, value in thread.metadata.items() if key != "conversation_memory"} == metadata
    (message,) = thread.messages
    assert message.input == "Where is it?"
    assert message.output == '{"type":"TextArtifact","value":"On its way."}'
    assert message.metadata.keys() == {"k", "run_id", "conversation_memory"}
    assert message.metadata["run_id"] == read_runs(store, "support-42")[0].id


def test_the_alias_of_every_namespace(store: Store, cloud_server: CloudServer) -> None:
    for namespace, conversation_id in (
        ("default", "a/b c"),
        ("tenant a", "x"),
        ("default", "y" * 201),
        ("z" * 255, "x"),
    ):
        put(store.namespace(namespace), conversation_id, None, run())
        assert read(store.namespace(namespace), conversation_id).run_count == 1
    aliases = [thread.alias or "" for thread in cloud_server.service.threads.values()]
    assert aliases[:2] == ["a%2Fb%20c", "tenant%20a/x"]
    assert [len(alias) for alias in aliases[2:]] == [65, 65]


def test_a_session_of_the_application(connect: Connect, cloud_server: CloudServer) -> None:
    import requests

    with requests.Session() as session:
        session.headers["X-Ours"] = "yes"
        repository = connect(session=session)
        put(Store(repository), "a")
        repository.close()
        assert cloud_server.requests[-1].headers["X-Ours"] == "yes"
        assert "Authorization" not in session.headers
        assert session.get(f"{cloud_server.host}/api/threads").status_code == 401  # still usable, and without the key
