from collections.abc import Callable

import pytest

from memory import Conversation, InvalidValueError, PartialCommitError, Run, Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.port.changes import ChangeSet
from memory.testing.base import put, read, read_runs, run
from tests.cloud_server import Assumptions, CloudServer, Fault
from tests.cloud_server.faults import Plan, in_turn, no_faults

Connect = Callable[..., GriptapeCloudRepository]


class TestPartialCommits:
    """A commit that ends in the middle says what is written, and goes on from there when it is committed again."""

    def refused(self, nth: int, method: str = "POST", path: str = "") -> Plan:
        return in_turn([None] * nth + [Fault(kind="status", status=422)] * 20, method, path)

    def test_what_is_visible_is_a_prefix(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("0"))
        put(store, "b", None, run("0"))
        cloud_server.plan = self.refused(2, "POST", "/messages")
        uow = store.begin()
        uow.runs.append("a", run("1"), Run("2", "", id="second"), run("3"))
        uow.runs.append("b", run("1"))
        with pytest.raises(PartialCommitError, match="2 are written, up to 'run 2 of 3 appended: second'") as caught:
            uow.commit()
        error = caught.value
        assert not error.retryable
        assert [(step.conversation, step.what[:8]) for step in error.written] == [("a", "run 1 of"), ("a", "run 2 of")]
        assert [(step.conversation, step.what[:8]) for step in error.unwritten] == [
            ("a", "run 3 of"),
            ("b", "run 1 of"),
        ]
        assert cloud_server.texts == [["0", "1", "2"], ["0"]]
        cloud_server.plan = no_faults
        store.commit(error.changes)
        assert cloud_server.texts == [["0", "1", "2", "3"], ["0", "1"]]
        store.commit(error.changes)
        assert cloud_server.texts == [["0", "1", "2", "3"], ["0", "1"]]

    def test_a_refusal_at_the_first_step_has_written_nothing(self, store: Store, cloud_server: CloudServer) -> None:
        put(store, "a", None, run("0"))
        cloud_server.plan = self.refused(0)
        with pytest.raises(InvalidValueError, match="422"), store.begin() as uow:
            uow.runs.append("a", run("1"))
        with pytest.raises(InvalidValueError, match="422"):
            put(store, "b")
        assert cloud_server.texts == [["0"]]

    @pytest.mark.parametrize("fails_at", range(8))
    @pytest.mark.parametrize("by_another", [False, True])
    def test_an_edit_goes_on_where_it_ended(
        self, connect: Connect, cloud_server: CloudServer, fails_at: int, *, by_another: bool
    ) -> None:
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
                return Fault(kind="status", status=422)
            return None

        cloud_server.plan = plan
        reader = Store(connect())
        try:
            uow.commit()
        except PartialCommitError as error:
            assert fails_at > 0
            told.append(error.changes)
        except InvalidValueError:
            assert fails_at == 0
        cloud_server.plan = no_faults
        seen = [(one.position, one.input) for one in read_runs(reader, "a")]
        before, replaced = [(n, str(n)) for n in range(1, 6)], [(1, "1"), (2, "2"), (3, "new"), (4, "4"), (5, "5")]
        removed = [(1, "1"), (3, "new"), (5, "5")]
        states = [before, replaced, removed, [*removed, (6, "6")], [*removed, (6, "6"), (7, "7")]]
        assert seen in states
        assert (read(reader, "a").version == 2) == (seen not in states[:2])
        receipts = [(Store(connect()) if by_another else store).commit(changes) for changes in told]
        if told or fails_at > 6:
            assert [(one.position, one.input) for one in read_runs(reader, "a")] == states[-1]
            stored = read(reader, "a")
            assert (stored.metadata, stored.version, stored.run_count) == ({"n": 2}, 2, 5)
            for receipt in receipts:
                assert receipt.written["a"] == (2, stored.record and stored.record.incarnation, 5, 7)
        assert cloud_server.texts[0].count("6") <= 1

    @pytest.mark.parametrize("fails_at", range(1, 4))
    def test_making_many_runs_goes_on_where_it_ended(
        self, connect: Connect, cloud_server: CloudServer, fails_at: int
    ) -> None:
        store = Store(connect())
        uow = store.begin()
        uow.conversations.add(Conversation("a", {"n": 1}))
        uow.runs.append("a", *[run(str(n)) for n in range(102)])
        cloud_server.plan = self.refused(fails_at)
        if fails_at == 3:
            uow.commit()
        else:
            with pytest.raises(PartialCommitError) as caught:
                uow.commit()
            cloud_server.plan = no_faults
            Store(connect()).commit(caught.value.changes)
        assert cloud_server.texts == [[str(n) for n in range(102)]]
        assert read(store, "a").updated_at == read(store, "a").created_at


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

    def test_a_thread_that_is_made_in_part(self) -> None:
        server = CloudServer(Assumptions(atomic=False))
        with self.opened(server) as store:
            put(store, "a", None, run("1"), run("2"), run("3"))
            assert server.texts == [["1", "2", "3"]]
            assert [one.position for one in read_runs(store, "a")] == [1, 2, 3]
        server.stop()
