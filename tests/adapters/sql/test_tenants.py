"""SQLAlchemy's ``schema_translate_map``: each tenant in a schema of its own, with every statement in it."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from psycopg import sql
from sqlalchemy import Engine, create_engine, inspect, text

import memory
from memory import ConfigurationError, Conversation, Run, SchemaError, Store, where
from memory.adapters.sql import SqlRepository
from tests.servers import postgres

pytestmark = pytest.mark.needs("postgres")


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        for name in ("a", "b"):
            connection.execute(text(f"CREATE SCHEMA tenant_{name}"))
    yield engine
    engine.dispose()


def tenant(engine: Engine, name: str) -> Store:
    mapped = engine.execution_options(schema_translate_map={None: f"tenant_{name}"})
    return Store(SqlRepository(mapped))


def test_tenants_in_schemas_of_their_own_see_nothing_of_each_other(engine: Engine) -> None:
    a, b = tenant(engine, "a"), tenant(engine, "b")
    for store in (a, b):
        assert store.schema_status().current is None
        assert store.migrate().is_current
        assert store.migrate().is_current
    with a.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"of": "a"}))
        uow.runs.append("c", Run("q", "a"))
    with b.begin() as uow:
        assert "c" not in uow.conversations
        assert uow.conversations.count() == 0
        assert list(uow.conversations.find(where("of") == "a")) == []
        uow.conversations.add(Conversation("c", metadata={"of": "b"}))
    for name, store in (("a", a), ("b", b)):
        with store.begin() as uow:
            assert uow.conversations.get("c").metadata == {"of": name}
            assert uow.conversations.count(where("of") == name) == 1
            assert uow.conversations.get("c").run_count == len(uow.runs.list("c")) == (name == "a")
    assert a.namespaces() == ["default"]
    assert a.purge_expired() == 0
    assert not [table for table in inspect(engine).get_table_names() if table.startswith("memory_")]


def test_a_joined_unit_of_work_is_in_the_schema_of_its_connection(engine: Engine) -> None:
    a, b = tenant(engine, "a"), tenant(engine, "b")
    a.migrate(), b.migrate()
    with engine.connect().execution_options(schema_translate_map={None: "tenant_b"}) as connection:
        with a.begin(connection=connection) as uow:
            uow.conversations.add(Conversation("c"))
        connection.commit()
    assert a.begin().conversations.count() == 0
    assert b.begin().conversations.get("c").id == "c"


@pytest.mark.parametrize("name", ["chats", "Tenant-b", 'of "c"'])
def test_a_url_names_a_schema(postgres_url: str, name: str) -> None:
    with postgres.connect(postgres_url) as server:
        server.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    with memory.connect(f"{postgres_url}?pool_size=2&schema={quote(name)}") as store:
        assert store.migrate().is_current
        with store.begin() as uow:
            uow.conversations.add(Conversation("c", metadata={"of": name}))
        with store.begin() as uow:
            assert uow.conversations.count(where("of") == name) == 1
    with memory.connect(postgres_url) as store:
        assert store.schema_status().current is None


def test_a_urls_schema_must_exist(postgres_url: str) -> None:
    with memory.connect(f"{postgres_url}?schema=nowhere") as store:
        with pytest.raises(SchemaError, match="memory migrate"):
            store.begin()
        with pytest.raises(ConfigurationError, match='schema "nowhere" does not exist'):
            store.migrate()
    with pytest.raises(ConfigurationError, match="schema"):
        memory.connect(f"{postgres_url}?schema=a%25b")


def test_the_relays_of_two_tenants_do_not_stop_each_other(engine: Engine) -> None:
    a, b = tenant(engine, "a"), tenant(engine, "b")
    a.migrate(), b.migrate()
    with a.repository.relaying("r") as one, b.repository.relaying("r") as other, a.repository.relaying("r") as third:
        assert one is not None
        assert other is not None
        assert third is None
