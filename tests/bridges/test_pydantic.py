"""The pydantic models, as the response models of a FastAPI application."""

import doctest
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import memory
from memory import PENDING, Conversation, Run, Store
from memory.bridges import pydantic as bridge
from memory.bridges.pydantic import ConversationModel, RunModel
from tests.typed_metadata import URLS


@dataclass
class Ticket:
    customer: str
    due: datetime


@pytest.fixture(params=URLS)
def store(request: pytest.FixtureRequest) -> Iterator[Store[Ticket]]:
    with memory.connect(request.param, metadata=Ticket) as store:
        yield store


@pytest.fixture
def client(store: Store[Ticket]) -> Iterator[TestClient]:
    app = FastAPI()

    @app.get("/tickets/{id}", response_model=ConversationModel[Ticket])
    def ticket(id: str) -> Any:
        return store.conversations.get(id)

    @app.get("/tickets", response_model=list[ConversationModel[Ticket]])
    def tickets() -> Any:
        return list(store.conversations.find())

    @app.get("/plain/{id}")
    def plain(id: str) -> ConversationModel:
        return ConversationModel.model_validate(store.untyped().conversations.get(id))

    @app.get("/tickets/{id}/runs", response_model=list[RunModel])
    def runs(id: str) -> Any:
        return store.runs.list(id)

    with TestClient(app) as client:
        yield client


def test_a_route_returns_conversations_and_runs(store: Store[Ticket], client: TestClient) -> None:
    due = datetime(2026, 1, 31, 12, tzinfo=UTC)
    with store.begin() as uow:
        uow.conversations.add(Conversation("support-42", Ticket("ada", due), expires_after=timedelta(days=1)))
        uow.runs.append("support-42", Run({"text": "Where?"}, "On Monday."), Run("And?", PENDING))
    conversation = store.conversations.get("support-42")
    body = client.get("/tickets/support-42").json()
    assert body.pop("metadata") == {"customer": "ada", "due": "2026-01-31T12:00:00Z"}
    assert client.get("/plain/support-42").json()["metadata"]["due"] == "2026-01-31T12:00:00.000000Z"
    assert client.get("/tickets").json() == [client.get("/tickets/support-42").json()]
    assert (body["id"], body["version"], body["run_count"], body["last_position"]) == ("support-42", 1, 2, 2)
    assert (body["etag"], body["expires_after"]) == (conversation.etag, "P1D")
    for name in ("created_at", "updated_at", "last_run_at", "expires_at"):
        assert datetime.fromisoformat(body[name]) == getattr(conversation, name)
    first, second = client.get("/tickets/support-42/runs").json()
    assert (first["input"], first["output"], first["position"]) == ({"text": "Where?"}, "On Monday.", 1)
    assert (second["output"], second["is_open"]) == (None, True)


def test_the_document_of_the_application_describes_the_type_of_the_metadata(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Ticket"]["properties"]) == {"customer", "due"}
    assert {"ConversationModel_Ticket_", "RunModel"} <= set(schemas)


def test_the_models_have_the_fields_of_the_entities() -> None:
    conversation = Conversation("support-42", {"customer": "ada"})
    assert ConversationModel.model_validate(conversation).model_dump(exclude_none=True) == {
        "id": "support-42",
        "metadata": {"customer": "ada"},
        "version": 0,
        "run_count": 0,
        "last_position": 0,
        "etag": "",
    }
    run = Run("?", "!")
    assert RunModel.model_validate(run).model_dump() == {
        name: getattr(run, name) for name in ("id", "position", "created_at", "input", "output", "metadata", "is_open")
    }


def test_the_examples_run() -> None:
    assert doctest.testmod(bridge).failed == 0
