import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memory
from memory import (
    AlreadyExistsError,
    ConflictError,
    Conversation,
    CorruptRecordError,
    InvalidValueError,
    Run,
    Store,
    where,
)
from memory.adapters.in_memory import InMemoryRepository
from memory.domain.values import to_datetime
from memory.errors import CommitTooLargeError
from memory.port.changes import ChangeSet, Receipt
from memory.port.repository import Capabilities
from memory.testing.base import do, put, run, snapshot
from memory.testing.strategies import metadata, values
from memory.transfer import Copied, NotCopied, Totals, batching, copy, copy_conversation
from memory.transfer.verifying import Compared, Difference, verify
from tests.copying import edited, interfering, objects, tamper
from tests.rounds import rounds


def test_one_conversation_is_made_replaced_and_removed_as_in_the_source() -> None:
    source, target = objects(), objects()
    put(target, "a", {"something": "else"}, run("else"))
    put(source, "a", {"n": 1}, run(1), run(2))
    assert copy_conversation(source, target, "a") == Copied("copied", 2)
    assert snapshot(target) == snapshot(source)
    assert copy_conversation(source, target, "a") == Copied("equal")
    do(source, lambda uow: uow.conversations.remove("a"))
    assert copy_conversation(source, target, "a") == Copied("removed")
    assert copy_conversation(source, target, "a") == Copied("equal")
    assert snapshot(target) == snapshot(source)


