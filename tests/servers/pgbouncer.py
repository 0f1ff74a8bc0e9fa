"""PgBouncer in transaction mode, with four connections to a PostgreSQL server for each database."""

import contextlib
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url

from tests.servers import KillableServer, Server, ServerError, first_that_starts, free_port, given, postgres
from tests.servers.containers import THIS_MACHINE, ContainerServer
from tests.servers.processes import ProcessServer

POOL_SIZE: Final = 4
_PORT: Final = 6432  # in a container

# Whoever connects is logged in to the server as the user of its URL.
_SETTINGS: Final = """[databases]
* = {server}
[pgbouncer]
listen_addr = {listen_addr}
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
"""


def start(server: Server) -> Server:
    """Start a PgBouncer before a PostgreSQL server; one that is given must be before that server, and in transaction mode."""
    return given("MEMORY_TEST_PGBOUNCER_URL", postgres.answers) or start_own(server)


def start_own(server: Server) -> KillableServer:
    """Start a PgBouncer that nobody else uses."""
    return first_that_starts("pgbouncer", docker=lambda: from_docker(server), program=lambda: from_program(server))


def from_docker(server: Server) -> ContainerServer:
    url = make_url(server.url)
    if url.host in ("localhost", "127.0.0.1"):
        url = url.set(host=THIS_MACHINE)
    settings = _settings(url, "0.0.0.0", _PORT)
    return ContainerServer(
        "edoburu/pgbouncer:latest",
        port=_PORT,
        url="postgresql+psycopg://postgres@{host}:{port}/postgres",
        environment={"SETTINGS": settings},
        command=["sh", "-c", 'echo "$SETTINGS" >/tmp/pgbouncer.ini && exec pgbouncer /tmp/pgbouncer.ini'],
        answers=postgres.answers,
    )


def from_program(server: Server) -> ProcessServer:
    """Run the program of the Debian package."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise ServerError("there is no program pgbouncer: apt-get install pgbouncer")
    folder, port = Path(tempfile.mkdtemp(prefix="memory-pgbouncer-")), free_port()
    file = folder / "pgbouncer.ini"
    file.write_text(_settings(make_url(server.url), "127.0.0.1", port))
    return ProcessServer(
        f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
        [program, file],
        folder=folder,
        answers=postgres.answers,
        account=pwd.getpwnam("nobody") if os.geteuid() == 0 else None,  # PgBouncer refuses to run as root
    )


def _settings(server: URL, listen_addr: str, listen_port: int) -> str:
    parts = {"host": server.host, "port": server.port, "user": server.username, "password": server.password}
    quoted = [f"{name}='{value}'" for name, value in parts.items() if value]
    return _SETTINGS.format(
        server=" ".join(quoted), listen_addr=listen_addr, listen_port=listen_port, pool_size=POOL_SIZE
    )


@contextlib.contextmanager
def fresh_database(server: Server, pgbouncer: Server) -> Iterator[tuple[str, str]]:
    """Give two URLs of an empty database that is dropped afterwards: through PgBouncer, and directly."""
    with postgres.fresh_database(server) as direct:
        through = make_url(pgbouncer.url).set(drivername="postgresql+psycopg", database=make_url(direct).database)
        through = through.update_query_dict({"prepare_threshold": "none"})
        yield through.render_as_string(hide_password=False), direct
        end_connections(direct)


def end_connections(direct: str, state: str = "") -> None:
    """End the server's connections to a database, which PgBouncer would keep; only those in a state, if it is given."""
    with postgres.connect(direct) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND %s IN ('', state)",
            [state],
        )
