"""Put the application together: ``uvicorn --factory support_desk.main:create``."""

import logging
import os

from fastapi import FastAPI
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor  # pyright: ignore[reportMissingTypeStubs]

from memory.bridges.opentelemetry import instrument
from support_desk import asynchronous, service
from support_desk.api import create_app
from support_desk.domain import fake_model, fake_stream
from support_desk.persistence import Database


def create() -> FastAPI:
    """Return the application for the database at ``DESK_URL``, with tracing."""
    database = Database(os.environ["DESK_URL"])
    database.store.subscribe(service.alert(database.store, send))
    trace(database)
    app = create_app(database, fake_model)
    in_loop = asynchronous.Database(database)
    in_loop.store.subscribe(asynchronous.publish(send_part))
    app.include_router(asynchronous.routes(in_loop, fake_stream))
    return app


def send(ticket_id: str, text: str) -> None:
    """Stand in for a message to the staff."""
    logging.getLogger("support_desk").warning("urgent: ticket %s: %s", ticket_id, text)


async def send_part(ticket_id: str, text: str) -> None:
    """Stand in for a message to a web socket."""
    logging.getLogger("support_desk").info("the answer to ticket %s: %s", ticket_id, text)


def trace(database: Database) -> None:
    """Record a span for each operation of the store, and inside it one for each statement."""
    instrument(database.store)
    # Its check admits no SQLAlchemy 2.1 yet; the events that it listens to are the same.
    SQLAlchemyInstrumentor().instrument(engine=database.engine, skip_dep_check=True)
