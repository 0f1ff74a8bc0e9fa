"""What others did to our keys: it is never taken for a record, never for missing, and never written over; the key is named."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from memory import Conversation, CorruptRecordError, Run, Store, UnitOfWork, where
from memory.adapters.redis import RedisRepository
from memory.adapters.redis.keys import ORDERS, Keys

Work = Callable[[UnitOfWork], object]

READS: tuple[Work, ...] = (
    lambda uow: uow.conversations.get("a"),
    lambda uow: uow.runs.last("a", 2),
    lambda uow: uow.runs.list("a", after=1),
)


def replace_and_remove(uow: UnitOfWork) -> None:
    uow.runs.replace("a", Run("new", "new", position=2))


WRITES: tuple[Work, ...] = (
    lambda uow: uow.runs.append("a", Run("new", "new")),
    lambda uow: uow.runs.append("a", Run("new", "new"), Run("new", "new")),
    lambda uow: uow.runs.remove("a", 1),
    lambda uow: uow.conversations.remove("a"),
    lambda uow: uow.conversations.add(Conversation("a")),
    replace_and_remove,
)


@pytest.fixture(autouse=True)
def filled(store: Store) -> None:
    with store.begin() as uow:
        for name in ("0", "a", "b"):
            uow.conversations.add(Conversation(name, {"n": 1}))
            uow.runs.append(name, Run(1, 1), Run(2, 2), Run(3, 3))


def dump(client: Any, keys: Keys) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter(f"{keys.prefix}:*") if b":receipt:" not in key}


def done(work: Work, uow: UnitOfWork) -> None:
    work(uow)
    uow.commit()


def refused(store: Store, works: tuple[Work, ...], key: str) -> None:
    """Assert that each is refused for this key, and that nothing of the other conversations is written either."""
    for work in works:
        uow = store.begin()
        uow.runs.append("0", Run("before", "it"))
        uow.runs.append("b", Run("after", "it"))
        with pytest.raises(CorruptRecordError) as caught:
            done(work, uow)
        assert key in str(caught.value)


@pytest.mark.parametrize("kind", ["string", "hash", "list"])
def test_something_else_at_the_key_of_a_conversation(store: Store, client: Any, keys: Keys, kind: str) -> None:
    key = keys.conversation("default", "a")
    client.delete(key)
    {"string": client.set, "hash": lambda k, v: client.hset(k, "theirs", v), "list": client.rpush}[kind](key, "theirs")
    before = dump(client, keys)
    refused(store, READS, key)
    refused(store, WRITES, key)
    assert dump(client, keys) == before
    with pytest.raises(CorruptRecordError, match=re.escape(key)):
        store.begin().conversations.find()
    assert store.begin().conversations.count(where("n") == 1) == 2  # which the index finds


@pytest.mark.parametrize("field", ["version", "run_count", "last_position", "expires_at"])
def test_a_number_edited_by_hand(store: Store, client: Any, keys: Keys, field: str) -> None:
    """The index drops such a hash without a word; `warnings` has one for it."""
    key = keys.conversation("default", "a")
    client.hset(key, field, "not a number")
    before = dump(client, keys)
    refused(store, READS[:1], key)
    refused(store, WRITES, key)
    assert dump(client, keys) == before
    assert isinstance(store.repository, RedisRepository)
    warned = any("could not be indexed" in one for one in store.repository.warnings())
    assert warned == (field in ("run_count", "expires_at"))


@pytest.mark.parametrize(
    ("field", "value"), [("metadata", "{"), ("metadata", "[]"), ("metadata", b"\xff"), ("id", "b"), ("created_at", "x")]
)
def test_a_text_edited_by_hand(store: Store, client: Any, keys: Keys, field: str, value: str | bytes) -> None:
    key = keys.conversation("default", "a")
    client.hset(key, field, value)
    reads: tuple[Work, ...] = (READS[0], lambda uow: uow.conversations.find())
    for read in reads:
        with pytest.raises(CorruptRecordError, match=r"conversation.*a"):
            read(store.begin())


@pytest.mark.parametrize("field", ["id", "metadata", "incarnation", "created_at"])
def test_a_field_removed_by_hand(store: Store, client: Any, keys: Keys, field: str) -> None:
    key = keys.conversation("default", "a")
    client.hdel(key, field)
    with pytest.raises(CorruptRecordError) as caught:
        store.begin().conversations.get("a")
    assert key in str(caught.value)
    with pytest.raises(CorruptRecordError) as caught:
        store.begin().conversations.find()
    assert key in str(caught.value)


@pytest.mark.parametrize(
    "member",
    [
        b"2\n7\nid\n{}\n1\n{",
        b"2\n7\nid\n{}\n1\n\xff",
        b"2\n7\nid\n[]\n1\n1",
        b"2\nx\nid\n{}\n1\n1",
        b"x\n7\nid\n{}\n1\n1",
        b"9\n7\nid\n{}\n1\n1",
        b"2\n7\nid\n{}\n1",
        b"theirs",
    ],
)
def test_a_run_edited_by_hand(store: Store, client: Any, keys: Keys, member: bytes) -> None:
    key = keys.runs("default", "a")
    client.zremrangebyscore(key, 2, 2)
    client.zadd(key, {member: 2})
    refused(store, READS[1:], key)


def test_runs_added_or_removed_by_hand(store: Store, client: Any, keys: Keys) -> None:
    key = keys.runs("default", "a")
    spoils: tuple[Callable[[], object], ...] = (
        lambda: client.zrem(key, client.zrange(key, 2, 2)[0]),
        lambda: client.zadd(key, {"theirs": 9}),  # as many as there should be, and one beyond the last
        lambda: client.delete(key),
        lambda: client.set(key, "theirs"),
    )
    for spoil in spoils:
        spoil()
        before = dump(client, keys)
        refused(store, (*WRITES[:3], WRITES[-1]), key)
        assert dump(client, keys) == before
    refused(store, READS[1:], key)


def test_an_append_alone_checks_the_runs_and_the_order_too(store: Store, client: Any, keys: Keys) -> None:
    """The short script for one run writes nothing where something is out of order."""
    runs, order = keys.runs("default", "a"), keys.order("default", "updated_at")
    client.zrem(runs, client.zrange(runs, 2, 2)[0])
    client.zadd(runs, {"theirs": 9})
    client.zrem(keys.order("default", "id"), "b")
    client.zrem(order, "b")
    for name, key in (("a", runs), ("b", keys.order("default", "id"))):
        before = dump(client, keys)
        for appended in ([Run(4, 4)], [Run(4, 4), Run(5, 5)]):
            with pytest.raises(CorruptRecordError, match=re.escape(key)), store.begin() as uow:
                uow.runs.append(name, *appended)
        assert dump(client, keys) == before


@pytest.mark.parametrize("field", ORDERS)
def test_something_else_at_the_key_of_an_order(store: Store, client: Any, keys: Keys, field: str) -> None:
    key = keys.order("default", field)
    client.delete(key)
    client.set(key, "theirs")
    before = dump(client, keys)
    for write in WRITES[1:]:  # an append of one run needs the order by updated_at alone
        with pytest.raises(CorruptRecordError), store.begin() as uow:
            write(uow)
    assert dump(client, keys) == before


def test_keys_of_others_below_the_prefix(store: Store, client: Any, keys: Keys) -> None:
    """Not seen, not counted, not touched."""
    theirs = [f"{keys.prefix}:conversation:theirs", f"{keys.prefix}:conversation:/default/x/y", f"{keys.prefix}:x"]
    for key in theirs:
        client.hset(key, mapping={"id": "x", "metadata": "{}", "n": 1, "run_count": "many"})
    copied = keys.conversation("default", "copy")
    client.copy(keys.conversation("default", "a"), f"{keys.prefix}-conversation:copy")
    assert [one.id for one in store.begin().conversations.find(order="id")] == ["0", "a", "b"]
    assert store.begin().conversations.count() == 3
    client.copy(keys.conversation("default", "a"), copied)
    with pytest.raises(CorruptRecordError) as caught:
        store.begin().conversations.find(where("n") == 1)
    assert copied in str(caught.value)
    with pytest.raises(CorruptRecordError):
        store.begin().conversations.get("copy")
