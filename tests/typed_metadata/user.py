"""An application with typed metadata, for type checkers: `test_type_checkers.py` checks it, and nothing runs it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, assert_type

from pydantic import BaseModel

import memory
from memory import Conversation, Page, Store, UnitOfWork, Versioned, where
from memory.adapters.in_memory import InMemoryRepository
from memory.bridges.pydantic import ConversationModel, RunModel
from memory.transfer import copy, dump


@dataclass
class Ticket:
    customer: str
    due: datetime | None = None


class Model(BaseModel):
    customer: str


class Fields(TypedDict):
    customer: str


class Codec:
    def encode(self, metadata: Ticket) -> dict[str, Any]:
        return {"customer": metadata.customer}

    def decode(self, stored: dict[str, Any]) -> Ticket:
        return Ticket(stored["customer"])


def upgrade(old: dict[str, Any], version: int) -> dict[str, Any]:
    return {**old, "version": version}


def stores() -> None:
    assert_type(memory.connect("memory://"), Store[dict[str, Any]])
    assert_type(memory.connect("memory://", default=memory.to_json), Store[dict[str, Any]])
    assert_type(memory.connect("memory://", metadata=Ticket), Store[Ticket])
    assert_type(memory.connect("memory://", metadata=Model), Store[Model])
    assert_type(memory.connect("memory://", metadata=Fields), Store[Fields])
    assert_type(memory.connect("memory://", metadata=Codec()), Store[Ticket])
    assert_type(memory.connect("memory://", metadata=Versioned(Ticket, version=2, upgrade=upgrade)), Store[Ticket])
    assert_type(Store(InMemoryRepository()), Store[dict[str, Any]])
    assert_type(Store(InMemoryRepository(), metadata=Ticket), Store[Ticket])
    assert_type(Store(InMemoryRepository(), metadata=Fields), Store[Fields])
    assert_type(Store(InMemoryRepository(), metadata=Codec()), Store[Ticket])
    memory.connect("memory://", metadata=3)  # type: ignore[arg-type]  # no type


def units_of_work(store: Store[Ticket]) -> None:
    with store.begin() as uow:
        assert_type(uow, UnitOfWork[Ticket])
        uow.conversations.add(Conversation("support-42", Ticket("ada")))
        conversation = uow.conversations.get("support-42")
        assert_type(conversation, Conversation[Ticket])
        assert_type(conversation.metadata.due, datetime | None)
        conversation.metadata.customer = 3  # type: ignore[assignment]  # no str
        conversation.metadata["customer"]  # type: ignore[index]  # no dict
        uow.conversations.add(Conversation("b", {"customer": "ada"}))  # type: ignore[arg-type]  # no Ticket


def reading(store: Store[Ticket]) -> None:
    assert_type(store.conversations.find(where("due") < datetime.now(UTC)), Page[Conversation[Ticket]])
    assert_type(store.run(lambda uow: uow.conversations.get("support-42").metadata), Ticket)
    assert_type(store.namespace("other"), Store[Ticket])
    assert_type(store.untyped(), Store[dict[str, Any]])
    assert_type(store.upgrade_metadata(), int)
    where("due") < b""  # type: ignore[operator]  # noqa: B015  # not comparable


def transfers(store: Store[Ticket]) -> None:
    copy(store, memory.connect("memory://"))
    "".join(dump(store))
    assert_type(memory.mirror(store, search="memory://").conversations.get("a"), Conversation[Ticket])
    assert_type(memory.mirror("sqlite://").conversations.get("a"), Conversation[dict[str, Any]])


def models(store: Store[Ticket]) -> None:
    conversation = store.conversations.get("support-42")
    assert_type(ConversationModel[Ticket].model_validate(conversation).metadata, Ticket)
    assert_type(ConversationModel.model_validate(conversation).metadata, dict[str, Any])
    assert_type(RunModel.model_validate(store.runs.get("support-42", 1)).input, Any)
