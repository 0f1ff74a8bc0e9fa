"""Put the application together: ``uvicorn --factory support_desk.main:create``."""

import os

from fastapi import FastAPI
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

from memory.bridges.opentelemetry import instrument
from support_desk.api import create_app
from support_desk.domain import fake_model
from support_desk.persistence import Database


def create() -> FastAPI:
    """Return the application for the database at ``DESK_URL``, with tracing."""
    database = Database(os.environ["DESK_URL"])
    trace(database)
    return create_app(database, fake_model)


def trace(database: Database) -> None:
    """Record a span for each operation of the store, and inside it one for each statement."""
    instrument(database.store)
    # Its check admits no SQLAlchemy 2.1 yet; the events that it listens to are the same.
    SQLAlchemyInstrumentor().instrument(engine=database.engine, skip_dep_check=True)
