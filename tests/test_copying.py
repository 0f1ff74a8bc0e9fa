from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

import memory
from memory import Conversation, Run, Store, gathering
from memory.adapters.cloud import GriptapeCloudRepository
from memory.comparing import verify
from memory.copying import copy
from memory.repository import Repository
from memory.testing.base import run, snapshot
from memory.testing.strategies import ODD_NUMBERS, ODD_STRINGS
from memory.values import Json, new_id
from tests.cloud_server import CloudServer
from tests.servers import Server, postgres
from tests.servers.redis import drop_indexes

KINDS = ("memory", "sqlite", "postgresql", "redis", "dynamodb", "cloud")


@pytest.fixture(scope="module")
def repositories(
    postgres_server: Server, redis_server: Server, dynamodb_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Repository]]:
    """A repository of each kind; tests are parted by their namespaces."""
    import redis

    name, cloud = f"copying-{new_id()}", CloudServer()
    with (
        postgres.fresh_database(postgres_server) as postgres_url,
        memory.connect("memory://") as objects,
        memory.connect(f"sqlite:///{tmp_path_factory.mktemp('copying')}/file.db") as file,
        memory.connect(postgres_url) as database,
        memory.connect(f"{redis_server.url}?prefix={name}") as hashes,
        memory.connect(f"dynamodb://{name}?endpoint={dynamodb_server.url}") as items,
        closing(GriptapeCloudRepository(cloud.host, "key-of-org-a")) as threads,
    ):
        stores = [*[store.repository for store in (objects, file, database, hashes, items)], threads]
        for repository in stores:
            repository.migrate()
        yield dict(zip(KINDS, stores, strict=True))
    with redis.Redis.from_url(redis_server.url) as client:
        drop_indexes(client, name)
    cloud.stop()


@pytest.fixture
def store_of(repositories: dict[str, Repository]) -> Callable[[str], Store]:
    """Make a store of a kind, in a new namespace."""
    return lambda kind: Store(repositories[kind], new_id())


def objects() -> Store:
    return memory.connect("memory://")


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit takes few runs, so that a conversation of some is a long one."""
    monkeypatch.setattr(gathering, "MOST_RUNS", 10)


def fill(store: Store) -> None:
    """Put in all that stores could keep otherwise."""
    ids = ("B", "a", "Z", "\u00e9", "\uffff", "\U0001f600", "a b", "10", "9", "x" * 255, "a/b:c", "'; drop", "*")
    soon = datetime.now(UTC) + timedelta(days=400, microseconds=1)
    values: list[Json] = [*ODD_NUMBERS, None, True, [], {}, [1, 1.0, True]]
    with store.begin() as uow:
        for number, conversation_id in enumerate(ids):
            text, value = ODD_STRINGS[number], values[number]
            uow.conversations.add(Conversation(conversation_id, metadata={"value": value, text: [text, {"é": value}]}))
            uow.runs.append(conversation_id, Run(text, value, {"value": value}), Run([value], {text: text}, id="same"))
        uow.conversations.add(Conversation("odd"))
        uow.runs.append("odd", *[Run(value, text) for value, text in zip(values, ODD_STRINGS, strict=False)])
        uow.conversations.add(Conversation("expires", expires_at=soon))
        uow.conversations.add(Conversation("empty"))
        uow.conversations.add(Conversation("cleared"))
        uow.conversations.add(Conversation("gaps"))
        uow.conversations.add(Conversation("long", {"n": 1}))
        uow.conversations.add(Conversation("long without its last"))
        for conversation_id in ("cleared", "gaps", "long", "long without its last"):
            uow.runs.append(conversation_id, *[run(n) for n in range(35)])
    with store.begin() as uow:
        uow.runs.clear("cleared")
        uow.runs.remove("gaps", 1, 4, 5, 35)
        uow.runs.remove("long without its last", 34, 35)
        uow.conversations.get("gaps").metadata["n"] = 1.0
        uow.runs.append("odd", Run("later", None))


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize(("here", "there"), list(product(KINDS, KINDS)))
def test_every_store_is_copied_to_every_store(here: str, there: str, store_of: Callable[[str], Store]) -> None:
    origin, source, target = objects(), store_of(here), store_of(there)
    fill(origin)
    for one, other in ((origin, source), (source, target)):
        totals = copy(one, other)
        assert (totals.conversations, totals.equal, totals.kept, totals.failed) == (20, 0, 0, 0)
        assert list(verify(one, other)) == []
        assert snapshot(other) == snapshot(origin)
        again = copy(one, other)
        assert (again.conversations, again.runs, again.equal) == (0, 0, 20)
