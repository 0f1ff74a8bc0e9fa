"""What the store does above every repository: doubts, retries, subscribers, URLs."""

import gc
import logging
import re
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import memory
from memory import (
    ClosedError,
    CommitInDoubtError,
    Committed,
    ConfigurationError,
    ConflictError,
    Conversation,
    CorruptRecordError,
    InvalidValueError,
    PartialCommitError,
    PersistenceError,
    Run,
    SchemaError,
    Store,
    StoreUnavailableError,
    UnitOfWork,
    UnsupportedError,
    where,
)
from memory.adapters.in_memory import InMemoryRepository
from memory.port.changes import Change, ChangeSet, Receipt
from memory.port.repository import SchemaStatus
from memory.port.urls import redact


class Faulty(InMemoryRepository):
    """Raises the staged errors at the next commits, before or after doing the work."""

    def __init__(self, *errors: PersistenceError, after: bool = False) -> None:
        super().__init__()
        self.errors = list(errors)
        self.after = after

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        if self.errors and not self.after:
            raise self.errors.pop(0)
        receipt = super().commit(namespace, changes)
        if self.errors:
            raise self.errors.pop(0)
        return receipt


def add(conversation_id: str) -> Callable[[UnitOfWork], None]:
    return lambda uow: uow.conversations.add(Conversation(conversation_id))


@pytest.mark.parametrize("after", [False, True])
def test_a_lost_answer_is_found_out_and_the_work_is_done_once(*, after: bool) -> None:
    repository = Faulty(CommitInDoubtError("lost"), StoreUnavailableError("away"), after=after)
    with Store(repository).begin() as uow:
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", Run("one", "1"))
    found = repository.get("default", "a")
    assert found is not None
    assert found.run_count == 1


def test_a_doubt_that_cannot_be_resolved_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.core.store.time.sleep", lambda _: None)
    store = Store(Faulty(*[CommitInDoubtError("lost")] * 20))
    with pytest.raises(CommitInDoubtError), store.begin() as uow:
        uow.conversations.add(Conversation("a"))


@pytest.mark.parametrize("what", [CorruptRecordError, UnsupportedError, PersistenceError])
def test_a_doubt_is_told_whatever_goes_wrong_when_it_is_to_be_found_out(
    monkeypatch: pytest.MonkeyPatch, what: type[PersistenceError]
) -> None:
    monkeypatch.setattr("memory.core.store.time.sleep", lambda _: None)
    store = Store(Faulty(CommitInDoubtError("lost"), *[what("nothing was written")] * 20, after=True))
    with pytest.raises(CommitInDoubtError, match="lost"), store.begin() as uow:
        uow.conversations.add(Conversation("a"))


@pytest.mark.parametrize("error", [CommitInDoubtError("lost"), PartialCommitError("a part")])
def test_a_unit_of_work_whose_end_is_not_known_writes_nothing_more(
    monkeypatch: pytest.MonkeyPatch, error: PersistenceError
) -> None:
    monkeypatch.setattr("memory.core.store.time.sleep", lambda _: None)
    repository = Faulty()
    store = Store(repository)
    with store.begin() as uow:
        uow.conversations.add(Conversation("a"))
    with store.begin() as uow:
        uow.runs.append("a", Run("one", "1"))
        repository.errors, repository.after = [error] * 20, True
        with pytest.raises(type(error)):
            uow.commit()
        repository.errors = []
        with pytest.raises(RuntimeError, match="ended"):
            uow.runs.append("a", Run("two", "2"))
    assert [run.input for run in store.begin().runs.list("a")] == ["one"]


def test_run_repeats_what_is_retryable_with_growing_pauses() -> None:
    pauses: list[float] = []
    store = Store(Faulty(ConflictError("a"), StoreUnavailableError("b"), ConflictError("c")))
    store.run(add("a"), sleep=pauses.append)
    assert len(pauses) == 3
    assert all(0 <= pause <= 0.01 * 2**n for n, pause in enumerate(pauses))


def test_run_gives_up_after_so_many_retries_and_at_once_on_any_other_error() -> None:
    pauses: list[float] = []
    with pytest.raises(ConflictError):
        Store(Faulty(*[ConflictError("a")] * 3)).run(add("a"), retries=2, sleep=pauses.append)
    assert len(pauses) == 2
    with pytest.raises(UnsupportedError):
        Store(Faulty(UnsupportedError("no"))).run(add("a"), sleep=pauses.append)
    assert len(pauses) == 2


def messages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "memory"]
    caplog.clear()
    return found