def test_an_expired_conversation_is_none(clocks: Callable[[int], None]) -> None:
    source, target = objects(), objects()
    with source.begin() as uow:
        uow.conversations.add(Conversation("a", expires_at=to_datetime(2_000_000)))
    assert copy_conversation(source, target, "a").outcome == "copied"
    clocks(3_000_000)
    assert copy_conversation(source, target, "a").outcome == "equal"
    with target.begin() as uow:
        uow.conversations.add(Conversation("a"))
    assert copy_conversation(source, target, "a").outcome == "removed"


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the time of all stores of objects, which is a second at first."""

    def set_to(time: int) -> None:
        monkeypatch.setattr(InMemoryRepository, "clock", staticmethod(lambda: time))

    set_to(1_000_000)
    return set_to


@pytest.mark.usefixtures("short_pieces")
def test_a_source_that_is_edited_meanwhile_is_copied_as_it_is_then() -> None:
    source, target = objects(), objects()
    put(source, "a", None, *[run(n) for n in range(900)])

    def edit(number: int) -> None:
        if number == 4:
            do(source, lambda uow: uow.runs.remove("a", 1, 500, 900))

    with interfering(source, edit):
        assert copy(source, target).conversations == 1
    assert snapshot(target) == snapshot(source)


@pytest.mark.usefixtures("short_pieces")
def test_what_is_appended_meanwhile_is_left_to_the_next_copy() -> None:
    source, target = objects(), objects()
    put(source, "a", None, *[run(n) for n in range(401)])
    before = snapshot(source)
    with interfering(source, lambda number: do(source, lambda uow: uow.runs.append("a", run(number)))):
        copy_conversation(source, target, "a")
    assert snapshot(target) == before
    copy_conversation(source, target, "a")
    assert snapshot(target) == snapshot(source)


@pytest.mark.usefixtures("short_pieces")
def test_a_source_that_is_edited_all_the_time_is_told_and_no_part_of_it_passes_for_the_whole() -> None:
    source, target = objects(), objects()
    put(source, "a", None, *[run(n) for n in range(401)])
    put(source, "b")
    with interfering(source, lambda number: edited(number, source)):
        with pytest.raises(ConflictError, match="conversation 'a' was changed while it was read"):
            copy_conversation(source, target, "a")
        told: list[NotCopied] = []
        totals = copy(source, target, on_not_copied=told.append)
    assert (totals.conversations, totals.refused, [one.id for one in told]) == (1, 1, ["a"])
    assert [difference.id for difference in verify(source, target)] == ["a"]
    assert copy(source, target).conversations == 1
    assert snapshot(target) == snapshot(source)


def test_contents_that_only_a_thorough_copy_finds() -> None:
    source, target = objects(), objects()
    put(source, "a", None, run(1), run(2))
    copy_conversation(source, target, "a")
    tamper(target, runs=lambda runs: (runs[0], runs[1]._replace(output='"other"')))
    assert copy_conversation(source, target, "a") == Copied("equal")
    assert copy_conversation(source, target, "a", thorough=True) == Copied("copied", 2)
    assert copy_conversation(source, target, "a", thorough=True) == Copied("equal")
    assert list(verify(source, target)) == []


def test_what_is_newer_in_the_target_is_kept_told_or_replaced() -> None:
    source, target = objects(), objects()
    for store in (source, target):
        put(store, "same id, another conversation", {"store": 1 if store is source else 2})
    for conversation_id in ("older", "edited", "appended", "both appended"):
        put(source, conversation_id, None, run(1))
    copy(source, target)
    edited(1, source, "older")
    edited(1, target, "edited")
    for store, conversation_id in ((target, "appended"), (source, "both appended"), (target, "both appended")):
        with store.begin() as uow:
            uow.runs.append(conversation_id, run("more"))
    before = snapshot(target)
    with pytest.raises(AlreadyExistsError, match="conversation 'appended': the target has another state of it"):
        copy(source, target, on_conflict="fail")
    assert snapshot(target) == before
    told: list[NotCopied] = []
    totals = copy(source, target, on_not_copied=told.append)
    assert totals == Totals(conversations=1, runs=1, skipped=4)
    assert [one.id for one in told] == ["appended", "both appended", "edited", "same id, another conversation"]
    assert all(one.kept for one in told)
    assert copy(source, target, on_conflict="replace") == Totals(conversations=4, runs=4, equal=1)
    assert snapshot(target) == snapshot(source)
    with pytest.raises(InvalidValueError, match="skip, replace, fail"):
        copy(source, target, on_conflict="merge")  # type: ignore[arg-type]


def test_a_part_of_a_store_is_copied_and_compared() -> None:
    source, target = objects(), objects()
    for number in range(10):
        put(source, str(number), {"n": number}, run(number))
    put(target, "other", {"n": 9})
    totals = copy(source, target, where("n") >= 7)
    assert (totals.conversations, totals.runs) == (3, 3)
    assert list(verify(source, target, where("n").between(7, 8))) == []
    assert [str(one) for one in verify(source, target, where("n") >= 6)] == ["6: missing there", "other: only there"]
    edited(1, target, "9")
    (difference,) = verify(source, target, where("edited") == 1)
    assert (difference.id, difference.what[0]) == ("9", "metadata")


def test_what_the_source_lacks_goes_only_on_demand() -> None:
    source, target = objects(), objects()
    put(source, "a", {"n": 1})
    put(source, "not so there", {"n": 2})
    for conversation_id in ("b", "not so there"):
        put(target, conversation_id, {"n": 1}, run())
    put(target, "c", {"n": 2})
    copy(source, target)
    assert target.begin().conversations.count() == 4
    assert copy(source, target, where("n") == 1, delete=True) == Totals(equal=1, removed=1, skipped=1)
    assert [one.id for one in target.begin().conversations.iterate(order="id")] == ["a", "c", "not so there"]
    with pytest.raises(InvalidValueError, match="nothing in the source"):
        copy(objects(), target, delete=True)
    copy(source, target, delete=True, on_conflict="replace")
    assert snapshot(target) == snapshot(source)


def test_what_the_target_cannot_keep_is_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = objects(), objects()
    for number in range(20):
        put(source, f"{number:02}", None, run(number))
    commit = Store.commit

    def refuse_some(self: Store, changes: ChangeSet) -> Receipt:
        if any(change.id in ("03", "17") for change in changes.changes):
            raise InvalidValueError("too much of it")
        return commit(self, changes)

    monkeypatch.setattr(Store, "commit", refuse_some)
    told: list[NotCopied] = []
    assert copy(source, target, on_not_copied=told.append) == Totals(conversations=18, runs=18, refused=2)
    assert told == [NotCopied("default", id, "too much of it") for id in ("03", "17")]
    assert target.begin().conversations.count() == 18


class Small(InMemoryRepository):
    """A store that takes a few runs at a time into a conversation that it has, and few new conversations."""

    capabilities = Capabilities(largest_commit=7)
    commits = 0

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        self.commits += 1
        size = sum(max(len(change.append), 1) for change in changes.changes)
        if size > 7 and not (len(changes.changes) == 1 and changes.changes[0].create):
            raise CommitTooLargeError("too much at once", limit=7, size=size)
        return super().commit(namespace, changes)


@pytest.mark.usefixtures("short_pieces")
def test_a_store_of_small_commits_gets_everything_in_small_commits() -> None:
    source, small = objects(), Small()
    target = Store(small)
    put(source, "long", {"n": 1}, *[run(n) for n in range(98)])
    put(source, "without its last", None, *[run(n) for n in range(38)])
    do(source, lambda uow: uow.runs.remove("without its last", 37, 38))
    for number in range(20):
        put(source, str(number), None, run(number))
    assert copy(source, target) == Totals(conversations=22, runs=98 + 36 + 20)
    # Batches are as large as the target's commits: of so small a one, a conversation each. A refused one is divided.
    assert small.commits == 20 + (1 + 9 * 3) + (1 + 2 * 3 + 2)
    assert snapshot(target) == snapshot(source)
    for _ in range(30):
        do(source, lambda uow: uow.runs.append("3", run("more")))
    small.commits = 0
    assert copy(source, target) == Totals(conversations=1, runs=30, equal=21)
    assert small.commits == 3 * 3
    assert snapshot(target) == snapshot(source)


def both_with(*ids: str) -> tuple[Store, Store]:
    """Return a source and a copy of it, in which an application has gone on since."""
    source, target = objects(), objects()
    for conversation_id in ids:
        put(source, conversation_id, None, run(1))
    copy(source, target)
    for conversation_id in ids:
        with target.begin() as uow:
            uow.conversations.get(conversation_id).metadata["n"] = 1
            uow.runs.append(conversation_id, run("since"))
    return source, target


def test_what_goes_from_the_source_meanwhile_is_not_removed_from_the_target_unless_told_to() -> None:
    def remove(_: Totals) -> None:
        if "b" in source.begin().conversations:
            do(source, lambda uow: uow.conversations.remove("b"))

    source, target = both_with("a", "b")
    assert copy(source, target, progress=remove) == Totals(skipped=1)
    assert [one.input for one in target.begin().runs.list("b")] == [1, "since"]
    source, target = both_with("a", "b")
    assert copy(source, target, progress=remove, delete=True) == Totals(skipped=1, removed=1)


@pytest.mark.parametrize("on_conflict", ["skip", "replace"])
def test_what_others_append_to_the_target_behind_the_copys_own_runs_is_a_conflict(on_conflict: Any) -> None:
    source, target = objects(), objects()
    put(source, "a", None, run(1))
    copy(source, target)
    do(source, lambda uow: uow.runs.append("a", run(2)))

    def append(_: object) -> None:
        unsubscribe()
        do(target, lambda uow: uow.runs.append("a", run("theirs")))

    unsubscribe = target.subscribe(append)
    kept = copy(source, target, on_conflict=on_conflict).skipped
    inputs = [one.input for one in target.begin().runs.list("a")]
    assert (kept, inputs) == ((1, [1, 2, "theirs"]) if on_conflict == "skip" else (0, [1, 2]))


def test_one_conversation_into_a_new_file(tmp_path: Path) -> None:
    source = objects()
    put(source, "a", None, run(1))
    with memory.connect(f"sqlite:///{tmp_path}/new.db") as target:
        assert copy_conversation(source, target, "a") == Copied("copied", 1)


def test_the_namespaces_are_listed_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can cost the reading of a whole table."""
    source, target = objects(), objects()
    put(source, "a")
    listed: list[Store] = []
    namespaces = Store.namespaces

    def noted(self: Store) -> list[str]:
        listed.append(self)
        return namespaces(self)

    monkeypatch.setattr(Store, "namespaces", noted)
    copy(source, target)
    copy(source, target, delete=True)
    assert list(verify(source, target)) == []
    assert listed == []
    copy(source, target, all_namespaces=True, delete=True)
    assert len(listed) == 1


