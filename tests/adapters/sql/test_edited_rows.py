"""Rows edited by hand, at random: an answer, or an error of ours, and never half a commit."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from memory import Conversation, CorruptRecordError, PersistenceError, Run, Store, UnitOfWork, where
from memory.adapters.sql import SqlRepository
from memory.adapters.sql.tables import commits, conversations, entries, runs
from tests.rounds import rounds

TABLES = (conversations, runs, entries, commits)
VALUES: list[object] = [
    None,
    "",
    "text",
    "nan",
    "{",
    '{"a": ',
    "[" * 5000,
    "[" * 5000 + "]" * 5000,
    "NaN",
    "1e999",
    '"\\ud800"',
    "9" * 400,
    0,
    -1,
    2**53,
    2**63 - 1,
    -(2**63),
    0.5,
    float("inf"),
    b"\xff\xfe",
    b"",
    True,
]
WORK: dict[str, Callable[[UnitOfWork], object]] = {
    "get": lambda uow: uow.conversations.get("c"),
    "find": lambda uow: uow.conversations.find(limit=1),
    "find where": lambda uow: uow.conversations.find((where("n") == 1) & (where("tag") != "x"), order="created_at"),
    "iterate": lambda uow: list(uow.conversations.iterate()),
    "count": lambda uow: uow.conversations.count(where("n") < 5),
    "first": lambda uow: uow.runs.first("c", 2),
    "last": lambda uow: uow.runs.last("c", 2),
    "append": lambda uow: uow.runs.append("c", Run("q", "a")),
    "append after": lambda uow: uow.runs.append("c", Run("q", "a"), after=3),
    "edit": lambda uow: uow.conversations.get("c").metadata.update(n=2),
    "remove run": lambda uow: uow.runs.remove("c", 2),
    "remove": lambda uow: uow.conversations.remove("c"),
}


def engine_of(store: Store) -> Engine:
    assert isinstance(store.repository, SqlRepository)
    return store.repository.engine


def contents(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return [sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {table.name}"))) for table in TABLES]


def fill(store: Store) -> None:
    with engine_of(store).begin() as connection:
        for table in TABLES:
            connection.execute(table.delete())
    with store.begin() as uow:
        for id in ("c", "d"):
            uow.conversations.add(Conversation(id, metadata={"n": 1, "tag": ["x", "y"]}))
            uow.runs.append(id, Run("q1", "a1"), Run("q2", "a2"), Run("q3", "a3"))


def edit(engine: Engine, rng: random.Random) -> str | None:
    """Change one value, or remove a row; return what, or None if the database does not let it."""
    table = rng.choice(TABLES)
    column, value = rng.choice(list(table.columns)), rng.choice(VALUES)
    key = "conversation_key" if "conversation_key" in table.c else "namespace"
    some = f"WHERE {key} = (SELECT min({key}) FROM {table.name})"
    with engine.connect() as connection:
        try:
            if rng.random() < 0.1:
                connection.execute(text(f"DELETE FROM {table.name} {some}"))
                connection.commit()
                return f"no {table.name}"
            connection.execute(text(f'UPDATE {table.name} SET "{column.name}" = :value {some}'), {"value": value})
            connection.commit()
        except (DBAPIError, OverflowError):
            return None
    return f"{table.name}.{column.name} = {value!r:.30}"


def outcome(store: Store, work: Callable[[UnitOfWork], object]) -> Exception | None:
    try:
        with store.begin() as uow:
            work(uow)
    except Exception as error:  # noqa: BLE001  # the test tells what it must not be
        return error
    return None


def test_edited_rows_are_answered_or_refused_and_nothing_is_half_written(store: Store) -> None:
    rng = random.Random(7)
    engine = engine_of(store)
    seen: set[type[BaseException]] = set()
    for _ in range(rounds(60)):
        fill(store)
        edits = [edit(engine, rng) for _ in range(rng.choice((1, 1, 2)))]
        for name, work in WORK.items():
            before = contents(engine)
            if (error := outcome(store, work)) is not None:
                seen.add(type(error))
                assert isinstance(error, PersistenceError), (edits, name)
                assert contents(engine) == before, (edits, name, error)
    assert CorruptRecordError in seen


@pytest.mark.parametrize("value", [2**53 - 1, 2**63 - 1, -5])
def test_a_position_that_was_made_too_large_is_told(store: Store, value: int) -> None:
    """An append would count on from it: on sqlite to a number that is none of an integer any more."""
    fill(store)
    with engine_of(store).begin() as connection:
        connection.execute(conversations.update().values(last_position=value))
    before = contents(engine_of(store))
    with pytest.raises(CorruptRecordError), store.begin() as uow:
        uow.runs.append("c", Run("q", "a"))
    assert contents(engine_of(store)) == before


def test_a_run_beyond_the_last_position_is_told_as_damage(store: Store) -> None:
    """It takes the place of the next one appended: no id is taken that a caller could change."""
    fill(store)
    with engine_of(store).begin() as connection:
        connection.execute(conversations.update().values(last_position=2))
    with pytest.raises(CorruptRecordError, match="'c'"), store.begin() as uow:
        uow.runs.append("c", Run("q", "a"))
