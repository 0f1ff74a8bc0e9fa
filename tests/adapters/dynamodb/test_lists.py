"""The lists by ``last_run_at`` and ``updated_at``: a conversation is in the latter only if the two are not in the same minute."""

from datetime import timedelta
from random import Random

import pytest

from memory import Conversation, Run, Store, where
from memory.adapters.dynamodb import DynamoDbRepository
from memory.domain.values import to_datetime
from memory.testing.base import Clock, do, walk
from tests.adapters.dynamodb.watching import check_tidy, items_of, watched

MINUTE = 60_000_000


@pytest.fixture
def clock(repository: DynamoDbRepository) -> Clock:
    repository.clock = clock = Clock()
    return clock


def new_run(clock: Clock, age: int = 0) -> Run:
    return Run("in", "out", created_at=to_datetime(clock.time - age))


def create(store: Store, clock: Clock, conversation_id: str) -> None:
    do(store, lambda uow: uow.conversations.add(Conversation(conversation_id, {"n": 1})))
    do(store, lambda uow: uow.runs.append(conversation_id, new_run(clock)))


def listed(repository: DynamoDbRepository, namespace: str) -> int:
    return sum(key[0].startswith("list#updated_at#") for key in items_of(repository, namespace))


def test_what_writes_cost(repository: DynamoDbRepository, store: Store, namespace: str, clock: Clock) -> None:
    """A change of the metadata long after the last run lists the conversation by `updated_at`, until the next append."""
    create(store, clock, "a")
    units = []

    def cost() -> None:
        units.append(calls.write_units)
        check_tidy(repository, namespace)

    for _ in range(2):
        clock.advance(10 * MINUTE)
        with watched(repository.client) as calls, store.begin() as uow:
            uow.conversations.get("a").metadata["_n"] = clock.time  # not indexed
        cost()
        assert listed(repository, namespace) == 1
    for _ in range(2):
        clock.advance(10 * MINUTE)
        with watched(repository.client) as calls, store.begin() as uow:
            uow.runs.append("a", new_run(clock))
        cost()
        assert listed(repository, namespace) == 0
    with watched(repository.client) as calls, store.begin() as uow:
        uow.conversations.get("a").metadata["_n"] = 0
    cost()
    assert units == [8, 10, 12, 10, 6]


def test_every_order_under_all_kinds_of_writes(
    repository: DynamoDbRepository, store: Store, namespace: str, clock: Clock
) -> None:
    """Appends of new and old runs, and changes, at times near to each other and far apart: each order has each once."""
    random = Random(7)
    for n in range(10):
        create(store, clock, f"c{n}")
    for _ in range(60):
        clock.advance(random.choice((0, 1, MINUTE // 7, MINUTE, 10 * MINUTE)))
        name = f"c{random.randrange(10)}"
        if random.random() < 0.5:
            do(store, lambda uow, name=name: uow.conversations.get(name).metadata.update(n=clock.time))  # type: ignore[misc]
        else:
            age = random.choice((0, MINUTE // 7, 3 * MINUTE, -3 * MINUTE))
            do(store, lambda uow, name=name, age=age: uow.runs.append(name, new_run(clock, age)))  # type: ignore[misc]
    check_tidy(repository, namespace)
    assert 0 < listed(repository, namespace) < 10
    everything = list(store.conversations.find(limit=100))
    for field in ("last_run_at", "updated_at"):
        expected = [one.id for one in sorted(everything, key=lambda one: (getattr(one.record, field), one.id))]
        for limit in (1, 3, 100):
            assert [one.id for one in walk(store, order=field, limit=limit)] == expected
            assert [one.id for one in walk(store, order=f"-{field}", limit=limit)] == expected[::-1]
    middle = sorted(one.updated_at for one in everything if one.updated_at)[5]
    for criterion, count in ((where.updated_at >= middle, 5), (where.updated_at < middle, 5)):
        assert len(store.conversations.find(criterion, order="updated_at")) == count


def test_pages_read_copies(repository: DynamoDbRepository, store: Store, clock: Clock) -> None:
    for n in range(60):
        create(store, clock, f"c{n:02}")
        clock.advance(MINUTE // 10)
    for n in range(0, 60, 3):
        do(store, lambda uow, n=n: uow.conversations.get(f"c{n:02}").metadata.update(n=2))  # type: ignore[misc]
    for order, requests, units in (("-last_run_at", 1, 5), ("-updated_at", 2, 8)):
        with watched(repository.client) as calls:
            assert len(store.conversations.find(limit=50, order=order)) == 50
        assert calls.counted() == {"Query": requests}
        assert calls.read_units <= units


def test_a_sliding_expiry_moves_in_its_list(
    repository: DynamoDbRepository, store: Store, namespace: str, clock: Clock
) -> None:
    do(store, lambda uow: uow.conversations.add(Conversation("a", expires_after=timedelta(minutes=1))))
    for _ in range(3):
        clock.advance(MINUTE // 2)
        do(store, lambda uow: uow.runs.append("a", new_run(clock)))
        check_tidy(repository, namespace)
        assert store.purge_expired() == 0
    clock.advance(MINUTE)
    assert store.purge_expired() == 1
