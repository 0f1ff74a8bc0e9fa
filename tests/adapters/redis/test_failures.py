"""Connections cut, servers killed, full or locked: what was acknowledged is there, once, and the rest is an error of ours."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import (
    CommitInDoubtError,
    ConfigurationError,
    Conversation,
    PersistenceError,
    Run,
    Store,
    StoreUnavailableError,
    UnitOfWork,
    UnsupportedError,
)
from memory.adapters.redis import RedisRepository
from memory.domain.records import RunRecord
from memory.domain.values import new_id
from memory.port.changes import Change, ChangeSet
from tests.servers import KillableServer, Server, free_port
from tests.servers.proxy import Cut, Proxy
from tests.servers.redis import commits

Work = Callable[[UnitOfWork], object]


def add(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("b", {"n": 1}))
    uow.runs.append("b", Run(1, 1), Run(2, 2))


WORK: dict[str, Work] = {
    "append": lambda uow: uow.runs.append("a", Run("new", "new")),
    "append two": lambda uow: uow.runs.append("a", Run("new", "new"), Run("new", "new")),
    "edit": lambda uow: uow.conversations.get("a").metadata.update(n=2),
    "add": add,
    "remove": lambda uow: uow.conversations.remove("a"),
}


def put(store: Store, name: str = "a", runs: int = 1) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(name, {"n": 1}))
        uow.runs.append(name, *[Run(n, n) for n in range(runs)])


def state(store: Store) -> list[tuple[str, object, int, list[object]]]:
    uow = store.begin()
    return [
        (one.id, one.metadata, one.version, [run.input for run in uow.runs.list(one.id)])
        for one in uow.conversations.find(order="id")
    ]


@pytest.fixture
def proxied(redis_server: Server, prefix: str) -> Iterator[tuple[Store, Proxy]]:
    with Proxy(redis_server.url, commits) as proxy, memory.connect(f"{proxy.url}?prefix={prefix}&timeout=1") as store:
        store.migrate()
        yield store, proxy


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("cut", ["before", "after", "never answers"])
def test_a_lost_answer_is_found_out(proxied: tuple[Store, Proxy], name: str, cut: Cut) -> None:
    """The store asks again with the same token: what was to be written is written once."""
    store, proxy = proxied
    expected = []
    for cuts in ([], [cut], [cut, cut]):
        one = store.namespace(f"{cuts}")
        put(one)
        uow = one.begin()
        WORK[name](uow)
        proxy.cuts += cuts
        uow.commit()
        assert proxy.cuts == []
        expected.append(state(one))
    assert expected[1:] == [expected[0]] * 2


def test_a_lost_answer_is_in_doubt_until_asked_again(proxied: tuple[Store, Proxy]) -> None:
    store, proxy = proxied
    put(store)
    cuts: tuple[tuple[Cut, bool], ...] = (("before", False), ("after", True))
    for cut, written in cuts:
        changes = ChangeSet.of([Change("a", append=(RunRecord(0, "id", '"x"', '"x"', "{}", 1),))], at=1)
        before = len(state(store)[0][3])
        proxy.cuts.append(cut)
        with pytest.raises(CommitInDoubtError) as caught:
            store.repository.commit("default", changes)
        assert isinstance(caught.value.__cause__, redis_py.exceptions.ConnectionError)
        assert len(state(store)[0][3]) - before == written
        receipt = store.repository.commit("default", changes)
        assert receipt == store.repository.commit("default", changes)
        assert len(state(store)[0][3]) - before == 1


def test_a_server_that_does_not_answer_is_asked_once(redis_server: Server, prefix: str) -> None:
    """A commit is not sent again by the driver; both kinds of calls end about when the time is up."""
    with Proxy(redis_server.url, commits) as proxy, memory.connect(f"{proxy.url}?prefix={prefix}&timeout=0.2") as store:
        store.migrate()
        put(store)
        proxy.cuts += ["never answers"]
        changes = ChangeSet.of([Change("a", append=(RunRecord(0, "id", '"x"', '"x"', "{}", 1),))], at=1)
        began, before = time.monotonic(), proxy.round_trips
        with pytest.raises(CommitInDoubtError):
            store.repository.commit("default", changes)
        assert proxy.round_trips - before == 1
        assert time.monotonic() - began < 5
        assert len(state(store)[0][3]) == 2


def test_nobody_listens(prefix: str) -> None:
    began = time.monotonic()
    with memory.connect(f"redis://127.0.0.1:{free_port()}?prefix={prefix}") as store:
        with pytest.raises(StoreUnavailableError, match=prefix):
            store.migrate()
        with pytest.raises(StoreUnavailableError, match="nothing was written"):
            store.repository.commit("default", ChangeSet.of([Change("a", remove=True)], at=1))
    assert time.monotonic() - began < 2


def test_somebody_listens_and_says_nothing(prefix: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}?prefix={prefix}&timeout=0.2"
        with memory.connect(url) as store, pytest.raises(StoreUnavailableError):
            store.schema_status()


def test_one_that_comes_and_goes_is_never_corrupt(store: Store) -> None:
    """Whether a key is there, and what is in it, is read at one moment."""

    def come_and_go(_: int) -> None:
        for _ in range(300):
            put(store)
            with store.begin() as uow:
                uow.conversations.remove("a")

    def look(_: int) -> None:
        for _ in range(1_000):
            uow = store.begin()
            assert "a" not in uow.conversations or len(uow.runs.last("a", 5)) <= 1
            assert len(uow.conversations.find()) <= 1

    with ThreadPoolExecutor(4) as pool:
        looking = [pool.submit(look, n) for n in range(3)]
        come_and_go(0)
        for each in looking:
            each.result()


def test_scripts_flushed_between_two_commits(store: Store, client: Any) -> None:
    put(store)
    reads: tuple[Work, ...] = (lambda uow: uow.runs.list("b", after=1), lambda uow: uow.runs.last("b", 1))
    for work in (*WORK.values(), *reads):
        client.script_flush()
        with store.begin() as uow:
            work(uow)
    assert [one[0] for one in state(store)] == ["b"]


def test_more_than_a_server_takes_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.adapters.redis.committing._MOST_ARGUMENTS", 30)
    put(store)
    before = state(store)
    with pytest.raises(UnsupportedError, match="several parts"), store.begin() as uow:
        uow.runs.append("a", *[Run(n, n) for n in range(20)])
    assert state(store) == before


def test_a_large_commit(store: Store) -> None:
    """Far beyond Lua's stack, in every list there is."""
    put(store, runs=10_000)
    with store.begin() as uow:
        uow.runs.remove("a", *range(1, 9_001))
        uow.runs.append("a", *[Run(n, n) for n in range(9_000)])
    assert len(store.begin().runs.list("a")) == 10_000
    with store.begin() as uow:
        uow.runs.remove("a", before=19_000)
    assert [run.position for run in store.begin().runs.list("a")] == [19_000]
    with store.begin() as uow:
        uow.conversations.remove("a")
    assert state(store) == []


