"""Connections to PostgreSQL that die: between units of work, within one, and around a commit."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import PendingRollbackError

import memory
from memory import (
    CommitInDoubtError,
    Committed,
    ConfigurationError,
    ConflictError,
    Conversation,
    PersistenceError,
    Run,
    Store,
    StoreUnavailableError,
)
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.tables import commits
from tests.adapters.sql.checking import assert_consistent
from tests.servers import postgres, wait_until
from tests.servers.proxy import Cut, Proxy

pytestmark = pytest.mark.needs("postgres")


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    with memory.connect(postgres_url) as store:
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("c", metadata={"n": 0}))
        yield store


def repository_of(store: Store) -> SqlRepository:
    assert isinstance(store.repository, SqlRepository)
    return store.repository


def append(store: Store, text: str = "again") -> None:
    with store.begin() as uow:
        uow.runs.append("c", Run(text, None))


def said(store: Store) -> list[object]:
    repository_of(store).engine.dispose()  # what its pool has may be dead
    assert_consistent(repository_of(store).engine)
    with store.begin() as uow:
        return [run.input for run in uow.runs.list("c")]


def end_all_connections(url: str) -> None:
    """End every connection to the database but the one that does it, and return when they are gone."""
    with postgres.connect(url) as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {others}")


def fill_pool(store: Store, size: int) -> None:
    """Have the pool keep so many idle connections."""
    connections = [repository_of(store).engine.connect() for _ in range(size)]
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("size", [1, 5])
def test_a_commit_does_not_mind_pooled_connections_that_have_died(store: Store, postgres_url: str, size: int) -> None:
    fill_pool(store, size)
    end_all_connections(postgres_url)
    append(store)
    assert said(store) == ["again"]


@pytest.mark.parametrize("size", [1, 5])
def test_a_read_does_not_mind_pooled_connections_that_have_died(store: Store, postgres_url: str, size: int) -> None:
    fill_pool(store, size)
    with store.begin() as uow:
        end_all_connections(postgres_url)
        assert uow.conversations.get("c").metadata == {"n": 0}
        end_all_connections(postgres_url)
        assert uow.conversations.count(memory.where("n") == 0) == 1
        end_all_connections(postgres_url)
        assert uow.runs.last("c", 3) == []


@contextmanager
def dying(store: Store, statement: str, times: int) -> Iterator[list[str]]:
    """Have the server end the connection just before it runs a statement that begins so, so many times."""
    deaths: list[str] = []

    def die(_: object, cursor: psycopg.Cursor, sql: str, *__: object) -> None:
        if sql.startswith(statement) and len(deaths) < times:
            deaths.append(statement)
            info = cursor.connection.info
            other = psycopg.connect(host=info.host, port=info.port, user=info.user, dbname=info.dbname)
            with closing(other):
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [info.backend_pid])

    event.listen(repository_of(store).engine, "before_cursor_execute", die)
    yield deaths
    event.remove(repository_of(store).engine, "before_cursor_execute", die)


APPENDS, ADDS_RECEIPT = "WITH head AS", "INSERT INTO memory_commits"


def test_a_connection_that_dies_within_an_append_is_replaced(store: Store) -> None:
    with dying(store, APPENDS, times=2) as deaths:
        append(store)
    assert deaths == [APPENDS] * 2
    assert said(store) == ["again"]


def test_a_connection_that_dies_within_a_commit_is_replaced(store: Store) -> None:
    with dying(store, ADDS_RECEIPT, times=2) as deaths, store.begin() as uow:
        uow.conversations.add(Conversation("new"))
        uow.runs.append("c", Run("again", None))
    assert deaths == [ADDS_RECEIPT] * 2
    assert said(store) == ["again"]


def test_a_server_that_ends_every_connection_is_unavailable(store: Store) -> None:
    with dying(store, APPENDS, times=1000) as deaths:
        with pytest.raises(StoreUnavailableError) as caught:
            append(store)
        assert len(deaths) < 50
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert said(store) == []


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """A way to the same database that can be cut."""
    with Proxy(postgres_url, postgres.commits) as proxy:
        yield proxy


@pytest.mark.parametrize(
    "cuts", [["before"], ["after"], ["before", "after"], ["before"] * 3, ["after", "before", "after"]]
)
def test_a_commit_whose_answer_is_lost_is_written_once(store: Store, proxy: Proxy, cuts: list[Cut]) -> None:
    told: list[Committed] = []
    with memory.connect(proxy.url) as through:
        through.subscribe(told.append)
        with through.begin() as uow:
            proxy.cuts += cuts
            uow.runs.append("c", Run("once", None))
            receipt = uow.commit()
    assert not proxy.cuts or cuts[0] == "after"  # once it is written, it is found and no further commit is needed
    assert said(store) == ["once"]
    assert len(told) == 1
    assert receipt.written["c"] is not None
    assert receipt.written["c"].last_position == 1


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("work", ["add", "edit", "remove", "remake", "after", "replace"])
def test_the_repetition_of_any_change_is_no_conflict_with_itself(
    store: Store, proxy: Proxy, cut: Cut, work: str
) -> None:
    append(store, "first")
    with memory.connect(proxy.url) as through, through.begin() as uow:
        conversation = uow.conversations.get("c")
        match work:
            case "add":
                uow.conversations.add(Conversation("new"))
            case "edit":
                conversation.metadata["n"] = 1
            case "remove":
                uow.conversations.remove("c")
            case "remake":
                uow.conversations.remove("c")
                uow.conversations.add(Conversation("c", metadata={"new": True}))
            case "after":
                uow.runs.append("c", Run("second", None), after=1)
            case _:
                uow.runs.remove("c", 1)
        proxy.cuts.append(cut)
    with store.begin() as uow:
        kept = [found.metadata for found in uow.conversations.find(order="id")]
        runs = [run.input for run in uow.runs.list("c")]
    assert (kept, runs) == {
        "add": ([{"n": 0}, {}], ["first"]),
        "edit": ([{"n": 1}], ["first"]),
        "remove": ([], []),
        "remake": ([{"new": True}], []),
        "after": ([{"n": 0}], ["first", "second"]),
        "replace": ([{"n": 0}], []),
    }[work]


def test_a_commit_in_doubt_that_stays_so_says_so(store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written it is, once: the caller is told to look."""
    monkeypatch.setattr("memory.core.store_operations._DOUBT_RETRIES", 2)
    with memory.connect(proxy.url) as through:
        uow = through.begin()
        uow.runs.append("c", Run("unsure", None))
        proxy.cuts += ["before"] * 3
        with pytest.raises(CommitInDoubtError) as caught:
            uow.commit()
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert not caught.value.retryable
    assert said(store) == []


