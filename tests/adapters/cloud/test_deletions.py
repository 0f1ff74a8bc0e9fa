"""Somebody deletes threads between any two requests of an operation: then they are not there, and all others are."""

from collections.abc import Callable, Iterator

import pytest

from memory import (
    CommitInDoubtError,
    ConflictError,
    Conversation,
    NotFoundError,
    PartialCommitError,
    Run,
    Store,
)
from memory.adapters.cloud import GriptapeCloudRepository
from memory.core.unit_of_work import UnitOfWork
from memory.port.repository import Repository, Window
from memory.testing.base import put, put_all, read, run
from tests.cloud_server import Assumptions, CloudServer, Fault, Request
from tests.cloud_server.faults import no_faults

MOST_REQUESTS = 12


def deleting(server: CloudServer, number: int, *aliases: str) -> None:
    """Delete threads just before the request of that number, from 0."""
    left = iter(range(number + 1))

    def plan(_: Request) -> Fault | None:
        if next(left, None) == number:
            for thread in list(server.service.threads.values()):
                if thread.alias in aliases:
                    server.service.threads.pop(thread.thread_id)
        return None

    server.plan = plan


@pytest.fixture(params=[Assumptions(), Assumptions(message_order="descending", thread_order="oldest")])
def server(request: pytest.FixtureRequest) -> Iterator[CloudServer]:
    server = CloudServer(request.param)
    yield server
    server.stop()


@pytest.fixture
def fill(server: CloudServer) -> Callable[[], GriptapeCloudRepository]:
    """Puts three conversations into an empty service; returns a repository that knows them."""

    def filled() -> GriptapeCloudRepository:
        server.plan = no_faults
        server.service.threads.clear()
        repository = GriptapeCloudRepository(server.host, "key-of-org-a", timeout=10)
        repository._http.sleep = lambda _: None
        for id in ("a", "b", "c"):
            put(Store(repository), id, {"n": 1}, run("1"), run("2"), run("3"))
        read(Store(repository), "a")
        return repository

    return filled


def outcomes(repository: Repository) -> tuple[object, ...]:
    store = Store(repository)
    found = repository.get("default", "b")
    runs = repository.runs("default", "b", Window())
    return (
        found and found.metadata,
        (runs.seen and runs.seen.version, [one.input for one in runs.runs]),
        sorted(one.id for one in store.begin().conversations.find()),
        store.begin().conversations.count(),
    )


def test_reads(server: CloudServer, fill: Callable[[], GriptapeCloudRepository]) -> None:
    there: tuple[object, ...] = ({"n": 1}, (1, ["1", "2", "3"]), ["a", "b", "c"], 3)
    gone: tuple[object, ...] = (None, (None, []), ["a", "c"], 2)
    for number in range(MOST_REQUESTS):
        repository = fill()
        deleting(server, number, "b")
        assert all(one in both for one, both in zip(outcomes(repository), zip(there, gone, strict=True), strict=True))
        repository.close()


def _edit(uow: UnitOfWork) -> None:
    uow.conversations.get("b").metadata["n"] = 2
    uow.runs.replace("b", Run("new", "", position=2))
    uow.runs.remove("b", 1)


def _replace(uow: UnitOfWork) -> None:
    uow.conversations.remove("b")
    uow.conversations.add(Conversation("b", {"n": 2}))


@pytest.mark.parametrize(
    "work",
    [
        lambda uow: uow.runs.append("b", run("4"), run("5")),
        lambda uow: uow.runs.append("b", run("4"), after=3),
        lambda uow: uow.conversations.remove("b"),
        _edit,
        _replace,
    ],
    ids=["append", "append after", "remove", "edit", "replace"],
)
def test_writes(
    server: CloudServer, fill: Callable[[], GriptapeCloudRepository], work: Callable[[UnitOfWork], None]
) -> None:
    said: list[str] = []
    for number in range(MOST_REQUESTS):
        repository = fill()
        deleting(server, number, "b")
        try:
            with Store(repository).begin() as uow:
                work(uow)
        except (NotFoundError, ConflictError, PartialCommitError, CommitInDoubtError) as error:
            said.append(str(error))
        server.plan = no_faults
        assert {"a", "c"} <= {one.id for one in Store(repository).begin().conversations.find()}
        repository.close()
    assert said or work is _replace
    assert "/api/" not in "".join(said)  # the words are about conversations


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_a_query_misses_nothing_when_others_move_to_a_page_that_was_read(order: str) -> None:
    server = CloudServer(Assumptions(thread_order=order, largest_page=10))  # type: ignore[arg-type]
    repository = GriptapeCloudRepository(server.host, "key-of-org-a")
    store = Store(repository)
    put_all(store, {f"c{n:02}": {"n": n} for n in range(45)})
    gone = [f"c{n:02}" for n in (0, 1, 2, 3, 42, 43, 44)]
    for number in range(6):
        kept = dict(server.service.threads)
        deleting(server, number, *gone)
        found = {one.id for one in store.begin().conversations.find(limit=100)}
        assert {f"c{n:02}" for n in range(4, 42)} <= found
        server.plan = no_faults
        server.service.threads.clear()
        server.service.threads.update(kept)
    repository.close()
    server.stop()
