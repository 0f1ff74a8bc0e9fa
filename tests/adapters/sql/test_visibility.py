"""What the application's tools see: SQLAlchemy's events and echo, row-level security, schemas, and views."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, create_engine, event, select, text
from sqlalchemy.engine import make_url

import memory
from memory import AlreadyExistsError, Conversation, Run, Store, where
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.tables import conversation_view, conversations, run_view

TABLES = ("memory_conversations", "memory_runs", "memory_metadata", "memory_commits", "memory_counts")


def use_everything(store: Store) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"tier": "gold"}))
    with store.begin() as uow:
        uow.runs.append("c", Run("q", "a"), Run("q", "b"))
    with store.begin() as uow:
        uow.runs.append("c", Run("q", "c"))
        uow.conversations.get("c").metadata["tier"] = "basic"
    with store.begin() as uow:
        uow.runs.last("c", 2)
        uow.conversations.find(where("tier") == "basic")
        uow.conversations.count()
        uow.conversations.remove("c")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    SqlRepository(engine).migrate()
    yield engine
    engine.dispose()


def test_every_statement_is_seen_by_the_engines_events(engine: Engine) -> None:
    """E4."""
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    use_everything(Store(SqlRepository(engine)))
    for verb, table in (
        ("INSERT INTO", "memory_conversations"),
        ("UPDATE", "memory_conversations"),
        ("DELETE FROM", "memory_conversations"),
        ("INSERT INTO", "memory_runs"),
        ("INSERT INTO", "memory_metadata"),
        ("INSERT INTO", "memory_commits"),
        ("INSERT INTO", "memory_counts"),
        ("DELETE FROM", "memory_runs"),
        ("FROM", "memory_runs"),
        ("FROM", "memory_metadata"),
    ):
        assert any(f"{verb} {table}" in statement for statement in seen), (verb, table)


def test_errors_are_seen_by_a_listener_that_hears_nothing_else(engine: Engine) -> None:
    seen: list[BaseException] = []
    event.listen(engine, "handle_error", lambda context: seen.append(context.original_exception))
    store = Store(SqlRepository(engine))
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))
    with pytest.raises(AlreadyExistsError), store.begin() as uow:
        uow.conversations.add(Conversation("c"))
    assert [type(error).__name__ for error in seen][:1] in (["IntegrityError"], ["UniqueViolation"])


def test_every_statement_is_echoed(url: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = create_engine(url, echo=True)
    try:
        SqlRepository(engine).migrate()
        with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
            caplog.clear()
            use_everything(Store(SqlRepository(engine)))
    finally:
        engine.dispose()
        engine.echo = False
    for table in TABLES:
        assert table in caplog.text
    assert "BEGIN (implicit)" in caplog.text
    assert "COMMIT" in caplog.text


@contextmanager
def role(engine: Engine, name: str) -> Iterator[str]:
    """A role that row-level security applies to: neither a superuser nor the owner of the tables."""
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN"))
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}"))
        connection.execute(text(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}"))
    try:
        yield make_url(str(engine.url)).set(username=name).render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))


@pytest.mark.needs("postgres")
def test_row_level_security_by_a_setting_of_each_transaction(postgres_url: str) -> None:
    """A listener for "begin" says SET LOCAL: every read and write of ours is in a transaction that has it (P6)."""
    owner = create_engine(postgres_url)
    SqlRepository(owner).migrate()
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE memory_conversations ENABLE ROW LEVEL SECURITY"))
        connection.execute(
            text(
                "CREATE POLICY tenants ON memory_conversations USING (namespace = current_setting('app.tenant', true))"
            )
        )
    with role(owner, "tenants_of_a_test") as url:
        secured = create_engine(url)
        current: list[str] = ["a"]

        @event.listens_for(secured, "begin")
        def set_tenant(connection: Connection) -> None:
            connection.execute(text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": current[0]})

        store = Store(SqlRepository(secured))
        for tenant in ("a", "b"):
            current[0] = tenant
            with store.namespace(tenant).begin() as uow:
                uow.conversations.add(Conversation("c", metadata={"of": tenant}))
                uow.runs.append("c", Run(tenant, None))
        for tenant, other in (("a", "b"), ("b", "a")):
            current[0] = tenant
            with store.namespace(tenant).begin() as uow:
                assert uow.conversations.get("c").metadata == {"of": tenant}
                assert [run.input for run in uow.runs.last("c", 5)] == [tenant]
                assert [found.id for found in uow.conversations.find(where("of") == tenant)] == ["c"]
            with store.namespace(other).begin() as uow:
                assert "c" not in uow.conversations
                assert uow.runs.last("c", 5) == []
                assert len(uow.conversations.find()) == 0
            for view in (conversation_view, run_view):
                with secured.connect() as connection:
                    assert connection.execute(select(view.c.namespace)).scalars().all() == [tenant]
        secured.dispose()
    owner.dispose()


@pytest.mark.needs("postgres")
def test_a_schema_of_its_own(postgres_url: str) -> None:
    """S1: given to the repository, and applied to units of work that join a connection without one."""
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA chats"))
        connection.execute(text("CREATE TABLE orders (id int)"))
    store = Store(SqlRepository(engine, schema="chats"))
    store.migrate()
    use_everything(store)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO orders VALUES (1)"))
        with store.begin(connection=connection) as uow:
            uow.conversations.add(Conversation("joined"))
            uow.commit()
            assert uow.conversations.count() == 1
        assert connection.execute(text("SELECT count(*) FROM orders")).scalar() == 1
        assert connection.execute(text("SELECT id FROM chats.memory_conversations")).scalars().all() == ["joined"]
        there = conversation_view.to_metadata(MetaData(), schema="chats")
        assert connection.execute(select(there.c.id)).scalars().all() == ["joined"]
        assert connection.execute(text("SELECT to_regclass('public.memory_conversations')")).scalar() is None
    engine.dispose()


def test_the_views_are_joined_with_the_applications_tables(engine: Engine) -> None:
    store = Store(SqlRepository(engine))
    tickets = Table("tickets", MetaData(), Column("id", Integer, primary_key=True), Column("conversation", Text))
    tickets.create(engine)
    now = datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(tickets.insert(), [{"id": 1, "conversation": "one"}, {"id": 2, "conversation": "gone"}])
        with store.begin(connection=connection) as uow:
            uow.conversations.add(Conversation("one", metadata={"tier": "gold", "of": {"city": "K\u00f6ln"}}))
            uow.conversations.add(Conversation("gone", expires_at=now - timedelta(days=1)))
            uow.runs.append("one", Run({"text": "hello"}, ["a"], metadata={"n": 1}))
    query = (
        select(tickets.c.id, conversation_view.c.metadata, conversation_view.c.updated_at, run_view.c.input)
        .join(conversation_view, conversation_view.c.id == tickets.c.conversation)
        .join(run_view, run_view.c.conversation_id == conversation_view.c.id)
    )
    with engine.connect() as connection:
        ((ticket, metadata, updated_at, said),) = connection.execute(query).all()
        assert (ticket, metadata, said) == (1, {"tier": "gold", "of": {"city": "K\u00f6ln"}}, {"text": "hello"})
        at = updated_at if updated_at.tzinfo else updated_at.replace(tzinfo=UTC)
        assert abs(at - now) < timedelta(minutes=1)
        # An index of ours serves a join by the tables.
        both = select(conversations.c.run_count).join(tickets, tickets.c.conversation == conversations.c.id)
        assert connection.execute(both.where(conversations.c.namespace == "default", tickets.c.id == 1)).scalar() == 1


@pytest.mark.needs("postgres")
def test_the_views_have_types_that_people_read(postgres_url: str) -> None:
    with memory.connect(postgres_url) as store:
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("c", metadata={"tier": "gold"}))
        assert isinstance(store.repository, SqlRepository)
        with closing(store.repository.engine.connect()) as connection:
            row: Any = connection.execute(
                text("SELECT metadata->>'tier', pg_typeof(created_at)::text, created_at FROM memory_conversation_view")
            ).one()
    assert row[:2] == ("gold", "timestamp with time zone")
    assert abs(row[2] - datetime.now(UTC)) < timedelta(minutes=1)
