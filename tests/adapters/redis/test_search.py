"""Searches at the server's limits, and of many: complete, or an error; never a part."""

from collections.abc import Callable, Iterator
from hashlib import sha1
from types import SimpleNamespace
from typing import Any

import pytest
import redis as redis_py

import memory
from memory import Conversation, SchemaError, Store, StoreUnavailableError, where
from memory.adapters.redis import RedisRepository, index
from memory.adapters.redis.index import Index
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.schema import HEAD
from memory.adapters.redis.wire import Script
from memory.domain.criteria import Criterion
from memory.domain.records import ConversationRecord, encode_metadata
from memory.domain.values import Json, new_id, to_datetime
from memory.port.changes import Change, ChangeSet
from memory.port.deadlines import within
from memory.testing.base import walk
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


def found(store: Store, criterion: Criterion | None = None, order: str = "id") -> list[str]:
    return [one.id for one in store.begin().conversations.iterate(criterion, order=order)]


@pytest.fixture(scope="module")
def thirty_thousand(killable_redis: KillableServer) -> Iterator[tuple[Store, list[str]]]:
    """A store of 30,000 in a server of its own, which is configured to its detriment."""
    with memory.connect(f"{killable_redis.url}?prefix=many-{new_id()}&timeout=30") as store:
        store.migrate()
        ids = [f"conversation-{n:05}" for n in range(30_000)]
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

    def test_more_matches_than_the_server_returns(
        self, thirty_thousand: tuple[Store, list[str]], configured: Any
    ) -> None:
        store, ids = thirty_thousand
        configured("MAXSEARCHRESULTS", 10_000)
        gold = where("tier") == "gold"
        assert found(store, gold) == ids
        assert found(store, gold, "-updated_at") == ids[::-1]
        assert store.begin().conversations.count(gold) == 30_000
        assert [one.id for one in store.begin().conversations.find(gold, order="id", limit=25_000)] == ids[:25_000]
        assert store.begin().conversations.count(gold & (where.id < "conversation-20000")) == 20_000

    def test_fewer_than_a_page_are_an_error(self, thirty_thousand: tuple[Store, list[str]], configured: Any) -> None:
        store, _ = thirty_thousand
        configured("MAXAGGREGATERESULTS", 10)
        with pytest.raises(StoreUnavailableError, match="did not finish"):
            store.begin().conversations.find(limit=50)

    @pytest.mark.parametrize("policy", ["return", "fail"])
    def test_a_query_that_takes_too_long(
        self, thirty_thousand: tuple[Store, list[str]], configured: Any, monkeypatch: pytest.MonkeyPatch, policy: str
    ) -> None:
        """The server's own time-out does not count; ours does, and what it cuts short is refused."""
        store, ids = thirty_thousand
        configured("ON_TIMEOUT", policy)
        configured("TIMEOUT", 1)
        assert store.begin().conversations.count() == 30_000
        assert found(store) == ids
        refused = 0
        assert isinstance(store.repository, RedisRepository)
        for n in range(40):
            monkeypatch.setattr(Index, "milliseconds", (1, 2, 4, 8)[n % 4])
            criterion, expected = slow(n), ids[750 * n :]
            try:
                assert store.begin().conversations.count(criterion) == len(expected)
            except StoreUnavailableError:
                refused += 1
            try:
                found_ids = [one.id for one in store.begin().conversations.find(criterion, order="-id", limit=50)]
                assert found_ids == expected[:-51:-1]
            except StoreUnavailableError:
                refused += 1
        assert refused > 10

    def test_a_page_takes_no_longer_than_its_time(
        self, thirty_thousand: tuple[Store, list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page is many questions to the index; the time is for all of them together."""
        store, _ = thirty_thousand
        source = Script("shared", "page").source
        slow = source.replace(
            "local function aggregate(condition, ...)", "local function aggregate(condition, ...) slow()"
        )
        assert slow != source
        slow = "local function slow() local n = 0; for _ = 1, 1e6 do n = n + 1 end end\n" + slow
        script = SimpleNamespace(source=slow, sha=sha1(slow.encode()).hexdigest())
        monkeypatch.setattr(index, "_PAGE", script)
        assert len(store.begin().conversations.find(order="id", limit=50)) == 50
        monkeypatch.setattr(Index, "milliseconds", 20)
        with pytest.raises(StoreUnavailableError, match="time was up"):
            store.begin().conversations.find(order="id", limit=50)

    def test_the_time_for_a_query_is_what_is_left(self, killable_redis: KillableServer) -> None:
        with memory.connect(f"{killable_redis.url}?timeout=0.5") as store:
            assert isinstance(store.repository, RedisRepository)
            assert store.repository._index.milliseconds == 400
            with within(0.1):
                assert store.repository._index.milliseconds <= 80


def slow(n: int) -> Criterion:
    """Return a criterion for the conversations from the 750th times n on, which the index answers exactly, and slowly."""
    criterion = where.id >= f"conversation-{75 * n:04}"  # a digit short, so that the index tells it exactly
    for m in range(n // 2):
        criterion = ((where("x") == m) | criterion) & ~(where("y") == m)
    return criterion


def test_a_dropped_index_is_missed_and_made_anew(store: Store, client: Any, keys: Keys) -> None:
    fill(store, ["a", "b"])
    client.execute_command("FT.DROPINDEX", f"{keys.index}:{HEAD}")
    uow = store.begin()
    asks: tuple[Callable[[], object], ...] = (
        uow.conversations.find,
        uow.conversations.count,
        lambda: uow.conversations.count(where("n") == 1),
        store.purge_expired,
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
    """Ids that the numbers of the index tell apart late or never, at the same moment or one after the other."""
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


@pytest.mark.parametrize("lie", ["false", "#condition % 2 == 0 and {truth}"])
def test_a_window_that_is_not_found_costs_time_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """As when the search for one is cut short: then all is sorted."""
    fill(store, [f"c{n:04}" for n in range(6_000)], step=1)
    source, truth = Script("shared", "page").source, "#aggregate(condition, 'LIMIT', digits(number - 1), 1).results > 0"
    assert truth in source
    source = source.replace(truth, lie.format(truth=truth))
    monkeypatch.setattr(index, "_PAGE", SimpleNamespace(source=source, sha=sha1(source.encode()).hexdigest()))
    for order in ("id", "-id", "updated_at", "-created_at"):
        expected = [f"c{n:04}" for n in range(6_000)]
        assert [one.id for one in walk(store, order=order, limit=700)] == (
            expected[::-1] if order[0] == "-" else expected
        )


@pytest.mark.parametrize("order", ["id", "-id", "updated_at", "-updated_at"])
def test_windows_wherever_they_lie(store: Store, order: str) -> None:
    """Times long past, today and far ahead, close together and far apart: more than are sorted without a window."""
    ids, times = [], []
    for begin, step in ((-(10**16), 10**6), (0, 1), (10**12, 0), (1_700_000_000_000_000, 10**9), (9 * 10**15, 1)):
        for n in range(1_600):
            ids.append(f"{begin + n * 7919 % 1_600}/{'x' * (n % 30)}{n}")
            times.append(begin + step * n)
    for at in range(0, len(ids), 1_000):
        records = (
            ConversationRecord(name, "{}", 1, "", 0, 0, time, time, None)
            for name, time in zip(ids[at : at + 1_000], times[at : at + 1_000], strict=True)
        )
        store.commit(ChangeSet.of([Change(record.id, create=record) for record in records], 0))
    by_time = dict(zip(ids, times, strict=True))
    expected = sorted(ids, key=lambda name: name if "id" in order else (by_time[name], name), reverse=order[0] == "-")
    for limit in (50, 900):
        assert [one.id for one in walk(store, order=order, limit=limit)] == expected


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
