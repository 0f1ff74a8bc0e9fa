"""What was written to the primary reaches each replica, whoever dies, is away, or has written there too."""

import gc
import logging
import random
import subprocess
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

import memory
from memory import Conversation, Store, where
from memory.adapters.cloud import GriptapeCloudRepository
from memory.adapters.in_memory import InMemoryRepository
from memory.adapters.sql import SqlRepository
from memory.domain.values import Json, new_id, to_datetime
from memory.errors import ConfigurationError, InvalidValueError, PersistenceError, UnsupportedError
from memory.port.changes import ChangeSet, Receipt
from memory.testing.base import Work, put, read, run
from memory.testing.state_machine import EDITS
from memory.transfer import copy
from memory.transfer.mirroring import MirroredStore, mirror
from memory.transfer.verifying import verify
from tests.cli.conftest import start
from tests.cloud_server import CloudServer
from tests.rounds import rounds
from tests.servers import KillableServer, Server
from tests.servers.redis import fresh_prefix


class Died(BaseException):  # as a process does
    """What stands for the death of the relay's process."""


class Mortal(InMemoryRepository):
    """A replica whose writer dies before, or after, one of its next commits."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: int | None = None
        self.dies_after = False

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        if self.lives is not None:
            self.lives -= 1
        if self.lives == 0 and not self.dies_after:
            raise Died
        receipt = super().commit(namespace, changes)
        if self.lives == 0:
            raise Died
        return receipt


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Store]:
    with memory.connect(f"sqlite:///{tmp_path}/primary.db") as store:
        yield store


@pytest.fixture
def redis_url(redis_server: Server) -> Iterator[str]:
    with fresh_prefix(redis_server) as url:
        yield url


def objects() -> Store:
    return memory.connect("memory://")


def relayed(store: MirroredStore) -> list[tuple[int, int]]:
    """Relay; return how many change sets each replica got, and how many conversations were copied anew."""
    done = store.relay()
    assert [each.failure for each in done] == [None] * len(done)
    return [(each.delivered, each.repaired) for each in done]


def assert_equal(store: MirroredStore, *replicas: Store) -> None:
    assert sum(waiting.change_sets for waiting in store.lag().values()) == 0
    for replica in replicas:
        assert list(verify(store, replica.namespace(store.namespace_name))) == []


def append(name: str, text: str = "in") -> Work:
    return lambda uow: uow.runs.append(name, run(text))


def do(store: Store, *works: Work) -> None:
    for work in works:
        with store.begin() as uow:
            work(uow)


def test_each_replica_gets_every_change_set_once_and_in_order(primary: Store, tmp_path: Path) -> None:
    copies = memory.connect(f"sqlite:///{tmp_path}/copies.db")
    replicas = objects(), copies
    store = mirror(primary, objects=replicas[0], copies=replicas[1])
    told = [0, 0]
    replicas[0].subscribe(lambda _: told.__setitem__(0, told[0] + 1))
    put(store, "a", {"n": 1}, run(1), run(2))
    other = store.namespace("other")
    put(other, "a", {"n": 2})
    do(
        store,
        append("a"),
        lambda uow: uow.conversations.get("a").metadata.update(n=3),
        lambda uow: uow.runs.replace("a", replace(uow.runs.get("a", 1), output="edited")),
        lambda uow: uow.runs.remove("a", 2),
        lambda uow: uow.conversations.add(Conversation("b")),
        lambda uow: uow.conversations.remove("b"),
        lambda uow: uow.runs.clear("a"),
        append("a", "last"),
    )
    assert relayed(other) == [(10, 0), (10, 0)]  # of all namespaces, whoever asks
    assert told == [10, 0]
    assert_equal(store, *replicas)
    assert_equal(other, *replicas)
    assert relayed(store) == [(0, 0), (0, 0)]
    copies.close()


def test_lag_tells_how_many_wait_and_since_when(primary: Store) -> None:
    replica = objects()
    store = mirror(primary, search=replica)
    put(store, "a")
    first = read(store, "a").record
    do(store, append("a"))
    assert first is not None
    assert store.lag() == {"search": (2, first.updated_at)}
    relayed(store)
    assert store.lag()["search"].change_sets == 0


def test_what_the_application_rolls_back_is_not_sent() -> None:
    engine = create_engine("sqlite://")
    joined = Store(SqlRepository(engine))
    joined.migrate()
    replica = objects()
    store = mirror(joined, search=replica)
    for name, commits in (("gone", False), ("kept", True)):
        with engine.connect() as connection:
            with store.begin(connection=connection) as uow:
                uow.conversations.add(Conversation(name))
                uow.runs.append(name, run())
            (connection.commit if commits else connection.rollback)()
    assert relayed(store) == [(1, 0)]
    assert [one.id for one in replica.begin().conversations.find().items] == ["kept"]
    engine.dispose()


def test_a_refused_commit_leaves_no_parcel(primary: Store) -> None:
    store = mirror(primary, search=objects())
    put(store, "a")
    with pytest.raises(PersistenceError):
        put(store, "a")
    assert store.lag()["search"].change_sets == 1


@pytest.mark.parametrize("forgets", [False, True], ids=["soon", "when the tokens are forgotten"])
def test_a_relay_that_died_before_it_could_say_so_delivers_again_to_no_effect(
    primary: Store, *, forgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = objects()
    store = mirror(primary, search=replica)
    put(store, "a", None, run())
    relayed(store)
    put(store, "new", None, run())
    do(store, append("a"), lambda uow: uow.conversations.get("a").metadata.update(n=1), append("a"), append("new"))

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr("memory.adapters.sql.outbox.SqlOutbox.remove", die)
        with pytest.raises(Died):
            store.relay()
    if forgets:
        replica.repository._receipts.clear()  # type: ignore[attr-defined]
    relayed(store)
    assert_equal(store, replica)


@given(st.data())
@settings(max_examples=rounds(60), derandomize=True, suppress_health_check=list(HealthCheck), database=None)
def test_whenever_the_relay_dies_the_replica_ends_equal(data: st.DataObject) -> None:
    mortal = Mortal()
    replica = Store(mortal)
    with memory.connect("sqlite://") as primary:
        store = mirror(primary, search=replica)
        for name in "ab":
            put(store, name, {"n": 1}, run(1), run(2))
        for works in data.draw(st.lists(st.lists(EDITS, min_size=1, max_size=4), min_size=1, max_size=4)):
            for work in works:
                try:
                    do(store, work)
                except PersistenceError:
                    continue
            mortal.lives, mortal.dies_after = data.draw(st.none() | st.integers(1, 6)), data.draw(st.booleans())
            if data.draw(st.booleans()):
                mortal._receipts.clear()
            with suppress(Died):
                store.relay()
            mortal.lives = None
        relayed(store)
        assert_equal(store, replica)


def test_a_replica_that_others_wrote_to_is_repaired_where_it_matters(primary: Store) -> None:
    replica = objects()
    store = mirror(primary, search=replica)
    put(store, "a", {"n": 1}, run(1))
    put(store, "b", {"n": 1}, run(1))
    relayed(store)
    do(replica, append("a", "not of the primary"), lambda uow: uow.conversations.get("b").metadata.update(n=9))
    do(store, append("a"), append("a"), lambda uow: uow.conversations.get("b").metadata.update(n=2))
    assert relayed(store) == [(3, 2)]  # the first append brings all of a, the second finds it there
    assert_equal(store, replica)


def test_a_store_that_has_data_already_is_mirrored_by_one_copy_at_any_moment(primary: Store) -> None:
    for name in "abc":
        put(primary, name, {"n": 1}, run(1))
    replica = objects()
    store = mirror(primary, search=replica)
    do(store, append("a"), lambda uow: uow.conversations.get("b").metadata.update(n=2))
    copy(primary, replica)
    do(store, append("a"), lambda uow: uow.conversations.remove("c"))
    assert relayed(store) == [(4, 1)]  # the first append brings a as it is now; all else is there, or fits
    assert_equal(store, replica)


def test_expired_conversations_expire_everywhere(primary: Store) -> None:
    replica = objects()
    store = mirror(primary, search=replica)
    now = [store.repository.clock()]
    for each in (store, replica):
        each.repository.clock = lambda: now[0]
    put(store, "a", None, run())
    do(
        store,
        lambda uow: setattr(uow.conversations.get("a"), "expires_at", to_datetime(now[0] + 1_000_000)),
        append("a"),
    )
    now[0] += 10_000_000
    assert relayed(store) == [(3, 0)]  # the replica hides it already
    put(store, "a", {"n": "anew"}, run())
    assert relayed(store) == [(1, 0)]
    assert_equal(store, replica)
    assert read(replica, "a").metadata == {"n": "anew"}


def test_one_unit_of_work_feeds_a_store_for_search_and_one_for_sharing(
    primary: Store, redis_url: str, dynamodb_server: Server, cloud_server: CloudServer
) -> None:
    repository = GriptapeCloudRepository(cloud_server.host, "key-of-org-a")
    hashes = memory.connect(redis_url)
    items = memory.connect(f"dynamodb://mirror-{new_id()}?endpoint={dynamodb_server.url}")
    shared = Store(repository)
    store = mirror(primary, search=hashes, archive=items, shared=shared)
    store.migrate()
    put(store, "a", {"customer": "ada"}, *map(run, range(30)))
    do(
        store,
        *[append("a", str(n)) for n in range(10)],
        lambda uow: uow.conversations.get("a").metadata.update(priority=1),
        lambda uow: uow.runs.remove("a", 2, before=2),
        lambda uow: uow.conversations.add(Conversation("b")),
        append("a", "last"),
    )
    assert relayed(store) == [(15, 0)] * 3
    assert_equal(store, hashes, items)
    told = [what.partition(":")[0] for difference in verify(store, shared) for what in difference.what]
    assert told in ([], ["updated_at"])  # after an append the service tells the time
    assert hashes.begin().conversations.count(where("priority") == 1) == 1
    for each in (hashes, items, shared):
        each.close()


def test_a_replica_that_takes_one_conversation_a_commit(primary: Store, cloud_server: CloudServer) -> None:
    with Store(GriptapeCloudRepository(cloud_server.host, "key-of-org-a")) as shared:
        store = mirror(primary, shared=shared)
        with store.begin() as uow:
            for name in "ab":
                uow.conversations.add(Conversation(name, {"n": 1}))
                uow.runs.append(name, run(1))
        with store.begin() as uow:
            for name in "ab":
                uow.conversations.get(name).metadata["n"] = 2
                uow.runs.append(name, run(2))
        assert relayed(store) == [(2, 0)]
        assert list(verify(store, shared)) == []


class Choosy(InMemoryRepository):
    """A store that cannot keep some conversations."""

    def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
        for change in changes.changes:
            if change.create is not None and "large" in change.create.metadata:
                raise InvalidValueError(f"conversation {change.id!r} is too large for this store")
        return super().commit(namespace, changes)


def test_what_a_replica_cannot_keep_waits_and_stands_in_nobody_elses_way(
    primary: Store, caplog: pytest.LogCaptureFixture
) -> None:
    choosy, other = Store(Choosy()), memory.connect("sqlite://")
    store = mirror(primary, choosy=choosy, other=other)
    put(store, "a")
    put(store, "b", {"is": "large"})
    put(store, "c")
    first, second = store.relay()
    assert (first.delivered, str(first.failure)) == (1, "conversation 'b' is too large for this store")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "the delivery to the replica 'choosy' failed, and will be repeated: conversation 'b' is too large for this store"
    ]
    assert (second.delivered, second.failure) == (3, None)
    assert [waiting.change_sets for waiting in store.lag().values()] == [2, 0]
    with store.begin() as uow:
        uow.conversations.remove("b")  # what the primary does not keep is nothing to keep
    assert relayed(store) == [(3, 0), (1, 0)]
    assert_equal(store, choosy, other)
    other.close()


def test_replicas_that_are_away_catch_up(primary: Store, killable_redis: KillableServer) -> None:
    other = objects()
    with memory.connect(f"{killable_redis.url}?prefix={new_id()}") as replica:
        store = mirror(primary, search=replica, other=other)
        store.migrate()
        put(store, "a")
        killable_redis.kill()
        for n in range(20):
            do(store, append("a", str(n)))  # it is in nobody's way
        away, here = store.relay()
        assert (away.delivered, type(away.failure), here.delivered) == (0, memory.StoreUnavailableError, 21)
        assert [waiting.change_sets for waiting in store.lag().values()] == [21, 0]
        killable_redis.restart()
        assert relayed(store) == [(21, 0), (0, 0)]
        assert_equal(store, replica, other)
        assert replica.begin().conversations.count(where.run_count == 20) == 1


def test_killed_at_any_instant_a_relay_leaves_nothing_that_the_next_does_not_mend(
    primary: Store, tmp_path: Path, killable_redis: KillableServer
) -> None:
    urls = {"copies": f"sqlite:///{tmp_path}/copies.db", "search": f"{killable_redis.url}?prefix={new_id()}"}
    store = mirror(primary, **urls)
    store.migrate()
    random_ = random.Random(1)
    for n in range(60):
        put(store, f"c{n}", {"n": n}, *(run(f"{n}.{m}") for m in range(n % 7)))
    for n in range(200):
        name = f"c{random_.randrange(60)}"
        works: list[Work] = [
            append(name),
            lambda uow, name=name, n=n: uow.conversations.get(name).metadata.update(n=n),  # type: ignore[misc]
            lambda uow, name=name: uow.runs.clear(name),  # type: ignore[misc]
        ]
        do(store, *random_.sample(works, 2))
    copies = store.replicas["copies"].repository
    assert isinstance(copies, SqlRepository)
    client = redis.Redis.from_url(killable_redis.url)

    def written() -> int:
        with copies.engine.connect() as connection:
            return (
                cast(int, connection.exec_driver_sql("SELECT count(*) FROM memory_commits").scalar()) + client.dbsize()
            )

    kills = 0
    while sum(each.change_sets for each in store.lag().values()):
        replicas = [f"{name}={url}" for name, url in urls.items()]
        relay = start("relay", *replicas, "--store", f"sqlite:///{tmp_path}/primary.db", stdin=subprocess.DEVNULL)
        enough = written() + random_.randrange(300)
        while written() < enough and relay.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                relay.wait(0.005)  # leaves the processor to the relay
        relay.kill()
        relay.communicate()
        kills += 1
    assert kills > 3
    assert_equal(store, *store.replicas.values())
    client.close()
    store.close()


def test_one_relay_at_a_time_delivers_to_a_replica(primary: Store) -> None:
    replica = objects()
    store, second = mirror(primary, search=replica), mirror(primary, search=replica)
    put(store, "a")
    seen: list[bool] = []
    replica.subscribe(lambda _: seen.extend(done.busy for done in second.relay()))
    assert relayed(store) == [(1, 0)]
    assert seen == [True]
    put(store, "b")
    assert relayed(second) == [(1, 0)]  # the other one has let go


def test_what_cannot_be_mirrored_is_refused(primary: Store) -> None:
    with pytest.raises(UnsupportedError, match="only a SQL store can be mirrored"):
        mirror("memory://", search=primary)
    with pytest.raises(ConfigurationError, match="no store has the scheme of this URL"):
        mirror(primary, search="memory://", other="nonsense://")
    with pytest.raises(InvalidValueError, match="the replica's name must not contain control characters"):
        mirror(primary, **{"a\nb": objects()})


def test_one_store_under_two_names_is_refused(primary: Store) -> None:
    replica, file = objects(), "sqlite:///a%20b/copies.db"
    for same in (
        {"one": replica, "other": Store(replica.repository, "b")},
        {"one": file, "other": "sqlite:///./a b/copies.db"},
    ):
        with pytest.raises(ConfigurationError, match="the replica 'one' and the replica 'other' are the same store"):
            mirror(primary, **same)
    with pytest.raises(ConfigurationError, match="the primary and the replica 'one' are the same store"):
        mirror(primary, one=Store(primary.repository))
    with mirror(primary, one="memory://", other="memory://"):  # each is a new one
        pass


def test_a_replica_is_the_same_under_another_address(primary: Store, tmp_path: Path) -> None:
    """What waits belongs to the name: not to a class, a host, a user, or the way a path is written."""
    with mirror(primary, search=f"sqlite:///{tmp_path}/before.db") as store:
        put(store, "a")

    class Renamed(InMemoryRepository):
        pass

    replica = Store(Renamed())
    store = mirror(primary, search=replica)
    assert relayed(store) == [(1, 0)]
    assert_equal(store, replica)


def test_two_replicas_that_look_alike_are_two(primary: Store) -> None:
    one, other = objects(), objects()
    store = mirror(primary, one=one, other=other)
    put(store, "a")
    assert relayed(store) == [(1, 0), (1, 0)]
    assert_equal(store, one, other)


def test_what_waits_under_a_former_name_is_delivered_by_a_mirror_of_that_name(primary: Store) -> None:
    former = "InMemoryRepository()"  # as replicas were named before they had names
    replica = objects()
    store = mirror(primary, **{former: replica})
    put(store, "a", None, run())
    put(store.namespace("b"), "a")
    renamed = mirror(primary, search=replica)
    do(renamed, append("a"))
    assert renamed.lag()[former].change_sets == 2
    with renamed.repository.relaying(former), pytest.raises(ConfigurationError, match="a relay is at work on"):
        renamed.forget(former)
    assert relayed(store) == [(2, 0)]
    assert former not in renamed.lag()
    assert relayed(renamed) == [(1, 0)]
    assert_equal(renamed, replica)
    assert_equal(renamed.namespace("b"), replica)


def test_a_mirror_takes_as_much_metadata_as_its_primary(tmp_path: Path) -> None:
    large: dict[str, Json] = {"values": list(range(10_001))}
    with memory.connect(f"sqlite:///{tmp_path}/primary.db", max_metadata_values=20_000) as primary:
        store = mirror(primary, search="memory://")
        put(store, "a", large)
        assert relayed(store) == [(1, 0)]


def test_a_database_of_an_older_schema_is_migrated_in_place(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/older.db"
    with memory.connect(url) as store:
        put(store, "a", None, run())
        repository = store.repository
        assert isinstance(repository, SqlRepository)
        repository.migrate(revision="0001")
    with mirror(url, search=objects()) as mirrored:
        with pytest.raises(memory.SchemaError, match="memory migrate"):
            mirrored.begin()
        mirrored.migrate()
        do(mirrored, append("a"))
        assert relayed(mirrored) == [(1, 1)]


def test_a_failure_that_is_kept_keeps_nothing_else_alive(primary: Store) -> None:
    class Cursor:
        """What a driver holds while it fails."""

    cursors: list[weakref.ref[Cursor]] = []

    class Failing(InMemoryRepository):
        def commit(self, namespace: str, changes: ChangeSet) -> Receipt:
            cursor = Cursor()
            cursors.append(weakref.ref(cursor))
            try:
                Path(f"/missing/{namespace}/{changes.token}").stat()
            except OSError as error:
                raise memory.StoreUnavailableError("it is away") from error
            return Receipt(changes.token, {})

    store = mirror(primary, failing=Store(Failing()))
    put(store, "a")
    gc.disable()
    try:
        (done,) = store.relay()
        assert isinstance(done.failure, memory.StoreUnavailableError)
        assert isinstance(done.failure.__cause__, OSError)
        assert [cursor() for cursor in cursors] == [None]
    finally:
        gc.enable()