def test_the_log_tells_of_retries_and_of_doubts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.core.store.time.sleep", lambda _: None)
    caplog.set_level(logging.INFO, "memory")
    Store(Faulty(ConflictError("a"), StoreUnavailableError("b"))).run(add("a"), sleep=lambda _: None)
    assert messages(caplog) == [
        ("INFO", "retrying after ConflictError: a"),
        ("WARNING", "retrying after StoreUnavailableError: b"),
    ]
    Store(Faulty(CommitInDoubtError("lost"), after=True)).run(add("a"))
    lost, written = messages(caplog)
    assert lost == ("WARNING", "retrying after CommitInDoubtError: lost")
    assert re.fullmatch(r"the commit \w+ is written", written[1])
    with pytest.raises(ConflictError):
        Store(Faulty(CommitInDoubtError("lost"), ConflictError("c"))).run(add("a"), retries=0)
    level, refused = messages(caplog)[1]
    assert level == "WARNING"
    assert re.fullmatch(r"the commit \w+ was refused when it was repeated: c", refused)
    with pytest.raises(CommitInDoubtError):
        Store(Faulty(*[CommitInDoubtError("lost")] * 20)).run(add("a"))
    level, unknown = messages(caplog)[-1]
    assert level == "ERROR"
    assert re.fullmatch(r"it is unknown whether the commit \w+ is written", unknown)


def test_subscribers_are_told_what_was_committed_and_cannot_undo_it(caplog: pytest.LogCaptureFixture) -> None:
    store = memory.connect("memory://")
    told: list[Committed] = []

    def fails(_: Committed) -> None:
        raise ValueError("my own fault")

    store.subscribe(fails)
    unsubscribe = store.subscribe(told.append)
    with caplog.at_level(logging.ERROR, "memory"):
        store.namespace("tenant").run(add("a"))
    unsubscribe()
    store.run(add("b"))
    (committed,) = told
    assert (committed.namespace, [change.id for change in committed.changes.changes]) == ("tenant", ["a"])
    written = committed.receipt.written["a"]
    assert written is not None
    assert written.version == 1
    assert "my own fault" in caplog.text


def test_a_schema_that_is_not_current_is_refused_with_the_command_to_run() -> None:
    class Old(InMemoryRepository):
        def schema_status(self) -> SchemaStatus:
            return SchemaStatus(None, "0002")

    class New(InMemoryRepository):
        def schema_status(self) -> SchemaStatus:
            return SchemaStatus("0003", "0002")

    with pytest.raises(SchemaError, match="memory migrate"):
        Store(Old()).begin()
    with pytest.raises(SchemaError, match="upgrade"):
        Store(New()).begin()


@pytest.mark.parametrize(
    "url", ["", "conversations.db", "nosuch://x", "memory://?a=b", "sqlite:///x.db?synchronous=off", None]
)
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        memory.connect(url)


def test_a_missing_extra_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'conversation-memory\[postgres\]'"):
        memory.connect("postgresql+psycopg://ada:secret@localhost/app")


def test_no_password_is_in_a_repr_or_an_error() -> None:
    url = "postgresql+psycopg://ada:s3cret@localhost:1/app?sslpassword=s3cret"
    with memory.connect(url) as store:
        assert "s3cret" not in repr(store)
        with pytest.raises(StoreUnavailableError) as unavailable:
            store.begin()
    assert "s3cret" not in str(unavailable.value)
    assert redact("redis://:s3cret@host/0") == "redis://:***@host/0"


@pytest.mark.parametrize(
    "cursor", ["", "x", "bm90IGpzb24=", "WyItdXBkYXRlZF9hdCIsIDEsIDJd", "WyItdXBkYXRlZF9hdCJd", "é"]
)
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with memory.connect("memory://").begin() as uow, pytest.raises(InvalidValueError, match="cursor"):
        uow.conversations.find(after=cursor)


def test_criteria_are_combined_with_operators_only() -> None:
    with pytest.raises(TypeError, match="combine criteria with"):
        _ = (where("a") == 1) and (where("b") == 2)
    deep = where("a") == 1
    for _ in range(1000):
        deep = (deep & (where("b") == 2)) | (where("c") == 3)
    with memory.connect("memory://").begin() as uow:
        with pytest.raises(InvalidValueError, match="nests deeper"):
            uow.conversations.count(deep)
        with pytest.raises(InvalidValueError, match="where"):
            uow.conversations.find({"a": 1})  # type: ignore[arg-type]  # that is the point


