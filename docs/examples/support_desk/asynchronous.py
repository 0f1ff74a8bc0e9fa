"""Asynchronous endpoints beside those of `api`, on the same tables. They stream an answer while it is stored."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from memory import (
    PENDING,
    Committed,
    ConflictError,
    Conversation,
    Run,
    RunCompleted,
    TransactionAbortedError,
    aio,
    to_json,
)
from memory.bridges.pydantic import ConversationModel
from support_desk import persistence
from support_desk.api import Key, Tenant
from support_desk.domain import Answer, StreamingModel, Ticket, TicketInfo
from support_desk.persistence import TICKET_INFO, as_tenant, is_repeatable, listen
from support_desk.service import HISTORY

T = TypeVar("T")

DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
INTERVAL: Final = 1.0  # seconds between two commits of an incomplete answer


class UnitOfWork:
    """One transaction of one tenant, whose methods are awaited."""

    def __init__(self, session: AsyncSession, memory: aio.UnitOfWork[TicketInfo], tenant: str) -> None:
        self._session, self._tenant = session, tenant
        self.runs, self.flush = memory.runs, memory.commit

    async def ticket(self, id: str) -> Ticket:
        """Return a ticket. `run_sync` awaits the statements of the synchronous repository."""
        return await self._session.run_sync(lambda session: persistence.Tickets(session, self._tenant).get(id))


class Database:
    """A database as asynchronous code uses it: the same store, and an engine with an asynchronous driver."""

    def __init__(self, database: persistence.Database) -> None:
        url = database.engine.url
        self.engine = create_async_engine(
            url.set(drivername=DRIVERS[url.get_backend_name()]), isolation_level="SERIALIZABLE"
        )
        listen(self.engine.sync_engine)
        self.store = aio.Store(database.store.repository, metadata=TICKET_INFO, default=to_json)

    @asynccontextmanager
    async def begin(self, tenant: str, idempotency_key: str | None = None) -> AsyncGenerator[UnitOfWork]:
        """Run the block in one transaction: what it changes is committed at its end, or not at all if it raises."""
        with as_tenant(tenant):
            async with (
                AsyncSession(self.engine, expire_on_commit=False) as session,
                session.begin(),
                self.store.namespace(tenant).begin(connection=session, idempotency_key=idempotency_key) as memory,
            ):
                yield UnitOfWork(session, memory, tenant)

    async def run(
        self,
        tenant: str,
        work: Callable[[UnitOfWork], Awaitable[T]],
        idempotency_key: str | None = None,
        attempts: int = 5,
    ) -> T:
        """Do the work in one transaction. If concurrent ones get in its way, roll back and repeat all of it."""
        try:
            async with self.begin(tenant, idempotency_key) as uow:
                return await work(uow)
        except (ConflictError, DBAPIError, TransactionAbortedError) as error:
            if attempts == 1 or not is_repeatable(error):
                raise
        await asyncio.sleep(random.uniform(0, 0.1))  # noqa: S311  # they should not meet again
        return await self.run(tenant, work, idempotency_key, attempts - 1)


async def ask(uow: UnitOfWork, ticket_id: str, text: str) -> Run:
    """Store a message, which has no answer yet, and return it; for an idempotency key of before, the earlier message."""
    ticket, message = await uow.ticket(ticket_id), Run(text, PENDING)
    await uow.runs.append(ticket_id, message)
    receipt = await uow.flush()
    if receipt.repeated:
        return await uow.runs.get(ticket_id, receipt.last_position(ticket_id))
    ticket.check_open()
    return message


async def reply(
    store: aio.Store[TicketInfo], ticket_id: str, message: Run, model: StreamingModel, interval: float = INTERVAL
) -> AsyncGenerator[str]:
    """Answer a message, and yield the parts of the answer. No transaction waits for the model, or for the client."""
    if not message.is_open:
        yield str(message.output)
        return
    with as_tenant(store.namespace_name):
        history = await store.runs.last(ticket_id, HISTORY, before=message)
    answer, stored_at = Answer("", "other"), time.monotonic()
    async for longer in model(history, message.input):
        yield longer.text[len(answer.text) :]
        answer = longer
        if time.monotonic() - stored_at >= interval:
            await save(store, ticket_id, message, answer, is_final=False)
            stored_at = time.monotonic()
    await save(store, ticket_id, message, answer, is_final=True)


async def save(store: aio.Store[TicketInfo], ticket_id: str, message: Run, answer: Answer, *, is_final: bool) -> None:
    """Store an answer as far as it is. An earlier one that is complete is kept."""

    async def work(uow: aio.UnitOfWork[TicketInfo]) -> None:
        if not (await uow.runs.get(ticket_id, message)).is_open:
            return
        tools = {"tools": answer.tools}
        await uow.runs.complete(ticket_id, message.id, output=answer.text, metadata=tools, is_final=is_final)
        if is_final:
            (await uow.conversations.get(ticket_id)).metadata.topic = answer.topic

    with as_tenant(store.namespace_name):
        await store.run(work)  # no table of the desk's: it needs no session


def publish(send: Callable[[str, str], Awaitable[object]]) -> Callable[[Committed], Awaitable[None]]:
    """Return a subscriber that sends answers as they grow, for instance to the web sockets of those who watch a ticket."""

    async def handle(committed: Committed) -> None:
        for event in committed.events:
            if isinstance(event, RunCompleted):
                await send(event.conversation_id, event.output)

    return handle


def routes(database: Database, model: StreamingModel) -> APIRouter:
    """Return the endpoints, which await the database and the model in the event loop."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await database.engine.dispose()

    router = APIRouter(prefix="/async/tickets/{ticket_id}", lifespan=lifespan)

    @router.get("", response_model=ConversationModel[TicketInfo])
    async def ticket(tenant: Tenant, ticket_id: str, response: Response) -> Conversation[TicketInfo]:
        with as_tenant(tenant):
            conversation = await database.store.namespace(tenant).conversations.get(ticket_id)
        response.headers["ETag"] = conversation.etag
        return conversation

    @router.post("/messages")
    async def stream(tenant: Tenant, ticket_id: str, text: str, key: Key = None) -> StreamingResponse:
        key = None if key is None else f"{ticket_id}/{key}"
        message = await database.run(tenant, lambda uow: ask(uow, ticket_id, text), key)
        answer = reply(database.store.namespace(tenant), ticket_id, message, model)
        return StreamingResponse(answer, media_type="text/plain")

    return router
