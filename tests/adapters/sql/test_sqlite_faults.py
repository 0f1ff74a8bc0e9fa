"""Files that cannot be used, and disks that are full: a clear error of ours, and what is stored stays whole."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import PendingRollbackError

import memory
from memory import (
    ConfigurationError,
    Conversation,
    CorruptRecordError,
    PersistenceError,
    Run,
    Store,
    StoreUnavailableError,
)
from memory.adapters.sql import SqlRepository, repository
from memory.adapters.sql.engine import open_engine
from tests.adapters.sql.checking import assert_consistent
from tests.adapters.sql.children import started


def put(store: Store, id: str, size: int = 10) -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(id, metadata={"n": id}))
        uow.runs.append(id, Run("x" * size, None))


def assert_is_of_the_driver(error: PersistenceError) -> None:
    cause = error.__cause__
    assert isinstance(getattr(cause, "orig", cause), sqlite3.Error), cause


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear Ada, " * 500)
    with (
        memory.connect(f"sqlite:///{file}") as store,
        pytest.raises(ConfigurationError, match="not a sqlite") as caught,
    ):
        put(store, "c")
    assert_is_of_the_driver(caught.value)
    assert file.read_text() == "Dear Ada, " * 500


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with memory.connect(f"sqlite:///{tmp_path}/empty.db") as store:
        put(store, "c")


@pytest.mark.parametrize("place", ["", "missing/new.db"])
def test_a_file_that_cannot_be_made_is_a_configuration_error(tmp_path: Path, place: str) -> None:
    """A directory in its place; a directory that is not there."""
    with memory.connect(f"sqlite:///{tmp_path}/{place}") as store, pytest.raises(ConfigurationError) as caught:
        put(store, "c")
    assert_is_of_the_driver(caught.value)


def test_a_damaged_file_is_never_taken_for_an_empty_one(sqlite_url: str, tmp_path: Path) -> None:
    """Whatever page is overwritten: the answer is right, or an error of ours; never something missing."""
    with memory.connect(sqlite_url) as store:
        for n in range(30):
            put(store, f"c{n:02}", 3000)
        with sqlite3.connect(tmp_path / "conversations.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    good = (tmp_path / "conversations.db").read_bytes()
    seen = set()
    for page in range(len(good) // 4096):
        damaged = tmp_path / f"damaged{page}.db"
        damaged.write_bytes(good[: page * 4096] + b"\xa5" * 4096 + good[(page + 1) * 4096 :])
        with memory.connect(f"sqlite:///{damaged}") as store:
            try:
                with store.begin() as uow:
                    assert len(uow.conversations.find(limit=100)) == 30
                    for n in range(30):
                        assert uow.runs.last(f"c{n:02}", 1)[0].input == "x" * 3000
                    assert uow.conversations.count(memory.where("n") == "c07") == 1
            except PersistenceError as error:
                assert_is_of_the_driver(error)
                seen.add(type(error))
    assert seen <= {CorruptRecordError, ConfigurationError}
    assert CorruptRecordError in seen


def test_a_record_that_cannot_be_read_is_told_by_name(sqlite_url: str, tmp_path: Path) -> None:
    with memory.connect(sqlite_url) as store:
        put(store, "c")
        put(store, "whole")
        connection = sqlite3.connect(tmp_path / "conversations.db")
        connection.execute("UPDATE memory_conversations SET metadata = '{\"n\": ' WHERE id = 'c'")
        connection.execute("UPDATE memory_runs SET output = 'x' WHERE conversation_key = 2")
        connection.commit()
        connection.close()
        with store.begin() as uow:
            with pytest.raises(CorruptRecordError, match="'c'"):
                uow.conversations.get("c")
            with pytest.raises(CorruptRecordError, match="'c'"):
                uow.conversations.find()
            with pytest.raises(CorruptRecordError, match="run 1 of conversation 'whole'"):
                uow.runs.last("whole", 1)


def test_a_full_database_refuses_what_does_not_fit_and_stays_whole(sqlite_url: str) -> None:
    """SQLITE_FULL, as a full disk has it."""
    engine, _ = open_engine(sqlite_url)
    pages = 100

    @event.listens_for(engine, "connect")
    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    store = Store(SqlRepository(engine))
    store.migrate()
    put(store, "small")
    with pytest.raises(StoreUnavailableError, match="disk is full") as caught:
        put(store, "large", 1_000_000)
    assert caught.value.retryable
    assert_is_of_the_driver(caught.value)
    put(store, "small too")
    with store.begin() as uow:
        assert [found.id for found in uow.conversations.find(order="id")] == ["small", "small too"]
    assert_consistent(engine)
    engine.dispose()


def test_a_joined_transaction_that_sqlite_ends_by_itself_cannot_go_on(sqlite_url: str) -> None:
    """A full disk may roll back the whole transaction: what the application writes after it must not be committed alone."""
    engine = create_engine(sqlite_url)

    @event.listens_for(engine, "connect")
    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count=100")

    store = Store(SqlRepository(engine))
    store.migrate()
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (n INTEGER)")
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO theirs VALUES (1)")
        uow = store.begin(connection=connection)
        uow.conversations.add(Conversation("large"))
        uow.runs.append("large", Run("x" * 1_000_000, None))
        with pytest.raises(StoreUnavailableError, match="disk is full"):
            uow.commit()
        with pytest.raises(PendingRollbackError):
            connection.exec_driver_sql("INSERT INTO theirs VALUES (2)")
        connection.rollback()
        assert connection.exec_driver_sql("SELECT count(*) FROM theirs").scalar() == 0
    with store.begin() as uow:
        assert uow.conversations.count() == 0
    assert_consistent(engine)
    engine.dispose()


_FILLS_UP = """
import resource, signal, sys, memory
from memory import Conversation, Run, StoreUnavailableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.readline()
store = memory.connect(sys.argv[1])
with store.begin() as uow:
    uow.conversations.add(Conversation("c", metadata={"n": 0}))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, most))
