"""Griptape, with what it does to `json` kept to the tests of this folder; and a store of every kind.

Importing griptape changes `json.JSONEncoder.default` for the whole process. It is imported here, put back at once, and
changed again while a test of this folder runs: no other test sees it, and these see what an application of Griptape's sees.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from json import JSONEncoder
from pathlib import Path
from typing import Any

import pytest

from memory import Store
from memory.adapters.cloud import GriptapeCloudRepository
from memory.core.connect import connect
from memory.domain.values import new_id
from tests.servers import postgres
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


@contextmanager
def _new_url(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Give the URL of a new, empty store."""
    match kind:
        case "postgres":
            with postgres.fresh_database(request.getfixturevalue("postgres_server")) as url:
                yield url
        case "redis":
            with fresh_prefix(request.getfixturevalue("redis_server")) as url:
                yield url
        case "dynamodb":
            yield f"dynamodb://bridge-{new_id()}?endpoint={request.getfixturevalue('dynamodb_server').url}"
        case "cloud":
            yield str(request.getfixturevalue("cloud_server").host).replace("http://", "griptape+http://")
        case _:
            yield {"sqlite": f"sqlite:///{folder}/bridge.db", "in memory": "sqlite://", "memory": "memory://"}[kind]


@pytest.fixture
def url_of(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """Gives the URL of a new, empty store of a kind, with its schema."""
    monkeypatch.setenv("GT_CLOUD_API_KEY", "key-of-org-a")
    with ExitStack() as stack:

        def url(kind: str) -> str:
            url = stack.enter_context(_new_url(kind, request, tmp_path))
            if kind != "cloud":
                with connect(url) as store:
                    store.migrate()
            return url

        yield url


def _shared(kind: str) -> Any:
    """Return a fixture: the store of a kind that all tests share, parted by their namespaces."""

    @pytest.fixture(scope="session", name=f"shared_{kind}")
    def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
        with _new_url(kind, request, tmp_path_factory.mktemp("bridges")) as url, connect(url) as store:
            store.migrate()
            yield store

    return shared


LOCAL = ("memory", "sqlite", "in memory")
_memory, _sqlite, _in_memory, _postgres, _redis, _dynamodb = map(_shared, (*LOCAL, *SERVERS))


@pytest.fixture(params=kinds(*LOCAL, *SERVERS, "cloud"))
def store(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> Iterator[Store]:
    """An empty store of every kind."""
    if request.param != "cloud":
        shared: Store = request.getfixturevalue(f"shared_{request.param}")
        yield shared.namespace(new_id())
        return
    with connect(url_of("cloud")) as store:
        assert isinstance(store.repository, GriptapeCloudRepository)
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
