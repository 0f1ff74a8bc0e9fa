"""The schema: migrations and models make the same tables, and nobody's database is taken by surprise."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, inspect, text

import memory
from memory import Conversation, Run, SchemaError, Store
from memory.adapters.sql import SqlRepository, include_name, include_object, schema
from memory.adapters.sql.tables import HEAD, VERSION_TABLE, metadata
from memory.domain.records import ConversationRecord
from memory.port.changes import Change, ChangeSet
from tests.adapters.sql.checking import assert_consistent
from tests.servers import Server, postgres


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def put(store: Store, id: str = "kept") -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(id, metadata={"tier": "gold"}))
        uow.runs.append(id, Run("question", "answer"))


def test_the_migrations_make_what_the_models_say(store: Store) -> None:
    assert isinstance(store.repository, SqlRepository)
    with store.repository.engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_on_sqlite_the_two_make_the_same_tables_to_the_letter(sqlite_url: str, tmp_path: Path) -> None:
    def words(engine: Engine) -> dict[str, str]:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
            return {
                name: re.sub(r"\s+(?=([,)]?))", lambda found: "" if found[1] else " ", sql)
                for name, sql in rows
                if name != VERSION_TABLE and "VIEW" not in sql
            }

    with memory.connect(sqlite_url) as store, engine_of(f"sqlite:///{tmp_path}/models.db") as models:
        store.migrate()
        metadata.create_all(models)
        with engine_of(sqlite_url) as migrated:
            made = words(migrated)
            assert made == words(models)
    assert sum("WITHOUT ROWID" in sql for sql in made.values()) == 4
    assert "AUTOINCREMENT" in made["memory_conversations"]
    assert made["ix_memory_conversations_namespace_expires_at"].endswith("WHERE expires_at IS NOT NULL")


def test_on_postgresql_the_two_make_the_same_catalogue(postgres_url: str, postgres_server: Server) -> None:
    columns = """SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, l.collname,
            pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_collation l ON l.oid = a.attcollation
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relname LIKE 'memory%' AND c.relkind = 'r' AND a.attnum > 0"""
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    constraints = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE '%memory%'"

    def catalogue(engine: Engine) -> set[tuple[object, ...]]:
        with engine.connect() as connection:
            rows = [tuple(row) for sql in (columns, indexes, constraints) for row in connection.execute(text(sql))]
        return {row for row in rows if VERSION_TABLE not in str(row)}

    with (
        memory.connect(postgres_url) as store,
        postgres.fresh_database(postgres_server) as other,
        engine_of(other) as models,
        engine_of(postgres_url) as migrated,
    ):
        store.migrate()
        metadata.create_all(models)
        made = catalogue(migrated)
        assert made == catalogue(models)
    assert ("memory_conversations", "id", "text", True, "C", None) in made


def test_the_head_that_the_code_knows_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema._scripts()))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_a_new_file_gets_its_schema_at_the_first_use(sqlite_url: str) -> None:
    with memory.connect(sqlite_url) as store:
        assert store.schema_status().current is None
        put(store)
        assert store.schema_status().is_current


def test_a_file_with_somebodys_tables_is_refused_until_it_is_migrated(sqlite_url: str) -> None:
    with engine_of(sqlite_url) as theirs, theirs.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id INTEGER)"))
    with memory.connect(sqlite_url) as store:
        with pytest.raises(SchemaError, match="memory migrate"):
            store.begin()
        assert store.migrate().is_current
        put(store)


def test_a_new_file_behind_an_applications_engine_is_refused_until_it_is_migrated(sqlite_url: str) -> None:
    with engine_of(sqlite_url) as theirs:
        store = Store(SqlRepository(theirs))
        with pytest.raises(SchemaError, match="memory migrate"):
            store.begin()
        store.migrate()
        put(store)


def test_an_empty_postgresql_database_is_refused_until_it_is_migrated(postgres_url: str) -> None:
    with memory.connect(postgres_url) as store:
        with pytest.raises(SchemaError, match="memory migrate"):
            store.begin()
        store.migrate()
        put(store)


def test_a_refusal_is_no_last_word(postgres_url: str) -> None:
    """A store that was refused sees what another process has migrated meanwhile."""
    with memory.connect(postgres_url) as early, memory.connect(postgres_url) as other:
        with pytest.raises(SchemaError):
            early.begin()
        other.migrate()
        put(early)


def test_tables_that_go_under_a_running_store_are_a_schema_error(store: Store) -> None:
    assert isinstance(store.repository, SqlRepository)
    put(store)
    store.repository.migrate(revision="base")
    with pytest.raises(SchemaError, match="memory migrate"):
        put(store)
    with store.begin() as uow, pytest.raises(SchemaError, match="memory migrate"):
        uow.conversations.count()


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    with memory.connect(url) as store:
        store.migrate()
    with engine_of(url) as engine, engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with memory.connect(url) as older:
        with pytest.raises(SchemaError, match="upgrade conversation-memory"):
            older.begin()
        with pytest.raises(SchemaError, match="upgrade conversation-memory"):
            older.migrate()
        assert older.schema_status().current == "9999"
        assert not older.schema_status().is_current


def test_migrating_again_keeps_everything(store: Store) -> None:
    put(store)
    store.migrate()
    with store.begin() as uow:
        assert uow.conversations.get("kept").metadata == {"tier": "gold"}
        assert len(uow.runs.list("kept")) == 1


def test_down_and_up_again(store: Store) -> None:
    assert isinstance(store.repository, SqlRepository)
    put(store)
    assert store.repository.migrate(revision="base").current is None
    assert inspect(store.repository.engine).get_table_names() == [VERSION_TABLE]
    assert store.repository.migrate(revision=HEAD).is_current
    put(store)


def test_a_store_that_counted_nothing_is_counted_when_it_is_migrated(store: Store) -> None:
    """And what was committed before can still be committed again."""
    assert isinstance(store.repository, SqlRepository)
    creations = [Change(f"c{n}", create=ConversationRecord(f"c{n}", "{}", 1, "", 0, 0, 5, 5, None)) for n in range(40)]
    changes = ChangeSet.of(creations, 5)
    receipt = store.commit(changes)
    put(store.namespace("other"))
    store.repository.migrate(revision="0002")
    assert "memory_counts" not in inspect(store.repository.engine).get_table_names()
    store.migrate()
    for namespace, count in (("default", 40), ("other", 1), ("none", 0)):
        with store.namespace(namespace).begin() as uow:
            assert uow.conversations.count() == count
    assert store.commit(changes) == receipt
    with store.begin() as uow:
        uow.conversations.remove("c7")
    assert store.begin().conversations.count() == 39
    assert_consistent(store.repository.engine)


def test_a_migration_that_fails_leaves_nothing_behind(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "migrations"
    shutil.copytree(schema._scripts(), broken, ignore=shutil.ignore_patterns("__pycache__"))
    revision = broken / "versions" / "0001_conversations_and_runs.py"
    failing = '\n    op.execute("SELECT nothing_of_this_kind()")\n\n\ndef downgrade'
    revision.write_text(revision.read_text().replace("\n\ndef downgrade", failing))
    with memory.connect(url) as store:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "_scripts", lambda: broken)
            with pytest.raises(memory.PersistenceError, match="nothing_of_this_kind"):
                store.migrate()
        assert isinstance(store.repository, SqlRepository)
        assert inspect(store.repository.engine).get_table_names() == []
        assert store.migrate().is_current


def _applications_own(folder: Path) -> Config:
    """Return an application's own Alembic: one table, one revision, the default version table."""
    versions = folder / "alembic" / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic" / "env.py").write_text(
        "from alembic import context\n"
        "context.configure(connection=context.config.attributes['connection'])\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    (versions / "a1.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = 'a1', None\n"
        "def upgrade():\n    op.create_table('orders', sa.Column('id', sa.Integer, primary_key=True))\n"
        "def downgrade():\n    op.drop_table('orders')\n"
    )
    config = Config()
    config.set_main_option("script_location", str(folder / "alembic"))
    return config


