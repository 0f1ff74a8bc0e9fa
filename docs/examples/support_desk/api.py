"""The HTTP interface. Endpoints are plain functions, which FastAPI calls in threads: the drivers are synchronous."""

from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse

from support_desk import service
from support_desk.domain import Customer, Model, NoSuchError, RuleError
from support_desk.persistence import Database, Summary

Tenant = Annotated[str, Header(alias="X-Tenant")]  # in a real application, from the caller's credentials


def create_app(database: Database, model: Model) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="Support desk")
    run = database.run

    @app.put("/customers/{customer_id}")
    def register(tenant: Tenant, customer_id: str, name: str) -> None:
        run(tenant, lambda uow: uow.customers.put(Customer(tenant, customer_id, name)))

    @app.post("/customers/{customer_id}/tickets")
    def open_ticket(tenant: Tenant, customer_id: str, subject: str) -> str:
        return run(tenant, lambda uow: service.open_ticket(uow, customer_id, subject)).id

    @app.get("/customers/{customer_id}/tickets")
    def tickets(tenant: Tenant, customer_id: str) -> list[Summary]:
        return run(tenant, lambda uow: uow.tickets.of_customer(customer_id))

    @app.post("/tickets/{ticket_id}/messages")
    def reply(tenant: Tenant, ticket_id: str, text: str) -> str:
        history = run(tenant, lambda uow: service.history(uow, ticket_id))
        answer = model(history, text)  # between two transactions: it is slow, and is paid for once
        run(tenant, lambda uow: service.record(uow, ticket_id, text, answer))
        return answer.text

    @app.post("/tickets/{ticket_id}/close")
    def close(tenant: Tenant, ticket_id: str) -> None:
        run(tenant, lambda uow: service.close_ticket(uow, ticket_id))

    @app.get("/topics/{topic}/tickets")
    def about(tenant: Tenant, topic: str) -> list[str]:
        return run(tenant, lambda uow: service.about(uow, topic))

    @app.get("/search")
    def search(tenant: Tenant, text: str) -> list[str]:
        return run(tenant, lambda uow: uow.tickets.containing(text))

    @app.exception_handler(NoSuchError)
    def not_found(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404)

    @app.exception_handler(RuleError)
    def forbidden(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    return app
