"""Forgetting: nothing with the id of a removed conversation, and nothing of its texts, is left in the database."""

from sqlalchemy import MetaData, Table, inspect

from memory import Conversation, Run, Store
from memory.adapters.sql import SqlRepository
from memory.port.repository import Forgotten

LONG = "secret" * 300


def text_of(store: Store) -> str:
    """Return all rows of all our tables."""
    assert isinstance(store.repository, SqlRepository)
    engine = store.repository.engine
    with engine.connect() as connection:
        tables = [Table(name, MetaData(), autoload_with=engine) for name in inspect(engine).get_table_names()]
        return "".join(str(connection.execute(table.select()).all()) for table in tables)


def test_receipts_of_exactly_these_conversations_are_deleted(store: Store) -> None:
    """An id is not found inside another one, nor as the incarnation or in the metadata of another conversation."""
    for id in ("secret", LONG, "1", 'a"secret', "not-secret"):
        with store.begin(idempotency_key=f"key of {len(id)}") as uow:
            uow.conversations.add(Conversation(id, {"of": "secret"}))
        with store.begin() as uow:
            uow.runs.append(id, Run("q", "a"))
    ids = ["secret", LONG, "1", "2", "missing"]
    with store.begin() as uow:
        for id in ids[:3]:
            uow.conversations.remove(id)
    assert store.repository.forget("other", ids) == Forgotten()
    assert store.repository.forget("default", ids) == Forgotten(7, 0, None)
    assert store.repository.forget("default", ids) == Forgotten()
    assert LONG not in text_of(store)
    with store.begin(idempotency_key="key of 8") as uow:
        uow.conversations.add(Conversation("a"))
    assert uow.receipt is not None
    assert uow.receipt.repeated
    with store.begin(idempotency_key="key of 6") as uow:
        uow.conversations.add(Conversation("b"))
    assert (uow.receipt and uow.receipt.repeated) is False


def test_texts_are_deleted_from_the_outbox_and_removals_stay(store: Store) -> None:
    mirrored = Store(store.repository.with_outbox(["r"]))
    with mirrored.begin() as uow:
        for id in ("forgotten", "kept"):
            uow.conversations.add(Conversation(id, {"of": f"metadata of {id}"}))
            uow.runs.append(id, Run(f"input of {id}", "\x00\ud83d"))
    with mirrored.begin() as uow:
        uow.runs.append("forgotten", Run("another of forgotten", None))
    with mirrored.namespace("other").begin() as uow:
        uow.conversations.add(Conversation("forgotten", {"of": "another namespace"}))
    with mirrored.begin() as uow:
        uow.conversations.remove("forgotten")
        uow.conversations.add(Conversation("forgotten", {"of": "created again as forgotten"}))
    with mirrored.begin() as uow:
        uow.conversations.remove("forgotten")
        uow.runs.append("kept", Run("last of kept", None))
    assert mirrored.repository.forget("default", ["forgotten"]).outbox == 3
    left = text_of(store)
    for gone in ("metadata of forgotten", "input of forgotten", "another of forgotten", "created again as forgotten"):
        assert gone not in left
    for here in ("metadata of kept", "input of kept", "last of kept", "another namespace"):
        assert here in left
    with store.repository.relaying("r") as outbox:
        assert outbox is not None
        changes = [
            [(change.id, change.remove, change.create is None) for change in entry.changes.changes]
            for entry in outbox.first(9)
            if entry.namespace == "default"
        ]
    removal = ("forgotten", True, True)
    assert changes == [[("kept", False, False)], [removal], [removal, ("kept", False, True)]]


def test_a_conversation_that_was_created_again_is_delivered(store: Store) -> None:
    mirrored = Store(store.repository.with_outbox(["r"]))
    with mirrored.begin() as uow:
        uow.conversations.add(Conversation("a", {"of": "the first"}))
    with mirrored.begin() as uow:
        uow.conversations.remove("a")
    with mirrored.begin() as uow:
        uow.conversations.add(Conversation("a", {"of": "the second"}))
    assert mirrored.repository.forget("default", ["a"]).outbox == 1
    left = text_of(store)
    assert "the first" not in left
    assert "the second" in left
