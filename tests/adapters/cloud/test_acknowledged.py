"""A write that was answered is done, whatever fails after it; and its receipt has the position of one's own run."""

from collections.abc import Callable, Iterator

import pytest

from memory import (
    AlreadyExistsError,
    CommitInDoubtError,
    Conversation,
    PartialCommitError,
    Store,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.core.unit_of_work import UnitOfWork
from memory.port.changes import UNKNOWN, Change, ChangeSet
from memory.testing.base import committed, outcome_of, put, read, read_runs, run
from tests.adapters.cloud.troubles import (
    AWAY,
    append,
    appending,
    meanwhile,
    no_looks_after,
    written,
)
from tests.cloud_server import Assumptions, CloudServer, Fault, Request
from tests.cloud_server.faults import always, in_turn, no_faults, once

Connect = Callable[..., GriptapeCloudRepository]


@pytest.fixture
def from_one() -> Iterator[CloudServer]:
    """A service whose index begins at 1: what an append is answered does not tell its position."""
    server = CloudServer(Assumptions(first_index=1))
    yield server
    server.stop()


@pytest.fixture
def behind(store: Store, other: Store) -> Store:
    """A store that has counted two runs of the conversation, where there are three by now."""
    put(store, "a", None, run("1"))
    append(other, "2")
    read(store, "a")
    append(other, "3")
    return store


class TestAnAcknowledgedWrite:
    """It is done, whatever goes wrong after it."""

    def test_a_look_that_fails_for_a_while_does_not_double_an_append(
        self, behind: Store, cloud_server: CloudServer
    ) -> None:
        cloud_server.plan = in_turn([AWAY] * 5, "GET")
        behind.run(lambda uow: uow.runs.append("a", run("mine")), sleep=lambda _: None)
        assert cloud_server.texts == [["1", "2", "3", "mine"]]

    def test_a_look_that_always_fails_is_told_in_the_receipt(self, from_one: CloudServer) -> None:
        store = Store(GriptapeCloudRepository(from_one.host, "key-of-org-a"))
        store.repository._http.sleep = lambda _: None  # type: ignore[attr-defined]
        put(store, "a", None, run("1"), run("2"))
        from_one.plan = no_looks_after("POST")
        changes = appending("mine", "too")
        assert written(store, changes)[2:] == (4, UNKNOWN)
        from_one.plan = no_faults
        assert from_one.texts == [["1", "2", "mine", "too"]]
        append(store, "3")
        assert written(store, changes)[2:] == (4, 4)  # asked again, it can tell
        assert written(store, changes)[2:] == (4, 4)
        assert from_one.texts == [["1", "2", "mine", "too", "3"]]
        assert [(one.position, one.input) for one in read_runs(store, "a")][-1] == (5, "3")
        store.close()

    def test_nothing_wrong_is_remembered_when_a_look_failed(self, behind: Store, cloud_server: CloudServer) -> None:
        cloud_server.plan = no_looks_after("POST")
        assert written(behind, appending("mine"))[2:] == (3, UNKNOWN)  # there are that many at least
        cloud_server.plan = no_faults
        assert written(behind, appending("next"))[2:] == (5, 5)

    def test_a_conversation_that_is_made_is_not_made_again(self, store: Store, cloud_server: CloudServer) -> None:
        left = [AWAY] * 5
        plan = no_looks_after("POST")
        cloud_server.plan = lambda request: left.pop() if plan(request) and left else None

        def work(uow: UnitOfWork) -> None:
            uow.conversations.add(Conversation("a"))
            uow.runs.append("a", run("1"))

        store.run(work, sleep=lambda _: None)
        assert cloud_server.texts == [["1"]]
        assert not left

    def test_who_has_made_one_at_the_same_moment_is_found_later(self) -> None:
        server = CloudServer(Assumptions(unique_alias=False))
        store = Store(GriptapeCloudRepository(server.host, "key-of-org-a"))
        store.repository._http.sleep = lambda _: None  # type: ignore[attr-defined]
        theirs = {"name": "a", "alias": "a", "messages": [{"input": "theirs", "output": ""}]}

        looks = no_looks_after("POST")

        def plan(request: Request) -> Fault | None:
            if request.method == "POST":
                server.service.answer("org-a", "POST", ["threads"], {}, theirs)
            return looks(request)

        server.plan = plan
        create = committed_by(lambda uow: uow.conversations.add(Conversation("a")))
        with pytest.raises(CommitInDoubtError, match="the only one"):
            store.repository.commit("default", create)
        server.plan = no_faults
        with pytest.raises(AlreadyExistsError):
            store.repository.commit("default", create)
        assert server.texts == [["theirs"]]  # one's own, which does not count, is gone
        store.close()
        server.stop()


class TestPositions:
    """A receipt has the position of one's own run, whoever else appends."""

    def test_somebody_appends_before_it_is_looked_for(
        self, behind: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        cloud_server.plan = meanwhile(cloud_server, lambda: append(other, "5"))
        assert written(behind, appending("mine"))[2:] == (4, 4)
        assert cloud_server.texts == [["1", "2", "3", "mine", "5"]]
        assert written(behind, appending("next"))[2:] == (6, 6)

    def test_somebody_appends_between_a_lost_answer_and_the_next_attempt(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("1"))
        changes = appending("mine")
        no_looks, lost = always(AWAY, "GET"), once(Fault(kind="reset", processed=True), "POST")
        cloud_server.plan = lambda request: lost(request) or no_looks(request)
        with pytest.raises(CommitInDoubtError):
            store.repository.commit("default", changes)
        cloud_server.plan = no_faults
        append(other, "3")
        assert written(store, changes)[2:] == (2, 2)
        assert cloud_server.texts == [["1", "mine", "3"]]
        assert written(store, appending("next"))[2:] == (4, 4)

    @pytest.mark.parametrize("by_another", [False, True])
    def test_a_replay_tells_the_same_when_others_have_appended_since(
        self, connect: Connect, other: Store, cloud_server: CloudServer, *, by_another: bool
    ) -> None:
        store = Store(connect())
        put(store, "a", {"n": 1}, run("1"), run("2"))
        record = run("mine").to_record()
        edit = ChangeSet.of([Change("a", metadata='{"n":2}', remove_runs=(1,), append=(record,))], 0)
        cloud_server.plan = in_turn([Fault(kind="status", status=422)], "POST", "/messages")
        with pytest.raises(PartialCommitError) as caught:
            store.repository.commit("default", edit)
        append(other, "theirs")  # comes before the run that the bookkeeping already counts
        again = Store(connect()) if by_another else store
        if by_another:
            again.repository._opened = 2**48  # type: ignore[attr-defined]
        assert outcome_of(again.repository.commit("default", caught.value.changes))["a"] == (2, 3, 4)
        assert [(one.position, one.input) for one in read_runs(other, "a")] == [(2, "2"), (3, "theirs"), (4, "mine")]
        append(other, "later")
        fresh = Store(connect())
        fresh.repository._opened = 2**48  # type: ignore[attr-defined]
        assert outcome_of(fresh.repository.commit("default", edit))["a"] == (2, 3, 4)

    @pytest.mark.parametrize("renumbers", [False, True])
    def test_an_index_tells_nothing_where_runs_were_removed(self, *, renumbers: bool) -> None:
        server = CloudServer(Assumptions(renumbers=renumbers))
        store, other = (Store(GriptapeCloudRepository(server.host, "key-of-org-a")) for _ in range(2))
        put(store, "a", None, run("1"), run("2"), run("3"))
        with store.begin() as uow:
            uow.runs.remove("a", 2)
        append(other, "4")
        assert written(store, appending("mine"))[2:] == (4, 5)
        assert [(one.position, one.input) for one in read_runs(store, "a")][-1] == (5, "mine")
        for each in (store, other):
            each.close()
        server.stop()


def committed_by(work: Callable[[UnitOfWork], object]) -> ChangeSet:
    """Return the change set of some work."""
    import memory

    with memory.connect("memory://") as store:
        changes: ChangeSet = committed(store, work).changes
    return ChangeSet(changes.changes, at=changes.at)
