"""Answers that are cut off, or not to what was asked: never taken for "nothing is there", and nothing is removed for them."""

import socketserver
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from memory import Conversation, Store, where
from memory.adapters.dynamodb import DynamoDbRepository, keys
from memory.adapters.dynamodb.records import Item
from memory.errors import CommitInDoubtError, PersistenceError, StoreUnavailableError
from memory.port.repository import Repository
from memory.testing.base import Snapshot, put, read, read_runs, run, snapshot
from tests.adapters.dynamodb.watching import Reply, before_each, check_tidy
from tests.rounds import rounds
from tests.servers import Server

EMPTY: Reply = (SimpleNamespace(status_code=200), {})
EXPIRY = datetime(2100, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("no_waiting")


class Cutter(socketserver.ThreadingTCPServer):
    """A server that answers as another does, and cuts its answers off where `cut` says.

    Attributes:
        cut: from the operation and the whole answer to where to cut it; None passes it on.
        lengths: of the last answer to each operation.
    """

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Cutting)
        self.to = url
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.cut: Callable[[str, bytes], int | None] = lambda _, __: None
        self.lengths: dict[str, int] = {}
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Cutting(socketserver.StreamRequestHandler):
    server: Cutter

    def handle(self) -> None:
        while (line := self.rfile.readline()).strip():
            headers = dict(iter(lambda: self.rfile.readline().decode().strip().partition(": ")[::2], ("", "")))
            by_name = {name.lower(): value for name, value in headers.items()}
            body = self.rfile.read(int(by_name["content-length"]))
            request = urllib.request.Request(self.server.to + line.split()[1].decode(), body, headers)
            try:
                with urllib.request.urlopen(request) as response:
                    answer = _as_text(response)
            except urllib.error.HTTPError as error:
                answer = _as_text(error)
            operation = by_name["x-amz-target"].partition(".")[2]
            self.server.lengths[operation] = len(answer)
            at = self.server.cut(operation, answer)
            self.wfile.write(answer[:at])
            if at is not None:
                return


def _as_text(response: Any) -> bytes:
    body = cast(bytes, response.read())
    told = {name.lower(): value for name, value in response.headers.items() if name.lower() != "transfer-encoding"}
    told["content-length"] = str(len(body))
    head = [f"HTTP/1.1 {response.status} said so", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    return "\r\n".join(head).encode() + body


@pytest.fixture
def cutter(dynamodb_server: Server) -> Iterator[Cutter]:
    with Cutter(dynamodb_server.url) as cutter:
        yield cutter
        cutter.shutdown()


@pytest.fixture
def cut_store(cutter: Cutter, table_name: str, namespace: str) -> Iterator[Store]:
    """The store behind the cutter."""
    with closing(DynamoDbRepository(table_name, endpoint=cutter.url)) as repository:
        store = Store(repository, namespace)
        store.begin()
        yield store


@contextmanager
def cutting(cutter: Cutter, at: Callable[[int], int | None], operation: str | None = None) -> Iterator[None]:
    """Cut each answer (to an operation) at a place that depends on its length."""
    cutter.cut = lambda name, answer: at(len(answer)) if operation in (None, name) else None
    try:
        yield
    finally:
        cutter.cut = lambda _, __: None


READS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.begin().conversations.get("a").metadata,
    "large metadata": lambda store: len(store.begin().conversations.get("large").metadata["text"]),
    "find": lambda store: [one.id for one in store.begin().conversations.find().items],
    "find by id": lambda store: [one.id for one in store.begin().conversations.find(order="id").items],
    "find by metadata": lambda store: [one.id for one in store.begin().conversations.find(where("n") == 1).items],
    "count": lambda store: store.begin().conversations.count(where("n").exists()),
    "runs": lambda store: [one.input for one in store.begin().runs.list("a")],
    "first runs": lambda store: [one.input for one in store.begin().runs.list("a", after=1, before=9)],
    "namespaces": lambda store: store.begin().conversations._session.namespace in store.namespaces(),
    "schema": lambda store: store.schema_status().is_current,
}


def put_some(store: Store) -> None:
    put(store, "a", {"n": 1, "tags": ["x", "y"]}, *(run(n) for n in range(5)))
    put(store, "large", {"n": 2, "text": "x" * 2_000}, run(1))


