"""The HTTP interface. Endpoints are plain functions, which FastAPI calls in threads: the drivers are synchronous."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from memory import (
    AlreadyExistsError,
    ConflictError,
    Conversation,
    InvalidValueError,
    NotFoundError,
    Run,
    StoreUnavailableError,
    TransactionAbortedError,
)
from memory.bridges.pydantic import ConversationModel, RunModel
from support_desk import jobs, service
from support_desk.domain import Customer, Model, NoSuchError, Priority, RuleError, TicketInfo
from support_desk.persistence import Database

Tenant = Annotated[str, Header(alias="X-Tenant")]  # in a real application, from the caller's credentials
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
IfMatch = Annotated[str | None, Header(alias="If-Match")]
Position = Annotated[int | None, Query(ge=0)]

RETRY_LATER: Final = 503
STATUS: Final[dict[type[Exception], int]] = {
    NoSuchError: 404,
    NotFoundError: 404,
    RuleError: 409,
    AlreadyExistsError: 409,
    ConflictError: 409,  # or 412: see `respond`
    InvalidValueError: 422,
    TransactionAbortedError: RETRY_LATER,
    StoreUnavailableError: RETRY_LATER,
}


class SummaryModel(BaseModel):
    """The response for a `service.Summary`."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    subject: str
    is_open: bool
    info: TicketInfo
    messages: list[RunModel]


def create_app(database: Database, model: Model) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="Support desk")
    for router in (customer_routes(database), ticket_routes(database, model), search_routes(database)):
        app.include_router(router)
    for error in STATUS:
        app.add_exception_handler(error, respond)
    return app


def respond(request: Request, error: Exception) -> JSONResponse:
    """Return the response for an error of the desk's or of the store's."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    if isinstance(error, ConflictError) and "If-Match" in request.headers:
        status = 412
    return JSONResponse({"detail": str(error)}, status, {"Retry-After": "1"} if status == RETRY_LATER else None)


def customer_routes(database: Database) -> APIRouter:
    """Return the endpoints of customers."""
    router, run = APIRouter(prefix="/customers/{customer_id}"), database.run

    @router.put("")
    def register(tenant: Tenant, customer_id: str, name: str) -> None:
        run(tenant, lambda uow: uow.customers.put(Customer(tenant, customer_id, name)))

    @router.delete("")
    def erase(tenant: Tenant, customer_id: str) -> dict[str, Any]:
        return jobs.erase(database, tenant, customer_id).to_dict()

    @router.post("/tickets")
    def open_ticket(tenant: Tenant, customer_id: str, subject: str) -> str:
        return run(tenant, lambda uow: service.open_ticket(uow, customer_id, subject)).id

    @router.get("/tickets", response_model=list[SummaryModel])
    def tickets(tenant: Tenant, customer_id: str) -> list[service.Summary]:
        return run(tenant, lambda uow: service.tickets_of(uow, customer_id))

    return router


def ticket_routes(database: Database, model: Model) -> APIRouter:
    """Return the endpoints of tickets and their messages."""
    router, run = APIRouter(prefix="/tickets/{ticket_id}"), database.run

    @router.get("", response_model=ConversationModel[TicketInfo])
    def ticket(tenant: Tenant, ticket_id: str, response: Response) -> Conversation[TicketInfo]:
        conversation = run(tenant, lambda uow: uow.conversations.get(ticket_id))
        response.headers["ETag"] = conversation.etag
        return conversation

    @router.put("/priority", response_model=ConversationModel[TicketInfo])
    def prioritize(
        tenant: Tenant, ticket_id: str, priority: Priority, response: Response, if_match: IfMatch = None
    ) -> Conversation[TicketInfo]:
        conversation = run(tenant, lambda uow: service.set_priority(uow, ticket_id, priority, if_match))
        response.headers["ETag"] = conversation.etag
        return conversation

    @router.post("/close")
    def close(tenant: Tenant, ticket_id: str) -> None:
        run(tenant, lambda uow: service.close_ticket(uow, ticket_id))

    @router.get("/messages", response_model=list[RunModel])
    def messages(tenant: Tenant, ticket_id: str, before: Position = None) -> list[Run]:
        return run(tenant, lambda uow: service.messages(uow, ticket_id, before))

    @router.post("/messages", response_model=RunModel)
    def reply(tenant: Tenant, ticket_id: str, text: str, after: Position = None, key: Key = None) -> Run:
        key = None if key is None else f"{ticket_id}/{key}"
        message = run(tenant, lambda uow: service.ask(uow, ticket_id, text, after=after), key)
        return service.reply(database, tenant, ticket_id, message, model)

    return router


def search_routes(database: Database) -> APIRouter:
    """Return the endpoints that search for tickets, and respond with their ids."""
    router, run = APIRouter(), database.run

    @router.get("/topics/{topic}/tickets")
    def about(tenant: Tenant, topic: str) -> list[str]:
        return run(tenant, lambda uow: service.about(uow, topic))

    @router.get("/search")
    def search(tenant: Tenant, text: str) -> list[str]:
        return [ticket.id for ticket in run(tenant, lambda uow: uow.tickets.containing(text))]

    return router
