"""Open runs: a line of their members, a field of the hash, a sorted set of the namespace; nothing stale is returned."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory import Conversation, CorruptRecordError, NotFoundError, Run, Store, UnitOfWork
from memory.adapters.redis.keys import Keys
from memory.domain.entities import PENDING
from memory.domain.values import key_of, to_datetime
from tests.adapters.redis.conftest import executed

LONG = "a" * 1_000
PAST = datetime(2020, 1, 1, tzinfo=UTC)
PROMPT = Run("Where?", PENDING, id="prompt", created_at=to_datetime(7))


def add(store: Store, conversation_id: str, *runs: Run, expires_at: datetime | None = None) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(conversation_id, expires_at=expires_at))
        uow.runs.append(conversation_id, *runs)


def listed(client: Any, keys: Keys) -> list[tuple[bytes, float]]:
    found: list[tuple[bytes, float]] = client.zrange(keys.open_runs("default"), 0, -1, withscores=True)
    return found


def test_the_stored_format(store: Store, client: Any, keys: Keys) -> None:
    """Only open runs have a seventh line and are listed; completing the last one removes the field and the set."""
    streaming = Run("Why?", "It", id="stream", created_at=to_datetime(8), is_open=True)
    add(store, LONG, Run(1, 2, id="r", created_at=to_datetime(6)), PROMPT, streaming)
    key, runs = keys.conversation("default", LONG), keys.runs("default", LONG)
    assert client.zrange(runs, 0, -1) == [
        b"1\n6\nr\n{}\n1\n2",
        b'2\n7\nprompt\n{}\n"Where?"\n\nopen',
        b'3\n8\nstream\n{}\n"Why?"\n"It"\nopen',
    ]
    assert client.hget(key, "open_runs") == b"2,3"
    members = [f"{key_of(LONG)}\x01{n:016d}".encode() for n in (2, 3)]
    assert listed(client, keys) == [(members[0], 7), (members[1], 8)]
    with store.begin() as uow:
        uow.runs.complete(LONG, "stream", output="It left.", metadata={"n": 1})
    assert client.hget(key, "open_runs") == b"2"
    assert listed(client, keys) == [(members[0], 7)]
    with store.begin() as uow:
        uow.runs.complete(LONG, "prompt", output=1)
    assert client.zrange(runs, 1, -1) == [
        b'2\n7\nprompt\n{}\n"Where?"\n1',
        b'3\n8\nstream\n{"n":1}\n"Why?"\n"It left."',
    ]
    assert not client.hexists(key, "open_runs")
    assert listed(client, keys) == []


def remove_conversation(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.remove("a")


def create_another(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.remove("a")
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", Run(1, 1), Run(2, 2), Run(3, 3))


def expire_and_purge(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = PAST
    assert [name for name, _ in store.runs.open()] == ["b"]
    assert store.purge_expired() == 1


def expire_and_create(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = PAST
    add(store, "a", Run(1, 1))


def edit(work: Callable[[UnitOfWork], object]) -> Callable[[Store], None]:
    def editing(store: Store) -> None:
        with store.begin() as uow:
            work(uow)

    return editing


ENDS: dict[str, Callable[[Store], None]] = {
    "remove the conversation": remove_conversation,
    "replace the conversation": create_another,
    "expire, and purge": expire_and_purge,
    "expire, and create another": expire_and_create,
    "remove the run": edit(lambda uow: uow.runs.remove("a", 2)),
    "remove runs before": edit(lambda uow: uow.runs.remove("a", before=3)),
    "remove runs after": edit(lambda uow: uow.runs.remove("a", after=1)),
    "clear": edit(lambda uow: uow.runs.clear("a")),
    "replace the run": edit(lambda uow: uow.runs.replace("a", Run("in", "out", position=2))),
    "complete": edit(lambda uow: uow.runs.complete("a", "prompt", output=1)),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_of_what_is_no_longer_open(store: Store, client: Any, keys: Keys, end: str) -> None:
    add(store, "a", Run(1, 1), PROMPT, Run(3, 3))
    add(store, "b", PROMPT)
    ENDS[end](store)
    assert [name for name, _ in store.runs.open()] == ["b"]
    assert len(listed(client, keys)) == 1
    assert not client.hexists(keys.conversation("default", "a"), "open_runs")


def test_a_finished_run_that_is_replaced_by_an_open_one(store: Store) -> None:
    """It is listed by its own time, and can be completed in the same unit of work and in a later one."""
    add(store, "a", Run(1, 1, created_at=to_datetime(9)), PROMPT)
    with store.begin() as uow:
        uow.runs.replace("a", replace(PROMPT, id="first", created_at=to_datetime(1), position=1))
        uow.runs.append("a", replace(PROMPT, id="third"))
    assert [run.id for _, run in store.runs.open()] == ["first", "prompt", "third"]
    with store.begin() as uow:
        uow.runs.complete("a", "first", output=1)
    assert [run.id for _, run in store.runs.open()] == ["prompt", "third"]


def test_what_others_left_in_the_set_is_never_returned(store: Store, client: Any, keys: Keys) -> None:
    """Members without a conversation, without the run, or of a run that is finished: `open` reads past all of them."""
    add(store, "a", Run(1, 1), PROMPT)
    add(store, "expired", PROMPT, expires_at=PAST)
    stale = [("gone", 1), ("a", 1), ("a", 9)]
    client.zadd(keys.open_runs("default"), {f"{name}\x01{n:016d}": n for name, n in stale})
    assert [(name, run.id) for name, run in store.runs.open(limit=1)] == [("a", "prompt")]
    assert [(name, run.id) for name, run in store.runs.open()] == [("a", "prompt")]
    client.zadd(keys.open_runs("default"), {"theirs": 1})
    with pytest.raises(CorruptRecordError, match="open_runs"):
        store.runs.open()


def test_a_list_of_open_runs_edited_by_hand(store: Store, client: Any, keys: Keys) -> None:
    """A position without an open run is passed over; what is no list of positions is not overwritten."""
    add(store, "a", Run(1, 1, id="finished"), PROMPT)
    key = keys.conversation("default", "a")
    client.hset(key, "open_runs", "1,2,9")
    with pytest.raises(NotFoundError, match="finished"), store.begin() as uow:
        uow.runs.complete("a", "finished", output=2)
    with store.begin() as uow:
        uow.runs.complete("a", "prompt", output=2)
    assert [run.output for run in store.runs.list("a")] == [1, 2]
    client.hset(key, "open_runs", "1,x")
    for append in ([Run(2, 2), Run(3, 3)], [PROMPT]):
        with pytest.raises(CorruptRecordError, match="conversation"), store.begin() as uow:
            uow.runs.append("a", *append)


def test_completing_costs_the_same_in_a_long_conversation(store: Store, client: Any) -> None:
    """The open run is found without reading the others, wherever it is."""
    counts = []
    for name, more in (("short", 1), ("long", 5_000)):
        add(store, name, PROMPT, *[Run(n, n) for n in range(more)])

        def complete(name: str = name) -> None:
            with store.begin() as uow:
                uow.runs.complete(name, "prompt", output="It", is_final=False)

        complete()
        counts.append(executed(client, complete))
    assert counts[0] == counts[1]


def test_open_runs_of_one_time_are_in_the_order_of_conversations_and_positions(store: Store) -> None:
    names = ["a" * 190, "a" * 190 + "b" * 100, "a" * 300, "a\N{LATIN SMALL LETTER E WITH ACUTE}", "b"]
    for name in reversed(names):
        add(store, name, *[PROMPT] * 11)
    found = [(name, run.position) for name, run in store.runs.open(limit=99)]
    assert found == [(name, n) for name in sorted(names, key=key_of) for n in range(1, 12)]
    later = to_datetime(7) + timedelta(microseconds=1)
    assert (len(store.runs.open(before=later)), store.runs.open(before=to_datetime(7))) == (50, ())
