"""A commit that ends in the middle says what is written, and continues from there when it is committed again."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from memory import (
    AlreadyExistsError,
    ConflictError,
    Conversation,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    Run,
    Store,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.core.unit_of_work import UnitOfWork
from memory.errors import CommitTooLargeError
from memory.port.changes import ChangeSet
from memory.testing.base import do, put, read, read_runs, run, unchanged
from tests.adapters.cloud.troubles import REFUSED
from tests.cloud_server import Assumptions, CloudServer, Fault
from tests.cloud_server.faults import Plan, in_turn, no_faults

Connect = Callable[..., GriptapeCloudRepository]


def refused(nth: int, method: str = "POST", path: str = "") -> Plan:
    return in_turn([None] * nth + [REFUSED] * 20, method, path)


def test_what_is_visible_is_a_prefix(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, run("0"))
    cloud_server.plan = refused(2, "POST", "/messages")
    uow = store.begin()
    uow.runs.append("a", run("1"), Run("2", "", id="second"), run("3"))
    with pytest.raises(PartialCommitError, match="2 are written, up to 'run 2 of 3 appended: second'") as caught:
        uow.commit()
    error = caught.value
    assert not error.retryable
    assert [(step.conversation, step.what[:8]) for step in error.written] == [("a", "run 1 of"), ("a", "run 2 of")]
    assert [(step.conversation, step.what[:8]) for step in error.unwritten] == [("a", "run 3 of")]
    assert cloud_server.texts == [["0", "1", "2"]]
    cloud_server.plan = no_faults
    for _ in range(2):
        store.commit(error.changes)
        assert cloud_server.texts == [["0", "1", "2", "3"]]


def test_a_refusal_at_the_first_step_has_written_nothing(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, run("0"))
    cloud_server.plan = refused(0)
    with pytest.raises(InvalidValueError, match="422"), store.begin() as uow:
        uow.runs.append("a", run("1"))
    with pytest.raises(InvalidValueError, match="422"):
        put(store, "b")
    assert cloud_server.texts == [["0"]]


def test_all_of_a_change_is_checked_before_the_first_write(store: Store) -> None:
    put(store, "a", {"n": 1}, run("1"), run("2"))

    def change(uow: UnitOfWork) -> None:
        uow.conversations.get("a").metadata["n"] = 2
        uow.runs.replace("a", Run("new", "", position=1))

    faults: list[tuple[type[Exception], Callable[[UnitOfWork], object]]] = [
        (NotFoundError, lambda uow: uow.runs.remove("a", 3)),
        (NotFoundError, lambda uow: uow.runs.replace("a", replace(run(), position=3))),
        (ConflictError, lambda uow: uow.runs.append("a", run("3"), after=1)),
    ]
    for error, fault in faults:
        with unchanged(store), pytest.raises(error):
            do(store, change, fault)


def test_a_commit_of_several_conversations_is_refused(store: Store, cloud_server: CloudServer) -> None:
    put(store, "a", None, run("0"))
    before = len(cloud_server.requests)
    uow = store.begin()
    uow.runs.append("a", run("1"))
    uow.conversations.add(Conversation("b"))
    with pytest.raises(CommitTooLargeError, match=r"2 conversations.*a commit for each") as caught:
        uow.commit()
    assert (caught.value.limit, caught.value.size) == (1, 2)
    assert len(cloud_server.requests) == before
    uow.conversations.remove("b")
    uow.commit()
    assert cloud_server.texts == [["0", "1"]]


@pytest.mark.parametrize("fails_at", range(8))
def test_an_edit_continues_where_it_ended(connect: Connect, cloud_server: CloudServer, fails_at: int) -> None:
    store = Store(connect())
    put(store, "a", {"n": 1}, *[run(str(n)) for n in range(1, 6)])
    told = list[ChangeSet]()
    uow = store.begin()
    uow.conversations.get("a").metadata["n"] = 2
    uow.runs.remove("a", 2, 4)
    uow.runs.replace("a", Run("new", "", position=3))
    uow.runs.append("a", run("6"), run("7"))
    writes = iter(range(100))

    def plan(request: object) -> Fault | None:
        if getattr(request, "method", "GET") != "GET" and next(writes) >= fails_at:
            return REFUSED
        return None

    cloud_server.plan = plan
    if fails_at >= 6:
        uow.commit()
    else:
        with pytest.raises(PartialCommitError if fails_at else InvalidValueError) as caught:
            uow.commit()
        if isinstance(caught.value, PartialCommitError):
            assert len(caught.value.written) == fails_at
            told.append(caught.value.changes)
    cloud_server.plan = no_faults
    reader = Store(connect())
    states = [
        ({"n": 1}, [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5")]),
        ({"n": 1}, [(1, "1"), (2, "2"), (3, "new"), (4, "4"), (5, "5")]),
        ({"n": 2}, [(1, "1"), (2, "2"), (3, "new"), (4, "4"), (5, "5")]),
        ({"n": 2}, [(1, "1"), (3, "new"), (4, "4"), (5, "5")]),
        ({"n": 2}, [(1, "1"), (3, "new"), (5, "5")]),
        ({"n": 2}, [(1, "1"), (3, "new"), (5, "5"), (6, "6")]),
        ({"n": 2}, [(1, "1"), (3, "new"), (5, "5"), (6, "6"), (7, "7")]),
    ]
    seen = read(reader, "a").metadata, [(one.position, one.input) for one in read_runs(reader, "a")]
    assert seen == states[min(fails_at, 6)]
    receipts = [store.commit(changes) for changes in told]
    if told or fails_at > 5:
        stored = read(reader, "a")
        assert (stored.metadata, [(one.position, one.input) for one in read_runs(reader, "a")]) == states[-1]
        assert (stored.version, stored.run_count, stored.last_position) == (2, 5, 7)
        for receipt in receipts:
            assert receipt.written["a"] == (2, stored.record and stored.record.incarnation, 5, 7)


@pytest.mark.parametrize("fails_at", range(1, 4))
def test_a_creation_with_many_runs_continues_where_it_ended(
    store: Store, cloud_server: CloudServer, fails_at: int
) -> None:
    uow = store.begin()
    uow.conversations.add(Conversation("a", {"n": 1}))
    uow.runs.append("a", *[run(str(n)) for n in range(102)])
    cloud_server.plan = refused(fails_at)
    if fails_at == 3:
        uow.commit()
    else:
        with pytest.raises(PartialCommitError) as caught:
            uow.commit()
        cloud_server.plan = no_faults
        store.commit(caught.value.changes)
    assert cloud_server.texts == [[str(n) for n in range(102)]]
    stored = read(store, "a")
    assert (stored.run_count, stored.last_position, stored.updated_at) == (102, 102, stored.created_at)


def test_a_replacement_that_continues_leaves_a_newer_conversation_alone(
    store: Store, other: Store, cloud_server: CloudServer
) -> None:
    put(store, "a", None, run("old"))
    cloud_server.plan = refused(0)
    uow = store.begin()
    uow.conversations.remove("a")
    uow.conversations.add(Conversation("a"))
    with pytest.raises(PartialCommitError) as first:
        uow.commit()
    assert [step.what for step in first.value.written] == ["removed"]
    cloud_server.plan = no_faults
    put(other, "a", None, run("theirs"))
    with pytest.raises(PartialCommitError) as caught:
        store.commit(first.value.changes)
    assert isinstance(caught.value.__cause__, AlreadyExistsError)
    assert cloud_server.texts == [["theirs"]]


class TestLimits:
    """A15 and A16: what the service does not take at once, or not completely."""

    def opened(self, server: CloudServer) -> Store:
        repository = GriptapeCloudRepository(server.host, "key-of-org-a")
        repository._http.sleep = lambda _: None
        return Store(repository)

    def test_a_text_that_is_too_long(self) -> None:
        server = CloudServer(Assumptions(largest_text=100))
        with self.opened(server) as store:
            put(store, "a", None, run("x" * 100))
            with pytest.raises(InvalidValueError, match="at most 100"), store.begin() as uow:
                uow.runs.append("a", run("x" * 101))
            with pytest.raises(PartialCommitError, match="at most 100") as caught:
                put(store, "b", None, run("1"), run("x" * 101))
            assert [step.what for step in caught.value.written] == ["created", caught.value.written[1].what]
            assert caught.value.is_refusal
            assert server.texts == [["x" * 100], ["1"]]
        server.stop()

    def test_metadata_that_is_too_much(self) -> None:
        server = CloudServer(Assumptions(largest_metadata=1000))
        with self.opened(server) as store:
            put(store, "a", {"n": 1})
            with pytest.raises(InvalidValueError, match="at most 1000"), store.begin() as uow:
                uow.conversations.get("a").metadata["x"] = "x" * 1000
            assert read(store, "a").metadata == {"n": 1}
        server.stop()

    def test_a_thread_that_is_created_in_part(self) -> None:
        server = CloudServer(Assumptions(atomic=False))
        with self.opened(server) as store:
            put(store, "a", None, run("1"), run("2"), run("3"))
            assert server.texts == [["1", "2", "3"]]
            assert [one.position for one in read_runs(store, "a")] == [1, 2, 3]
        server.stop()
