"""What an operation costs in round trips, and in commands of the server's; and that none grows with a conversation."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import memory
from memory import Conversation, Run, Store, UnitOfWork, where
from memory.domain.entities import PENDING
from memory.domain.values import new_id
from tests.adapters.redis.conftest import executed
from tests.servers import Server
from tests.servers.proxy import Proxy
from tests.servers.redis import commits

Work = Callable[[UnitOfWork], object]


@pytest.fixture(scope="module")
def behind_proxy(redis_server: Server) -> Iterator[tuple[Store, Proxy]]:
    """A store behind a proxy, whose server knows the scripts already."""
    with Proxy(redis_server.url, commits) as proxy, memory.connect(f"{proxy.url}?prefix=trips-{new_id()}") as store:
        store.migrate()
        fill(store.namespace("warm"))
        for work, _ in WORK.values():
            with store.namespace("warm").begin() as uow:
                work(uow)
        yield store, proxy


def fill(store: Store) -> None:
    with store.begin() as uow:
        for n in range(60):
            uow.conversations.add(Conversation(f"c{n:02}", metadata={"n": n, "tier": "gold", "list": [n]}))
        for name in ("c07", "c08"):
            uow.runs.append(name, *[Run(n, None) for n in range(300)])
        uow.conversations.add(Conversation("sliding", expires_after=timedelta(days=1)))
        uow.runs.append("sliding", Run("q", PENDING, id="open"))


def add(uow: UnitOfWork) -> None:
    uow.conversations.add(Conversation("new", metadata={"n": 1}))
    uow.runs.append("new", Run("q", "a"))


def add_many(uow: UnitOfWork) -> None:
    for n in range(100):
        uow.conversations.add(Conversation(f"new{n}", metadata={"n": 1}))
        uow.runs.append(f"new{n}", Run("q", "a"), Run("q", "a"))


def edit(uow: UnitOfWork) -> None:
    uow.conversations.get("c07").metadata["n"] = new_id()


def replace_last(uow: UnitOfWork) -> None:
    uow.runs.replace("c07", replace(uow.runs.last("c07", 1)[0], output="better"))


WORK: dict[str, tuple[Work, int]] = {
    "append a run": (lambda uow: uow.runs.append("c07", Run("q", "a")), 1),
    "append ten runs": (lambda uow: uow.runs.append("c07", *[Run(n, "a") for n in range(10)]), 1),
    "append to a sliding expiry": (lambda uow: uow.runs.append("sliding", Run("q", "a")), 1),
    "append an open run": (lambda uow: uow.runs.append("c07", Run("q", PENDING)), 1),
    "complete a run": (lambda uow: uow.runs.complete("sliding", "open", output="a"), 1),
    "the open runs": (lambda uow: uow.runs.open(), 2),
    "append after a position": (lambda uow: uow.runs.append("c09", Run("q", "a"), after=0), 1),
    "add a conversation with a run": (add, 1),
    "add a hundred with two each": (add_many, 1),
    "get a conversation": (lambda uow: uow.conversations.get("c07"), 1),
    "change a number in metadata": (edit, 2),
    "replace the last run": (replace_last, 2),
    "remove runs": (lambda uow: uow.runs.remove("c07", 1, 2, 3), 1),
    "remove a conversation": (lambda uow: uow.conversations.remove("c07"), 1),
    "the last twenty runs": (lambda uow: uow.runs.last("c08", 20), 1),
    # few enough for one packet, of 6,000 bytes in redis-py: the proxy counts an answer between two packets as a round trip
    "the last runs of many": (lambda uow: uow.runs.last_of([f"c{n:02}" for n in range(4)], 3), 1),
    "many conversations": (lambda uow: uow.conversations.get_many([f"c{n:02}" for n in range(4)]), 1),
    "the first twenty runs": (lambda uow: uow.runs.first("c08", 20), 1),
    "one run": (lambda uow: uow.runs.list("c08", after=149, limit=1), 1),
    "the conversations of some ids": (lambda uow: uow.conversations.find(where.id.in_(["c07", "c08", "no"])), 1),
    "the newest conversations": (lambda uow: uow.conversations.find(limit=20), 1),
    "the conversations where": (lambda uow: uow.conversations.find(where("n") == 9), 1),
    "in a range, of another order": (lambda uow: uow.conversations.find(where("n") >= 9, order="id", limit=3), 1),
    "the conversations where, and where": (
        lambda uow: uow.conversations.find((where("n") < 7) & (where("tier") == "gold") & ~where("x").exists()),
        1,
    ),
    "how many conversations": (lambda uow: uow.conversations.count(), 1),
    "how many conversations where": (lambda uow: uow.conversations.count(where("n") < 7), 1),
    "how many have an element": (lambda uow: uow.conversations.count(where("list").contains(7)), 1),
    "nothing": (lambda _: None, 0),
}


@pytest.mark.parametrize("name", WORK)
def test_round_trips(behind_proxy: tuple[Store, Proxy], name: str) -> None:
    work, expected = WORK[name]
    store, proxy = behind_proxy[0].namespace(name), behind_proxy[1]
    fill(store)
    with store.begin() as uow:
        before = proxy.round_trips
        work(uow)
        uow.commit()
        assert proxy.round_trips - before == expected


def test_the_next_page_costs_what_the_first_costs(behind_proxy: tuple[Store, Proxy]) -> None:
    store, proxy = behind_proxy[0].namespace("pages"), behind_proxy[1]
    fill(store)
    for order in ("id", "-last_run_at", "-updated_at", "created_at"):
        cursor = None
        for _ in range(3):
            before = proxy.round_trips
            page = store.begin().conversations.find(where("tier") == "gold", order=order, limit=20, after=cursor)
            assert (len(page), proxy.round_trips - before) == (20, 1)
            cursor = page.cursor


@pytest.mark.parametrize("name", ["append a run", "the last twenty runs", "change a number in metadata"])
def test_a_long_conversation_costs_what_a_short_one_costs(store: Store, client: Any, name: str) -> None:
    """In the server's own unit of work: the commands it executes, those of scripts among them."""
    work, _ = WORK[name]
    fill(store)
    with store.begin() as uow:
        work(uow)
    counts = []
    for _ in range(2):

        def once() -> None:
            with store.begin() as uow:
                work(uow)

        counts.append(executed(client, once))
        with store.begin() as uow:
            uow.conversations.get("c07").metadata["n"] = 7
            uow.runs.append("c07", *[Run(n, "x" * 100) for n in range(20_000)])
            uow.runs.append("c08", *[Run(n, "x" * 100) for n in range(20_000)])
    assert counts[0] == counts[1]
