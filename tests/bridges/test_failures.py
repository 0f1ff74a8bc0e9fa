"""Where a store fails: before the model is paid if it can be known, and else nothing is lost and nothing written twice."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any
from weakref import ref

import pytest
from griptape.memory.structure import ConversationMemory

import memory as package
from memory import (
    CommitInDoubtError,
    ConfigurationError,
    ConflictError,
    InvalidValueError,
    PartialCommitError,
    SchemaError,
    Store,
    StoreUnavailableError,
)
from memory.bridges.griptape import RepositoryConversationMemoryDriver
from memory.port.changes import ChangeSet, Receipt
from tests.bridges.talking import driver_on, ids, memory_on, said, stored_ids
from tests.cloud_server import CloudServer, Fault
from tests.cloud_server.faults import in_turn, no_faults
from tests.servers import Server, postgres


@pytest.fixture
def failing(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the next commits fail; with ``written`` they are done all the same."""
    monkeypatch.setattr("memory.core.store.time.sleep", lambda _: None)
    monkeypatch.setattr("memory.core.store_operations._DOUBT_RETRIES", 0)
    commit = local_store.repository.commit

    def fail(error: BaseException, times: int, *, written: bool = False) -> None:
        left = [error] * times

        def failing_commit(namespace: str, changes: ChangeSet) -> Receipt:
            if not left:
                return commit(namespace, changes)
            if written:
                commit(namespace, changes)
            raise left.pop()

        monkeypatch.setattr(local_store.repository, "commit", failing_commit)

    return fail


def test_a_store_that_is_away_is_tried_again_and_the_next_turn_writes_what_was_left(
    local_store: Store, failing: Callable[..., None]
) -> None:
    memory = memory_on(local_store)
    memory.add_run(said(0))
    failing(StoreUnavailableError("away"), 3)
    memory.add_run(said(1))
    failing(StoreUnavailableError("away"), 1000)
    with pytest.raises(StoreUnavailableError):
        memory.add_run(said(2))
    assert stored_ids(local_store) == ["r0", "r1"]
    failing(StoreUnavailableError("away"), 0)
    memory.add_run(said(3))
    assert stored_ids(local_store) == ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_lost_answer_is_found_out_by_the_next_turn(
    local_store: Store, failing: Callable[..., None], *, written: bool, first: bool
) -> None:
    memory = memory_on(local_store)
    if not first:
        memory.add_run(said(0))
    failing(CommitInDoubtError("no answer"), 1, written=written)
    with pytest.raises(CommitInDoubtError):
        memory.add_run(said(1))
    memory.runs[-1].meta = {"edited": True}
    memory.add_run(said(2))
    memory.add_run(said(3))
    assert stored_ids(local_store) == ([] if first else ["r0"]) + ["r1", "r2", "r3"]
    assert memory_on(local_store).runs[-3].meta == {"edited": True}


def test_an_interrupted_commit_is_found_out_by_the_next_turn(local_store: Store, failing: Callable[..., None]) -> None:
    memory = memory_on(local_store)
    failing(KeyboardInterrupt(), 1, written=True)
    with pytest.raises(KeyboardInterrupt):
        memory.add_run(said(1))
    memory.add_run(said(2))
    assert stored_ids(local_store) == ["r1", "r2"]


def test_a_commit_in_doubt_that_cannot_be_written_any_more_is_compared_anew(
    local_store: Store, failing: Callable[..., None]
) -> None:
    memory = memory_on(local_store)
    memory.add_run(said(0))
    memory.meta["k"] = 1
    failing(CommitInDoubtError("no answer"), 1)
    with pytest.raises(CommitInDoubtError):
        memory.add_run(said(1))
    with local_store.begin() as uow:
        uow.conversations.get("c").metadata["other"] = 2
    memory.add_run(said(2))
    again = memory_on(local_store)
    assert (ids(again), again.meta) == (["r0", "r1", "r2"], {"k": 1, "other": 2})


def test_a_commit_of_the_cloud_that_was_cut_short_is_finished(
    cloud_server: CloudServer, url_of: Callable[[str], str]
) -> None:
    with package.connect(url_of("cloud")) as store:
        store.repository._http.sleep = lambda _: None  # type: ignore[attr-defined]
        memory = memory_on(store)
        memory.add_run(said(0))
        memory.runs.append(said(1))
        cloud_server.plan = in_turn([None, *[Fault(kind="status", status=429)] * 50], "POST", "/messages")
        with pytest.raises(PartialCommitError):
            memory.add_run(said(2))
        assert stored_ids(store) == ["r0", "r1"]
        cloud_server.plan = no_faults
        memory.add_run(said(3))
        assert stored_ids(store) == ["r0", "r1", "r2", "r3"]
        memory.runs[2].meta = {"edited": True}
        memory.add_run(said(4))
        again = memory_on(store)
        assert (ids(again), again.runs[2].meta) == (["r0", "r1", "r2", "r3", "r4"], {"edited": True})