def filled_with_tenants(*names: str) -> Store:
    store = objects()
    for number, name in enumerate(names):
        put(store.namespace(name), "a", {"n": number}, run(number))
    return store


def test_all_namespaces_are_copied_each_to_its_name() -> None:
    source, target = filled_with_tenants("default", "b", "a/b"), objects()
    put(source.namespace("b"), "b", {"n": 7})
    assert copy(source, target.namespace("of no account"), all_namespaces=True) == Totals(conversations=4, runs=3)
    assert target.namespaces() == ["a/b", "b", "default"]
    for name in target.namespaces():
        assert snapshot(target.namespace(name)) == snapshot(source.namespace(name))
    compared = Compared()
    assert list(verify(source, target, compared=compared, all_namespaces=True)) == []
    assert compared.source.digest == compared.target.digest
    assert copy(source, target, all_namespaces=True) == Totals(equal=4)
    assert copy(source, target, where("n") == 7, all_namespaces=True) == Totals(equal=1)


def test_a_conversation_in_another_namespace_is_another() -> None:
    source, target = filled_with_tenants("a", "b"), objects()
    copy(source.namespace("a"), target.namespace("b"))
    copy(source.namespace("b"), target.namespace("a"))
    compared = Compared()
    told = [str(difference) for difference in verify(source, target, compared=compared, all_namespaces=True)]
    assert [line.partition(":")[0] for line in told] == ["a (in a)", "a (in b)"]
    assert compared.source.digest != compared.target.digest