def test_a_mistake_is_refused_with_what_to_write() -> None:
    uow: Any = memory.connect("memory://").begin()
    term: Any = where("a.b")
    mistakes: list[tuple[Callable[[], object], str]] = [
        (lambda: term.in_("gold"), "takes a list of values"),
        (lambda: where.id.in_("abc"), "takes a list of values"),
        (lambda: term.in_(3), "takes a list of values"),
        (lambda: (term == 1) & True, "make one with where"),
        (lambda: (term == 1) | term, r"where\('a.b'\) is not a criterion yet"),
        (lambda: uow.conversations.find(term), r"where\('a.b'\) is not a criterion yet"),
        (lambda: uow.conversations.find(where(("a.b",))), r"where\(\('a.b',\)\) is not a criterion yet"),
        (lambda: uow.conversations.count(where.id), "where.id is not a criterion yet"),
        (lambda: memory.connect("memory://").retain(term), r"retain\(\) takes a Retention"),
        (lambda: uow.conversations.get(Conversation("a")), "write conversation.id"),
        (lambda: ChangeSet.of([Change("a", remove=True), Change("a")], 1), "two changes of conversation 'a'"),
    ]
    for mistake, said in mistakes:
        with pytest.raises(InvalidValueError, match=said):
            mistake()


def test_a_subscription_ends_once() -> None:
    told: list[object] = []
    store = memory.connect("memory://")
    end, other = store.subscribe(told.append), store.subscribe(told.append)
    end()
    end()
    with store.begin() as uow:
        uow.conversations.add(Conversation("a"))
    assert len(told) == 1
    other()


@pytest.mark.parametrize("url", ["memory://", "sqlite://", "sqlite:///{}/closed.db"])
def test_a_closed_store_refuses_everything(url: str, tmp_path: Path) -> None:
    store = memory.connect(url.format(tmp_path))
    other, uow = store.namespace("other"), store.begin()
    uow.conversations.add(Conversation("a"))
    store.close()
    store.close()
    uses: tuple[Callable[[], object], ...] = (
        store.begin,
        other.begin,
        store.namespaces,
        store.purge_expired,
        store.migrate,
        store.schema_status,
        uow.commit,
        uow.conversations.find,
        lambda: uow.conversations.get("a"),
        lambda: uow.runs.list("a"),
        lambda: store.run(lambda _: None),
        lambda: store.commit(ChangeSet.of([], 0)),
    )
    for use in uses:
        with pytest.raises(ClosedError, match="closed"):
            use()


def test_iterating_takes_constant_memory_whatever_is_read_in_the_loop() -> None:
    store = memory.connect("memory://")
    with store.begin() as uow:
        for n in range(450):
            uow.conversations.add(Conversation(f"{n:03}", {"n": n}))
            uow.runs.append(f"{n:03}", Run(n, n))
    held = None
    with store.begin() as uow:
        for conversation in uow.conversations.iterate():
            uow.runs.list(conversation.id)
            if conversation.id == "007":
                held = conversation
            assert len(uow._session._tracked) <= 1
        del conversation
        assert held is not None
        held.metadata["edited"] = True  # is noticed, and checked against what was read in the loop
        with store.begin() as other:
            other.conversations.get("007").metadata["n"] = -1
        with pytest.raises(ConflictError, match="007"):
            uow.commit()
        uow.rollback()


@pytest.mark.parametrize("id", [["a"], {}, None, 1, b"a"])
def test_an_id_of_another_type_is_refused(id: Any) -> None:
    uow = memory.connect("memory://").begin()
    uses: tuple[Callable[[], object], ...] = (
        lambda: uow.conversations.get(id),
        lambda: id in uow.conversations,
        lambda: uow.runs.list(id),
        lambda: uow.runs.append(id, Run(1, 2)),
        lambda: uow.runs.clear(id),
    )
    for use in uses:
        with pytest.raises(InvalidValueError, match="must be a str, not"):
            use()


def test_metadata_of_very_many_values_is_refused() -> None:
    metadata = {"embedding": [0.5] * 10_000}
    store = memory.connect("memory://")
    with (
        pytest.raises(InvalidValueError, match="'a' has 10,002 values, but the limit is 10,000"),
        store.begin() as uow,
    ):
        uow.conversations.add(Conversation("a", metadata))
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"text": ",[{" * 10_000}))  # one value, whatever is in it
    with pytest.raises(InvalidValueError, match="max_metadata_values"), store.begin() as uow:
        uow.conversations.get("a").metadata = metadata
    with memory.connect("memory://", max_metadata_values=10_002).begin() as uow:
        uow.conversations.add(Conversation("a", metadata))


def test_a_doubt_leaves_no_cycle_and_ends_with_the_deadline() -> None:
    class Doubtful(InMemoryRepository):
        timeout = 0.2

        def commit(self, *_: object) -> Receipt:
            raise CommitInDoubtError("the answer was lost")

    store = Store(Doubtful())

    def commit(conversation: Conversation) -> "weakref.ref[Conversation]":
        with suppress(CommitInDoubtError), store.begin() as uow:  # pytest.raises would keep the exception, in a cycle
            uow.conversations.add(conversation)
        return weakref.ref(conversation)

    gc.collect()
    gc.disable()  # the collector could run while another thread holds a lock that it needs
    try:
        reference = commit(Conversation("a"))
        assert reference() is None
    finally:
        gc.enable()
