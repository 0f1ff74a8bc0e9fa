"""The migration from the layout 0002, which had no `last_run_at`: complete, in steps, and beside writers of either release."""

from datetime import datetime
from typing import Any

import pytest

from memory import Conversation, Run, SchemaError, Store, where
from memory.adapters.redis import RedisRepository, schema
from memory.adapters.redis.keys import Keys
from memory.adapters.redis.models import index_arguments
from memory.adapters.redis.schema import HEAD
from memory.domain.records import ConversationRecord, RunRecord
from memory.domain.values import to_datetime, to_microseconds
from memory.port.changes import Change, ChangeSet
from memory.port.repository import SchemaStatus

OLD = "0002"
RUN = RunRecord(0, "id", '"x"', '"x"', "{}", 10**15)


def forget(client: Any, keys: Keys, namespace: str, *conversation_ids: str) -> None:
    """Take from conversations what an earlier release does not write."""
    for conversation_id in conversation_ids:
        client.hdel(keys.conversation(namespace, conversation_id), "last_run_at")
        client.zrem(keys.order(namespace, "last_run_at"), conversation_id)


@pytest.fixture
def old(store: Store, client: Any, keys: Keys) -> Store:
    """A store as the release before wrote it: ten conversations with a run, one without, and some in another namespace."""
    for one, count in ((store, 10), (store.namespace("o/ther"), 2)):
        with one.begin() as uow:
            for n in range(count):
                uow.conversations.add(Conversation(f"c {n}", {"n": n}))
                uow.runs.append(f"c {n}", Run(1, 1), Run(2, 2, created_at=to_datetime(4 * 10**15 - n)))
            uow.conversations.add(Conversation("empty"))
        forget(client, keys, one.namespace_name, "empty", *[f"c {n}" for n in range(count)])
    words = index_arguments(keys.prefix)
    place = words.index("last_run_at")
    client.execute_command("FT.DROPINDEX", f"{keys.index}:{HEAD}")
    client.execute_command("FT.CREATE", f"{keys.index}:{OLD}", *words[:place], *words[place + 2 :])
    client.execute_command("FT.ALIASADD", keys.index, f"{keys.index}:{OLD}")
    return store


def check_orders(store: Store, client: Any, keys: Keys) -> None:
    """Assert that every conversation has the field, and the order its value."""
    for one in (store, store.namespace("o/ther")):
        found = {c.id: to_microseconds(c.last_run_at, "") for c in one.conversations.iterate()}
        key = keys.order(one.namespace_name, "last_run_at")
        assert dict(client.zrange(key, 0, -1, withscores=True)) == {id.encode(): time for id, time in found.items()}
        stored = {id: client.hget(keys.conversation(one.namespace_name, id), "last_run_at") for id in found}
        assert stored == {id: f"{time}".encode() for id, time in found.items()}


def test_last_run_at_is_that_of_the_last_run(old: Store, client: Any, keys: Keys) -> None:
    assert old.schema_status() == SchemaStatus(OLD, HEAD)
    with pytest.raises(SchemaError, match="memory migrate"):
        Store(old.repository).begin()
    assert len(old.repository.migration_steps()) == 4
    assert old.migrate().is_current
    check_orders(old, client, keys)
    found = list(old.conversations.find())
    assert [one.id for one in found] == [*[f"c {n}" for n in range(10)], "empty"]
    assert [one.last_run_at for one in found[:2]] == [to_datetime(4 * 10**15 - n) for n in range(2)]
    assert found[-1].last_run_at == found[-1].created_at
    assert [one.id for one in old.conversations.find(where.last_run_at >= to_datetime(4 * 10**15 - 1))] == [
        "c 0",
        "c 1",
    ]


@pytest.mark.parametrize("killed_at", range(4))
def test_one_that_was_killed_between_two_steps(
    old: Store, client: Any, keys: Keys, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store keeps its old version, and the next migration completes it."""
    monkeypatch.setattr(schema, "_FILLED_AT_ONCE", 3)
    steps: list[str] = []

    def die(what: str, part: float | None) -> None:
        assert part is None or 0 < part < 1
        steps.append(what)
        if len(steps) > killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        old.migrate(die)
    assert old.schema_status() == SchemaStatus(OLD, HEAD)
    assert all("last_run_at" in step for step in steps)
    assert old.migrate().is_current
    check_orders(old, client, keys)


def test_writers_of_this_release_beside_it(
    old: Store, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After another migration has completed, its programs write while this one goes on: it changes nothing of theirs."""
    monkeypatch.setattr(schema, "_FILLED_AT_ONCE", 1)
    repository = old.repository
    written: list[str] = []
    times: set[datetime | None] = set()

    def last_run_at() -> datetime | None:
        one = repository.get("default", "c 9")
        assert one is not None
        return one.last_run_at

    def write(*_: object) -> None:
        name = f"c {len(written)}"
        written.append(name)
        if len(written) <= 9:
            for change in (
                Change(name, append=(RUN,)),
                Change("c 9", append=(RUN._replace(created_at=5 * 10**15), RUN)),
            ):
                repository.commit("default", ChangeSet((change,), at=10**15))
        times.add(last_run_at())
        if len(written) == 5:
            for gone in ("c 0", "empty"):
                repository.commit("default", ChangeSet((Change(gone, remove=True),)))
            record = ConversationRecord("b", "{}", 1, "", 0, 0, 5, 5, None, None, 5)
            repository.commit("default", ChangeSet((Change("b", create=record),)))

    old.migrate(write)
    assert len(written) > 9
    assert times == {last_run_at()}
    check_orders(old, client, keys)
    assert old.conversations.count() == 10


def test_writers_of_the_release_before_after_it(store: Store, client: Any, keys: Keys) -> None:
    """What they create has the time of its last change, and is in the order after its next write, or another migration."""
    with store.begin() as uow:
        for name in ("a", "b", "c", "removed"):
            uow.conversations.add(Conversation(name, {"n": 1}))
            uow.runs.append(name, Run(1, 1, created_at=to_datetime(5)))
    forget(client, keys, "default", "a", "b")
    client.delete(keys.conversation("default", "removed"), keys.runs("default", "removed"))
    for field in ("id", "created_at", "updated_at"):
        client.zrem(keys.order("default", field), "removed")
    one = store.conversations.get("a")
    assert one.last_run_at == one.updated_at
    assert [one.id for one in store.conversations.find()] == ["c"]
    assert [one.id for one in store.conversations.find(limit=1)] == ["c"]
    for append in ([Run(2, 2, created_at=to_datetime(5))], []):
        with store.begin() as uow:
            uow.conversations.get("a").metadata["n"] = 2
            uow.runs.append("a", *append)
        assert store.conversations.get("a").last_run_at == one.last_run_at
    with store.begin() as uow:
        uow.runs.append("b", Run(3, 3, created_at=to_datetime(4 * 10**15)))
    assert [one.id for one in store.conversations.find()] == ["b", "c", "a"]
    forget(client, keys, "default", "a", "b", "c")
    assert isinstance(store.repository, RedisRepository)
    assert store.migrate().is_current
    assert [one.id for one in store.conversations.find()] == ["b", "c", "a"]
