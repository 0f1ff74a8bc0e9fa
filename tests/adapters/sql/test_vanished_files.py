"""A sqlite file that is deleted or replaced while a store has it open: no commit goes where nobody finds it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import memory
from memory import ConfigurationError, Conversation, Run, SchemaError, Store, StoreUnavailableError
from memory.adapters.sql import SqlRepository


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


@pytest.fixture(params=["url", "engine"])
def store(request: pytest.FixtureRequest, file: Path) -> Iterator[Store]:
    engine = create_engine(f"sqlite:///{file}")
    with memory.connect(f"sqlite:///{file}") if request.param == "url" else Store(SqlRepository(engine)) as store:
        store.migrate()
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))
        store.begin().conversations.count()  # another connection of the pool
        yield store
    engine.dispose()


def append(store: Store, text: str = "q") -> None:
    with store.begin() as uow:
        uow.runs.append("c", Run(text, None))


def delete(file: Path) -> None:
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()


def test_a_commit_into_a_deleted_file_is_refused_and_no_new_file_is_made(store: Store, file: Path) -> None:
    delete(file)
    with pytest.raises(StoreUnavailableError, match="deleted, or replaced") as caught:
        append(store)
    assert caught.value.retryable
    for work in (lambda: append(store), store.schema_status, store.begin().conversations.find):
        with pytest.raises(ConfigurationError, match="was deleted while it was open"):
            work()
    assert list(file.parent.iterdir()) == []


def test_a_unit_of_work_that_is_repeated_does_not_wait_for_a_deleted_file(store: Store, file: Path) -> None:
    delete(file)
    with pytest.raises(ConfigurationError, match="was deleted"):
        store.run(lambda uow: uow.runs.append("c", Run("q", None)))


def test_a_replaced_file_is_used_from_the_next_operation_on(store: Store, file: Path) -> None:
    """As when a backup is put in its place."""
    backup = file.with_name("backup.db")
    with memory.connect(f"sqlite:///{backup}") as other, other.begin() as uow:
        uow.conversations.add(Conversation("c", metadata={"from": "backup"}))
    delete(file)
    shutil.move(backup, file)
    with pytest.raises(StoreUnavailableError, match="deleted, or replaced"):
        append(store)
    append(store, "kept")
    with memory.connect(f"sqlite:///{file}") as other, other.begin() as uow:
        assert uow.conversations.get("c").metadata == {"from": "backup"}
        assert [run.input for run in uow.runs.list("c")] == ["kept"]


def test_an_empty_file_in_its_place_gets_no_schema_by_itself(store: Store, file: Path) -> None:
    delete(file)
    file.touch()
    with pytest.raises(StoreUnavailableError):
        append(store)
    with pytest.raises(SchemaError):
        append(store)


def test_a_joined_unit_of_work_is_refused_too(file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}")
    store = Store(SqlRepository(engine))
    store.migrate()
    with engine.connect() as connection:
        uow = store.begin(connection=connection)
        uow.conversations.add(Conversation("c"))
        delete(file)
        with pytest.raises(StoreUnavailableError, match="deleted, or replaced"):
            uow.commit()
    engine.dispose()


def test_a_relative_path_is_that_of_the_folder_it_was_opened_in(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with memory.connect(f"sqlite:///{file.name}") as store:
        with store.begin() as uow:
            uow.conversations.add(Conversation("c"))
        os.chdir("/")
        append(store)
