"""Every store that other processes can open by a URL."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import memory
from memory import Store
from memory.domain.values import new_id
from tests.cloud_server import CloudServer
from tests.servers import Server, postgres
from tests.servers.redis import fresh_prefix

KINDS = (
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.needs("postgres")),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
    pytest.param("dynamodb", marks=pytest.mark.needs("dynamodb")),
    "cloud",
)


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty store of each kind."""
    with ExitStack() as stack:
        match request.param:
            case "sqlite":
                yield f"sqlite:///{tmp_path}/attacked.db"
            case "postgresql":
                server: Server = request.getfixturevalue("postgres_server")
                yield stack.enter_context(postgres.fresh_database(server))
            case "redis":
                yield stack.enter_context(fresh_prefix(request.getfixturevalue("redis_server")))
            case "dynamodb":
                server = request.getfixturevalue("dynamodb_server")
                yield f"dynamodb://attacked-{new_id()}?endpoint={server.url}"
            case _:
                monkeypatch.setenv("GT_CLOUD_API_KEY", "key-of-org-a")
                cloud = CloudServer()
                stack.callback(cloud.stop)
                yield f"griptape+{cloud.host}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with memory.connect(url) as opened:
        opened.migrate()
        yield opened