def test_an_applications_own_alembic_and_ours_leave_each_other_alone(store: Store, url: str, tmp_path: Path) -> None:
    from alembic import command

    config = _applications_own(tmp_path)
    assert isinstance(store.repository, SqlRepository)
    with engine_of(url) as engine:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        put(store)
        store.repository.migrate(revision="base")
        store.migrate()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["a1"]
            assert connection.execute(text("SELECT count(*) FROM orders")).scalar() == 0
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
    put(store)


@pytest.mark.parametrize("reflected", [False, True])
def test_exactly_our_tables_are_hidden_from_their_autogenerate(store: Store, *, reflected: bool) -> None:
    """Also from one whose MetaData has them, and not a table of the application's whose name begins as ours do (E11)."""
    assert isinstance(store.repository, SqlRepository)
    theirs = MetaData()
    for name in ("orders", "memory_usage"):
        Table(name, theirs, Column("id", Integer, primary_key=True))
    theirs.create_all(store.repository.engine)
    if reflected:
        theirs.reflect(store.repository.engine)
    hidden = {"include_name": include_name, "include_object": include_object}
    with store.repository.engine.connect() as connection:
        if not reflected:
            seen = compare_metadata(MigrationContext.configure(connection), theirs)
            assert any("memory_runs" in str(difference) for difference in seen)
        assert compare_metadata(MigrationContext.configure(connection, opts=hidden), theirs) == []
        Table("memory_usage_by_day", theirs, Column("id", Integer, primary_key=True))
        ((kind, table),) = compare_metadata(MigrationContext.configure(connection, opts=hidden), theirs)
        assert (kind, table.name) == ("add_table", "memory_usage_by_day")


def test_the_migrations_are_found_in_a_checkout_and_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "memory"
    package.mkdir(parents=True)
    monkeypatch.setattr(schema, "_PACKAGE", package)
    assert schema._scripts() == tmp_path / "site-packages" / "migrations"  # a checkout
    (package / "migrations").mkdir()
    assert schema._scripts() == package / "migrations"  # a wheel
