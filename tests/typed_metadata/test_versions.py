"""Metadata that earlier versions of the type have written."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import uuid4

import pytest

from memory import (
    CommitTooLargeError,
    ConfigurationError,
    ConflictError,
    Conversation,
    CorruptRecordError,
    InvalidValueError,
    Run,
    Store,
    Versioned,
    where,
)
from tests.typed_metadata.adding import Opened, add
from tests.typed_metadata.tickets import Priority


@dataclass
class New:
    customer: str
    priority: Priority = Priority.NORMAL


def upgrade(old: dict[str, Any], version: int) -> dict[str, Any]:
    if version == 1:
        old["customer"] = old.pop("user")
    if version <= 2 and "urgent" in old:
        old["priority"] = "urgent" if old.pop("urgent") else "normal"
    return old


class Color(Enum):
    RED = 1


@dataclass
class Painted:
    colors: dict[str, list[Color]]
    price: float
    at: datetime


NEW = Versioned(New, version=3, upgrade=upgrade)


def test_metadata_of_every_earlier_version_is_upgraded_when_it_is_read(opened: Opened) -> None:
    store = opened(NEW)
    add(store.untyped(), {"user": "ada", "urgent": True}, "1")
    add(store.untyped(), {"_version": 2, "customer": "ada", "urgent": True}, "2")
    add(store, New("ada", Priority.URGENT), "3")
    for id in "123":
        assert store.conversations.get(id).metadata == New("ada", Priority.URGENT)
    assert store.untyped().conversations.get("3").metadata == {"customer": "ada", "priority": "urgent", "_version": 3}
    with store.begin() as uow:
        for id in "123":
            uow.conversations.get(id)
            uow.runs.append(id, Run("?", "!"))
    assert store.untyped().conversations.get("1").metadata == {"user": "ada", "urgent": True}  # reading writes nothing
    with store.begin() as uow:
        uow.conversations.get("1").metadata.customer = "grace"
    assert store.untyped().conversations.get("1").metadata == {"customer": "grace", "priority": "urgent", "_version": 3}


def test_an_upgrade_returns_values_that_to_json_encodes(opened: Opened) -> None:
    """Enums of any kind, in containers too, and the types beside them."""
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)

    new = {"colors": {"a": (Color.RED,)}, "price": Decimal("12.5"), "at": at}
    store = opened(Versioned(Painted, version=2, upgrade=lambda *_: new))
    add(store.untyped(), {})
    assert store.conversations.get("a").metadata == Painted({"a": [Color.RED]}, 12.5, at)
    assert store.upgrade_metadata() == 1
    stored = {"colors": {"a": [1]}, "price": 12.5, "at": "2026-01-31T12:00:00.000000Z", "_version": 2}
    assert store.untyped().conversations.get("a").metadata == stored


def test_an_upgrade_to_a_value_that_nothing_encodes_is_a_corrupt_record(opened: Opened) -> None:
    store = opened(Versioned(New, version=2, upgrade=lambda old, _: {**old, "customer": object()}))
    add(store.untyped(), {})
    with pytest.raises(CorruptRecordError, match=r"conversation 'a' .*metadata\.customer cannot be stored"):
        store.conversations.get("a")


@pytest.mark.parametrize("version", [4, 0, "3", None, True])
def test_metadata_of_a_version_that_the_code_does_not_know_is_not_read(opened: Opened, version: Any) -> None:
    store = opened(NEW)
    add(store.untyped(), {"_version": version, "customer": "ada"})
    with pytest.raises(CorruptRecordError, match=r"metadata\._version is .*this code reads the versions up to 3"):
        store.conversations.get("a")


def test_an_upgrade_that_fails_is_a_corrupt_record_and_loses_nothing(opened: Opened) -> None:
    store = opened(NEW)
    add(store.untyped(), {"nobody": 1})
    with pytest.raises(CorruptRecordError, match=r"conversation 'a' .*KeyError: 'user'"):
        store.conversations.get("a")
    assert store.untyped().conversations.get("a").metadata == {"nobody": 1}


def test_a_type_may_not_have_the_key_of_the_version(opened: Opened) -> None:
    store = opened(Versioned(Anything(), version=1, upgrade=upgrade))
    with pytest.raises(InvalidValueError, match="_version, which Versioned needs"):
        add(store, {"_version": 7})
    with pytest.raises(ConfigurationError, match="version must be an int from 1"):
        Versioned(New, version=0, upgrade=upgrade)


class Anything:
    def encode(self, metadata: dict[str, Any]) -> dict[str, Any]:
        return metadata

    def decode(self, stored: dict[str, Any]) -> dict[str, Any]:
        return stored


def fill(store: Store[Any], number: int) -> None:
    with store.untyped().begin() as uow:
        for n in range(number):
            uow.conversations.add(Conversation(f"{n:03}", {"user": "ada", "urgent": n % 2 == 0}))


def test_upgrade_metadata_rewrites_what_is_old_and_nothing_else(opened: Opened) -> None:
    store = opened(NEW)
    fill(store, 230)
    add(store, New("grace"), "z")
    fill(store.namespace("other"), 2)
    assert store.conversations.count(where("priority") == Priority.URGENT) == 0  # queries match what is stored
    before = store.conversations.get("000")
    assert store.upgrade_metadata() == 230
    assert store.conversations.count(where("priority") == Priority.URGENT) == 115
    after = store.conversations.get("000")
    assert (before.version, after.version, after.last_run_at) == (1, 2, before.last_run_at)
    assert store.conversations.get("z").version == 1
    assert store.upgrade_metadata() == 0
    assert store.upgrade_metadata(all_namespaces=True) == 2
    assert store.namespace("other").untyped().conversations.get("001").metadata["_version"] == 3


def test_upgrade_metadata_is_safe_beside_writers(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(NEW)
    fill(store, 60)
    commit, others = store.repository.commit, opened()
    writes = iter(range(1000))

    def commit_after_another(namespace: str, changes: Any) -> Any:
        if next(writes) == 0:
            with monkeypatch.context() as patch:
                patch.setattr(store.repository, "commit", commit)
                with others.begin() as uow:
                    uow.conversations.get("003").metadata["user"] = "grace"
                    uow.conversations.remove("004")
                    uow.conversations.remove("005")
                    uow.runs.append("006", Run("?", "!"))
                add(others, {"user": "lin", "_version": 1}, "005")
        return commit(namespace, changes)

    monkeypatch.setattr(store.repository, "commit", commit_after_another)
    assert store.upgrade_metadata() == 59
    found = {one.id: one.metadata.customer for one in store.conversations.iterate()}
    assert (found["003"], found["005"], "004" in found, len(found)) == ("grace", "lin", False, 59)
    assert store.conversations.get("006").run_count == 1
    assert {one.metadata["_version"] for one in others.conversations.iterate()} == {3}


def test_upgrade_metadata_gives_up_on_a_conversation_that_is_always_edited(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(NEW)
    fill(store, 1)
    commit, others = store.repository.commit, opened()

    def commit_after_another(namespace: str, changes: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(store.repository, "commit", commit)
            with others.begin() as uow:
                uow.conversations.get("000").metadata["user"] = str(uuid4())
        return commit(namespace, changes)

    monkeypatch.setattr(store.repository, "commit", commit_after_another)
    with pytest.raises(ConflictError):
        store.upgrade_metadata()


def test_upgrade_metadata_reports_what_does_not_fit(opened: Opened) -> None:
    store = opened(NEW)
    fill(store, 3)
    add(store.untyped(), {"nobody": 1}, "001b")
    with pytest.raises(CorruptRecordError, match="'001b'"):
        store.upgrade_metadata()
    reported: list[CorruptRecordError] = []
    assert store.upgrade_metadata(on_corrupt=reported.append) == 3
    assert [error.conversation_id for error in reported] == ["001b"]
    with pytest.raises(ConfigurationError, match="no type of metadata"):
        store.untyped().upgrade_metadata()


def test_upgrade_metadata_commits_as_much_as_the_store_takes(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(NEW)
    fill(store, 60)
    commit = store.repository.commit
    sizes: list[int] = []

    def commit_a_few(namespace: str, changes: Any) -> Any:
        if len(changes.changes) > 7:
            raise CommitTooLargeError("too large", limit=7, size=len(changes.changes))
        sizes.append(len(changes.changes))
        return commit(namespace, changes)

    monkeypatch.setattr(store.repository, "commit", commit_a_few)
    assert store.upgrade_metadata() == sum(sizes) == 60
    assert max(sizes) <= 7
