"""Whichever way an unknown of the contract turns out, the adapter is right: each switch alone, and all together."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.cloud import GriptapeCloudRepository
from memory.port.repository import Repository
from memory.testing.base import Clock, put, read, read_runs, run
from memory.testing.state_machine import SameAsTheReference
from tests.cloud_server import Assumptions, CloudServer
from tests.contract.writing import WritingContract

OTHER_WAYS: tuple[dict[str, Any], ...] = (
    {"replaces_metadata": False},
    {"unique_alias": False},
    {"message_order": "descending"},
    {"thread_order": "oldest"},
    {"first_page": 0},
    {"page_size": 3, "largest_page": 7},
    {"largest_page": 30, "refuses_large_pages": True},
    {"links": False},
    {"ignores_unknown": False},
    {"alias_filter": "prefix"},
    {"alias_filter": "any case"},
    {"no_alias": "null"},
    {"no_alias": "id"},
    {"malformed_id": 400},
    {"first_index": 1},
    {"renumbers": True},
    {"reuses_last_index": True},
    {"deleted_twice": 204},
    {"foreign": 403},
    {"invalid": 400},
    {"most_messages": 2},
    {"keeps_json": False},
    {"whole_numbers": False},
)
CONTRARY = Assumptions(
    replaces_metadata=False,
    unique_alias=False,
    message_order="descending",
    thread_order="oldest",
    first_page=0,
    page_size=5,
    largest_page=9,
    links=False,
    ignores_unknown=False,
    alias_filter="prefix",
    no_alias="null",
    malformed_id=400,
    first_index=1,
    renumbers=True,
    deleted_twice=204,
    foreign=403,
    invalid=400,
    most_messages=2,
    keeps_json=False,
    whole_numbers=False,
)


def opened(server: CloudServer) -> Iterator[GriptapeCloudRepository]:
    with closing(GriptapeCloudRepository(server.host, "key-of-org-a")) as repository:
        repository._http.sleep = lambda _: None
        server.service.clock = lambda: repository.clock()  # noqa: PLW0108  # a test sets another one
        yield repository


@pytest.fixture(params=OTHER_WAYS, ids=lambda way: ",".join(f"{name}={value}" for name, value in way.items()))
def server(request: pytest.FixtureRequest) -> Iterator[CloudServer]:
    server = CloudServer(replace(Assumptions(), **request.param))
    yield server
    server.stop()


@pytest.fixture
def repository(server: CloudServer) -> Iterator[GriptapeCloudRepository]:
    yield from opened(server)


class TestEitherWay(SameAsTheReference):
    examples = 3

    @pytest.fixture
    def repository(self, server: CloudServer) -> Iterator[Repository]:
        yield from opened(server)


def test_a_long_conversation(repository: GriptapeCloudRepository, server: CloudServer) -> None:
    store = Store(repository)
    put(store, "long", {"n": 1}, *[run(n) for n in range(1, 111)])
    put(store, "other", {"n": 1}, run("other"))
    with store.begin() as uow:
        uow.runs.append("long", *[run(n) for n in range(111, 236)])
    everything = list(range(1, 236))
    for each in (store, Store(next(opened(server)))):  # with what was learned, and knowing nothing
        uow = each.begin()
        assert [(one.position, one.input) for one in uow.runs.last("long", 20)] == [(n, n) for n in everything[-20:]]
        assert [one.input for one in uow.runs.list("long", after=99, before=131)] == everything[99:130]
        assert uow.runs.get("long", 1).input == 1
        assert uow.runs.get("long", 117).input == 117
        assert [one.input for one in uow.runs.iterate("long")] == everything
        found = uow.conversations.get("long")
        assert (found.run_count, found.last_position, found.version) == (235, 235, 1)
        each.close()


def test_a_long_conversation_after_removals(repository: GriptapeCloudRepository) -> None:
    store = Store(repository)
    put(store, "long", None, *[run(n) for n in range(1, 171)])
    with store.begin() as uow:
        uow.runs.remove("long", 40, 41, 170, before=5)
    with store.begin() as uow:
        uow.runs.append("long", run(171), run(172))
    left = [n for n in range(5, 173) if n not in (40, 41, 170)]
    fresh = Store(GriptapeCloudRepository(repository._http.host, "key-of-org-a"))
    for each in (store, fresh):
        uow = each.begin()
        assert [(one.position, one.input) for one in uow.runs.last("long", 20)] == [(n, n) for n in left[-20:]]
        assert [one.input for one in uow.runs.list("long", after=38, limit=5)] == [39, 42, 43, 44, 45]
        assert [(one.position, one.input) for one in uow.runs.list("long")] == [(n, n) for n in left]
        found = uow.conversations.get("long")
        assert (found.run_count, found.last_position, found.version) == (165, 172, 2)
    fresh.close()


def test_what_is_read_by_somebody_who_has_just_come(repository: GriptapeCloudRepository, server: CloudServer) -> None:
    store, clock = Store(repository), Clock()
    repository.clock = clock
    put(store, "a", {"n": 1.0, "big": 2**70, "b": "\x00", "a": {"z": 1, "y": [2]}}, run([1, 2.0]))
    clock.advance()
    with store.begin() as uow:
        uow.runs.append("a", run("second"))
    with store.begin() as uow:
        del uow.conversations.get("a").metadata["n"]
    clock.advance()
    with store.begin() as uow:
        uow.runs.append("a", run("third"))
    fresh = Store(GriptapeCloudRepository(server.host, "key-of-org-a"))
    assert read(fresh, "a").record == read(store, "a").record
    assert read(fresh, "a").metadata == {"big": 2**70, "b": "\x00", "a": {"z": 1, "y": [2]}}
    assert [one.input for one in read_runs(fresh, "a")] == [[1, 2.0], "second", "third"]
    assert read(fresh, "a").updated_at == fresh.begin().conversations.find().items[0].updated_at
    found = fresh.begin().conversations.find(where("big") > 1, order="updated_at")
    assert [(one.id, one.run_count, one.last_position) for one in found] == [("a", 3, 3)]
    fresh.close()


class TestAllTheOtherWay(WritingContract):
    """The contract, where nothing is as assumed; a query is answered from all threads, however those were read."""

    examples = 4

    @pytest.fixture
    def repository(self) -> Iterator[Repository]:
        server = CloudServer(CONTRARY)
        yield from opened(server)
        server.stop()


def test_every_switch_is_tried() -> None:
    tried = {name for way in OTHER_WAYS for name in way}
    elsewhere = {"largest_text", "largest_metadata", "atomic"}  # tests/adapters/cloud/test_faults.py
    assert tried | elsewhere == set(asdict(Assumptions()))


def test_a_thread_without_an_alias_is_no_conversation(server: CloudServer, repository: GriptapeCloudRepository) -> None:
    service = server.service
    service.answer("org-a", "POST", ["threads"], {}, {"name": "nameless"})
    store = Store(repository)
    put(store, "a")
    assert [one.id for one in store.begin().conversations.find()] == ["a"]
    store.begin().conversations.find(where.id == "nameless")
    with store.begin() as uow:
        uow.conversations.add(Conversation("nameless"))
        uow.runs.append("nameless", Run("in", "out"))
    assert read(store, "nameless").run_count == 1