class TestKilled:
    @pytest.fixture
    def own(self, killable_redis: KillableServer, prefix: str) -> Iterator[Store]:
        with memory.connect(f"{killable_redis.url}?prefix={prefix}&timeout=5") as store:
            store.migrate()
            yield store

    def test_all_that_was_acknowledged_is_there(self, own: Store, killable_redis: KillableServer) -> None:
        """Writers go on while the server is killed and comes back: each run acknowledged is there once, in order."""
        threads, rounds, begun = 3, 60, Event()
        for n in range(threads):
            put(own, f"c{n}", 0)

        def append(n: int, number: int) -> bool:
            if number == rounds // 4:
                begun.set()
            try:
                own.run(lambda uow: uow.runs.append(f"c{n}", Run(number, n)), retries=1_000)
            except CommitInDoubtError:
                return False
            return True

        def write(n: int) -> list[int]:
            return [number for number in range(rounds) if append(n, number)]

        def kill_and_restart() -> None:
            begun.wait()
            killable_redis.kill()
            killable_redis.restart()

        killer = Thread(target=kill_and_restart)
        with ThreadPoolExecutor(threads) as pool:
            killer.start()
            acknowledged = list(pool.map(write, range(threads)))
        killer.join()
        for n in range(threads):
            runs = own.begin().runs.list(f"c{n}")
            kept = [run.input for run in runs]
            assert sorted(set(kept)) == sorted(kept), "a run is there twice"
            assert set(acknowledged[n]) <= set(kept)
            assert [run.position for run in runs] == list(range(1, len(runs) + 1))
            assert own.begin().conversations.get(f"c{n}").run_count == len(runs)

    def test_a_restarted_server_has_index_and_conversations(self, own: Store, killable_redis: KillableServer) -> None:
        put(own, runs=3)
        before = state(own)
        killable_redis.kill()
        with pytest.raises(StoreUnavailableError):
            state(own)
        killable_redis.restart()
        assert own.schema_status().is_current
        assert state(own) == before
        with own.begin() as uow:
            uow.runs.append("a", Run("after", "after"))
        assert state(own)[0][3] == [0, 1, 2, "after"]

    def test_a_full_server(self, own: Store, killable_redis: KillableServer) -> None:
        """What does not fit is refused before anything of it is written."""
        put(own)
        before = state(own)
        with redis_py.Redis.from_url(killable_redis.url) as client:
            client.config_set("maxmemory", 1)
            try:
                for work in (WORK["append"], WORK["edit"], WORK["add"]):
                    uow = own.begin()
                    work(uow)
                    uow.runs.append("a", Run("more", "more"))
                    with pytest.raises(StoreUnavailableError, match="maxmemory"):
                        uow.commit()
                assert state(own) == before
            finally:
                client.config_set("maxmemory", 0)

    def test_a_replica(self, own: Store, killable_redis: KillableServer) -> None:
        put(own)
        with redis_py.Redis.from_url(killable_redis.url) as client:
            client.replicaof("127.0.0.1", free_port())
            try:
                with pytest.raises(StoreUnavailableError), own.begin() as uow:
                    WORK["append"](uow)
            finally:
                client.replicaof("NO", "ONE")
        assert len(state(own)[0][3]) == 1

    def test_users_and_passwords(self, own: Store, killable_redis: KillableServer, prefix: str) -> None:
        put(own)
        host = killable_redis.url.removeprefix("redis://").removesuffix("/0")
        name = f"ada-{new_id()}"
        with redis_py.Redis.from_url(killable_redis.url) as client:
            client.acl_setuser(name, enabled=True, passwords=["+se/cret"], keys=[f"{prefix}:*"], categories=["+@all"])
            least = ["+@read", "+@write", "+@scripting", "+@transaction", "+@connection"]
            allowed = "info command ft.info ft.aggregate ft.create ft._list ft.aliasupdate ft.dropindex"
            client.acl_setuser(
                "least",
                enabled=True,
                passwords=["+pw"],
                keys=[f"{prefix}-least:*"],
                categories=least,
                commands=[f"+{name}" for name in allowed.split()],
            )
            client.acl_setuser(
                "reader", enabled=True, passwords=["+pw"], keys=["~*"], categories=["+@read", "+@connection"]
            )
        with memory.connect(f"redis://{name}:se%2Fcret@{host}?prefix={prefix}") as store:
            assert [one[0] for one in state(store)] == ["a"]
            assert "cret" not in repr(store)
        with memory.connect(f"redis://least:pw@{host}?prefix={prefix}-least") as store:
            store.migrate()
            for work in WORK.values():
                with store.begin() as uow:
                    uow.conversations.add(Conversation("a", {"n": 1}, datetime(2200, 1, 1, tzinfo=UTC)))
                    uow.runs.append("a", Run(1, 1))
                with store.begin() as uow:
                    work(uow)
                with store.begin() as uow:
                    for conversation in uow.conversations.find():
                        uow.conversations.remove(conversation)
            assert store.purge_expired() == 0
            assert isinstance(store.repository, RedisRepository)
            assert any("may not read" in one for one in store.repository.warnings())
        for wrong in (f"redis://{name}:wrong@{host}", f"redis://reader:pw@{host}"):
            with memory.connect(f"{wrong}?prefix={prefix}") as store:
                with pytest.raises(ConfigurationError) as caught, store.begin() as uow:
                    WORK["append"](uow)
                assert "wrong" not in str(caught.value)


def test_only_errors_of_ours_leave(proxied: tuple[Store, Proxy]) -> None:
    store, proxy = proxied
    put(store)
    proxy.__exit__()
    uow = store.begin()
    uses: tuple[Callable[[], object], ...] = (
        lambda: uow.conversations.get("a"),
        uow.conversations.find,
        uow.conversations.count,
        lambda: uow.runs.last("a", 1),
        lambda: uow.runs.list("a", after=1),
        store.purge_expired,
        store.schema_status,
        store.migrate,
    )
    for use in uses:
        with pytest.raises(PersistenceError):
            use()
