"""Pydantic models of conversations and runs: response models for FastAPI.

>>> import memory
>>> store = memory.connect("memory://")
>>> with store.begin() as uow:
...     uow.conversations.add(memory.Conversation("support-42", {"customer": "ada"}))
>>> ConversationModel.model_validate(store.conversations.get("support-42")).metadata
{'customer': 'ada'}
"""

from datetime import datetime, timedelta
from typing import Any, Generic

from pydantic import BaseModel, ConfigDict, field_validator

from memory.domain.entities import PENDING, M

__all__ = ["ConversationModel", "RunModel"]


class ConversationModel(BaseModel, Generic[M]):
    """The fields of a `memory.Conversation`. ``ConversationModel[TicketInfo]`` is that of a store with this type of metadata.

    As the ``response_model`` of a FastAPI route, it lets the route return the conversation itself. Elsewhere,
    ``ConversationModel.model_validate(conversation)`` makes one.
    """

    model_config = ConfigDict(from_attributes=True)

    id: str
    metadata: M
    version: int
    run_count: int
    last_position: int
    created_at: datetime | None
    updated_at: datetime | None
    last_run_at: datetime | None
    expires_at: datetime | None
    expires_after: timedelta | None
    etag: str


class RunModel(BaseModel):
    """The fields of a `memory.Run`. The output of a run that has none yet is None, and ``is_open`` is true."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    position: int | None
    created_at: datetime
    input: Any
    output: Any
    metadata: dict[str, Any]
    is_open: bool

    @field_validator("output", mode="before")
    @classmethod
    def _without_pending(cls, output: Any) -> Any:
        return None if output is PENDING else output
