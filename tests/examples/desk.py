"""What the tests of the support desk share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.config import Config
from fastapi.testclient import TestClient
from sqlalchemy import Connection, event, text
from support_desk import service
from support_desk.persistence import Database

DESK = Path(service.__file__).parent
INFO = {"customer": "ada", "topic": "other", "priority": "normal"}
HERE, THERE = {"X-Tenant": "here"}, {"X-Tenant": "there"}


on_postgresql_only = pytest.mark.parametrize(
    "owner_url", [pytest.param("postgresql", marks=pytest.mark.needs("postgres"))], indirect=True
)


def alembic() -> Config:
    return Config(DESK / "alembic.ini")


@contextmanager
def statements_of(database: Database) -> Iterator[list[str]]:
    """Collect the statements of the block."""
    seen: list[str] = []

    def see(_: Connection, __: object, statement: str, *___: object) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", see)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", see)


def opened(client: TestClient, *messages: str, subject: str = "Where is it?") -> str:
    ticket: str = client.post("/customers/ada/tickets", params={"subject": subject}).raise_for_status().json()
    for message in messages:
        client.post(f"/tickets/{ticket}/messages", params={"text": message}).raise_for_status()
    return ticket


def counts(database: Database, tenant: str = "here") -> tuple[int, int]:
    """Return how many tickets a tenant has, and how many conversations."""
    with database.begin(tenant) as uow:
        tickets = uow.session.execute(text("SELECT count(*) FROM tickets")).scalar_one()
        return tickets, uow.conversations.count()
