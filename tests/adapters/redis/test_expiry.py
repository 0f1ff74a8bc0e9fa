"""Expiry: the conversation's alone decides, renewing it costs the same whatever its runs, and a purge leaves nothing behind."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory import Conversation, NotFoundError, Run, Store
from memory.adapters.redis.keys import Keys
from memory.domain.records import RunRecord
from memory.domain.values import LAST_TIME, to_datetime
from memory.port.changes import Change, ChangeSet
from tests.adapters.redis.conftest import executed


def left(client: Any, keys: Keys) -> set[str]:
    """Return the names of all keys but those of receipts, without the prefix."""
    names = {key.decode().removeprefix(keys.prefix) for key in client.scan_iter(f"{keys.prefix}:*", count=10_000)}
    return {name for name in names if not name.startswith(":receipt:")}


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def test_renewing_an_expiry_costs_the_same_whatever_the_runs(store: Store, client: Any) -> None:
    for name, runs in (("short", 1), ("long", 5_000)):
        with store.begin() as uow:
            uow.conversations.add(Conversation(name, expires_at=in_an_hour()))
            uow.runs.append(name, *[Run(n, n) for n in range(runs)])

    def renew(name: str) -> None:
        with store.begin() as uow:
            uow.conversations.get(name).expires_at = in_an_hour()

    renew("short")
    assert executed(client, lambda: renew("long")) == executed(client, lambda: renew("short"))


def test_no_key_but_a_receipt_has_an_expiry_of_its_own(store: Store, client: Any, keys: Keys) -> None:
    """Receipts live for a day, those of keys for 30, and end by the server's clock, so nothing has to sweep them."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", expires_at=in_an_hour()))
        uow.runs.append("a", Run(1, 1))
    with store.begin() as uow:
        uow.runs.append("a", Run(2, 2))
    with store.begin(idempotency_key="k/1") as uow:
        uow.runs.append("a", Run(3, 3))
    ends = {key: client.pexpiretime(key) / 1_000 for key in client.scan_iter(f"{keys.prefix}:*")}
    receipts = sorted(end for key, end in ends.items() if b":receipt:" in key)
    days = [round((end - datetime.now(UTC).timestamp()) / 86_400, 1) for end in receipts]
    assert days == [1, 1, 30]
    assert {end for key, end in ends.items() if b":receipt:" not in key} == {-0.001}


def test_an_append_moves_a_sliding_expiry(store: Store, client: Any, keys: Keys) -> None:
    """In the one script of every append, at the same cost for ten runs or a million; the hash and the order agree."""
    with store.begin() as uow:
        for name in ("short", "long"):
            uow.conversations.add(Conversation(name, expires_after=timedelta(hours=1)))
        uow.runs.append("long", *[Run(n, n) for n in range(5_000)])
    before = store.conversations.get("short")

    def append(name: str) -> None:
        with store.begin() as uow:
            uow.runs.append(name, Run(1, 1))

    append("short")
    counts = executed(client, lambda: append("long"))
    assert counts == executed(client, lambda: append("short"))
    assert counts["cmdstat_evalsha"] == 1
    assert counts["cmdstat_hset"] == 1
    after = store.conversations.get("short")
    assert (before.expires_at, before.updated_at) < (after.expires_at, after.updated_at)
    assert after.updated_at is not None
    assert (after.expires_at, after.version) == (after.updated_at + timedelta(hours=1), before.version)
    expires_at = client.hget(keys.conversation("default", "short"), "expires_at")
    assert client.zscore(keys.order("default", "expires_at"), "short") == float(expires_at)


