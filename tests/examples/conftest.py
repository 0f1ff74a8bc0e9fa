"""The support desk on sqlite and on PostgreSQL."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from support_desk.api import create_app
from support_desk.domain import Customer, fake_model
from support_desk.persistence import Database

import memory
from tests.examples.desk import DESK, HERE, alembic


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgres"))])
def owner_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database with both schemas, by an account that owns them."""
    is_sqlite = request.param == "sqlite"
    url: str = f"sqlite:///{tmp_path}/desk.db" if is_sqlite else request.getfixturevalue("postgres_url")
    monkeypatch.setenv("DESK_URL", url)
    with memory.connect(url) as store:
        store.migrate()
    command.upgrade(alembic(), "head")
    return url


@pytest.fixture
def url(owner_url: str) -> Iterator[str]:
    """The URL for the application: on PostgreSQL, an account that row-level security applies to."""
    if owner_url.startswith("sqlite"):
        yield owner_url
        return
    owner = create_engine(owner_url)
    name = f"app_of_{make_url(owner_url).database}"
    with owner.begin() as connection:
        (statements,) = re.findall("```sql\n(.*?)```", (DESK / "README.md").read_text(), re.DOTALL)
        for statement in statements.replace("desk;", f"{name};").replace("ROLE desk", f"ROLE {name}").splitlines():
            connection.execute(text(statement))
    yield make_url(owner_url).set(username=name, password="secret").render_as_string(hide_password=False)
    with owner.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))
    owner.dispose()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    with database.begin("here") as uow:
        uow.customers.put(Customer("here", "ada", "Ada"))
    yield database
    database.engine.dispose()


@pytest.fixture
def client(database: Database) -> Iterator[TestClient]:
    with TestClient(create_app(database, fake_model), headers=HERE) as client:
        yield client
