"""What PostgreSQL refuses, and what is done about its settings: by code, in whatever language the server speaks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

import memory
from memory import (
    ConfigurationError,
    Conversation,
    InvalidValueError,
    Run,
    Store,
    StoreUnavailableError,
)
from memory.adapters.sql import SqlRepository, schema
from memory.adapters.sql.tables import HEAD
from tests.adapters.sql.children import MIGRATES, started
from tests.adapters.sql.test_races import add_shared, append, assert_all_there, at_once
from tests.servers import Server, postgres, wait_until

pytestmark = pytest.mark.needs("postgres")


def changed(url: str, **parts: object) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: changed(url, database="no_such_database"), "no such database"),
        (lambda url: changed(url, username="nobody"), "user, or the password, was refused"),
        (lambda url: f"{url}?sslmode=require", "has no TLS"),
        (lambda url: changed(url, host="no-such-host.invalid"), "no host has this name"),
    ],
    ids=["database", "role", "tls", "host"],
)
def test_what_cannot_work_is_a_configuration_error(postgres_url: str, change: Callable[[str], str], says: str) -> None:
    with memory.connect(change(postgres_url)) as store, pytest.raises(ConfigurationError, match=says) as caught:
        store.begin()
    assert isinstance(caught.value.__cause__, Exception)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    nobody = "postgresql+psycopg://postgres@127.0.0.1:1/db"
    with memory.connect(nobody) as store, pytest.raises(StoreUnavailableError, match="could not be reached"):
        store.begin()


def test_a_server_with_too_many_clients_is_unavailable(postgres_url: str) -> None:
    """Told apart from a wrong role by its code: the server sends both as FATAL."""
    name = make_url(postgres_url).database
    with postgres.connect(postgres_url) as other:
        other.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
        other.execute(f"GRANT ALL ON DATABASE {name} TO limited")
        try:
            limited = memory.connect(changed(postgres_url, username="limited"))
            with limited as store, pytest.raises(StoreUnavailableError, match="too many connections"):
                store.begin()
        finally:
            other.execute(f"REVOKE ALL ON DATABASE {name} FROM limited")
            other.execute("DROP ROLE limited")


@contextmanager
def setting(url: str, name: str, value: str) -> Iterator[None]:
    """Change a setting of the database, for connections to come."""
    database = make_url(url).database
    with postgres.connect(url) as connection:
        connection.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {database} RESET {name}")


def test_a_server_that_takes_no_writes_any_more_is_unavailable_and_its_connections_are_dropped(
    postgres_url: str,
) -> None:
    """As a demoted primary: once there is another behind the name, the next operation finds it."""
    with memory.connect(postgres_url) as store:
        store.migrate()
        add_shared(store)
        with setting(postgres_url, "default_transaction_read_only", "on"):
            assert isinstance(store.repository, SqlRepository)
            store.repository.engine.dispose()
            with pytest.raises(StoreUnavailableError, match="no writes") as caught:
                append(store, "refused", 1)
            assert caught.value.retryable
        append(store, "again", 1)  # no connection of the read-only time is left
        assert_all_there(store, 1)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
@pytest.mark.parametrize("own", [False, True])
def test_appends_go_on_under_a_strict_default_of_the_database(postgres_url: str, isolation: str, *, own: bool) -> None:
    with setting(postgres_url, "default_transaction_isolation", isolation):
        engine = create_engine(postgres_url, pool_size=8)
        with memory.connect(postgres_url) as opened:
            store = Store(SqlRepository(engine)) if own else opened
            store.migrate()
            add_shared(store)
            at_once(*[lambda name=f"thread{n}": append(store, name, 10) for n in range(8)])
            assert_all_there(store, 80)
        with engine.connect() as connection:
            assert connection.execute(text("SHOW transaction_isolation")).scalar() == isolation
        engine.dispose()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_processes_that_migrate_at_once_under_a_strict_default(postgres_url: str, isolation: str) -> None:
    strict = setting(postgres_url, "default_transaction_isolation", isolation)
    with strict, started(MIGRATES, *[[postgres_url]] * 3) as children:
        for child in children:
            child.go()
        for child in children:
            child.finish()


def test_a_migration_sees_what_another_one_made_while_it_waited(postgres_url: str) -> None:
    """Its snapshot is taken after it has the lock."""
    engine = create_engine(postgres_url, isolation_level="REPEATABLE READ")
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            SqlRepository(engine).migrate()
        except BaseException as error:  # noqa: BLE001  # for the assertion
            failures.append(error)

    def check_one_waits() -> None:
        waiting = other.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone()
        assert waiting == (1,)

    with postgres.connect(postgres_url) as other, memory.connect(postgres_url) as store:
        other.execute("SELECT pg_advisory_lock(%s)", [schema._IN_POSTGRESQL])
        waiting = Thread(target=migrate)
        waiting.start()
        wait_until(check_one_waits, still_possible=lambda: None)
        with psycopg.connect(changed(postgres_url, drivername="postgresql")) as third:  # as the one that has the lock
            third.execute("CREATE TABLE memory_schema_version (version_num varchar(32) PRIMARY KEY)")
            third.execute("INSERT INTO memory_schema_version VALUES (%s)", [HEAD])
        third.close()
        other.execute("SELECT pg_advisory_unlock_all()")
        waiting.join(30)
        assert store.schema_status().is_current
    engine.dispose()
    assert failures == []


@contextmanager
def database_in(encoding: str, server: Server) -> Iterator[str]:
    name = f"memory_test_in_{encoding.lower()}"
    with postgres.connect(server.url) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        try:
            yield changed(server.url, database=name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("own", [False, True])
def test_a_database_in_sql_ascii_keeps_every_text(postgres_server: Server, *, own: bool) -> None:
    with database_in("SQL_ASCII", postgres_server) as url:
        engine = create_engine(url)
        store = Store(SqlRepository(engine)) if own else memory.connect(url)
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("ж", metadata={"ж": "\N{GRINNING FACE}"}))
            uow.runs.append("ж", Run("ж", "ж"))
        with store.begin() as uow:
            assert uow.conversations.get("ж").metadata == {"ж": "\N{GRINNING FACE}"}
            assert uow.runs.last("ж", 1)[0].input == "ж"
            assert uow.conversations.count(memory.where("ж") == "\N{GRINNING FACE}") == 1
        store.close()
        engine.dispose()


def test_a_database_whose_encoding_has_not_every_character_is_refused(postgres_server: Server) -> None:
    with database_in("LATIN1", postgres_server) as url, memory.connect(url) as store:
        with pytest.raises(ConfigurationError, match="LATIN1"):
            store.migrate()
        assert store.schema_status().current is None


def test_a_store_that_was_made_in_another_encoding_refuses_what_it_cannot_keep(
    postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database_in("LATIN1", postgres_server) as url, memory.connect(url) as store:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "_ENCODINGS", ("LATIN1",))
            store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("é", metadata={"é": "ß"}))
            uow.runs.append("é", Run("é", "ß"))
        for beyond in ("ж", "\N{GRINNING FACE}"):
            with pytest.raises(InvalidValueError, match="encoding"), store.begin() as uow:
                uow.runs.append("é", Run(beyond, ""))
        assert [run.input for run in store.begin().runs.list("é")] == ["é"]