def test_an_append_leaves_a_fixed_expiry(store: Store) -> None:
    """Neither does a sliding expiry move back, nor beyond the last time that can be stored."""
    later, last = datetime(2200, 1, 1, tzinfo=UTC), to_datetime(LAST_TIME)
    far = datetime(9999, 12, 31, 23, tzinfo=UTC)
    with store.begin() as uow:
        uow.conversations.add(Conversation("fixed", expires_at=later))
        uow.conversations.add(Conversation("further", expires_at=later, expires_after=timedelta(hours=1)))
        uow.conversations.add(Conversation("last", expires_at=far, expires_after=timedelta(days=1)))
    run = RunRecord(0, "id", "1", "1", "{}", 1)
    at = {"last": LAST_TIME - 1_000_000}
    for name in ("fixed", "further", "last"):
        for appended in ((run,), (run, run)):
            store.repository.commit("default", ChangeSet.of([Change(name, append=appended)], at.get(name, 1)))
    assert [one.expires_at for one in store.conversations.find(order="id")] == [later, later, last]


def test_an_append_finds_that_the_conversation_has_expired(store: Store) -> None:
    with store.begin() as uow:
        past = datetime.now(UTC) - timedelta(hours=1)
        uow.conversations.add(Conversation("a", expires_at=past, expires_after=timedelta(hours=2)))
    with pytest.raises(NotFoundError, match="'a'"), store.begin() as uow:
        uow.runs.append("a", Run(1, 1))


def test_a_purge_leaves_nothing_of_what_expired(store: Store, client: Any, keys: Keys) -> None:
    """Neither of the conversations, whatever happened to their expiry since, nor of a namespace that had nothing else."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    others = store.namespace("o/thers")
    for one in (store, others):
        with one.begin() as uow:
            for n in range(1_050):
                uow.conversations.add(Conversation(f"c {n}", expires_at=past))
                uow.runs.append(f"c {n}", Run(n, n))
    with store.begin() as uow:
        uow.conversations.add(Conversation("renewed", expires_at=in_an_hour()))
        uow.conversations.add(Conversation("kept", expires_at=in_an_hour()))
    with store.begin() as uow:
        uow.conversations.get("renewed").expires_at = past
        uow.conversations.get("kept").expires_at = None
    assert (others.purge_expired(), store.purge_expired(), store.purge_expired()) == (1_050, 1_051, 0)
    kept = keys.conversation("default", "kept").removeprefix(keys.prefix)
    orders = {f":by_{field}:/default" for field in ("id", "created_at", "updated_at", "last_run_at")}
    assert left(client, keys) == {kept, *orders, ":namespaces"}
    assert store.namespaces() == ["default"]


def test_an_expiry_that_was_edited_by_hand(store: Store, client: Any, keys: Keys) -> None:
    """The hash decides, and the order by expiry is mended, so that a purge ends."""
    with store.begin() as uow:
        for name in ("later", "never"):
            uow.conversations.add(Conversation(name, expires_at=datetime.now(UTC) - timedelta(hours=1)))
    client.hset(keys.conversation("default", "later"), "expires_at", 4 * 10**15)
    client.hdel(keys.conversation("default", "never"), "expires_at")
    assert store.purge_expired() == 0
    assert client.zrange(keys.order("default", "expires_at"), 0, -1, withscores=True) == [(b"later", 4e15)]


def test_an_expired_one_makes_way(store: Store, client: Any, keys: Keys) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", expires_at=datetime.now(UTC) - timedelta(hours=1)))
        uow.runs.append("a", Run(1, 1), Run(2, 2))
    assert "a" not in store.begin().conversations
    with store.begin() as uow:
        uow.conversations.add(Conversation("a"))
    assert store.begin().runs.list("a") == []
    assert client.exists(keys.runs("default", "a"), keys.order("default", "expires_at")) == 0
    assert store.begin().conversations.count() == 1


def test_expired_ones_that_nobody_purged_are_passed_over(store: Store) -> None:
    """However many come first: the page is full, and the count leaves them out."""
    with store.begin() as uow:
        for n in range(700):
            uow.conversations.add(Conversation(f"gone{n}", {"n": 1}, datetime.now(UTC) - timedelta(hours=1)))
            if n % 100 == 0:
                uow.conversations.add(Conversation(f"kept{n}", {"n": 1}))
    for order in ("id", "-id", "updated_at", "-created_at"):
        assert len(store.begin().conversations.find(order=order, limit=7)) == 7
    assert store.begin().conversations.count() == 7
