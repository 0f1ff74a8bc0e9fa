"""Redis's own expiry: every key of a conversation has the same end, and no end comes before the application's clock says so."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory import Conversation, Run, Store, UnitOfWork
from memory.adapters.redis.committing import GRACE
from memory.adapters.redis.keys import Keys
from memory.domain.values import now

Work = Callable[[UnitOfWork], object]


def deadlines(client: Any, keys: Keys, conversation_id: str = "a") -> set[int]:
    """Return when the keys of a conversation end; -1 is never."""
    tag = keys.conversation("default", conversation_id).partition("{")[2]
    pattern = f"{keys.prefix}:*{{{tag}*"
    return {client.pexpiretime(key) for key in client.scan_iter(pattern) if b":receipt:" not in key}


@pytest.fixture
def moment() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def test_all_keys_of_a_conversation_end_together(store: Store, client: Any, keys: Keys, moment: datetime) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", expires_at=moment))
        uow.runs.append("a", Run(1, 1), Run(2, 2))
    (first,) = deadlines(client, keys)
    assert abs(first - (moment.timestamp() * 1000 + GRACE)) < 2_000
    works: tuple[Work, ...] = (
        lambda uow: uow.runs.append("a", Run(3, 3)),
        lambda uow: uow.runs.append("a", Run(4, 4), Run(5, 5)),
        lambda uow: uow.runs.replace("a", Run("new", "new", position=1)),
        lambda uow: uow.conversations.get("a").metadata.update(n=1),
        lambda uow: uow.runs.clear("a"),
        lambda uow: uow.runs.append("a", Run(6, 6)),
    )
    for work in works:
        with store.begin() as uow:
            work(uow)
        assert deadlines(client, keys) == {first}
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = moment + timedelta(hours=1)
        uow.runs.append("a", Run(7, 7))
    (second,) = deadlines(client, keys)
    assert abs(second - first - 3_600_000) < 2_000
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = None
    assert deadlines(client, keys) == {-1}
    with store.begin() as uow:
        uow.runs.append("a", Run(8, 8))
    assert deadlines(client, keys) == {-1}
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = moment
    assert len(deadlines(client, keys)) == 1


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_client_whose_clock_is_wrong_makes_no_end_early(
    store: Store, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """An hour ahead, it believes that there is an hour less left; an hour behind, it must itself find what has not expired."""
    monkeypatch.setattr(store.repository, "clock", lambda: now() + hours * 3_600_000_000)
    later = datetime.now(UTC) + timedelta(hours=2)
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", expires_at=later))
        uow.runs.append("a", Run(1, 1))
    (found,) = deadlines(client, keys)
    with store.begin() as uow:
        uow.conversations.get("a").expires_at = later + timedelta(minutes=1)
    (changed,) = deadlines(client, keys)
    least = later.timestamp() * 1000 + GRACE
    for end, allowed in ((found, least), (changed, least + 60_000)):
        assert end >= allowed
        assert abs(end - allowed - max(0, -hours) * 3_600_000) < 2_000


def test_made_anew_without_an_end(store: Store, client: Any, keys: Keys, moment: datetime) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", expires_at=moment))
        uow.runs.append("a", Run(1, 1))
    with store.begin() as uow:
        uow.conversations.remove("a")
        uow.conversations.add(Conversation("a"))
        uow.runs.append("a", Run(1, 1))
    assert deadlines(client, keys) == {-1}


def test_gone_of_itself(store: Store, client: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody purging: keys, index entries and all; what is found in the very moment is left out."""
    monkeypatch.setattr("memory.adapters.redis.committing.GRACE", 1)
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"n": 1}, datetime.now(UTC) - timedelta(hours=1)))
        uow.runs.append("a", Run(1, 1))
        uow.conversations.add(Conversation("b", {"n": 1}))
    for _ in range(200):
        assert [one.id for one in store.begin().conversations.find()] == ["b"]
        if not client.exists(keys.conversation("default", "a"), f"{keys.runs('default', 'a')}1"):
            break
    else:
        pytest.fail("the keys are still there")
    assert deadlines(client, keys) == set()
    assert (store.purge_expired(), store.begin().conversations.count()) == (0, 1)
    assert "a" not in store.begin().conversations


def test_receipts_are_kept_for_a_day(store: Store, client: Any, keys: Keys) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("a"))
    with store.begin() as uow:
        uow.runs.append("a", Run(1, 1))
    kept = [client.ttl(key) for key in client.scan_iter(f"{keys.prefix}:receipt:*")]
    assert len(kept) == 2
    assert min(kept) >= 24 * 3600
    assert max(kept) <= 26 * 3600


def test_many_are_purged(store: Store, client: Any, keys: Keys) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    with store.begin() as uow:
        for n in range(1_200):
            uow.conversations.add(Conversation(f"c{n}", expires_at=past))
            uow.runs.append(f"c{n}", Run(n, n))
        uow.conversations.add(Conversation("kept"))
    assert (store.purge_expired(), store.purge_expired()) == (1_200, 0)
    left = {key for key in client.scan_iter(f"{keys.prefix}:*") if b":receipt:" not in key}
    assert left == {keys.conversation("default", "kept").encode()}