def test_deleting_leaves_alone_the_namespaces_that_the_source_does_not_have() -> None:
    source, target = filled_with_tenants("a", "b"), filled_with_tenants("b", "c")
    put(target.namespace("a"), "gone", {})
    put(target.namespace("c"), "x", {})
    totals = copy(source, target, delete=True, on_conflict="replace", all_namespaces=True)
    assert totals == Totals(conversations=2, runs=2, removed=1)
    assert [str(one) for one in verify(source, target, all_namespaces=True)] == [
        "a (in c): only there",
        "x (in c): only there",
    ]
    with target.namespace("a").begin() as uow:
        uow.conversations.add(Conversation("x"))
    totals = copy(source, target, where("n") == 1, delete=True, on_conflict="replace", all_namespaces=True)
    assert (totals.removed, "x" in target.namespace("a").begin().conversations) == (0, True)
    with pytest.raises(InvalidValueError, match="nothing in the source"):
        copy(objects(), target, delete=True, all_namespaces=True)
    with pytest.raises(InvalidValueError, match="nothing in the source"):
        copy(source, target, where("n") == 7, delete=True, all_namespaces=True)
    with pytest.raises(AlreadyExistsError, match=r"conversation 'a \(in b\)'"):
        copy(filled_with_tenants("b"), filled_with_tenants("a", "b"), on_conflict="fail", all_namespaces=True)


def test_somebody_who_makes_the_same_conversations_meanwhile_does_not_end_it() -> None:
    source, target = objects(), objects()
    for conversation_id in "abc":
        put(source, conversation_id, None, run())

    def make(number: int) -> None:
        if number == 3:
            copy_conversation(source, target, "a")
            put(target, "b", {"by": "others"})

    with interfering(source, make):
        assert copy(source, target) == Totals(conversations=1, runs=1, equal=1, skipped=1)


def test_runs_that_are_lost_in_the_source_are_told(tmp_path: Path) -> None:
    target = objects()
    with memory.connect(f"sqlite:///{tmp_path}/source.db") as source:
        put(source, "a", None, run(1), run(2))
        put(source, "b", None, run(1))
        with closing(sqlite3.connect(tmp_path / "source.db", isolation_level=None)) as connection:
            connection.execute("DELETE FROM memory_runs WHERE position = 2")
        with pytest.raises(CorruptRecordError):
            copy_conversation(source, target, "a")
        told: list[NotCopied] = []
        assert copy(source, target, on_not_copied=told.append) == Totals(conversations=1, runs=1, refused=1)
        reason = "conversation 'a' has 1 runs, but its record says 2"
        assert told == [NotCopied("default", "a", reason)]
        assert list(verify(source, target)) == [Difference("default", "a", (reason,))]
        copy(target, source, on_conflict="replace")
        assert [one.id for one in verify(target, source)] == ["a"]


