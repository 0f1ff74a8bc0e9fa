"""Griptape, with what it does to `json` kept to the tests of this folder; and a store of every kind.

Importing griptape changes `json.JSONEncoder.default` for the whole process. It is imported here, put back at once, and
changed again while a test of this folder runs: no other test sees it, and these see what an application of Griptape's sees.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from json import JSONEncoder
from pathlib import Path

import pytest

from memory import Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.core.connect import connect
from memory.domain.values import new_id
from tests.servers import Server, postgres
from tests.servers.redis import fresh_prefix

_default = JSONEncoder.default
import griptape.structures  # noqa: E402, F401

_changed, JSONEncoder.default = JSONEncoder.default, _default  # type: ignore[method-assign]

SERVERS = ("postgres", "redis", "dynamodb")
SHARED = ("sqlite", *SERVERS, "cloud")  # several processes can use them at once


@pytest.fixture(autouse=True)
def json_as_griptape_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JSONEncoder, "default", _changed)


def kinds(*names: str) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.needs(name) if name in SERVERS else ()) for name in names]


@pytest.fixture
def url_of(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """Gives the URL of a new, empty store of a kind, with its schema."""
    with ExitStack() as stack:

        def url(kind: str) -> str:
            if kind == "postgres":
                server: Server = request.getfixturevalue("postgres_server")
                url = stack.enter_context(postgres.fresh_database(server))
            elif kind == "redis":
                url = stack.enter_context(fresh_prefix(request.getfixturevalue("redis_server")))
            elif kind == "dynamodb":
                url = f"dynamodb://bridge-{new_id()}?endpoint={request.getfixturevalue('dynamodb_server').url}"
            elif kind == "cloud":
                monkeypatch.setenv("GT_CLOUD_API_KEY", "key-of-org-a")
                return str(request.getfixturevalue("cloud_server").host).replace("http://", "griptape+http://")
            else:
                return {"sqlite": f"sqlite:///{tmp_path}/bridge.db", "in memory": "sqlite://", "memory": "memory://"}[
                    kind
                ]
            with connect(url) as store:
                store.migrate()
            return url

        yield url


@pytest.fixture(params=kinds("memory", "sqlite", "in memory", *SERVERS, "cloud"))
def store(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> Iterator[Store]:
    """An empty store of every kind."""
    with connect(url_of(request.param)) as store:
        if isinstance(store.repository, GriptapeCloudRepository):
            store.repository._http.sleep = lambda _: None
        yield store


@pytest.fixture(params=kinds(*SHARED))
def shared_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    """The URL of an empty store of every kind that several processes can use."""
    return url_of(request.param)


@pytest.fixture
def local_store() -> Iterator[Store]:
    """A quick one, for what is the same on all."""
    with connect("sqlite://") as store:
        yield store