def test_a_joined_transaction_whose_connection_dies_writes_nothing(store: Store, postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE theirs (n int)"))
        end_all_connections(postgres_url)
        with pytest.raises(StoreUnavailableError):
            _append_joined(store, connection)
        with pytest.raises(StoreUnavailableError, match="roll the transaction back"):
            _append_joined(store, connection)
        with pytest.raises(PendingRollbackError):
            connection.execute(text("SELECT 1"))
        connection.rollback()
        _append_joined(store, connection)
        connection.commit()
    engine.dispose()
    assert said(store) == ["joined"]


def _append_joined(store: Store, connection: Connection) -> None:
    with store.begin(connection=connection) as uow:
        uow.runs.append("c", Run("joined", None))


def test_runs_that_wait_for_a_removal_find_what_was_made_in_its_place(store: Store, postgres_url: str) -> None:
    """Under PostgreSQL's default isolation a statement that waited for a row does not see the one that replaced it."""
    from threading import Thread

    engine = create_engine(postgres_url)
    outcome: list[object] = []

    def wait_and_append() -> None:
        try:
            with store.begin() as uow:
                uow.runs.append("c", Run("late", None), after=0)
        except PersistenceError as error:
            outcome.append(error)
        else:
            outcome.append("written")

    with engine.connect() as connection:
        with store.begin(connection=connection) as uow:
            uow.conversations.remove("c")
            uow.conversations.add(Conversation("c"))
        waiting = Thread(target=wait_and_append)
        waiting.start()
        wait_until(lambda: _check_somebody_waits(postgres_url), still_possible=lambda: None)
        connection.commit()
        waiting.join(timeout=30)
    engine.dispose()
    assert outcome == ["written"]
    assert said(store) == ["late"]


def _check_somebody_waits(url: str) -> None:
    with postgres.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
    assert found == (1,)


def test_an_engine_that_commits_each_statement_still_writes_all_or_nothing(store: Store, postgres_url: str) -> None:
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    other = Store(SqlRepository(engine))
    refused = other.begin()
    refused.conversations.add(Conversation("a"))
    refused.runs.append("c", Run("no", None), after=7)
    with pytest.raises(ConflictError):
        refused.commit()
    append(other)
    assert said(store) == ["again"]
    with store.begin() as uow:
        assert uow.conversations.count() == 1
    engine.dispose()


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_any_isolation_of_an_applications_engine_will_do(store: Store, postgres_url: str, isolation: str) -> None:
    engine = create_engine(postgres_url, isolation_level=isolation)
    append(Store(SqlRepository(engine)))
    engine.dispose()
    assert said(store) == ["again"]


def test_a_statement_that_the_server_refuses_is_no_error_of_the_drivers(store: Store) -> None:
    """Even one that nobody thought of: here, a timeout of 1 ms behind a lock, and a division that a trigger makes."""
    engine = repository_of(store).engine
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / 0; END';"
                "CREATE TRIGGER fails BEFORE INSERT ON memory_runs EXECUTE FUNCTION fail()"
            )
        )
    with pytest.raises(PersistenceError, match="division") as caught:
        append(store)
    assert isinstance(caught.value.__cause__, psycopg.errors.DivisionByZero)
    assert said(store) == []


