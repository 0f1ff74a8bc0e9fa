"""What goes wrong on the way: nothing is written twice, nothing acknowledged is lost, and errors say what was written."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from memory import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConfigurationError,
    Conversation,
    NotFoundError,
    Run,
    Store,
    StoreUnavailableError,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.port.changes import Change, ChangeSet
from memory.testing.base import put, read, read_runs, run
from tests.adapters.cloud.troubles import no_looks_after
from tests.cloud_server import Assumptions, CloudServer, Fault, Request
from tests.cloud_server.faults import always, at_random, in_turn, no_faults, once

Connect = Callable[..., GriptapeCloudRepository]

AMBIGUOUS = [
    Fault(kind="reset"),
    Fault(kind="reset", processed=True),
    Fault(kind="status", status=503, retry_after="1"),
    Fault(kind="status", status=502, processed=True),
    Fault(kind="status", status=500),
    Fault(kind="truncated"),
    Fault(kind="truncated", processed=True),
    Fault(kind="html"),
    Fault(kind="html", processed=True),
    Fault(kind="hang", seconds=5.0),
    Fault(kind="hang", seconds=5.0, processed=True),
]
HARMLESS = [Fault(kind="latency", seconds=0.05), Fault(kind="status", status=429, retry_after="1")]


def name_of(fault: Fault) -> str:
    return f"{fault.kind}{fault.status if fault.kind == 'status' else ''}{'-after' if fault.processed else ''}"


@pytest.fixture(params=[*AMBIGUOUS, *HARMLESS], ids=name_of)
def fault(request: pytest.FixtureRequest) -> Fault:
    return request.param  # type: ignore[no-any-return]


class TestOneFault:
    """Any one fault, in any one request, is survived."""

    def test_appending(self, store: Store, cloud_server: CloudServer, fault: Fault) -> None:
        put(store, "a", None, run("0"))
        cloud_server.plan = once(fault, "POST")
        with store.begin() as uow:
            uow.runs.append("a", run("1"), run("2"))
        assert cloud_server.texts == [["0", "1", "2"]]
        assert [one.position for one in read_runs(store, "a")] == [1, 2, 3]

    def test_creating(self, store: Store, cloud_server: CloudServer, fault: Fault) -> None:
        cloud_server.plan = once(fault, "POST")
        put(store, "a", {"n": 1}, run("1"), run("2"))
        assert cloud_server.texts == [["1", "2"]]

    def test_creating_where_an_alias_is_not_unique(self, fault: Fault) -> None:
        server = CloudServer(Assumptions(unique_alias=False))
        repository = GriptapeCloudRepository(server.host, "key-of-org-a", timeout=3.0)
        repository._http.sleep = lambda _: None
        server.plan = once(fault, "POST")
        put(Store(repository), "a", {"n": 1}, run("1"), run("2"))
        assert server.texts == [["1", "2"]]
        repository.close()
        server.stop()

    def test_editing(self, store: Store, cloud_server: CloudServer, fault: Fault) -> None:
        for method in ("PATCH", "DELETE"):
            put(store, method, {"n": 1}, run("1"), run("2"), run("3"))
            cloud_server.plan = once(fault, method)
            with store.begin() as uow:
                uow.conversations.get(method).metadata["n"] = 2
                uow.runs.replace(method, Run("new", "", position=1))
                uow.runs.remove(method, 2)
            assert (read(store, method).metadata, read(store, method).version) == ({"n": 2}, 2)
            assert [(one.position, one.input) for one in read_runs(store, method)] == [(1, "new"), (3, "3")]

    def test_reading(self, store: Store, cloud_server: CloudServer, fault: Fault) -> None:
        put(store, "a", {"n": 1}, run("1"))
        for _ in range(4):
            cloud_server.plan = in_turn([None] * _ + [fault], "GET")
            assert [one.input for one in read_runs(store, "a")] == ["1"]
            assert [one.id for one in store.begin().conversations.find()] == ["a"]

    def test_removing(self, store: Store, cloud_server: CloudServer, fault: Fault) -> None:
        put(store, "a", {"n": 1}, run("1"))
        cloud_server.plan = once(fault, "DELETE")
        with store.begin() as uow:
            uow.conversations.remove("a")
        assert cloud_server.texts == []


def test_half_of_all_requests_fail(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect(attempts=30))
    brief = [fault for fault in AMBIGUOUS if fault.kind != "hang"]
    put(store, "a", {"n": 0})
    plans = [at_random(0.5, method, seed, brief) for seed, method in enumerate(("POST", "PATCH", "DELETE", "GET"))]
    cloud_server.plan = lambda request: next((fault for plan in plans if (fault := plan(request))), None)
    for n in range(10):
        with store.begin() as uow:
            uow.conversations.get("a").metadata["n"] = n
            uow.runs.append("a", run(f"{n}a"), run(f"{n}b"))
        with store.begin() as uow:
            uow.runs.remove("a", 2 * n + 1)
    cloud_server.plan = no_faults
    assert cloud_server.texts == [[f"{n}b" for n in range(10)]]
    assert [(one.position, one.input) for one in read_runs(store, "a")] == [(2 * n + 2, f"{n}b") for n in range(10)]
    stored = read(store, "a")
    assert (stored.metadata, stored.version, stored.run_count, stored.last_position) == ({"n": 9}, 20, 10, 20)


def test_two_processes_append_while_half_of_the_posts_fail(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a")
    # without those that wait: each would cost its time-out
    brief = [fault for fault in (*AMBIGUOUS, *HARMLESS) if fault.kind != "hang"]
    failing = at_random(0.5, "POST", 7, brief)
    faults: list[Fault] = []

    def plan(request: Request) -> Fault | None:
        fault = failing(request)
        faults.extend([fault] if fault else [])
        return fault

    cloud_server.plan = plan
    program = Path(__file__).with_name("appending.py")
    writers = [subprocess.Popen([sys.executable, program, cloud_server.host, name, "100"]) for name in ("x", "y")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    cloud_server.plan = no_faults
    (held,) = cloud_server.texts
    assert len(held) == len(set(held)) == 200
    for name in ("x", "y"):
        assert [text for text in held if text.startswith(name)] == [f"{name}{n}" for n in range(100)]
    stored = read_runs(store, "a")
    assert [(one.position, one.input) for one in stored] == list(enumerate(held, 1))
    posts = [one for one in cloud_server.requests if one.method == "POST"]
    assert len(faults) > 0.4 * len(posts) > 80


@pytest.mark.parametrize("unique", [True, False])
def test_eight_racing_creators_make_one_thread(*, unique: bool) -> None:
    server = CloudServer(Assumptions(unique_alias=unique))
    barrier = Barrier(8)

    def create(n: int) -> str:
        repository = GriptapeCloudRepository(server.host, "key-of-org-a")
        store = Store(repository)
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", {"by": n}))
            uow.runs.append("a", run(f"by {n}"))
            barrier.wait()
            try:
                uow.commit()
            except AlreadyExistsError:
                uow.rollback()
                return "taken"
            finally:
                repository.close()
        return f"by {n}"

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(create, range(8)))
        assert sorted(made)[1:] == ["taken"] * 7
        assert server.texts == [[min(made)]]
        server.service.threads.clear()
    server.stop()


def test_threads_left_by_a_creator_that_died() -> None:
    server = CloudServer(Assumptions(unique_alias=False))
    store = Store(GriptapeCloudRepository(server.host, "key-of-org-a"))
    put(store, "a", {"n": 1}, run("first"))
    put(store, "b", {"n": 2})
    twin = {"name": "a", "alias": "a", "metadata": {"n": 3}, "messages": [{"input": "twin", "output": ""}]}
    server.service.answer("org-a", "POST", ["threads"], {}, twin)
    fresh = Store(GriptapeCloudRepository(server.host, "key-of-org-a"))
    for each in (store, fresh):
        with each.begin() as uow:
            uow.runs.append("a", run("more"))
        assert [one.metadata["n"] for one in each.begin().conversations.find(order="id")] == [1, 2]
        assert each.begin().conversations.count() == 2
    assert [one.input for one in read_runs(fresh, "a")] == ["first", "more", "more"]
    with fresh.begin() as uow:
        uow.conversations.remove("a")
    assert [one.id for one in store.begin().conversations.find()] == ["b"]  # the twin did not take its place
    store.close()
    fresh.close()
    server.stop()


def test_a_run_that_comes_late_after_all(store: Store, cloud_server: CloudServer) -> None:
    """What cannot be excluded: a request outlives its time-out, and is done after it was looked for."""
    put(store, "a", None, run("1"))
    late = Fault(kind="late")
    cloud_server.plan = once(late, "POST")
    with store.begin() as uow:
        uow.runs.append("a", run("2"), run("3"))
    late.released.set()
    assert late.done.wait(10)
    assert [(one.position, one.input) for one in read_runs(store, "a")] == [(1, "1"), (2, "2"), (3, "3"), (4, "2")]
    stored = read(store, "a")
    assert (stored.run_count, stored.last_position) == (4, 4)


def test_a_service_that_is_away(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", {"n": 1}, run("1"))
    host = cloud_server.host
    nowhere = GriptapeCloudRepository("http://127.0.0.1:9", "key")
    nowhere._http.sleep = lambda _: None
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9"):
        nowhere.get("default", "a")
    nowhere.close()
    cloud_server.plan = always(Fault(kind="status", status=503))
    for work in (lambda: read(store, "a"), lambda: read_runs(store, "a"), store.begin().conversations.count):
        with pytest.raises(StoreUnavailableError, match=f"{host}.*503"):
            work()
    cloud_server.plan = always(Fault(kind="status", status=429, retry_after="0"), "POST")
    with pytest.raises(StoreUnavailableError), store.begin() as uow:
        uow.runs.append("a", run("2"))
    cloud_server.plan = no_faults
    assert [one.input for one in read_runs(store, "a")] == ["1"]


def test_a_service_that_hangs(connect: Connect, cloud_server: CloudServer) -> None:
    store = Store(connect(timeout=0.5))
    put(store, "a", None, run("1"))
    cloud_server.plan = always(Fault(kind="hang", seconds=5))
    with pytest.raises(StoreUnavailableError, match="did not answer"):
        read(store, "a")
    cloud_server.plan = always(Fault(kind="hang", seconds=5), "POST")
    with pytest.raises(CommitInDoubtError, match="did not answer"):
        store.repository.commit("default", ChangeSet.of([Change("a", append=(run("2").to_record(),))], 0))


def test_a_lost_answer_that_cannot_be_found_out(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, run("1"))
    no_looks = no_looks_after("POST")
    lost = once(Fault(kind="reset", processed=True), "POST")
    cloud_server.plan = lambda request: no_looks(request) or lost(request)
    with pytest.raises(CommitInDoubtError), store.begin() as uow:
        uow.runs.append("a", run("2"))
    cloud_server.plan = no_faults
    assert cloud_server.texts == [["1", "2"]]


def test_a_thread_that_others_delete(store: Store, connect: Connect) -> None:
    put(store, "a", None, run("1"))
    other = Store(connect())
    with other.begin() as uow:
        uow.conversations.remove("a")
    for _ in range(2):
        with pytest.raises(NotFoundError, match="'a'"), store.begin() as uow:
            uow.runs.append("a", run("2"))
    put(other, "a", None, run("anew"))
    with store.begin() as uow:
        uow.runs.append("a", run("2"))
    assert [(one.position, one.input) for one in read_runs(store, "a")] == [(1, "anew"), (2, "2")]


def test_waiting_as_long_as_asked(connect: Connect, cloud_server: CloudServer) -> None:
    repository = connect(timeout=60)
    waited: list[float] = []
    repository._http.sleep = waited.append
    put(Store(repository), "a")
    cloud_server.plan = in_turn(
        [Fault(kind="status", status=429, retry_after=text) for text in ("7", "soon")], "GET", ""
    )
    read(Store(repository), "a")
    assert waited[0] == 7
    assert waited[1] < 1
    cloud_server.plan = always(Fault(kind="status", status=429, retry_after="3600"))
    with pytest.raises(StoreUnavailableError, match="3600 s"):
        read(Store(repository), "a")
    assert len(waited) == 2


def test_a_key_that_is_not_valid(cloud_server: CloudServer) -> None:
    repository = GriptapeCloudRepository(cloud_server.host, "wrong-key")
    with pytest.raises(ConfigurationError, match="GT_CLOUD_API_KEY"):
        repository.get("default", "a")
    cloud_server.plan = always(Fault(kind="status", status=403))
    with pytest.raises(ConfigurationError, match="GT_CLOUD_API_KEY"):
        repository.get("default", "a")
    cloud_server.plan = always(Fault(kind="status", status=307))
    with pytest.raises(ConfigurationError, match=r"307.*address of the service"):
        repository.get("default", "a")
    repository.close()
    with pytest.raises(ConfigurationError):
        GriptapeCloudRepository("htp://nowhere", "key").get("default", "a")


def test_organizations_are_apart(cloud_server: CloudServer) -> None:
    stores = [Store(GriptapeCloudRepository(cloud_server.host, key)) for key in ("key-of-org-a", "key-of-org-b")]
    for n, store in enumerate(stores):
        put(store, "a", {"n": n}, run(n))
    assert [read(store, "a").metadata["n"] for store in stores] == [0, 1]
    assert [[one.metadata["n"] for one in store.begin().conversations.find()] for store in stores] == [[0], [1]]
    for store in stores:
        store.close()
