"""Connections: how long one waits, for what there is no waiting, and what a fork, an interrupt and another primary do to them."""

import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import (
    CommitInDoubtError,
    ConfigurationError,
    Conversation,
    PersistenceError,
    Run,
    Store,
    StoreUnavailableError,
    UnitOfWork,
)
from memory.adapters.redis import RedisRepository
from memory.adapters.redis.wire import Wire
from memory.port.deadlines import within
from tests.adapters.redis.certificates import untrusted_certificate
from tests.rounds import rounds
from tests.servers import KillableServer, Server, free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import commits

Use = Callable[[Store], object]


def append(store: Store, text: str = "new") -> None:
    with store.begin() as uow:
        uow.runs.append("a", Run(text, text))


def put(store: Store, name: str = "a") -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(name, {"name": name}))
        uow.runs.append(name, Run(name, 0))


USES: dict[str, Use] = {
    "get": lambda store: store.begin().conversations.get("a"),
    "find": lambda store: store.begin().conversations.find(),
    "count": lambda store: store.begin().conversations.count(),
    "runs": lambda store: store.begin().runs.last("a", 2),
    "append": append,
    "purge": lambda store: store.purge_expired(),
}


def store_pool(store: Store) -> Any:
    assert isinstance(store.repository, RedisRepository)
    return store.repository._pool


class TestStalled:
    """A server that takes connections, as the system does for one that is stopped, and answers nothing any more."""

    @pytest.fixture
    def stalled(self, redis_server: Server, prefix: str) -> Iterator[Callable[..., Store]]:
        with Proxy(redis_server.url, commits) as proxy, ExitStack() as stack:

            def open_and_stall(**settings: object) -> Store:
                if settings:
                    client = stack.enter_context(redis_py.Redis.from_url(proxy.url, **settings))  # type: ignore[call-overload]
                    store = Store(RedisRepository(client, prefix=prefix, timeout=1))
                else:
                    store = stack.enter_context(memory.connect(f"{proxy.url}?prefix={prefix}&timeout=1"))
                store.migrate()
                put(store)
                proxy.is_commit = lambda _: True
                proxy.cuts += ["never answers"] * 1_000
                return store

            yield open_and_stall

    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    def test_every_operation_ends_with_its_deadline(self, stalled: Callable[..., Store], use: Use) -> None:
        store = stalled()
        for _ in ("on an open connection", "on a new one"):
            began = time.monotonic()
            with pytest.raises((StoreUnavailableError, CommitInDoubtError)):
                use(store)
            assert time.monotonic() - began < 2

    def test_a_client_that_was_handed_in_has_the_same_deadline(self, stalled: Callable[..., Store]) -> None:
        """And its own socket_timeout afterwards."""
        store = stalled(socket_timeout=20)
        (connection,) = store_pool(store)._available_connections
        assert connection._sock.gettimeout() == 20
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="Timeout"):
            USES["get"](store)
        assert time.monotonic() - began < 2

    def test_the_deadline_of_who_calls_counts_too(self, stalled: Callable[..., Store]) -> None:
        store = stalled()
        began = time.monotonic()
        with within(0.05), pytest.raises(StoreUnavailableError):
            USES["count"](store)
        assert time.monotonic() - began < 0.9


def test_a_read_that_timed_out_is_not_asked_again(redis_server: Server, prefix: str) -> None:
    with Proxy(redis_server.url, commits) as proxy, memory.connect(f"{proxy.url}?prefix={prefix}&timeout=0.3") as store:
        store.migrate()
        put(store)
        before = proxy.round_trips
        proxy.cuts += ["never answers", "never answers"]
        with pytest.raises(StoreUnavailableError, match="Timeout"):
            store.begin().conversations.find()
        assert (proxy.round_trips - before, proxy.cuts) == (1, ["never answers"])


