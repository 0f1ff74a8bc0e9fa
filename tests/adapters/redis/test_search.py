"""Searches at the server's limits, and of many: complete, or an error; never a part."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha1
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import Conversation, SchemaError, Store, StoreUnavailableError, where
from memory.adapters.redis import RedisRepository, searching
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.schema import HEAD
from memory.adapters.redis.searching import Index
from memory.adapters.redis.wire import Script
from memory.domain.criteria import Criterion
from memory.domain.records import ConversationRecord, encode_metadata
from memory.domain.values import Json, new_id, to_datetime
from memory.port.changes import Change, ChangeSet
from memory.port.deadlines import within
from memory.testing.base import walk
from tests.adapters.redis.conftest import executed
from tests.servers import KillableServer, Server


def fill(store: Store, ids: list[str], *, step: int = 1, metadata: dict[str, Json] | None = None) -> None:
    """Make conversations whose times rise by a step (0: all at once)."""
    text = encode_metadata(metadata or {})
    for begin in range(0, len(ids), 5_000):
        records = (
            ConversationRecord(name, text, 1, "", 0, 0, step * n, step * n, None)
            for n, name in enumerate(ids[begin : begin + 5_000], begin)
        )
        store.commit(ChangeSet.of([Change(record.id, create=record) for record in records], 0))


def batched(names: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(names)
    while batch := list(islice(left, size)):
        yield batch


def found(store: Store, criterion: Criterion | None = None, order: str = "id") -> list[str]:
    return [one.id for one in store.begin().conversations.iterate(criterion, order=order)]


@pytest.fixture(scope="module")
def many(killable_redis: KillableServer) -> Iterator[tuple[Store, list[str]]]:
    """A store of 12,000 in a server of its own, which is configured to its detriment."""
    with memory.connect(f"{killable_redis.url}?prefix=many-{new_id()}&timeout=30") as store:
        store.migrate()
        ids = [f"conversation-{n:05}" for n in range(12_000)]
        fill(store, ids, metadata={"tier": "gold"})
        yield store, ids


class TestLimits:
    @pytest.fixture
    def configured(self, killable_redis: KillableServer) -> Iterator[Any]:
        with redis_py.Redis.from_url(killable_redis.url) as client:
            names = ("MAXSEARCHRESULTS", "MAXAGGREGATERESULTS", "TIMEOUT", "ON_TIMEOUT")
            before = {name: client.execute_command("FT.CONFIG", "GET", name) for name in names}

            def configure(name: str, value: object) -> None:
                client.execute_command("FT.CONFIG", "SET", name, value)

            yield configure
            for name in names:
                ((_, value),) = before[name].items() if isinstance(before[name], dict) else before[name]
                configure(name, -1 if value == b"unlimited" else value)

    def test_more_matches_than_the_server_returns(self, many: tuple[Store, list[str]], configured: Any) -> None:
        store, ids = many
        configured("MAXSEARCHRESULTS", 5_000)
        gold = where("tier") == "gold"
        assert found(store, gold) == ids
        assert found(store, gold, "-updated_at") == ids[::-1]
        assert store.begin().conversations.count(gold) == 12_000
        assert [one.id for one in store.begin().conversations.find(gold, order="id", limit=11_000)] == ids[:11_000]
        assert store.begin().conversations.count(gold & (where.id < "conversation-08000")) == 8_000

    def test_fewer_than_a_page_are_an_error(self, many: tuple[Store, list[str]], configured: Any) -> None:
        store, _ = many
        configured("MAXAGGREGATERESULTS", 10)
        with pytest.raises(StoreUnavailableError, match="did not finish"):
            store.begin().conversations.find(where("tier") == "gold", limit=50)

    @pytest.mark.parametrize("policy", ["return", "fail"])
    def test_a_query_that_takes_too_long(
        self, many: tuple[Store, list[str]], configured: Any, monkeypatch: pytest.MonkeyPatch, policy: str
    ) -> None:
        """The server's own time-out does not count; ours does, and what it cuts short is refused."""
        store, ids = many
        configured("ON_TIMEOUT", policy)
        configured("TIMEOUT", 1)
        assert store.begin().conversations.count() == 12_000
        assert found(store) == ids
        refused = 0
        assert isinstance(store.repository, RedisRepository)
        for n in range(40):
            monkeypatch.setattr(Index, "milliseconds", (1, 2, 4, 8)[n % 4])
            criterion, expected = slow(n), ids[300 * n :]
            try:
                assert store.begin().conversations.count(criterion) == len(expected)
            except StoreUnavailableError:
                refused += 1
            try:
                found_ids = [one.id for one in store.begin().conversations.find(criterion, limit=50)]
                assert found_ids == expected[:-51:-1]
            except StoreUnavailableError:
                refused += 1
        assert refused > 10

    def test_a_page_takes_no_longer_than_its_time(
        self, many: tuple[Store, list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page may take several queries; the time is for all of them together."""
        store, ids = many
        criterion = ~where("x").exists()  # which all meet, so that they are walked
        source = Script("shared", "walk").source
        slow = source.replace("local function first_rank(total)", "local function first_rank(total) slow()")
        assert slow != source
        slow = "local function slow() local n = 0; for _ = 1, 1e7 do n = n + 1 end end\n" + slow
        script = SimpleNamespace(source=slow, sha=sha1(slow.encode()).hexdigest())
        monkeypatch.setattr(searching, "_WALK", script)
        find = partial(store.begin().conversations.find, criterion, order="id", limit=5_000)
        assert [one.id for one in find()] == ids[:5_000]
        with within(0.1), pytest.raises(StoreUnavailableError):
            find()

    def test_the_time_for_a_query_is_what_is_left(self, killable_redis: KillableServer) -> None:
        with memory.connect(f"{killable_redis.url}?timeout=0.5") as store:
            assert isinstance(store.repository, RedisRepository)
            assert store.repository._index.milliseconds == 400
            with within(0.1):
                assert store.repository._index.milliseconds <= 80


def slow(n: int) -> Criterion:
    """Return a criterion for the conversations from the 300th times n on, which the index answers exactly, and slowly."""
    criterion = where.updated_at >= to_datetime(300 * n)
    for m in range(n // 2):
        criterion = ((where("x") == m) | criterion) & ~(where("y") == m)
    return criterion


def test_a_dropped_index_is_missed_and_made_anew(store: Store, client: Any, keys: Keys) -> None:
    fill(store, ["a", "b"])
    client.execute_command("FT.DROPINDEX", f"{keys.index}:{HEAD}")
    uow = store.begin()
    asks: tuple[Callable[[], object], ...] = (
        lambda: uow.conversations.find(where("n") == 1),
        lambda: uow.conversations.find(where.run_count == 1),
        lambda: uow.conversations.count(where("n") == 1),
    )
    for ask in asks:
        with pytest.raises(SchemaError, match="memory migrate"):
            ask()
    assert store.begin().conversations.get("a").id == "a"
    assert store.schema_status().current is None
    assert store.migrate().is_current
    assert found(store) == ["a", "b"]


@pytest.mark.parametrize("order", ["id", "-id", "updated_at", "-updated_at", "created_at"])
@pytest.mark.parametrize("step", [0, 1])
def test_pages_over_ids_with_long_beginnings(store: Store, order: str, step: int) -> None:
    """Ids that begin alike, made at the same moment or one after the other."""
    ids = [
        *(f"{n:04}" for n in range(50)),
        *(f"conversation-of-somebody-{n:03}" for n in range(150)),
        *(f"conversation-{n:03}" for n in range(50)),
        *("x" * n for n in range(1, 40)),
        *("\uffff" * n for n in range(1, 9)),
        *("\U0001f600" * n for n in range(1, 9)),
    ]
    fill(store, ids, step=step)
    by_time = {name: step * n for n, name in enumerate(ids)}
    expected = sorted(ids, key=lambda name: name if "id" in order else (by_time[name], name), reverse=order[0] == "-")
    for limit in (1, 7, 100):
        assert [one.id for one in walk(store, order=order, limit=limit)] == expected
    for bound in ("x" * 17, "x" * 18, "x" * 19, "conversation-of-somebody-100", "\uffff\uffff", ""):
        for criterion, holds in (
            (where.id < bound, {name for name in ids if name < bound}),
            (where.id >= bound, {name for name in ids if name >= bound}),
            (where.id == bound, {name for name in ids if name == bound}),
            (~(where.id > bound), {name for name in ids if name <= bound}),
        ):
            assert found(store, criterion, order) == [name for name in expected if name in holds]
            assert store.begin().conversations.count(criterion) == len(holds)


def test_a_page_without_a_criterion_is_a_range_and_a_batch(store: Store, client: Any) -> None:
    """The index is not asked, and each conversation on the page is read once, from wherever the page begins."""
    fill(store, [f"conversation {n:04}" for n in range(2_000)])
    for order in ("-updated_at", "created_at", "id", "-id"):
        page = store.begin().conversations.find(order=order, limit=50)
        for cursor in (None, page.cursor):
            find = partial(store.begin().conversations.find, order=order, limit=50, after=cursor)
            commands = executed(client, find)
            assert (commands["cmdstat_hmget"], commands["cmdstat_evalsha"]) == (51, 1)
            assert not any("ft." in name for name in commands)
            assert commands["cmdstat_zrange"] <= 15  # and to find the place among 2,000


@pytest.mark.parametrize("order", ["id", "-id", "updated_at", "-updated_at", "-created_at"])
def test_pages_wherever_the_matches_lie(store: Store, order: str) -> None:
    """Times long past, today and far ahead, close together and all the same; matches everywhere, seldom, or at one end."""
    metadata, times = {}, {}
    for begin, step in ((-(10**16), 10**6), (0, 1), (10**12, 0), (1_700_000_000_000_000, 10**9), (9 * 10**15, 1)):
        for n in range(700):
            name = f"{begin + n * 7919 % 700}/{'x' * (n % 30)}{n}"
            metadata[name], times[name] = {"third": n % 3, "often": n % 3 > 0, "old": begin < 0}, begin + step * n
    for names in batched(times, 1_000):
        records = (
            ConversationRecord(name, encode_metadata(metadata[name]), 1, "", 0, 0, times[name], times[name], None)
            for name in names
        )
        store.commit(ChangeSet.of([Change(record.id, create=record) for record in records], 0))
    expected = sorted(times, key=lambda name: name if "id" in order else (times[name], name), reverse=order[0] == "-")
    for key, value in (("third", 1), ("often", True), ("old", True)):
        matching = [name for name in expected if metadata[name][key] == value]
        assert [one.id for one in walk(store, where(key) == value, order=order, limit=100)] == matching
        assert store.begin().conversations.count(where(key) == value) == len(matching)
    assert [one.id for one in walk(store, order=order, limit=900)] == expected


def test_a_namespace_goes_with_its_last_conversation(store: Store) -> None:
    for name in ("a", "b"):
        fill(store.namespace("passing"), [name])
    for name, left in (("a", ["passing"]), ("b", [])):
        with store.namespace("passing").begin() as uow:
            uow.conversations.remove(name)
        assert store.namespaces() == left


def test_a_count_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large namespace is counted part by part, so that no query keeps the server for long."""
    monkeypatch.setattr(searching, "_COUNTED", 300)
    for step in (0, 1):
        one = store.namespace(f"{step}")
        fill(one, [f"c{n:04}" for n in range(1_500)], step=step, metadata={"n": 1})
        with one.begin() as uow:
            uow.conversations.add(Conversation("other"))
        assert one.begin().conversations.count(where("n") == 1) == 1_500
        assert one.begin().conversations.count(where("n") != 1) == 1


def test_a_server_survives_what_is_asked_of_it(store: Store, client: Any) -> None:
    """RediSearch 2.10 ends the whole server at a query of dialect 4 whose numbers were just removed: none is asked."""
    uptime = client.info("server")["run_id"]
    for n in range(300):
        with store.begin() as uow:
            uow.conversations.add(Conversation("a", {"n": n}))
        assert found(store, where("n") == n) == ["a"]
        with store.begin() as uow:
            uow.conversations.remove("a")
        assert found(store) == []
    assert client.info("server")["run_id"] == uptime


def test_times_beyond_a_double(store: Store) -> None:
    """Stored and compared exactly; only the order of two in the same 32 microseconds, after the year 2255, is by id."""
    moments = [2**53 + n for n in range(3)] + [2**57 + n for n in range(3)]
    for n, moment in enumerate(moments):
        record = ConversationRecord(f"c{n}", "{}", 1, "", 0, 0, moment, moment, None)
        store.commit(ChangeSet.of([Change(record.id, create=record)], 0))
    for n, moment in enumerate(moments):
        assert store.begin().conversations.get(f"c{n}").created_at == to_datetime(moment)
        assert found(store, where.created_at == to_datetime(moment)) == [f"c{n}"]
        assert found(store, where.created_at > to_datetime(moment)) == [f"c{m}" for m in range(n + 1, 6)]
        assert found(store, ~(where.created_at > to_datetime(moment))) == [f"c{m}" for m in range(n + 1)]
        assert store.begin().conversations.count(where.created_at <= to_datetime(moment)) == n + 1
    for limit in (1, 2, 4):
        assert [one.id for one in walk(store, order="created_at", limit=limit)] == [f"c{n}" for n in range(6)]


@pytest.mark.parametrize("name", ["k" * 520 + "129568", "e" * 30, "e" * 31], ids=len)
def test_paths_that_look_like_others(store: Store, name: str) -> None:
    """The first one's digest ends as a path to elements does; the second one's elements are at a path as long as a digest."""
    for conversation_id, value in (("list", [5, "five"]), ("number", 5), ("none", None)):
        with store.begin() as uow:
            uow.conversations.add(Conversation(conversation_id, {name: value}))
    with store.begin() as uow:
        uow.conversations.add(Conversation("without"))
    for criterion, expected in (
        (where(name).exists(), ["list", "none", "number"]),
        (~where(name).exists(), ["without"]),
        (where(name) > 1, ["number"]),
        (where(name) == 5, ["number"]),
        (where(name).contains(5), ["list"]),
        (~where(name).contains("five"), ["none", "number", "without"]),
    ):
        uow = store.begin()
        assert [one.id for one in uow.conversations.find(criterion, order="id")] == expected
        assert uow.conversations.count(criterion) == len(expected)


def test_stores_of_other_prefixes_in_one_server(redis_server: Server, store: Store, keys: Keys) -> None:
    """Not even where one prefix goes on where the other ends."""
    fill(store, ["a"], metadata={"n": 1})
    for prefix in (f"{keys.prefix}2", f"{keys.prefix}:conversation", keys.prefix[:-1], f"{keys.prefix}:conversations"):
        with memory.connect(f"{redis_server.url}?prefix={prefix}") as other:
            other.migrate()
            assert found(other) == []
            with other.begin() as uow:
                uow.conversations.add(Conversation("b", {"n": 1}))
            assert found(other, where("n") == 1) == ["b"]
            assert found(store, where("n") == 1) == ["a"]
            assert (store.begin().conversations.count(), other.begin().conversations.count()) == (1, 1)
