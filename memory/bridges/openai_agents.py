"""Sessions of the OpenAI Agents SDK in any store.

    from agents import Agent, Runner
    from memory import aio
    from memory.bridges.openai_agents import Session

    store = await aio.connect("postgresql+psycopg://host/chats")
    await Runner.run(agent, "Where is my refund?", session=Session("support-42", store))

A session is a conversation, and each of its items is a run (`memory.bridges.messages`): ``get_items(limit)`` then reads exactly
that many runs, ``pop_item`` removes one, and ``add_items`` appends without reading what is there, in one commit.
"""

from contextlib import suppress
from typing import Any, Final, cast

from agents import SessionSettings, TResponseInputItem
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

from memory import NotFoundError, aio
from memory.bridges.messages import FRAMEWORK, append_async, message_of, message_run
from memory.domain.entities import Run
from memory.domain.values import Json

_NAME: Final = "openai-agents"
_TO_MODEL: Final = ("user", "system", "developer")
_POPS: Final = 20  # retries: of several pops at once, each conflicts with those before it


class Session:
    """A session of the OpenAI Agents SDK.

    Args:
        session_id: the conversation's id.
        store: the store, which several sessions share.
        metadata: metadata of the conversation, for queries; used when the session's first items are added.
        session_settings: the SDK's, for instance the default ``limit`` of items.
    """

    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        store: aio.Store,
        *,
        metadata: dict[str, Any] | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings = coerce_session_settings(session_settings or {})
        self._store = store
        self._metadata = {**(metadata or {}), FRAMEWORK: _NAME}

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the last ``limit`` items, oldest first.

        Args:
            limit: the most items; default: that of the settings. All items, if that is None too, or if it is negative.
        """
        limit, runs = resolve_session_limit(limit, self.session_settings), self._store.runs
        if limit is None or limit < 0:
            return [_item(run) for run in await runs.list(self.session_id)]
        return [_item(run) for run in await runs.last(self.session_id, limit)]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items in one commit. Those that others add meanwhile are kept, before or after all of these."""
        if not items:
            return
        runs = [message_run(cast(Json, item), from_model=_is_from_model(item)) for item in items]
        await append_async(self._store, self.session_id, runs, self._metadata)

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it; None if there is none. Of several at once, each pops another item."""
        return await self._store.run(self._pop, retries=_POPS)

    async def _pop(self, uow: aio.UnitOfWork) -> TResponseInputItem | None:
        for run in await uow.runs.last(self.session_id, 1):
            await uow.runs.remove(self.session_id, cast(int, run.position))
            return _item(run)
        return None

    async def clear_session(self) -> None:
        """Remove the session's conversation with all its items."""
        with suppress(NotFoundError):
            await self._store.run(lambda uow: uow.conversations.remove(self.session_id, force=True))


def _is_from_model(item: TResponseInputItem) -> bool:
    """Return whether an item comes from the model: all but messages of other roles, outputs of tools, and people's approvals."""
    role, kind = item.get("role"), str(item.get("type", "message"))
    return role not in _TO_MODEL and not kind.endswith(("_output", "_approval_response"))


def _item(run: Run) -> TResponseInputItem:
    return message_of(run, _checked)


def _checked(stored: dict[str, Any]) -> TResponseInputItem:
    if ("role" not in stored and "data" in stored) or not stored.keys() & {"role", "type"}:
        raise ValueError("it is no item of OpenAI's")
    return cast(TResponseInputItem, stored)
