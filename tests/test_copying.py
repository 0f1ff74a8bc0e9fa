import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memory
from memory import (
    AlreadyExistsError,
    ConfigurationError,
    ConflictError,
    Conversation,
    CorruptRecordError,
    InvalidValueError,
    PartialCommitError,
    Run,
    Store,
    gathering,
    where,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.adapters.in_memory import InMemoryRepository
from memory.changes import Change, ChangeSet, Receipt
from memory.comparing import Compared, Difference, verify
from memory.copying import Copied, CopyTotals, NotCopied, copy, copy_conversation
from memory.domain import ConversationRecord, RunRecord
from memory.repository import Repository, RunsRead, Window
from memory.testing.base import do, put, read, read_runs, run, snapshot
from memory.testing.strategies import ODD_NUMBERS, ODD_STRINGS, metadata, values
from memory.values import Json, new_id, to_datetime
from tests.cloud_server import CloudServer, faults
from tests.servers import Server, postgres
from tests.servers.redis import drop_indexes

KINDS = ("memory", "sqlite", "postgresql", "redis", "dynamodb", "cloud")


@pytest.fixture(scope="module")
def repositories(
    postgres_server: Server, redis_server: Server, dynamodb_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Repository]]:
    """A repository of each kind; tests are parted by their namespaces."""
    name, cloud = f"copying-{new_id()}", CloudServer()
    with (
        postgres.fresh_database(postgres_server) as postgres_url,
        memory.connect("memory://") as objects,
        memory.connect(f"sqlite:///{tmp_path_factory.mktemp('copying')}/file.db") as file,
        memory.connect(postgres_url) as database,
        memory.connect(f"{redis_server.url}?prefix={name}") as hashes,
        memory.connect(f"dynamodb://{name}?endpoint={dynamodb_server.url}") as items,
        closing(GriptapeCloudRepository(cloud.host, "key-of-org-a")) as threads,
    ):
        stores = [*[store.repository for store in (objects, file, database, hashes, items)], threads]
        for repository in stores:
            repository.migrate()
        yield dict(zip(KINDS, stores, strict=True))
    with redis.Redis.from_url(redis_server.url) as client:
        drop_indexes(client, name)
    cloud.stop()


@pytest.fixture
def store_of(repositories: dict[str, Repository]) -> Callable[[str], Store]:
    """Make a store of a kind, in a new namespace."""
    return lambda kind: Store(repositories[kind], new_id())