def test_runs_that_are_lost_in_the_target_come_back(tmp_path: Path) -> None:
    source = objects()
    with memory.connect(f"sqlite:///{tmp_path}/target.db") as target:
        put(source, "a", None, run(1), run(2))
        copy(source, target)
        with closing(sqlite3.connect(tmp_path / "target.db", isolation_level=None)) as connection:
            connection.execute("DELETE FROM memory_runs WHERE position = 2")
        assert [one.id for one in verify(source, target)] == ["a"]
        copy_conversation(source, target, "a", thorough=True)
        assert list(verify(source, target)) == []


_ids = st.sampled_from("abc")
_runs = st.lists(st.builds(Run, values, values, metadata), max_size=3)
_edits = st.one_of(
    st.tuples(st.sampled_from(["add", "edit"]), _ids, metadata),
    st.tuples(st.just("append"), _ids, _runs),
    st.tuples(st.sampled_from(["remove run", "replace run"]), _ids, st.integers(1, 5)),
    st.tuples(st.sampled_from(["clear", "remove"]), _ids, st.none()),
)


def apply(store: Store, edit: tuple[str, str, Any]) -> None:
    """Make an edit if it can be made."""
    what, conversation_id, value = edit
    with store.begin() as uow:
        is_there = conversation_id in uow.conversations
        positions = [one.position for one in uow.runs.list(conversation_id)]
        if what == "add" and not is_there:
            uow.conversations.add(Conversation(conversation_id, value))
        elif what == "edit" and is_there:
            uow.conversations.get(conversation_id).metadata = value
        elif what == "append" and is_there:
            uow.runs.append(conversation_id, *value)
        elif what == "remove run" and value in positions:
            uow.runs.remove(conversation_id, value)
        elif what == "replace run" and value in positions:
            uow.runs.replace(conversation_id, replace(run("replaced"), position=value))
        elif what == "clear" and is_there:
            uow.runs.clear(conversation_id)
        elif what == "remove" and is_there:
            uow.conversations.remove(conversation_id)


@pytest.mark.usefixtures("short_pieces")
@settings(max_examples=rounds(60), database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(["source", "target", "copy", "replace"]), _edits), max_size=20))
def test_whatever_was_edited_a_copy_makes_both_the_same(steps: list[tuple[str, tuple[str, str, Any]]]) -> None:
    stores = {"source": objects(), "target": objects()}
    source, target = stores.values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "MOST_RUNS", 2)
        for where_to, edit in steps:
            if where_to in stores:
                apply(stores[where_to], edit)
            elif where_to == "replace":
                copy_conversation(source, target, edit[1])
            else:
                copied = copy(source, target)
                if copied.skipped == 0:
                    assert {one.what for one in verify(source, target)} <= {("only there",)}
        for conversation_id in "abc":
            copy_conversation(source, target, conversation_id)
    assert list(verify(source, target)) == []
    assert snapshot(target) == snapshot(source)


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("conversations", "runs"), [(400, 12), (1, 5_000)])
def test_more_takes_no_more_memory(conversations: int, runs: int, tmp_path: Path) -> None:
    """More conversations do not, nor does a longer one."""
    peaks: dict[str, list[int]] = {"copy": [], "verify": []}
    for times in (1, 3):
        with (
            memory.connect(f"sqlite:///{tmp_path}/{times}.db?synchronous=normal") as source,
            memory.connect(f"sqlite:///{tmp_path}/{times}-copy.db?synchronous=normal") as target,
        ):
            many, long = (times, 1) if conversations > 1 else (1, times)
            with source.begin() as uow:
                for number in range(conversations * many):
                    uow.conversations.add(Conversation(f"{number:05}"))
                    uow.runs.append(f"{number:05}", *[Run("x" * 400, "y" * 400)] * (runs * long))
            target.migrate()
            peaks["copy"].append(_peak(lambda: copy(source, target)))
            peaks["verify"].append(_peak(lambda: list(verify(source, target))))
            assert target.begin().conversations.count() == conversations * many
    for short, longer in peaks.values():
        assert longer < 1.2 * short + 300_000  # of megabytes that are more