def test_threads_that_add_to_one_memory_store_each_run_once(store: Store) -> None:
    memory = memory_on(store)

    def add(prefix: int) -> None:
        for number in range(5):
            memory.add_run(said(f"{prefix}-{number}"))

    threads = [Thread(target=add, args=(prefix,)) for prefix in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stored_ids(store)) == sorted(f"r{a}-{b}" for a in range(4) for b in range(5))
    assert stored_ids(store) == ids(memory)


def test_a_child_process_does_not_wait_for_a_thread_of_its_parent() -> None:
    with package.connect("memory://") as store:
        driver = driver_on(store)
        driver.store([said(1)], {})
        recorder = driver._recorder
        held, end = Event(), Event()

        def hold() -> None:
            with recorder._lock:
                held.set()
                end.wait()

        thread = Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            os._exit(0 if recorder._lock.acquire(timeout=10) and len(driver.load()[0]) == 1 else 1)
        _, status = os.waitpid(child, 0)
        end.set()
        thread.join()
        assert status == 0


def test_memories_of_one_driver_do_not_take_each_others_runs_away(local_store: Store) -> None:
    driver = driver_on(local_store)
    memories = [ConversationMemory(conversation_memory_driver=driver) for _ in range(3)]
    for number in range(3):
        for at, memory in enumerate(memories):
            memory.add_run(said(f"{at}{number}"))
    assert len(stored_ids(local_store)) == 9
    memories[0].runs.pop(0)
    memories[0].runs[0].meta = {"k": 1}
    memories[0].add_run(said("end"))
    assert len(stored_ids(local_store)) == 10


def test_a_driver_keeps_no_memory_alive(local_store: Store) -> None:
    memory = memory_on(local_store)
    driver = memory.conversation_memory_driver
    run = said(0)
    memory.add_run(run)
    runs = [ref(run), *map(ref, driver.load()[0])]
    del memory, run
    assert [each() for each in runs] == [None, None]


def test_the_conversation_that_somebody_always_remakes_ends_in_a_conflict(
    local_store: Store, failing: Callable[..., None]
) -> None:
    memory = memory_on(local_store)
    memory.add_run(said(0))
    failing(ConflictError("changed"), 1000)
    memory.meta["k"] = 1
    with pytest.raises(ConflictError):
        memory.add_run(said(1))


# before the model is paid


def test_a_missing_directory_is_told_of_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="directory"):
        RepositoryConversationMemoryDriver(store=f"sqlite:///{tmp_path}/no/such.db")
    with pytest.raises(ConfigurationError, match="directory"):
        RepositoryConversationMemoryDriver.local(f"{tmp_path}/no/chat.json")


def test_a_missing_key_is_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GT_CLOUD_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="GT_CLOUD_API_KEY"):
        RepositoryConversationMemoryDriver.cloud(alias="c", base_url="http://127.0.0.1:9")


def test_a_wrong_key_is_told_of_by_the_first_load(cloud_server: CloudServer) -> None:
    with RepositoryConversationMemoryDriver.cloud(alias="c", base_url=cloud_server.host, api_key="wrong") as driver:
        with pytest.raises(ConfigurationError) as raised:
            driver.load()
        assert "wrong" not in str(raised.value)


@pytest.mark.needs("postgres")
def test_a_missing_schema_is_told_of_at_once(postgres_server: Server) -> None:
    with postgres.fresh_database(postgres_server) as url, pytest.raises(SchemaError, match="memory migrate"):
        RepositoryConversationMemoryDriver(store=url)


def test_a_server_that_is_not_there_is_told_of_at_once() -> None:
    with pytest.raises(StoreUnavailableError):
        RepositoryConversationMemoryDriver.redis(host="127.0.0.1", port=9, index="griptape")


@pytest.mark.parametrize("wrong", [{"conversation_id": ""}, {"last": -1}, {"last": True}, {"trimmed": "gone"}])
def test_arguments_that_cannot_be_are_refused(local_store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        RepositoryConversationMemoryDriver(**{"store": local_store, **wrong})


def test_the_conversation_of_a_driver_stays_the_same(local_store: Store) -> None:
    with pytest.raises(AttributeError):
        driver_on(local_store).conversation_id = "another"


def test_a_fault_of_the_service_is_one_of_ours(cloud_server: CloudServer, url_of: Callable[[str], str]) -> None:
    with package.connect(url_of("cloud")) as store:
        store.repository._http.sleep = lambda _: None  # type: ignore[attr-defined]
        driver = driver_on(store)
        cloud_server.plan = lambda _: Fault(kind="status", status=503)
        with pytest.raises(StoreUnavailableError):
            driver.load()