def objects() -> Store:
    return memory.connect("memory://")


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit takes few runs, so that a conversation of some is a long one."""
    monkeypatch.setattr(gathering, "MOST_RUNS", 10)


def fill(store: Store) -> None:
    """Put in all that stores could keep otherwise."""
    ids = ("B", "a", "Z", "\u00e9", "\uffff", "\U0001f600", "a b", "10", "9", "x" * 255, "a/b:c", "'; drop", "*")
    soon = datetime.now(UTC) + timedelta(days=400, microseconds=1)
    values: list[Json] = [*ODD_NUMBERS, None, True, [], {}, [1, 1.0, True]]
    with store.begin() as uow:
        for number, conversation_id in enumerate(ids):
            text, value = ODD_STRINGS[number], values[number]
            uow.conversations.add(Conversation(conversation_id, metadata={"value": value, text: [text, {"é": value}]}))
            uow.runs.append(conversation_id, Run(text, value, {"value": value}), Run([value], {text: text}, id="same"))
        uow.conversations.add(Conversation("odd"))
        uow.runs.append("odd", *[Run(value, text) for value, text in zip(values, ODD_STRINGS, strict=False)])
        uow.conversations.add(Conversation("expires", expires_at=soon))
        uow.conversations.add(Conversation("empty"))
        uow.conversations.add(Conversation("cleared"))
        uow.conversations.add(Conversation("gaps"))
        uow.conversations.add(Conversation("long", {"n": 1}))
        uow.conversations.add(Conversation("long without its last"))
        for conversation_id in ("cleared", "gaps", "long", "long without its last"):
            uow.runs.append(conversation_id, *[run(n) for n in range(35)])
    with store.begin() as uow:
        uow.runs.clear("cleared")
        uow.runs.remove("gaps", 1, 4, 5, 35)
        uow.runs.remove("long without its last", 34, 35)
        uow.conversations.get("gaps").metadata["n"] = 1.0
        uow.runs.append("odd", Run("later", None))


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize(("here", "there"), list(product(KINDS, KINDS)))
def test_every_store_is_copied_to_every_store(here: str, there: str, store_of: Callable[[str], Store]) -> None:
    origin, source, target = objects(), store_of(here), store_of(there)
    fill(origin)
    for one, other in ((origin, source), (source, target)):
        totals = copy(one, other)
        assert (totals.conversations, totals.equal, totals.kept, totals.failed) == (20, 0, 0, 0)
        assert list(verify(one, other)) == []
        assert snapshot(other) == snapshot(origin)
        again = copy(one, other)
        assert (again.conversations, again.runs, again.equal) == (0, 0, 20)


def edited(number: int, store: Store, conversation_id: str = "a") -> None:
    with store.begin() as uow:
        uow.conversations.get(conversation_id).metadata["edited"] = number


# one conversation


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


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_was_appended_is_written_to_a_copy(kind: str, store_of: Callable[[str], Store]) -> None:
    source, target = objects(), store_of(kind)
    put(source, "a", None, *[run(n) for n in range(30)])
    copy_conversation(source, target, "a")
    with source.begin() as uow:
        uow.runs.append("a", run(30))
    # Griptape Cloud says itself when a run was appended, and so the conversation is made anew.
    assert copy_conversation(source, target, "a").runs == (32 if kind == "cloud" else 1)
    assert copy_conversation(source, target, "a") == Copied("equal")
    assert snapshot(target) == snapshot(source)


@contextmanager
def interfering(store: Store, interfere: Callable[[int], object]) -> Iterator[None]:
    """Call a function with 1, 2, 3 ... before runs are read from the store."""
    original, number = store.repository.runs, 0

    def runs(namespace: str, conversation_id: str, window: Window) -> RunsRead:
        nonlocal number
        number += 1
        interfere(number)
        return original(namespace, conversation_id, window)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.repository, "runs", runs)
        yield


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
    assert (totals.conversations, totals.failed, [one.id for one in told]) == (1, 1, ["a"])
    assert [difference.id for difference in verify(source, target)] == ["a"]
    assert copy(source, target).conversations == 1
    assert snapshot(target) == snapshot(source)


class DiedError(BaseException):
    """What stands for the end of the process."""


@contextmanager
def dying(store: Store, after: int) -> Iterator[None]:
    """Die before the commit of a number, from 0."""
    original, number = store.repository.commit, 0

    def commit(namespace: str, changes: ChangeSet) -> Receipt:
        nonlocal number
        if number == after:
            raise DiedError
        number += 1
        return original(namespace, changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.repository, "commit", commit)
        yield


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("conversation_id", ["whole", "without its last"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_dies_between_two_commits_is_gone_on_with(
    kind: str, conversation_id: str, store_of: Callable[[str], Store]
) -> None:
    source = objects()
    put(source, conversation_id, {"n": 1}, *[run(n) for n in range(35)])
    if conversation_id == "without its last":
        do(source, lambda uow: uow.runs.remove(conversation_id, 35))
    total, commits = read(source, conversation_id).run_count, 0
    for commits in range(1, 10):
        target = store_of(kind)
        try:
            with dying(target, commits):
                copy_conversation(source, target, conversation_id)
        except DiedError:
            pass
        else:
            break
        part = read(target, conversation_id)
        assert part.version == read(source, conversation_id).version - 1
        assert part.run_count == (10 * commits if commits < 4 else 35)
        assert [one.id for one in verify(source, target)] == [conversation_id]
        is_at_the_end = part.last_position == 35  # there is a run that nobody else has: it is begun again
        assert copy_conversation(source, target, conversation_id).runs == (
            34 if is_at_the_end else total - part.run_count
        )
        assert snapshot(target) == snapshot(source)
        assert list(verify(source, target)) == []
    assert commits == (4 if conversation_id == "whole" else 5)


def test_two_copies_at_once_end_with_the_same(store_of: Callable[[str], Store]) -> None:
    source, target = objects(), store_of("sqlite")
    put(source, "a", None, *[run(n) for n in range(900)])

    def copy_too(number: int) -> None:
        if number in (2, 4):
            copy_conversation(source, target, "a")

    with interfering(source, copy_too):
        copy_conversation(source, target, "a")
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


# many


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
    assert totals == CopyTotals(conversations=1, runs=1, kept=4)
    assert [one.id for one in told] == ["appended", "both appended", "edited", "same id, another conversation"]
    assert all(one.kept for one in told)
    assert copy(source, target, on_conflict="replace") == CopyTotals(conversations=4, runs=4, equal=1)
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
    assert copy(source, target, where("n") == 1, delete=True) == CopyTotals(equal=1, removed=1)
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
    assert copy(source, target, on_not_copied=told.append) == CopyTotals(conversations=18, runs=18, failed=2)
    assert told == [NotCopied("03", "too much of it"), NotCopied("17", "too much of it")]
    assert target.begin().conversations.count() == 18


def test_somebody_who_makes_the_same_conversations_meanwhile_does_not_end_it() -> None:
    source, target = objects(), objects()
    for conversation_id in "abc":
        put(source, conversation_id, None, run())

    def make(number: int) -> None:
        if number == 3:
            copy_conversation(source, target, "a")
            put(target, "b", {"by": "others"})

    with interfering(source, make):
        assert copy(source, target) == CopyTotals(conversations=1, runs=1, equal=1, kept=1)


def test_a_service_without_transactions_that_breaks_off_is_gone_on_with(cloud_server: CloudServer) -> None:
    source, refusal = objects(), faults.Fault(kind="status", status=403)
    for conversation_id in "abcdef":
        put(source, conversation_id, {"n": 1}, *[run(n) for n in range(130)])
    with closing(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as repository:
        target = Store(repository)
        for number in (2, 40, 60):
            cloud_server.plan = faults.in_turn([None] * number + [refusal] * 40, "POST")
            with pytest.raises((PartialCommitError, ConfigurationError)):
                copy(source, target)
        cloud_server.plan = faults.no_faults
        copy(source, target)
        assert snapshot(target) == snapshot(source)
        assert list(verify(source, target)) == []


@pytest.mark.parametrize("number", [1, 45])
def test_what_a_service_refuses_in_the_middle_is_told_and_the_rest_goes_on(
    number: int, cloud_server: CloudServer
) -> None:
    source, refusal = objects(), faults.Fault(kind="status", status=400)
    for conversation_id in "abcd":
        put(source, conversation_id, {"n": 1}, *[run(n) for n in range(130)])
    with closing(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as repository:
        target = Store(repository)
        cloud_server.plan = faults.in_turn([None] * number + [refusal] * 3, "POST")
        told: list[NotCopied] = []
        totals = copy(source, target, on_not_copied=told.append)
        assert (totals.conversations, totals.failed, len(told)) == (3, 1, 1)
        assert "400" in told[0].reason
        cloud_server.plan = faults.no_faults
        copy(source, target)
        assert list(verify(source, target)) == []


@pytest.mark.parametrize("message", [{"input": "a", "output": "b"}, {"input": "{broken", "output": '{"type": "x"}'}])
def test_threads_that_others_made_are_copied_as_they_are_read(
    message: dict[str, str], cloud_server: CloudServer
) -> None:
    body = {"name": "theirs", "alias": "theirs", "metadata": {"customer": "ada"}, "messages": [message] * 3}
    cloud_server.service.answer("org-a", "POST", ["threads"], {}, body)
    with closing(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as repository:
        source, target = Store(repository), objects()
        put(source, "ours", None, run())
        do(source, lambda uow: uow.runs.append("ours", run()))  # at a time that the service says
        assert copy(source, target).conversations == 2
        assert list(verify(source, target)) == []
        assert copy(source, target).equal == 2
        assert len(read_runs(target, "theirs")) == 3


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
        assert copy(source, target, on_not_copied=told.append) == CopyTotals(conversations=1, runs=1, failed=1)
        reason = "conversation 'a' has 1 runs and says that it has 2"
        assert told == [NotCopied("a", reason)]
        assert list(verify(source, target)) == [Difference("a", (reason,))]
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


# comparing


def tamper(
    store: Store,
    record: Callable[[ConversationRecord], ConversationRecord] = lambda record: record,
    runs: Callable[[tuple[RunRecord, ...]], tuple[RunRecord, ...]] = lambda runs: runs,
) -> None:
    """Put something else in the place of conversation a."""
    stored = read(store, "a").record
    assert stored is not None
    records = tuple([one.to_record(one.position or 0) for one in read_runs(store, "a")])
    change = Change("a", remove=True, create=record(stored), append=runs(records))
    store.commit(ChangeSet.of([change], stored.updated_at))


PLANTED: dict[str, Callable[[Store], None]] = {
    "metadata": lambda store: tamper(store, lambda record: record._replace(metadata='{"n":1.0}')),
    "version: 1, there 2": lambda store: tamper(store, lambda record: record._replace(version=2)),
    "created_at: ": lambda store: tamper(store, lambda record: record._replace(created_at=record.created_at + 1)),
    "updated_at: ": lambda store: tamper(store, lambda record: record._replace(updated_at=record.updated_at - 1)),
    "expires_at: None, there 2096-10-02T07:06:40.000000Z": lambda store: tamper(
        store, lambda record: record._replace(expires_at=4 * 10**15)
    ),
    "last_position: 900, there 901": lambda store: tamper(store, lambda record: record._replace(last_position=901)),
    "run_count: 900, there 899; runs: at 7": lambda store: tamper(store, runs=lambda runs: (*runs[:6], *runs[7:])),
    "runs: at 1": lambda store: tamper(store, runs=lambda runs: (runs[0]._replace(output='"1"'), *runs[1:])),
    "runs: at 450": lambda store: tamper(
        store, runs=lambda runs: (*runs[:449], runs[449]._replace(metadata='{"a":0}'), *runs[450:])
    ),
    "runs: at 1, 2, 3, 4, 5 and 895 more": lambda store: tamper(
        store, runs=lambda runs: tuple([one._replace(created_at=one.created_at + 1) for one in runs])
    ),
    "runs: at 900": lambda store: tamper(store, runs=lambda runs: (*runs[:-1], runs[-1]._replace(id="other"))),
    "missing there": lambda store: do(store, lambda uow: uow.conversations.remove("a")),
}


@pytest.mark.parametrize("expected", PLANTED)
def test_every_difference_is_found(expected: str) -> None:
    source, target = objects(), objects()
    put(source, "a", {"n": 1}, *[run(n) for n in range(900)])
    for conversation_id in "bc":
        put(source, conversation_id)
    copy(source, target)
    PLANTED[expected](target)
    compared = Compared()
    (difference,) = verify(source, target, compared=compared)
    assert difference.id == "a"
    assert str(difference).startswith(f"a: {expected}")
    assert compared.differing == 1
    assert compared.source.digest != compared.target.digest
    assert (compared.source.conversations, compared.source.runs) == (3, 900)
    (backwards,) = verify(target, source)
    assert backwards.id == "a"


def test_what_is_written_while_it_is_compared_is_no_difference_once_it_is_written_on_both_sides() -> None:
    source, target = objects(), objects()
    for conversation_id in "ab":
        put(source, conversation_id, None, run(1))
    copy(source, target)

    def write(number: int) -> None:
        if number == 3:
            edited(1, source, "b")
            copy_conversation(source, target, "b")

    with interfering(source, write):
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
@settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(["source", "target", "copy", "replace"]), _edits), max_size=20))
def test_whatever_was_edited_a_copy_makes_both_the_same(steps: list[tuple[str, tuple[str, str, Any]]]) -> None:
    stores = {"source": objects(), "target": objects()}
    source, target = stores.values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "MOST_RUNS", 2)
        for where_to, edit in steps:
            if where_to in stores:
                apply(stores[where_to], edit)
            elif where_to == "replace":
                copy_conversation(source, target, edit[1])
            else:
                copied = copy(source, target)
                if copied.kept == 0:
                    assert {one.what for one in verify(source, target)} <= {("only there",)}
        for conversation_id in "abc":
            copy_conversation(source, target, conversation_id)
    assert list(verify(source, target)) == []
    assert snapshot(target) == snapshot(source)


# memory


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
    for times in (1, 4):
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
