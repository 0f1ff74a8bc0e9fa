"""The servers as fixtures, each started when the first test asks for it, and the option that leaves some out."""

import functools
import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import pytest
from botocore.loaders import create_loader
from hypothesis import HealthCheck, settings

from memory.transfer import batching
from tests.cloud_server import CloudServer
from tests.rounds import rounds
from tests.servers import KillableServer, Server, dynamodb, pgbouncer, postgres, redis

_START: dict[str, Callable[[], Server]] = {"postgres": postgres.start, "redis": redis.start, "dynamodb": dynamodb.start}
_SERVERS = (*_START, "pgbouncer")
_LEFT_OUT = pytest.StashKey[int]()

S = TypeVar("S", bound=Server)

# A busy machine is no failure: how long an example takes is not asserted.
settings.register_profile("suite", deadline=None, max_examples=rounds(40), suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without",
        action="append",
        default=[],
        choices=_SERVERS,
        metavar="NAME",
        help=f"leave out the tests that need this server ({', '.join(_SERVERS)}); may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*servers): servers that a test asks for only while it runs, so that --without knows of them"
    )
    # A test run that is told to end takes its servers with it, as upon Ctrl-C. That too is set: a shell lets what it runs in the
    # background ignore it, and so would the processes that tests start and interrupt.
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """With ``-n auto``, start three workers for two cores: a worker often waits, for a server or for a deadline."""
    cores = yield
    return cores + cores // 2


def pytest_sessionstart(session: pytest.Session) -> None:
    """With several workers, start the servers here, once: the workers inherit an environment that names them.

    Not Redis: it starts at once, and tests set and read what is the whole server's.
    """
    config = session.config
    if not config.getoption("numprocesses", None):
        return
    for name in sorted({"postgres", "dynamodb"} - set(config.getoption("without"))):
        if not os.environ.get(variable := f"MEMORY_TEST_{name.upper()}_URL"):
            server = _START[name]()
            config.add_cleanup(server.stop)
            os.environ[variable] = server.url


def _needed(item: pytest.Item) -> set[str]:
    fixtures: list[str] = getattr(item, "fixturenames", [])
    by_fixture = {name for name in _SERVERS if {f"{name}_server", f"killable_{name}"} & set(fixtures)}
    return by_fixture.union(*(marker.args for marker in item.iter_markers("needs")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if _needed(item).intersection(config.getoption("without"))]
    config.stash[_LEFT_OUT] = len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish() -> None:
    """Keep what stays until the end out of the garbage collector's rounds: each would visit a third of a million objects."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if names := config.getoption("without"):
        count = config.stash.get(_LEFT_OUT, 0)
        terminalreporter.write_line(f"LEFT OUT by --without: {', '.join(names)} ({count} tests)", yellow=True)


def _running(request: pytest.FixtureRequest, name: str, start: Callable[[], S]) -> Iterator[S]:
    if name in request.config.getoption("without"):
        pytest.fail(f"a test left out by --without {name} asks for it all the same: mark it with needs({name!r})")
    server = start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from _running(request, "postgres", postgres.start)


@pytest.fixture
def postgres_url(postgres_server: Server) -> Iterator[str]:
    """The SQLAlchemy URL of a database of the test's own; a connection that the test leaves open is an error."""
    with postgres.fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def pgbouncer_server(request: pytest.FixtureRequest, postgres_server: Server) -> Iterator[Server]:
    """A PgBouncer in transaction mode before the server that the tests share."""
    yield from _running(request, "pgbouncer", lambda: pgbouncer.start(postgres_server))


@pytest.fixture
def pgbouncer_url(postgres_server: Server, pgbouncer_server: Server) -> Iterator[str]:
    """The URL of such a database through PgBouncer."""
    with pgbouncer.fresh_database(postgres_server, pgbouncer_server) as (url, _):
        yield url


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that keeps nothing on disk; search works in its database 0 only, so tests part by key prefix."""
    yield from _running(request, "redis", redis.start)


@pytest.fixture(scope="session")
def dynamodb_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An endpoint, with credentials in the environment unless there are some; tests part by table name."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, os.environ.get(name, "test"))
        environment.setenv("AWS_DEFAULT_REGION", os.environ.get("AWS_DEFAULT_REGION", "eu-central-1"))
        # A boto3 Session parses botocore's model of DynamoDB, which takes longer than most tests that open a store.
        environment.setattr("botocore.session.create_loader", functools.cache(create_loader))
        yield from _running(request, "dynamodb", dynamodb.start)


@pytest.fixture(scope="module")
def killable_postgres(request: pytest.FixtureRequest) -> Iterator[KillableServer]:
    """A server for the tests of one file, which restart it when they have killed it."""
    yield from _running(request, "postgres", postgres.start_own)


@pytest.fixture(scope="module")
def killable_redis(request: pytest.FixtureRequest) -> Iterator[KillableServer]:
    """The same of a Redis that syncs each write to disk before it answers."""
    yield from _running(request, "redis", redis.start_own)


@pytest.fixture
def cloud_server() -> Iterator[CloudServer]:
    """A server of the Griptape Cloud contract, empty, at a port of its own."""
    server = CloudServer()
    yield server
    server.stop()


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit takes few runs, so that a conversation of some is a long one."""
    monkeypatch.setattr(batching, "MOST_RUNS", 10)
