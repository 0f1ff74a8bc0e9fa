"""A write whose answer was lost is never told as one that was not done, in this attempt or the next."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from memory import (
    AlreadyExistsError,
    CommitInDoubtError,
    ConflictError,
    Conversation,
    NotFoundError,
    PartialCommitError,
    Store,
    StoreUnavailableError,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.core.unit_of_work import UnitOfWork
from memory.port.changes import Change, ChangeSet, ExpectedVersion
from memory.testing.base import put, read, read_runs, run
from tests.adapters.cloud.troubles import AWAY, BUSY, LOST, REFUSED, append, appending, meanwhile
from tests.cloud_server import CloudServer, Fault
from tests.cloud_server.faults import always, in_turn, no_faults, once

Connect = Callable[..., GriptapeCloudRepository]


class TestAfterAnAttemptThatMayBeDone:
    """A second attempt that is refused says nothing of the first."""

    def test_a_run_that_comes_late_is_known_as_its_copy(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("1"))
        late = Fault(kind="late")
        cloud_server.plan = in_turn([late, BUSY], "POST", "/messages")
        store.run(lambda uow: uow.runs.append("a", run("mine")), sleep=lambda _: None)
        late.released.set()
        assert late.done.wait(10)
        assert [one.input for one in read_runs(store, "a")] == ["1", "mine"]

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

    @pytest.mark.parametrize(
        "fault", [Fault(kind="status", status=504), Fault(kind="status", status=502), Fault(kind="reset")]
    )
    def test_what_a_gateway_gave_up_may_still_be_done(
        self, store: Store, cloud_server: CloudServer, fault: Fault
    ) -> None:
        put(store, "a", None, run("1"))
        cloud_server.plan = always(fault, "POST")
        with pytest.raises(CommitInDoubtError, match="may still be"):
            store.repository.commit("default", appending("2"))
        cloud_server.plan = always(AWAY, "POST")
        with pytest.raises(StoreUnavailableError, match="is not written"):  # its own word, and it was looked for
            store.repository.commit("default", appending("2"))

    def test_a_thread_that_is_taken_may_be_ones_own(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "taken")
        with pytest.raises(AlreadyExistsError):
            put(store, "taken")
        looks = in_turn([None, *[AWAY] * 5], "GET")
        posts = in_turn([Fault(kind="status", status=409, processed=True)], "POST")
        cloud_server.plan = lambda request: looks(request) or posts(request)
        put(store, "a", None, run("1"))
        assert sorted(cloud_server.texts) == [[], ["1"]]

    def test_bookkeeping_that_others_went_on_from_was_written(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", {"n": 1})

        def edit(uow: UnitOfWork) -> None:
            conversation = uow.conversations.get("a")
            conversation.metadata["n"] += 1

        again = meanwhile(cloud_server, lambda: other.run(edit))
        lost = once(LOST, "PATCH")
        cloud_server.plan = lambda request: again(request) or lost(request)
        store.run(edit, sleep=lambda _: None)
        assert (read(store, "a").metadata, read(store, "a").version) == ({"n": 3}, 3)


class TestGoingOn:
    """What an attempt has written, or may have, is not forgotten when the next one is refused."""

    def test_a_refusal_after_a_doubt_is_no_conflict(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("1"))
        changes = appending("mine", after=1)
        cloud_server.plan = always(Fault(kind="status", status=504), "POST")
        with pytest.raises(CommitInDoubtError):
            store.repository.commit("default", changes)
        cloud_server.plan = no_faults
        append(other, "2")
        with pytest.raises(CommitInDoubtError, match=r"run 1 of 1 appended.*not known"):
            store.repository.commit("default", changes)  # ConflictError would have `Store.run` append it anew
        with pytest.raises(ConflictError):
            store.repository.commit("default", appending("mine", after=1))

    def test_a_refusal_after_a_part_is_no_conflict(self, store: Store, other: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("1"))
        put(store, "b", None, run("1"))
        seen = [
            ExpectedVersion(stored.incarnation, 1) for name in "ab" if (stored := read(store, name).record) is not None
        ]
        record = run("2").to_record()
        changes = ChangeSet.of(
            [Change("a", append=(record,)), Change("b", seen=seen[1], replace_runs=(run("new").to_record(1),))], 0
        )
        cloud_server.plan = in_turn([BUSY], "PATCH")
        with pytest.raises(PartialCommitError):
            store.repository.commit("default", changes)
        cloud_server.plan = no_faults
        with other.begin() as uow:
            uow.conversations.get("b").metadata["n"] = 1
        for faults in (no_faults, always(AWAY, "GET")):
            cloud_server.plan = faults
            with pytest.raises(PartialCommitError) as caught:
                store.repository.commit("default", changes)
            assert [step.conversation for step in caught.value.written] == ["a"]
            assert [step.what for step in caught.value.unwritten] == ["run at 1 replaced", "changed"]

    def test_a_replaced_run_is_found_again(self, store: Store, other: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("1"), run("2"))
        seen = ExpectedVersion(read(store, "a").record.incarnation, 1)  # type: ignore[union-attr]
        both = tuple([run(text).to_record(position) for position, text in enumerate(("one", "two"), 1)])
        cloud_server.plan = in_turn([None, BUSY], "PATCH")
        with pytest.raises(PartialCommitError) as caught:
            store.repository.commit("default", ChangeSet.of([Change("a", seen=seen, replace_runs=both)], 0))
        cloud_server.plan = no_faults
        with other.begin() as uow:
            uow.conversations.get("a").metadata["n"] = 1
        before = len(cloud_server.requests)
        store.commit(caught.value.changes)
        assert [one.method for one in cloud_server.requests[before:]].count("PATCH") == 2  # one run, the bookkeeping
        assert [one.input for one in read_runs(store, "a")] == ["one", "two"]
        assert (read(store, "a").metadata, read(store, "a").version) == ({"n": 1}, 3)

    def test_a_removal_committed_again_leaves_a_newer_conversation_alone(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("old"))
        put(store, "b", {"n": 1})
        cloud_server.plan = always(REFUSED, "PATCH")
        uow = store.begin()
        uow.conversations.remove("a")
        uow.conversations.get("b").metadata["n"] = 2
        with pytest.raises(PartialCommitError) as caught:
            uow.commit()
        cloud_server.plan = no_faults
        put(other, "a", None, run("new"))
        receipt = store.commit(caught.value.changes)
        assert receipt.written["a"] is None
        assert [one.input for one in read_runs(store, "a")] == ["new"]
        assert read(store, "b").metadata == {"n": 2}

    def test_a_removal_that_was_not_begun_is_not_taken_for_done(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("1"), run("2"))
        put(store, "b")
        cloud_server.plan = in_turn([None, REFUSED], "POST")
        uow = store.begin()
        uow.runs.append("a", run("3"), run("4"))
        uow.conversations.remove("b")
        with pytest.raises(PartialCommitError) as first:
            uow.commit()
        cloud_server.plan = no_faults
        with other.begin() as uow:
            uow.conversations.remove("b")
        with pytest.raises(PartialCommitError) as caught:
            store.commit(first.value.changes)
        assert isinstance(caught.value.__cause__, NotFoundError)

    def test_somebody_makes_another_while_one_is_replaced(
        self, store: Store, other: Store, cloud_server: CloudServer
    ) -> None:
        put(store, "a", None, run("old"))
        cloud_server.plan = always(REFUSED, "POST")
        uow = store.begin()
        uow.conversations.remove("a")
        uow.conversations.add(Conversation("a"))
        with pytest.raises(PartialCommitError) as first:
            uow.commit()
        cloud_server.plan = no_faults
        put(other, "a", None, run("theirs"))
        with pytest.raises(PartialCommitError) as caught:
            store.commit(first.value.changes)
        assert isinstance(caught.value.__cause__, AlreadyExistsError)
        assert [one.what for one in caught.value.written] == ["removed"]
        assert cloud_server.texts == [["theirs"]]