@pytest.mark.parametrize("name", READS)
def test_a_read_that_is_cut_off_anywhere_is_read_again(cutter: Cutter, cut_store: Store, name: str) -> None:
    put_some(cut_store)
    look = READS[name]
    expected = look(cut_store)
    for operation, length in dict(cutter.lengths).items():
        for at in range(0, length, max(1, length // rounds(8))):
            calls = iter(range(10**9))
            with cutting(cutter, lambda _, at=at, calls=calls: None if next(calls) else at, operation):  # type: ignore[misc]
                assert look(cut_store) == expected


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("short", [1, 50, 200])
def test_a_read_that_is_cut_off_each_time_is_an_error(cutter: Cutter, cut_store: Store, name: str, short: int) -> None:
    put_some(cut_store)
    with cutting(cutter, lambda length: max(0, length - short)), pytest.raises(StoreUnavailableError):
        READS[name](cut_store)


def clear(store: Store) -> None:
    with store.begin() as uow:
        uow.runs.clear("a")


def replace_metadata(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.get("large").metadata["text"] = "y" * 2_000


def append_many(store: Store) -> None:
    with store.begin() as uow:
        uow.runs.append("a", *(run(n) for n in range(5, 120)))


def remove(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.remove("a")


@pytest.mark.parametrize("work", [clear, replace_metadata, append_many, remove, Store.purge_expired])
def test_an_answer_cut_off_at_any_step_of_a_write_destroys_nothing(  # noqa: PLR0917
    cutter: Cutter,
    cut_store: Store,
    repository: DynamoDbRepository,
    store: Store,
    namespace: str,
    work: Callable[..., Any],
) -> None:
    """Whatever step it is, and however much of the answer is left: all is as it was, or as it was to be."""

    def begin_again() -> None:
        with store.begin() as uow:
            for conversation in uow.conversations.find():
                uow.conversations.remove(conversation.id)
        put_some(store)

    begin_again()
    before = _plain(snapshot(store))
    counts: list[str] = []
    cutter.cut = lambda operation, _: counts.append(operation)
    work(cut_store)
    after = _plain(snapshot(store))
    for step in range(len(counts)):
        for short in ((1, 30, 250) * rounds(1))[step % 3 :: 3]:
            begin_again()
            steps = iter(range(10**9))
            cutter.cut = lambda _, answer: (  # called in this turn
                max(0, len(answer) - short) if next(steps) == step else None  # noqa: B023
            )
            try:
                work(cut_store)
            except PersistenceError as error:
                assert isinstance(error, CommitInDoubtError | StoreUnavailableError), error  # noqa: PT017
            cutter.cut = lambda _, __: None
            found = _plain(snapshot(store))
            assert found in (before, after)
            store.purge_expired()
            assert _plain(snapshot(store)) in (before, after)
            check_tidy(repository, namespace)
            assert namespace in store.namespaces() or work is remove


def _plain(found: Snapshot) -> object:
    """Return what does not differ each time it is made."""
    runs = {id: [(one.position, one.input) for one in of] for id, of in found.runs.items()}
    return [(record.id, record.metadata) for record in found.conversations], runs


def test_a_read_that_finds_nothing_removes_nothing(
    repository: DynamoDbRepository, store: Store, namespace: str
) -> None:
    """A purge reads that there is no conversation and no run, and they are there all the same."""
    put(store, "a", {"text": "x" * 2_000}, *(run(n) for n in range(5)))
    with store.begin() as uow:
        uow.conversations.add(Conversation("expiring", {"text": "x" * 2_000}, EXPIRY))
        uow.runs.append("expiring", run(1))
    for name in ("a", "expiring"):
        repository._table.write([repository._table.put(Item((keys.partition("unswept", namespace), name), {}))])
    repository.clock = lambda: 5_000_000_000_000_000
    with before_each(repository.client, "GetItem", lambda _: EMPTY):
        repository.purge_expired(namespace)
    repository.clock = Repository.clock
    assert len(read_runs(store, "a")) == 5
    assert len(read_runs(store, "expiring")) == 1
    assert read(store, "a").metadata == read(store, "expiring").metadata
    repository.purge_expired(namespace)
    check_tidy(repository, namespace)
