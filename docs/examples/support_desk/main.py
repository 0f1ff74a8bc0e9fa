"""Put the application together: ``uvicorn --factory support_desk.main:create``."""

import logging
import os

from fastapi import FastAPI
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor  # pyright: ignore[reportMissingTypeStubs]

from memory.bridges.opentelemetry import instrument
from support_desk import service
from support_desk.api import create_app
from support_desk.domain import fake_model
from support_desk.persistence import Database


def create() -> FastAPI:
    """Return the application for the database at ``DESK_URL``, with tracing."""
    database = Database(os.environ["DESK_URL"])
    database.store.subscribe(service.alert(database.store, send))
    trace(database)
    return create_app(database, fake_model)


def send(ticket_id: str, text: str) -> None:
    """Stand in for a message to the staff."""
    logging.getLogger("support_desk").warning("urgent: ticket %s: %s", ticket_id, text)


def trace(database: Database) -> None:
    """Record a span for each operation of the store, and inside it one for each statement."""
    instrument(database.store)
    # Its check admits no SQLAlchemy 2.1 yet; the events that it listens to are the same.
    SQLAlchemyInstrumentor().instrument(engine=database.engine, skip_dep_check=True)
