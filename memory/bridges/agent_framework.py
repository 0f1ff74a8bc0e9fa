"""The history of Microsoft's Agent Framework in any store.

    from agent_framework import Agent
    from memory import aio
    from memory.bridges.agent_framework import HistoryProvider

    store = await aio.connect("postgresql+psycopg://host/chats")
    agent = Agent(client, context_providers=[HistoryProvider(store)])
    await agent.run("Where is my refund?", session=agent.create_session(session_id="support-42"))

A session is a conversation, and each of its messages is a run (`memory.bridges.messages`).
"""

from collections.abc import Sequence
from typing import Any, Final

import agent_framework
from agent_framework import Message

from memory import ConfigurationError, aio
from memory.bridges.messages import FRAMEWORK, append_async, message_of, message_run

_NAME: Final = "agent-framework"


class HistoryProvider(agent_framework.HistoryProvider):
    """A history provider that keeps the messages of sessions in a store.

    Args:
        store: the store, which several providers share.
        source_id: the name of the provider among those of an agent.
        metadata: metadata of new conversations, for queries.
        limit: read only this many messages, the last ones; default: all.
        options: the framework's, such as ``store_outputs``.
    """

    def __init__(
        self,
        store: aio.Store,
        source_id: str = "memory",
        *,
        metadata: dict[str, Any] | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(source_id, **options)
        self._store = store
        self._metadata = {**(metadata or {}), FRAMEWORK: _NAME}
        self._limit = limit

    async def get_messages(
        self,
        session_id: str | None,
        *,
        state: dict[str, Any] | None = None,  # noqa: ARG002  # the framework's: nothing is kept there
        **kwargs: Any,  # noqa: ARG002
    ) -> list[Message]:
        """Return the messages of a session, oldest first."""
        id, runs = _checked(session_id), self._store.runs
        found = await (runs.list(id) if self._limit is None else runs.last(id, self._limit))
        return [message_of(run, _message) for run in found]

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,  # noqa: ARG002  # as above
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Append messages in one commit. Those that others add meanwhile are kept, before or after all of these."""
        id = _checked(session_id)
        runs = [message_run(message.to_dict(), from_model=message.role == "assistant") for message in messages]
        if runs:
            await append_async(self._store, id, runs, self._metadata)


def _message(stored: dict[str, Any]) -> Message:
    if stored["type"] != "message":
        raise ValueError(stored["type"])
    return Message.from_dict(stored)


def _checked(session_id: str | None) -> str:
    if session_id is None:
        raise ConfigurationError("a session without an id cannot be stored: agent.create_session(session_id=...)")
    return session_id
