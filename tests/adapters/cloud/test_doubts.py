"""A write whose answer was lost is looked for; it is never reported as not written, in this attempt or the next."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from memory import AlreadyExistsError, CommitInDoubtError, Conversation, Store, StoreUnavailableError
from memory.adapters.cloud import GriptapeCloudRepository
from memory.core.unit_of_work import UnitOfWork
from memory.port.changes import Change, ChangeSet
from memory.testing.base import committed, put, read, read_runs, run
from tests.adapters.cloud.troubles import AWAY, BUSY, LOST, append, appending, meanwhile, no_looks_after, written
from tests.cloud_server import Assumptions, CloudServer, Fault, Request
from tests.cloud_server.faults import always, in_turn, no_faults, once

Connect = Callable[..., GriptapeCloudRepository]


class TestAfterAnAttemptThatMayBeDone:
    """A second attempt that is refused says nothing of the first."""

    def test_a_counter_counts_once(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("1"))

        def count(uow: UnitOfWork) -> None:
            (one,) = uow.runs.list("a")
            uow.runs.replace("a", replace(one, metadata={"n": one.metadata.get("n", 0) + 1}))

        cloud_server.plan = in_turn([LOST, BUSY], "PATCH")
        store.run(count, sleep=lambda _: None)
        assert read_runs(store, "a")[0].metadata == {"n": 1}

    def test_a_removal_is_found_done(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("1"))
        cloud_server.plan = in_turn([LOST, BUSY], "DELETE")
        store.run(lambda uow: uow.conversations.remove("a"), sleep=lambda _: None)
        assert cloud_server.texts == []

    def test_a_conversation_that_was_read_is_replaced(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", {"n": 1}, run("1"))

        def work(uow: UnitOfWork) -> None:
            uow.conversations.get("a")
            uow.conversations.remove("a")
            uow.conversations.add(Conversation("a", {"n": 2}))

        cloud_server.plan = in_turn([LOST, BUSY], "DELETE")
        store.run(work, sleep=lambda _: None)
        assert read(store, "a").metadata == {"n": 2}
        assert cloud_server.texts == [[]]

    def test_a_lost_answer_is_no_reason_to_say_that_a_key_is_wrong(
        self, store: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("1"))
        cloud_server.plan = in_turn([LOST, Fault(kind="status", status=401)], "PATCH")
        edit = Change("a", replace_runs=(run("new").to_record(1),))
        with pytest.raises(CommitInDoubtError, match="401"):
            store.repository.commit("default", ChangeSet.of([edit], 0))

    @pytest.mark.parametrize("fault", [AWAY, Fault(kind="status", status=504), Fault(kind="reset")])
    def test_a_write_without_an_answer_may_still_be_done(
        self, store: Store, cloud_server: CloudServer, fault: Fault
    ) -> None:
        put(store, "a", None, run("1"))
        cloud_server.plan = always(fault, "POST")
        with pytest.raises(CommitInDoubtError, match="may still be written"):
            store.repository.commit("default", appending("2"))
        cloud_server.plan = always(BUSY, "POST")
        with pytest.raises(StoreUnavailableError, match="3600 s"):  # refused before it was done
            store.repository.commit("default", appending("2"))

    def test_a_thread_that_is_taken_may_be_ones_own(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "taken")
        with pytest.raises(AlreadyExistsError):
            put(store, "taken")
        cloud_server.plan = in_turn([Fault(kind="status", status=409, processed=True)], "POST")
        put(store, "a", None, run("1"))
        assert sorted(cloud_server.texts) == [[], ["1"]]

    def test_an_edit_that_others_changed_since_is_in_doubt(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", {"n": 1})

        def edit(uow: UnitOfWork) -> None:
            uow.conversations.get("a").metadata["n"] += 1

        again = meanwhile(cloud_server, lambda: other.run(edit))
        lost = once(LOST, "PATCH")
        cloud_server.plan = lambda request: again(request) or lost(request)
        with pytest.raises(CommitInDoubtError, match="changed by another writer"):
            store.run(edit, sleep=lambda _: None)
        assert (read(store, "a").metadata, read(store, "a").version) == ({"n": 3}, 3)


class TestTheSameChangeSetAgain:
    """What an attempt may have written is looked for when its change set is committed again."""

    def test_a_run_is_found(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("1"))
        left = [AWAY] * 5
        plan, lost = no_looks_after("POST"), once(LOST, "POST")
        cloud_server.plan = lambda request: left.pop() if plan(request) and left else lost(request)
        store.run(lambda uow: uow.runs.append("a", run("2"), run("3")), sleep=lambda _: None)
        assert cloud_server.texts == [["1", "2", "3"]]
        assert not left

    def test_a_run_is_found_where_others_have_appended_since(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("1"))
        changes = appending("mine")
        no_looks, lost = no_looks_after("POST"), once(Fault(kind="reset", processed=True), "POST")
        cloud_server.plan = lambda request: no_looks(request) or lost(request)
        with pytest.raises(CommitInDoubtError):
            store.repository.commit("default", changes)
        cloud_server.plan = no_faults
        append(other, "3")
        assert written(store, changes)[2:] == (2, 2)
        assert cloud_server.texts == [["1", "mine", "3"]]

    def test_a_conversation_is_created_once(self, store: Store, cloud_server: CloudServer) -> None:
        left = [AWAY] * 5
        plan = no_looks_after("POST")
        cloud_server.plan = lambda request: left.pop() if plan(request) and left else None

        def work(uow: UnitOfWork) -> None:
            uow.conversations.add(Conversation("a"))
            uow.runs.append("a", run("1"))

        store.run(work, sleep=lambda _: None)
        assert cloud_server.texts == [["1"]]
        assert not left

    def test_who_has_created_one_at_the_same_moment_is_found_later(self) -> None:
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
        changes = creating("a")
        with pytest.raises(CommitInDoubtError, match="another writer"):
            store.repository.commit("default", changes)
        server.plan = no_faults
        with pytest.raises(AlreadyExistsError):
            store.repository.commit("default", changes)
        assert server.texts == [["theirs"]]  # one's own, which does not count, is gone
        store.close()
        server.stop()

    def test_a_removal_leaves_a_newer_conversation_alone(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("old"))
        removal = ChangeSet.of([Change("a", remove=True)], 0)
        cloud_server.plan = always(LOST, "DELETE")
        with pytest.raises(CommitInDoubtError):
            store.repository.commit("default", removal)
        cloud_server.plan = no_faults
        put(other, "a", None, run("new"))
        assert store.commit(removal).written == {"a": None}
        assert [one.input for one in read_runs(store, "a")] == ["new"]

    def test_a_refusal_after_a_doubt_leaves_the_doubt(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("1"))
        changes = appending("mine")
        cloud_server.plan = always(Fault(kind="status", status=504), "POST")
        with pytest.raises(CommitInDoubtError):
            store.repository.commit("default", changes)
        cloud_server.plan = always(BUSY, "POST")
        with pytest.raises(CommitInDoubtError, match="429"):
            store.repository.commit("default", changes)


def creating(conversation_id: str) -> ChangeSet:
    """Return the change set of a new conversation."""
    import memory

    with memory.connect("memory://") as store:
        changes: ChangeSet = committed(store, lambda uow: uow.conversations.add(Conversation(conversation_id))).changes
    return ChangeSet(changes.changes, at=changes.at)
