"""How long an operation takes when the server does not answer, and what an interrupt leaves behind."""

import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from botocore.exceptions import ReadTimeoutError

import memory
from memory import Store, where
from memory.adapters.dynamodb import DynamoDbRepository
from memory.errors import CommitInDoubtError, ConfigurationError, PersistenceError, StoreUnavailableError
from memory.testing.base import put, read, read_runs, run
from tests.adapters.dynamodb.watching import before_each, failure
from tests.servers import Server
from tests.servers.proxy import Proxy

TIMEOUT = 1.0


def append(store: Store) -> None:
    with store.begin() as uow:
        uow.runs.append("a", run("new"))


def append_many(store: Store) -> None:
    with store.begin() as uow:
        uow.runs.append("a", *(run(n) for n in range(150)))


USES: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.begin().conversations.get("a"),
    "find": lambda store: store.begin().conversations.find(where("n") == 1),
    "count": lambda store: store.begin().conversations.count(),
    "runs": lambda store: store.begin().runs.list("a"),
    "append": append,
    "append many": append_many,
}


@pytest.fixture
def proxy(dynamodb_server: Server) -> Iterator[Proxy]:
    with Proxy(dynamodb_server.url, lambda _: True) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: Proxy, table_name: str, namespace: str) -> Iterator[Store]:
    with closing(DynamoDbRepository(table_name, endpoint=proxy.url, timeout=TIMEOUT)) as repository:
        store = Store(repository, namespace)
        put(store, "a", {"n": 1}, run(1))
        yield store


def seconds_of(use: Callable[[Store], object], store: Store) -> tuple[float, PersistenceError]:
    begin = time.monotonic()
    with pytest.raises(PersistenceError) as caught:
        use(store)
    return time.monotonic() - begin, caught.value


@pytest.mark.parametrize("name", USES)
def test_a_server_that_never_answers_is_given_up_in_time(proxy: Proxy, behind: Store, name: str) -> None:
    proxy.cuts = ["never answers"] * 1_000
    seconds, error = seconds_of(USES[name], behind)
    assert seconds < 2 * TIMEOUT
    # Of many runs, nothing is visible before the last transaction: there is no doubt.
    assert isinstance(error, CommitInDoubtError if name == "append" else StoreUnavailableError)
    assert error.__cause__ is not None


@pytest.mark.parametrize("name", USES)
def test_a_table_at_its_throughput_is_given_up_in_time(behind: Store, name: str) -> None:
    reply = failure("ThrottlingException")
    client = behind.repository.client  # type: ignore[attr-defined]
    with before_each(client, "*", lambda _: reply):
        seconds, error = seconds_of(USES[name], behind)
    assert seconds < 2 * TIMEOUT
    assert isinstance(error, StoreUnavailableError)
    assert len(read_runs(behind, "a")) == 1


def test_a_walk_that_takes_too_long_is_an_error(repository: DynamoDbRepository, store: Store) -> None:
    for n in range(5):
        put(store, f"c{n}", {"n": n})
    repository.timeout = 1e-9
    with pytest.raises(StoreUnavailableError, match="took longer than 1e-09 s"):
        store.begin().conversations.find(order="id")


def test_the_time_is_an_option_of_the_url(dynamodb_server: Server) -> None:
    with memory.connect(f"dynamodb://t?endpoint={dynamodb_server.url}&timeout=2.5") as store:
        assert store.repository.timeout == 2.5
    for wrong in ("0", "-1", "nan", "soon"):
        with pytest.raises(ConfigurationError, match="timeout"):
            memory.connect(f"dynamodb://t?endpoint={dynamodb_server.url}&timeout={wrong}")


@pytest.mark.parametrize("name", ["get", "append"])
def test_an_interrupt_leaves_as_itself_and_no_answer_is_mixed_up_after_it(
    proxy: Proxy, behind: Store, name: str
) -> None:
    behind.repository.timeout = 30
    proxy.cuts = ["never answers"]
    waiting = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        USES[name](behind)
    waiting.join()
    for _ in range(3):
        assert read(behind, "a").metadata == {"n": 1}
        assert [one.input for one in read_runs(behind, "a")] in ([1], [1, "new"])


@pytest.mark.parametrize("name", USES)
@pytest.mark.usefixtures("no_waiting")
def test_an_error_holds_nothing_that_only_the_collector_frees(behind: Store, name: str) -> None:
    """Of ours: urllib3 and botocore keep an error of the connection in frames of theirs. So this one comes before those."""

    class Watched:
        pass

    def lose(_: int) -> None:
        raise ReadTimeoutError(endpoint_url="somewhere")

    def fail() -> weakref.ref[Watched]:
        watched = Watched()
        client = behind.repository.client  # type: ignore[attr-defined]
        with before_each(client, "*", lose), pytest.raises(PersistenceError):
            USES[name](behind)
        return weakref.ref(watched)

    gc.collect()
    gc.disable()
    try:
        assert fail()() is None
    finally:
        gc.enable()
