"""How many requests an operation takes, and what they carry."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory import PENDING, NotFoundError, Run, Store, where
from memory.adapters.cloud import GriptapeCloudRepository
from memory.testing.base import put, read, read_runs, run
from tests.adapters.cloud.troubles import append, meanwhile
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
def long(connect: Connect) -> None:
    store = Store(connect(timeout=60))  # 250 requests of one operation, on a machine that may be busy
    put(store, "long", {"n": 1}, *[run(n) for n in range(100)])
    with store.begin() as uow:
        uow.runs.append("long", *[run(n) for n in range(100, 350)])


@pytest.mark.usefixtures("long")
def test_an_append_is_two_requests(store: Store, connect: Connect, cloud_server: CloudServer) -> None:
    read(store, "long")
    connections = cloud_server.connections
    with costing(cloud_server, LIST, ADD), store.begin() as uow:
        uow.runs.append("long", run("one"))
    with costing(cloud_server, LIST, *[ADD] * 5), store.begin() as uow:
        uow.runs.append("long", *[run(n) for n in range(5)])
    assert cloud_server.connections == connections  # kept alive
    with costing(cloud_server, LIST, ADD), Store(connect()).begin() as uow:  # a process that has just begun
        uow.runs.append("long", run("two"))
    assert read(store, "long").run_count == 357


@pytest.mark.usefixtures("long")
def test_an_append_after_removals_looks_for_its_position(store: Store, cloud_server: CloudServer) -> None:
    read_runs(store, "long")
    with store.begin() as uow:
        uow.runs.remove("long", 7)
    for _ in range(2):
        with costing(cloud_server, LIST, ADD, ADD, *[READ] * 2), store.begin() as uow:
            uow.runs.append("long", run(1), run(2))
    assert read(store, "long").last_position == 354


def test_an_append_that_meets_another_looks_for_its_position(
    store: Store, other: Store, cloud_server: CloudServer
) -> None:
    put(store, "a", None, run(1))
    cloud_server.plan = meanwhile(cloud_server, lambda: append(other, "2"), "POST")
    before = len(cloud_server.requests)
    with store.begin() as uow:
        uow.runs.append("a", run("3"))
    methods = [f"{one.method} {_shape(one.path)}" for one in cloud_server.requests[before:]]
    assert methods == [LIST, ADD, LIST, ADD, READ]  # the second LIST and ADD are the other's
    assert [one.position for one in read_runs(store, "a")] == [1, 2, 3]


@pytest.mark.usefixtures("long")
def test_reading_one_conversation(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect())
    with costing(cloud_server, LIST):
        read(store, "long")
    with costing(cloud_server, LIST):
        assert "missing" not in store.begin().conversations
    with costing(cloud_server, LIST, READ):
        assert [one.input for one in store.begin().runs.last("long", 20)] == list(range(330, 350))
    with costing(cloud_server, LIST, READ):
        assert store.begin().runs.get("long", 123).input == 122
    with costing(cloud_server, LIST, READ, READ):  # the window begins on one page and ends on the next
        assert len(store.begin().runs.last("long", 60)) == 60
    with costing(cloud_server, LIST, *[READ] * 4):
        assert len(read_runs(store, "long")) == 350
    put(store, "short", None, *[run(n) for n in range(100)])
    with costing(cloud_server, LIST, READ):
        assert len(read_runs(store, "short")) == 100


def test_making_and_editing(store: Store, cloud_server: CloudServer) -> None:
    with costing(cloud_server, LIST, MAKE, LIST):  # looked for before, and again in case two were created at once
        put(store, "a", {"n": 1}, *[run(n) for n in range(50)])
    uow = store.begin()
    uow.conversations.get("a").metadata["n"] = 2
    with costing(cloud_server, LIST, CHANGE):
        uow.commit()
    with costing(cloud_server, LIST, READ, REPLACE, CHANGE), store.begin() as uow:
        uow.runs.replace("a", Run("in", "out", position=3))
    with costing(cloud_server, LIST, READ, CHANGE, REMOVE, REMOVE), store.begin() as uow:
        uow.runs.remove("a", 7, 9)
    with costing(cloud_server, LIST, READ, CHANGE, REMOVE, ADD), store.begin() as uow:  # a sliding window
        uow.runs.remove("a", before=2)
        uow.runs.append("a", run("new"))
    with costing(cloud_server, LIST, DROP), store.begin() as uow:
        uow.conversations.remove("a")


def test_a_query_reads_every_page_of_the_list_and_nothing_else(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect())
    for n in range(250):
        put(store, f"c{n:03}", {"n": n}, *[run()] * (n % 3))
    with costing(cloud_server, LIST, LIST, LIST):
        page = store.begin().conversations.find(where("n") >= 200, order="id", limit=10)
    assert [(one.id, one.run_count) for one in page] == [(f"c{n:03}", n % 3) for n in range(200, 210)]
    with costing(cloud_server, LIST, LIST, LIST):
        assert store.begin().conversations.count(where("n") < 40) == 40
    with costing(cloud_server, LIST, LIST, LIST):
        assert len(list(store.begin().conversations.iterate())) == 250
    with store.begin() as uow:
        uow.runs.append("c200", run())
    with costing(cloud_server, LIST, LIST, LIST):
        (newest,) = store.begin().conversations.find(limit=1)
    assert (newest.id, newest.run_count, newest.last_position) == ("c200", 3, 3)


@pytest.mark.usefixtures("long")
def test_open_runs_write_the_thread_and_are_found_by_it(store: Store, cloud_server: CloudServer) -> None:
    put(store, "closed", None, run())
    with costing(cloud_server, LIST, CHANGE, ADD), store.begin() as uow:
        uow.runs.append("long", Run("in", PENDING, id="1"))
    for n in range(2):
        append(store, str(n), to="long")
    with costing(cloud_server, LIST, READ):
        assert [(id, one.id, one.position) for id, one in store.runs.open()] == [("long", "1", 351)]
    with costing(cloud_server, LIST, READ, REPLACE, CHANGE), store.begin() as uow:
        uow.runs.complete("long", "1", output="out")
    with costing(cloud_server, LIST):
        assert list(store.runs.open()) == []
    with costing(cloud_server, LIST, *[READ] * 4), pytest.raises(NotFoundError), store.begin() as uow:
        uow.runs.complete("long", "1", output="again")  # all runs are looked at


def test_an_append_of_an_old_run_writes_the_thread(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, run())
    old = Run("in", "out", created_at=datetime.now(UTC) - timedelta(minutes=2))
    with costing(cloud_server, LIST, CHANGE, ADD), store.begin() as uow:
        uow.runs.append("a", old)


def test_several_conversations_are_read_from_the_list(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect())
    for n in range(201):
        put(store, f"c{n:03}", {"n": n}, *[run(text) for text in "ab"[: n % 3]])
    with costing(cloud_server, LIST, LIST, LIST):
        assert list(store.conversations.get_many(["c200", "c001", "missing"])) == ["c200", "c001"]
    with costing(cloud_server, LIST, LIST, LIST, READ, READ):
        found = store.runs.last_of(["c002", "missing", "c001"], 1)
    texts = {id: [one.input for one in runs] for id, runs in found.items()}
    assert texts == {"c002": ["b"], "missing": [], "c001": ["a"]}
    with costing(cloud_server, LIST, LIST, LIST):  # one page, which shows that there are too many, and two look-ups
        assert list(store.conversations.get_many(["c200", "c001"])) == ["c200", "c001"]


def test_what_a_request_says_of_itself(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a")
    headers = cloud_server.requests[-1].headers
    assert headers["User-Agent"].startswith("conversation-memory ")
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
