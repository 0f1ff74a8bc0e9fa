"""The asynchronous endpoints of the support desk, beside the synchronous ones, on sqlite and on PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support_desk import asynchronous, service
from support_desk.api import create_app
from support_desk.asynchronous import UnitOfWork, ask, publish, reply, routes
from support_desk.domain import Answer, RuleError, StreamingModel, fake_model, fake_stream
from support_desk.persistence import Database

from memory import PENDING, Run
from tests.examples.desk import HERE, THERE, opened

CLIENTS = 16


def application(database: Database, model: StreamingModel = fake_stream) -> FastAPI:
    app = create_app(database, fake_model)
    app.include_router(routes(asynchronous.Database(database), model))
    return app


@pytest.fixture
def client(database: Database) -> Iterator[TestClient]:
    with TestClient(application(database), headers=HERE) as client:
        yield client


@asynccontextmanager
async def in_loop(database: Database) -> AsyncGenerator[asynchronous.Database]:
    here = asynchronous.Database(database)
    try:
        yield here
    finally:
        await here.engine.dispose()


def messages(database: Database, ticket: str) -> list[Run]:
    with database.of("here") as store:
        return store.runs.list(ticket)


def test_both_kinds_of_endpoints_answer_the_same_ticket(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    ticket = opened(client, "Hello?")
    post = partial(client.post, f"/async/tickets/{ticket}/messages")
    assert post(params={"text": "My refund!"}).raise_for_status().text == "(2) You wrote: My refund!"
    client.post(f"/tickets/{ticket}/messages", params={"text": "Thanks!"}).raise_for_status()
    found = client.get(f"/tickets/{ticket}/messages").json()
    assert [one["output"] for one in found] == [
        f"({n}) You wrote: {text}" for n, text in enumerate(("Hello?", "My refund!", "Thanks!"), 1)
    ]
    response = client.get(f"/async/tickets/{ticket}").raise_for_status()
    assert response.headers["ETag"] == response.json()["etag"] == client.get(f"/tickets/{ticket}").headers["ETag"]
    assert client.get(f"/async/tickets/{ticket}", headers=THERE).status_code == 404
    assert post(params={"text": "?"}, headers=THERE).status_code == 404
    client.post(f"/tickets/{ticket}/close").raise_for_status()
    assert post(params={"text": "?"}).status_code == 409
    assert len(client.get(f"/tickets/{ticket}/messages").json()) == 3
    assert "blocks the event loop" not in caplog.text


def test_a_redelivered_message_is_stored_once(client: TestClient) -> None:
    ticket = opened(client)
    post = partial(client.post, f"/async/tickets/{ticket}/messages", params={"text": "Hello?"})
    first, second = (post(headers={"Idempotency-Key": "message-7"}).raise_for_status().text for _ in range(2))
    assert first == second == "(1) You wrote: Hello?"
    assert len(client.get(f"/tickets/{ticket}/messages").json()) == 1


def test_others_see_an_answer_as_it_grows(database: Database, client: TestClient) -> None:
    ticket = opened(client)
    sent: list[str] = []

    async def send(_: str, text: str) -> None:
        sent.append(text)

    async def model(*_: object) -> AsyncIterator[Answer]:
        yield Answer("It", "refund")
        yield Answer("It left", "refund")
        yield Answer("It left on Monday.", "refund")

    async def work() -> None:
        async with in_loop(database) as here:
            here.store.subscribe(publish(send))
            message = await here.run("here", lambda uow: ask(uow, ticket, "My refund!"))
            seen: list[tuple[object, bool]] = []
            parts: list[str] = []
            async for part in reply(here.store.namespace("here"), ticket, message, model, interval=0):
                parts.append(part)
                (run,) = await asyncio.to_thread(messages, database, ticket)
                seen.append((run.output, run.is_open))
            assert "".join(parts) == "It left on Monday."
            assert seen == [(PENDING, True), ("It", True), ("It left", True)]

    asyncio.run(work())
    (run,) = messages(database, ticket)
    assert (run.output, run.is_open) == ("It left on Monday.", False)
    assert sent == ["It", "It left", "It left on Monday.", "It left on Monday."]
    assert client.get("/topics/refund/tickets").json() == [ticket]


def test_an_answer_whose_client_has_gone_is_left_to_the_job(database: Database, client: TestClient) -> None:
    """The first answer that is complete is kept."""
    ticket = opened(client)

    async def work() -> None:
        async with in_loop(database) as here:
            message = await here.run("here", lambda uow: ask(uow, ticket, "Hello?"))
            store = here.store.namespace("here")
            slow, gone = (reply(store, ticket, message, fake_stream, interval=0) for _ in range(2))
            assert [await anext(gone) for _ in range(2)] == ["(1)", " You"]
            await gone.aclose()
            (run,) = await asyncio.to_thread(messages, database, ticket)
            assert (run.output, run.is_open) == ("(1)", True)
            await anext(slow)
            model = partial(service.answer, ticket_id=ticket, message=replace(run), answer=Answer("first", "first"))
            await asyncio.to_thread(database.run, "here", model)
            assert [part async for part in slow] == [" You", " wrote:", " Hello?"]

    asyncio.run(work())
    assert [run.output for run in messages(database, ticket)] == ["first"]


def test_a_transaction_that_raises_writes_nothing(database: Database, client: TestClient) -> None:
    ticket = opened(client)

    async def work(uow: UnitOfWork) -> None:
        await ask(uow, ticket, "Hello?")
        raise RuleError

    async def run() -> None:
        async with in_loop(database) as here:
            with pytest.raises(RuleError):
                await here.run("here", work)

    asyncio.run(run())
    assert messages(database, ticket) == []


def test_messages_at_the_same_time_are_all_answered(database: Database, client: TestClient) -> None:
    """No transaction and no thread waits for the model, which answers when all have asked. `pytest -rP` shows the print."""
    first, tickets = opened(client), []
    for n in range(CLIENTS):
        client.put(f"/customers/{n}", params={"name": "Ada"}).raise_for_status()
        tickets.append(client.post(f"/customers/{n}/tickets", params={"subject": "?"}).raise_for_status().json())
    asked = 0
    all_have_asked = asyncio.Event()

    async def model(_: Sequence[Run], text: str) -> AsyncIterator[Answer]:
        nonlocal asked
        asked += text != "first"
        if asked == CLIENTS:
            all_have_asked.set()
        if text != "first":
            await all_have_asked.wait()
        yield Answer(text, "other")

    async def work() -> list[float]:
        app = application(database, model)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://desk", headers=HERE, timeout=60) as clients,
        ):
            await clients.post(f"/async/tickets/{first}/messages", params={"text": "first"})  # SQLAlchemy compiles
            posts = [
                clients.post(f"/async/tickets/{ticket}/messages", params={"text": f"{n}"})
                for n, ticket in enumerate(tickets)
            ]
            async with ticking() as ticks:
                answers = await asyncio.wait_for(asyncio.gather(*posts), 120)
            assert [answer.raise_for_status().text for answer in answers] == [f"{n}" for n in range(CLIENTS)]
        return ticks

    ticks = asyncio.run(work())
    assert [[run.output for run in messages(database, ticket)] for ticket in tickets] == [
        [f"{n}"] for n in range(CLIENTS)
    ]
    longest = max(later - earlier for earlier, later in pairwise(ticks))
    print(f"the longest turn of the event loop, for {CLIENTS} clients at once: {longest * 1000:.1f} ms")  # noqa: T201  # reported only


@asynccontextmanager
async def ticking() -> AsyncGenerator[list[float]]:
    """Collect the times at which the event loop came round, every millisecond if nothing blocks it."""
    ticks = [time.perf_counter()]

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.001)
            ticks.append(time.perf_counter())

    task = asyncio.ensure_future(tick())
    try:
        yield ticks
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
