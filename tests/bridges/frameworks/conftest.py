"""The stores of the folder above for asynchronous frameworks, and `json` as it is in an application without Griptape."""

from json import JSONEncoder

import pytest

from memory import Store, aio
from memory.domain.values import new_id
from tests.bridges.conftest import LOCAL, SERVERS, kinds

_default = JSONEncoder.default


@pytest.fixture(autouse=True)
def json_as_griptape_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JSONEncoder, "default", _default)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # which these frameworks use


@pytest.fixture
def aio_store(store: Store) -> aio.Store:
    """An empty store of every kind, as `store` is."""
    return aio.Store(store.repository, store.namespace_name)


@pytest.fixture(params=kinds(*LOCAL, *SERVERS))
def atomic_store(request: pytest.FixtureRequest) -> aio.Store:
    """An empty store of every kind that checks and writes in one step. Griptape Cloud checks just before it writes."""
    shared: Store = request.getfixturevalue(f"shared_{request.param}")
    return aio.Store(shared.repository, new_id())
