"""A run's position is in its message; when writers meet, the order of the messages decides, and nothing moves afterwards."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from memory import Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.port.changes import UNKNOWN
from memory.testing.base import put, read, read_runs, run
from tests.adapters.cloud.troubles import append, appending, meanwhile, no_looks_after, written
from tests.cloud_server import Assumptions, CloudServer, Request
from tests.cloud_server.faults import no_faults

Connect = Callable[..., GriptapeCloudRepository]


@pytest.fixture(params=[{}, {"first_index": 1}, {"renumbers": True}, {"reuses_last_index": True}], ids=str)
def server(request: pytest.FixtureRequest) -> Iterator[CloudServer]:
    server = CloudServer(Assumptions(**request.param))
    yield server
    server.stop()


@pytest.fixture
def stores(server: CloudServer) -> Iterator[list[Store]]:
    """Three processes."""
    opened = [Store(GriptapeCloudRepository(server.host, "key-of-org-a")) for _ in range(3)]
    yield opened
    for store in opened:
        store.close()


def placed(store: Store) -> list[tuple[int | None, object]]:
    return [(one.position, one.input) for one in read_runs(store, "a")]


def test_two_writers_that_expect_one_position(stores: list[Store], server: CloudServer) -> None:
    mine, other, reader = stores
    put(mine, "a", None, run("1"))
    server.plan = meanwhile(server, lambda: append(other, "2"), "POST")
    assert written(mine, appending("3", "4"))[2:] == (4, 4)
    assert placed(reader) == [(1, "1"), (2, "2"), (3, "3"), (4, "4")]
    assert [one.position for one in reader.begin().runs.last("a", 2)] == [3, 4]
    assert (read(reader, "a").run_count, read(reader, "a").last_position) == (4, 4)
    assert written(other, appending("5"))[2:] == (5, 5)


def test_positions_that_only_the_order_tells_survive_a_removal(stores: list[Store], server: CloudServer) -> None:
    mine, other, reader = stores
    put(mine, "a", None, run("1"))
    server.plan = meanwhile(server, lambda: append(other, "2"), "POST")
    append(mine, "3")
    for position in (1, 2):
        with reader.begin() as uow:
            uow.runs.remove("a", position)
    assert placed(mine) == [(3, "3")]
    append(other, "4")
    assert placed(mine) == [(3, "3"), (4, "4")]


def test_an_append_that_meets_a_removal(stores: list[Store], server: CloudServer) -> None:
    mine, other, reader = stores
    put(mine, "a", None, *[run(str(n)) for n in range(1, 5)])

    def remove() -> None:
        with other.begin() as uow:
            uow.runs.remove("a", 1, 3)

    server.plan = meanwhile(server, remove, "POST")
    assert written(mine, appending("5"))[3] == 5
    assert placed(reader) == [(2, "2"), (4, "4"), (5, "5")]
    append(other, "6")
    assert placed(reader)[-1] == (6, "6")
    assert (read(reader, "a").run_count, read(reader, "a").last_position) == (4, 6)


def test_an_append_between_the_steps_of_a_removal(stores: list[Store], server: CloudServer) -> None:
    """The positions of the removed runs are skipped; the next removal sets the counts right."""
    mine, other, reader = stores
    put(mine, "a", None, *[run(str(n)) for n in range(1, 5)])
    server.plan = meanwhile(server, lambda: append(other, "theirs"), "DELETE")
    with mine.begin() as uow:
        uow.runs.remove("a", 1, 2)
    append(mine, "mine")
    positions = [one.position or 0 for one in read_runs(reader, "a")]
    assert [one.input for one in read_runs(reader, "a")] == ["3", "4", "theirs", "mine"]
    assert positions[:2] == [3, 4]
    assert positions == sorted(set(positions))
    with other.begin() as uow:
        uow.runs.remove("a", 3)
    stored = read(reader, "a")
    assert (stored.run_count, stored.last_position) == (3, positions[-1])
    assert [one.position for one in read_runs(reader, "a")] == positions[1:]


def test_many_writers(stores: list[Store], server: CloudServer) -> None:
    put(stores[0], "a")
    barrier = Barrier(3)

    def work(number: int) -> list[tuple[int, str]]:
        barrier.wait()
        texts = [f"{number} {n}" for n in range(10)]
        return [(written(stores[number], appending(text))[3], text) for text in texts]

    with ThreadPoolExecutor(3) as pool:
        told = [each for one in pool.map(work, range(3)) for each in one]
    (texts,) = server.texts
    assert placed(stores[0]) == list(enumerate(texts, 1))
    assert sorted(told) == list(enumerate(texts, 1))


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_windows_of_a_long_conversation_with_missing_runs(order: str) -> None:
    server = CloudServer(Assumptions(message_order=order, largest_page=10))  # type: ignore[arg-type]
    with Store(GriptapeCloudRepository(server.host, "key-of-org-a")) as store:
        put(store, "a", None, *[run(n) for n in range(1, 46)])
        with store.begin() as uow:
            uow.runs.remove("a", 7, 20, 21, before=4)
        left = [n for n in range(4, 46) if n not in (7, 20, 21)]
        uow = store.begin()
        for after in (0, 5, 19, 30, 44, 60):
            for limit in (1, 9, 12, None):
                expected = [n for n in left if n > after][:limit]
                assert [one.input for one in uow.runs.list("a", after=after, limit=limit)] == expected
        for last in (1, 10, 25, 60):
            assert [one.input for one in uow.runs.last("a", last)] == left[-last:]
        assert uow.runs.get("a", 22).input == 22
    server.stop()


def test_two_messages_of_one_position(store: Store, cloud_server: CloudServer) -> None:
    """As a program that copies messages may leave them: the later one moves up, and all are there."""
    put(store, "a", None, run("1"), run("2"), run("3"))
    with store.begin() as uow:
        uow.runs.remove("a", 1)
    (thread,) = cloud_server.service.threads.values()
    copy = {"input": "copy", "output": "", "metadata": thread.messages[-1].metadata}
    cloud_server.service.answer("org-a", "POST", ["threads", thread.thread_id, "messages"], {}, copy)
    assert placed(store) == [(2, "2"), (3, "3"), (4, "copy")]


def test_a_page_that_begins_with_a_run_whose_position_was_expected_by_two() -> None:
    server = CloudServer(Assumptions(largest_page=10))
    mine, other = (Store(GriptapeCloudRepository(server.host, "key-of-org-a")) for _ in range(2))
    put(mine, "a", None, *[run(n) for n in range(1, 11)])
    with mine.begin() as uow:
        uow.runs.remove("a", 1)
    server.plan = meanwhile(server, lambda: append(other, "11"), "POST")
    append(mine, "12")
    for store in (mine, other):
        assert [(one.position, one.input) for one in store.begin().runs.last("a", 1)] == [(12, "12")]
        store.close()
    server.stop()


def test_the_last_runs_of_a_conversation_that_becomes_shorter_meanwhile(
    store: Store, cloud_server: CloudServer
) -> None:
    put(store, "a", None, *[run(n) for n in range(1, 251)])
    store.begin().runs.last("a", 1)
    (thread,) = cloud_server.service.threads.values()

    def plan(request: Request) -> None:
        if "/messages" in request.path and len(thread.messages) == 250:
            del thread.messages[:200]

    cloud_server.plan = plan
    assert [one.input for one in store.begin().runs.last("a", 20)] == list(range(231, 251))


def test_a_receipt_without_a_position_where_it_cannot_be_found_out(store: Store, cloud_server: CloudServer) -> None:
    cloud_server.service.assumptions = Assumptions(first_index=1)  # another index than expected, each time
    put(store, "a", None, run("1"), run("2"))
    cloud_server.plan = no_looks_after("POST")
    changes = appending("3", "4")
    assert written(store, changes)[2:] == (4, UNKNOWN)
    cloud_server.plan = no_faults
    assert written(store, changes)[2:] == (4, UNKNOWN)  # and it is written once
    assert cloud_server.texts == [["1", "2", "3", "4"]]
    assert written(store, appending("5"))[2:] == (5, 5)
