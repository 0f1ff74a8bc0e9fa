"""What others did to our keys: it is never taken for a record, never for missing, and never written over; the key is named."""

from collections.abc import Callable
from typing import Any

import pytest

from memory import Conversation, CorruptRecordError, Run, Store, UnitOfWork, where
from memory.adapters.redis import RedisRepository
from memory.adapters.redis.keys import Keys

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
    assert [one.id for one in store.begin().conversations.find(order="id")] == ["0", "b"]
    assert store.begin().conversations.count(where("n") == 1) == 2


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
    reads: tuple[Work, ...] = (READS[0], lambda uow: uow.conversations.find(where("n") == 1))
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


def test_a_run_edited_by_hand(store: Store, client: Any, keys: Keys) -> None:
    key = f"{keys.runs('default', 'a')}2"
    spoils: tuple[Callable[[], object], ...] = (
        lambda: client.hset(key, "output", '{"'),
        lambda: client.hset(key, "output", b"\xff"),
        lambda: client.hset(key, "created_at", "x"),
        lambda: client.hdel(key, "input"),
        lambda: client.delete(key),
        lambda: client.set(key, "theirs"),
    )
    for spoil in spoils:
        spoil()
        refused(store, READS[1:], key)
    refused(store, WRITES[-1:], key)
    client.delete(key)
    refused(store, WRITES[-1:], key)


def test_something_at_the_key_of_a_run_to_come(store: Store, client: Any, keys: Keys) -> None:
    for position in (4, 5):
        key = f"{keys.runs('default', 'a')}{position}"
        client.set(key, "theirs")
        before = dump(client, keys)
        refused(store, WRITES[1:2] if position > 4 else WRITES[:2], key)
        assert dump(client, keys) == before
        client.delete(key)


def test_positions_edited_by_hand(store: Store, client: Any, keys: Keys) -> None:
    key = keys.positions("default", "a")
    spoils: tuple[Callable[[], object], ...] = (
        lambda: client.zrem(key, 3),
        lambda: client.delete(key),
        lambda: client.set(key, "theirs"),
    )
    for spoil in spoils:
        spoil()
        before = dump(client, keys)
        refused(store, WRITES[1:], key)
        assert dump(client, keys) == before
    refused(store, READS[1:], key)
    refused(store, WRITES[:1], key)


def test_keys_of_others_below_the_prefix(store: Store, client: Any, keys: Keys) -> None:
    """Not seen, not counted, not touched."""
    theirs = [f"{keys.prefix}:conversation:theirs", f"{keys.prefix}:conversation:{{default/x/y}}", f"{keys.prefix}:x"]
    for key in theirs:
        client.hset(key, mapping={"id": "x", "metadata": "{}", "n": 1, "run_count": "many"})
    copied = f"{keys.prefix}:conversation:{{default/copy}}"
    client.copy(keys.conversation("default", "a"), f"{keys.prefix}-conversation:copy")
    assert [one.id for one in store.begin().conversations.find(order="id")] == ["0", "a", "b"]
    assert store.begin().conversations.count() == 3
    client.copy(keys.conversation("default", "a"), copied)
    with pytest.raises(CorruptRecordError) as caught:
        store.begin().conversations.find()
    assert copied in str(caught.value)
    with pytest.raises(CorruptRecordError):
        store.begin().conversations.get("copy")