written = 0
try:
    while True:
        with store.begin() as uow:
            uow.conversations.get("c").metadata["n"] = written + 1
            uow.runs.append("c", Run("x" * 20_000, None))
        written += 1
except StoreUnavailableError as error:
    print(type(error.__cause__).__name__, file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
with store.begin() as uow:
    assert uow.conversations.get("c").metadata["n"] == written
    uow.conversations.get("c").metadata["n"] = written + 1
    uow.runs.append("c", Run("there is room again", None))
store.close()
print(written)
"""


def test_a_full_disk_loses_nothing_and_can_be_written_again(sqlite_url: str) -> None:
    """`ulimit -f`: the file system refuses in the middle of a write."""
    with started(_FILLS_UP, [sqlite_url]) as (child,):
        child.go()
        written = int(child.finish())
    assert written > 5
    with memory.connect(sqlite_url) as store:
        with store.begin() as uow:
            assert uow.conversations.get("c").run_count == written + 1
            assert uow.conversations.get("c").metadata == {"n": written + 1}
        assert isinstance(store.repository, SqlRepository)
        assert_consistent(store.repository.engine)


_AS_NOBODY = """
import os, sys, memory, alembic.command, alembic.config, memory.adapters.sql
from memory import Conversation, ConfigurationError
memory.connect("sqlite://").migrate()  # everything is imported while we may read it
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print("ready", flush=True)
sys.stdin.readline()
store = memory.connect(sys.argv[1])
try:
    with store.begin() as uow:
        uow.conversations.add(Conversation("c"))
except ConfigurationError as error:
    print(error)
store.close()
"""


@pytest.fixture
def readable_folder() -> Iterator[Path]:
    """A folder that everybody may enter, and only its owner may write in."""
    folder = Path(tempfile.mkdtemp(prefix="memory-read-only-"))
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_directory_is_a_configuration_error(readable_folder: Path, *, exists: bool) -> None:
    url = f"sqlite:///{readable_folder}/conversations.db"
    if exists:
        readable_folder.chmod(0o755)
        with memory.connect(url) as store:
            put(store, "kept")
        readable_folder.chmod(0o555)
        (readable_folder / "conversations.db").chmod(0o444)
    with started(_AS_NOBODY, [url]) as (child,):
        child.go()
        assert str(readable_folder) in child.finish()
    readable_folder.chmod(0o755)
    if exists:
        (readable_folder / "conversations.db").chmod(0o644)
    with memory.connect(url) as store, store.begin() as uow:
        assert uow.conversations.count() == exists


def test_a_read_only_file_is_a_configuration_error(readable_folder: Path) -> None:
    url = f"sqlite:///{readable_folder}/conversations.db"
    readable_folder.chmod(0o777)
    with memory.connect(url) as store:
        put(store, "kept")
    (readable_folder / "conversations.db").chmod(0o444)
    with started(_AS_NOBODY, [url]) as (child,):
        child.go()
        assert "read-only" in child.finish()
    (readable_folder / "conversations.db").chmod(0o644)
    with memory.connect(url) as store, store.begin() as uow:
        assert uow.conversations.count() == 1


def test_a_commit_that_is_interrupted_leaves_no_transaction_behind(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C, or by a signal that a task queue sends, between the last statement and the commit."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with memory.connect(sqlite_url) as store:
        put(store, "a")
        with monkeypatch.context() as patch:
            patch.setattr(repository, "check_file", interrupt)
            with pytest.raises(KeyboardInterrupt):
                put(store, "b")
        assert "b" not in store.begin().conversations
        database = make_url(sqlite_url).database
        with closing(sqlite3.connect(str(database), timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        put(store, "c")
        assert [one.id for one in store.begin().conversations.find(order="id")] == ["a", "c"]


def test_a_database_that_stays_locked_is_unavailable(sqlite_url: str, tmp_path: Path) -> None:
    """After the time-out, which is shortened here; when the lock is gone the same works."""
    engine, _ = open_engine(sqlite_url)

    @event.listens_for(engine, "connect")
    def hurry(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA busy_timeout=1")

    store = Store(SqlRepository(engine))
    store.migrate()
    other = sqlite3.connect(tmp_path / "conversations.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked") as caught:
        put(store, "c")
    assert_is_of_the_driver(caught.value)
    with store.begin() as uow:
        assert uow.conversations.count() == 0  # readers go on
    other.execute("ROLLBACK")
    other.close()
    put(store, "c")
    engine.dispose()