def test_a_lock_that_is_waited_for_too_long_is_unavailable(store: Store, postgres_url: str) -> None:
    hurried = create_engine(postgres_url, connect_args={"options": "-c lock_timeout=1"})
    engine = repository_of(store).engine
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE memory_conversations"))
        with pytest.raises(StoreUnavailableError) as caught:
            append(Store(SqlRepository(hurried)))
    assert caught.value.retryable
    hurried.dispose()
    assert said(store) == []


def test_every_error_of_a_connection_hides_the_password(postgres_url: str) -> None:
    wrong = [
        postgres_url.replace("postgres@", "postgres:s3cret@").rpartition("/")[0] + "/no_such_database",
        "postgresql+psycopg://postgres:s3cret@127.0.0.1:1/postgres",
        "postgresql+psycopg://postgres:s3cret@127.0.0.1:port/postgres",
        "postgresql+psycopg://postgres:s3cret@127.0.0.1/postgres?bogus=1",
        "postgresql+psycopg2://postgres:s3cret@127.0.0.1/postgres",
        "postgresql+psycopg://postgres:s3cr@et@127.0.0.1/postgres",
        "postgresql+psycopg://postgres:s3/cret@127.0.0.1:port/postgres",
    ]
    with memory.connect(wrong[0]) as store:
        assert "cret" not in repr(store)
    for url in wrong:
        with pytest.raises((StoreUnavailableError, ConfigurationError)) as caught, memory.connect(url) as store:
            store.begin()
        error: BaseException | None = caught.value
        while error is not None:
            assert "cret" not in f"{error} {error!r} {error.args}", url
            error = error.__cause__ or error.__context__


def test_the_tokens_of_what_failed_are_not_kept(store: Store) -> None:
    with pytest.raises(ConflictError), store.begin() as uow:
        uow.runs.append("c", Run("no", None), after=7)
    with repository_of(store).engine.connect() as connection:
        assert len(connection.execute(commits.select()).all()) == 1  # that of the conversation's own