def test_more_threads_than_connections(store: Store, url: str) -> None:
    """They wait for one another."""
    put(store)
    with memory.connect(f"{url}&max_connections=2") as narrow, ThreadPoolExecutor(120) as pool:
        read = list(pool.map(lambda _: len(narrow.begin().runs.list("a")), range(400)))
    assert read == [1] * 400


def test_no_connection_gets_free(store: Store, url: str) -> None:
    put(store)
    with memory.connect(f"{url}&max_connections=1&timeout=0.3") as narrow:
        taken = store_pool(narrow).get_connection()
        with pytest.raises(StoreUnavailableError, match="raise max_connections"):
            narrow.begin().runs.list("a")
        store_pool(narrow).release(taken)
        assert len(narrow.begin().runs.list("a")) == 1


@pytest.mark.usefixtures("store")
def test_a_client_whose_pool_does_not_wait(redis_server: Server, prefix: str) -> None:
    with redis_py.Redis.from_url(redis_server.url, max_connections=1) as client:
        other = Store(RedisRepository(client, prefix=prefix))
        put(other)
        taken = store_pool(other).get_connection()
        with pytest.raises(StoreUnavailableError, match="Too many connections"):
            other.begin().runs.list("a")
        store_pool(other).release(taken)


class TestForks:
    @pytest.fixture(params=["url", "client", "blocking client"])
    def opened(self, request: pytest.FixtureRequest, url: str, redis_server: Server, prefix: str) -> Iterator[Store]:
        if request.param == "url":
            with memory.connect(url) as store:
                store.migrate()
                yield store
            return
        kind: Any = redis_py.ConnectionPool if request.param == "client" else redis_py.BlockingConnectionPool
        pool = kind.from_url(redis_server.url)
        store = Store(RedisRepository(redis_py.Redis(connection_pool=pool), prefix=prefix))
        store.migrate()
        yield store
        pool.disconnect()

    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_each_process_has_connections_of_its_own(self, opened: Store) -> None:
        """While threads of the parent's work, whatever they hold at that moment."""
        names = [f"c{n}" for n in range(6)]
        for name in names:
            put(opened, name)
        done = threading.Event()

        def work(name: str) -> None:
            while not done.is_set():
                check(opened, name, 1)

        with ThreadPoolExecutor(2) as pool:
            busy = [pool.submit(work, name) for name in names[:2]]
            try:
                for _ in range(rounds(3)):
                    children = [fork(lambda name=name: check(opened, name, 20)) for name in names[2:]]  # type: ignore[misc]
                    check(opened, names[2], 20)
                    assert [wait(child) for child in children] == [0] * len(children)
            finally:
                done.set()
            for each in busy:
                each.result()

    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_a_lock_that_another_thread_has(self, opened: Store) -> None:
        """A child would wait for it for ever: no thread of its own gives it back."""
        put(opened)
        assert isinstance(opened.repository, RedisRepository)
        lock = opened.repository._pool._lock
        has_it = threading.Event()

        def hold() -> None:
            with lock:
                has_it.set()
                time.sleep(0.2)

        thread = threading.Thread(target=hold)
        thread.start()
        has_it.wait()
        child = fork(lambda: check(opened, "a", 1))
        thread.join()
        assert wait(child) == 0
        check(opened, "a", 1)


def check(store: Store, name: str, times: int) -> None:
    for _ in range(times):
        uow = store.begin()
        assert uow.conversations.get(name).metadata == {"name": name}
        assert [run.input for run in uow.runs.list(name)] == [name]
        assert uow.conversations.count() >= 1


def fork(work: Callable[[], object]) -> int:
    if process := os.fork():
        return process
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def wait(process: int) -> int:
    """Return how a child ended; -9 where it had to be killed."""
    for _ in range(1_000):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, 9)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_no_answer_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    """One that comes when a question is sent and its answer is not read: the next question gets its own."""
    for name in ("a", "b"):
        put(store, name)

    def interrupt(*_: object) -> None:
        raise kind

    uses: tuple[Callable[[UnitOfWork], object], ...] = (
        lambda uow: uow.conversations.get("a"),
        lambda uow: uow.runs.list("a"),
        lambda uow: uow.conversations.find(),
    )
    for use in uses:
        with monkeypatch.context() as patched:
            patched.setattr(Wire, "_answer", interrupt)
            with pytest.raises(kind):
                use(store.begin())
        assert [run.input for run in store.begin().runs.list("b")] == ["b"]
        assert store.begin().conversations.get("b").id == "b"


def test_errors_leave_no_cycles(store: Store, url: str) -> None:
    """What an operation had in its hands goes when its error goes, without the garbage collector."""
    put(store)

    class Held:
        pass

    def fail(use: Use, store: Store) -> "weakref.ref[Held]":
        held = Held()
        try:
            use(store)
        except PersistenceError:
            pass
        else:
            raise AssertionError(use)
        return weakref.ref(held)

    with Proxy(url.partition("?")[0], commits) as proxy:
        cut = memory.connect(f"{proxy.url}?{url.partition('?')[2]}")
        cut.schema_status()
        gc.collect()
        gc.disable()
        proxy.is_commit = lambda _: True
        try:
            with cut:
                for use in (USES["runs"], USES["append"]):
                    proxy.cuts += ["after"] * 20
                    assert fail(use, cut)() is None
                    proxy.cuts.clear()
        finally:
            gc.enable()


class TestOtherPrimaries:
    def test_a_demoted_primary_is_left(self, redis_server: Server, killable_redis: KillableServer, prefix: str) -> None:
        """The next try takes a new connection, which the name leads elsewhere."""
        with (
            redis_py.Redis.from_url(killable_redis.url) as demoted,
            Proxy(killable_redis.url, commits) as proxy,
            memory.connect(f"{proxy.url}?prefix={prefix}") as store,
            memory.connect(f"{redis_server.url}?prefix={prefix}") as primary,
        ):
            for one in (store, primary):
                one.migrate()
                put(one)
            demoted.replicaof("127.0.0.1", free_port())
            try:
                host, _, port = redis_server.url.removeprefix("redis://").partition("/")[0].partition(":")
                proxy._server = (host, int(port))
                with pytest.raises(StoreUnavailableError, match="replica") as caught:
                    append(store)
                assert caught.value.retryable
                append(store, "after")
                assert [run.input for run in primary.begin().runs.list("a")] == ["a", "after"]
            finally:
                demoted.replicaof("NO", "ONE")


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """Something that speaks TLS, with a certificate that nobody knows."""
    context = untrusted_certificate(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    try:
                        context.wrap_socket(client, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_what_waiting_cannot_mend(redis_server: Server, client: Any, prefix: str, tmp_path: Path) -> None:
    """An unknown host, a wrong password, TLS on one side only: nobody is to try again."""
    client.acl_setuser(f"{prefix}-ada", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"])
    place = redis_server.url.removeprefix("redis://")
    try:
        with tls_server(tmp_path) as port:
            for url, said in (
                (f"redis://{prefix}-ada:wr0ng@{place}", "password"),
                (f"redis://nobody:wr0ng@{place}", "password"),
                (f"rediss://localhost:{port}", "certificate"),
                ("redis://no-such-host.invalid", "not known"),
            ):
                with memory.connect(f"{url}?prefix={prefix}&timeout=5") as store:
                    with pytest.raises(ConfigurationError, match=said) as caught:
                        store.schema_status()
                    assert not caught.value.retryable
                    assert "wr0ng" not in repr(caught.value) + repr(store) + repr(caught.value.__cause__)
    finally:
        client.acl_deluser(f"{prefix}-ada")


def test_a_server_without_tls_waits_for_more(redis_server: Server, prefix: str) -> None:
    """To Redis the beginning of TLS is half a command; it looks like a server that is stopped, so the error only says so."""
    url = f"{redis_server.url.replace('redis://', 'rediss://')}?prefix={prefix}&timeout=0.5"
    with memory.connect(url) as store, pytest.raises(StoreUnavailableError, match="redis:// does not"):
        store.schema_status()
