"""Strands Agents' session repository in any store.

    from strands import Agent
    from strands.session.repository_session_manager import RepositorySessionManager
    from memory.bridges.strands import SessionRepository

    store = memory.connect("postgresql+psycopg://host/chats")
    agent = Agent(session_manager=RepositorySessionManager("support-42", SessionRepository(store)))

Each agent of a session is a conversation, ``session/agent``, and each of its messages a run (`memory.bridges.messages`). The
agent's state is metadata. The session itself is a conversation without runs, and the state of a multi-agent the only run of one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from strands.session import session_repository
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from memory.bridges.messages import FRAMEWORK, check_written_by, joined_id, message_of, message_run
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.criteria import where
from memory.domain.entities import Conversation, Run
from memory.errors import AlreadyExistsError, NotFoundError

if TYPE_CHECKING:
    from strands.multiagent import MultiAgentBase

T = TypeVar("T")

_NAME: Final = "strands"


class SessionRepository(session_repository.SessionRepository):
    """A session repository. A ``SessionException`` has the store's error as its cause.

    Args:
        store: the store, which several repositories share.
        metadata: metadata of new conversations, for queries.
    """

    def __init__(self, store: Store, *, metadata: dict[str, Any] | None = None) -> None:
        self._store = store
        self._metadata = {**(metadata or {}), FRAMEWORK: _NAME}

    def create_session(self, session: Session, **_: Any) -> Session:
        """Create a session; raise ``SessionException`` if it exists."""
        fields = {**session.to_dict(), "session_type": SessionType(session.session_type).value}
        conversation = self._conversation(session.session_id, joined_id(session.session_id), session=fields)
        self._add(conversation, f"session {session.session_id!r}")
        return session

    def read_session(self, session_id: str, **_: Any) -> Session | None:
        """Return a session, or None."""
        found = self._store.conversations.get_many([joined_id(session_id)])
        for conversation in found.values():
            fields = check_written_by(_NAME, conversation).metadata["session"]
            return Session.from_dict({**fields, "session_type": SessionType(fields["session_type"])})
        return None

    def delete_session(self, session_id: str, **_: Any) -> None:
        """Remove a session, its agents with their messages, and its multi-agents."""

        def delete(uow: UnitOfWork) -> None:
            if not uow.conversations.exists(joined_id(session_id)):
                raise SessionException(f"session {session_id!r} does not exist")
            uow.conversations.remove((where(FRAMEWORK) == _NAME) & (where("session_id") == session_id))

        self._store.run(delete)

    def create_agent(self, session_id: str, session_agent: SessionAgent, **_: Any) -> None:
        """Create an agent; raise ``SessionException`` if it exists."""
        id = joined_id(session_id, session_agent.agent_id)
        conversation = self._conversation(session_id, id, agent=session_agent.to_dict())
        self._add(conversation, f"agent {session_agent.agent_id!r} of session {session_id!r}")

    def read_agent(self, session_id: str, agent_id: str, **_: Any) -> SessionAgent | None:
        """Return an agent, or None."""
        found = self._store.conversations.get_many([joined_id(session_id, agent_id)])
        for conversation in found.values():
            return SessionAgent.from_dict(check_written_by(_NAME, conversation).metadata["agent"])
        return None

    def update_agent(self, session_id: str, session_agent: SessionAgent, **_: Any) -> None:
        """Replace the state of an agent. Of several at once, the last one wins."""
        id = joined_id(session_id, session_agent.agent_id)

        def update(uow: UnitOfWork) -> None:
            metadata = uow.conversations.get(id).metadata
            session_agent.created_at = metadata["agent"]["created_at"]
            metadata["agent"] = session_agent.to_dict()

        self._run(update, f"agent {session_agent.agent_id!r} of session {session_id!r} does not exist")

    def create_message(self, session_id: str, agent_id: str, session_message: SessionMessage, **_: Any) -> None:
        """Append a message. Those that others append meanwhile are kept, also if they have the same ``message_id``."""
        run = _run(session_message)
        self._run(
            lambda uow: uow.runs.append(joined_id(session_id, agent_id), run),
            f"agent {agent_id!r} of session {session_id!r} does not exist",
        )

    def read_message(self, session_id: str, agent_id: str, message_id: int, **_: Any) -> SessionMessage | None:
        """Return a message, or None."""
        return self._store.run(
            lambda uow: next((found for _, found in _with_id(uow, joined_id(session_id, agent_id), message_id)), None)
        )

    def update_message(self, session_id: str, agent_id: str, session_message: SessionMessage, **_: Any) -> None:
        """Replace a message, for instance to redact it. Of several with its ``message_id``, it is the one created with it."""
        id = joined_id(session_id, agent_id)

        def update(uow: UnitOfWork) -> None:
            found = list(_with_id(uow, id, session_message.message_id))
            if not found:
                raise SessionException(f"message {session_message.message_id} of agent {agent_id!r} does not exist")
            run, previous = next((one for one in found if one[1].created_at == session_message.created_at), found[0])
            session_message.created_at = previous.created_at
            new = _run(session_message)
            uow.runs.replace(id, replace(run, input=new.input, output=new.output))

        self._store.run(update)

    def list_messages(
        self, session_id: str, agent_id: str, limit: int | None = None, offset: int = 0, **_: Any
    ) -> list[SessionMessage]:
        """Return ``limit`` messages of an agent from an index on; raise ``SessionException`` if there is no such agent."""
        id = joined_id(session_id, agent_id)
        runs = self._store.runs.list(id, after=offset, limit=limit)  # the first message has index 0 and position 1
        if not runs and not self._store.conversations.exists(id):
            raise SessionException(f"agent {agent_id!r} of session {session_id!r} does not exist")
        return [_message(run) for run in runs]

    def create_multi_agent(self, session_id: str, multi_agent: "MultiAgentBase", **_: Any) -> None:
        """Store the state of a multi-agent; raise ``SessionException`` if it has one."""
        conversation = self._conversation(session_id, _multi_agent_id(session_id, multi_agent.id))
        state = Run(None, multi_agent.serialize_state())
        self._add(conversation, f"multi-agent {multi_agent.id!r} of session {session_id!r}", state)

    def read_multi_agent(self, session_id: str, multi_agent_id: str, **_: Any) -> dict[str, Any] | None:
        """Return the state of a multi-agent, or None."""
        for run in self._store.runs.last(_multi_agent_id(session_id, multi_agent_id), 1):
            return cast("dict[str, Any]", run.output)
        return None

    def update_multi_agent(self, session_id: str, multi_agent: "MultiAgentBase", **_: Any) -> None:
        """Replace the state of a multi-agent. Of several at once, the last one wins."""
        id = _multi_agent_id(session_id, multi_agent.id)

        def update(uow: UnitOfWork) -> None:
            for run in uow.runs.last(id, 1):
                uow.runs.replace(id, replace(run, output=multi_agent.serialize_state()))
                return
            raise NotFoundError(f"there is no state in conversation {id!r}")

        self._run(update, f"multi-agent {multi_agent.id!r} of session {session_id!r} does not exist")

    def _conversation(self, session_id: str, id: str, **metadata: Any) -> Conversation:
        return Conversation(id, {**self._metadata, "session_id": session_id, **metadata})

    def _add(self, conversation: Conversation, name: str, *runs: Run) -> None:
        def add(uow: UnitOfWork) -> None:
            uow.conversations.add(conversation)
            uow.runs.append(conversation, *runs)

        try:
            self._store.run(add)
        except AlreadyExistsError as error:
            raise SessionException(f"{name} already exists") from error

    def _run(self, work: Callable[[UnitOfWork], T], if_missing: str) -> T:
        try:
            return self._store.run(work)
        except NotFoundError as error:
            raise SessionException(if_missing) from error


def _multi_agent_id(session_id: str, multi_agent_id: str) -> str:
    return joined_id(session_id, "multi_agents", multi_agent_id)


def _run(message: SessionMessage) -> Run:
    return message_run(message.to_dict(), from_model=message.message["role"] == "assistant")


def _message(run: Run) -> SessionMessage:
    return message_of(run, SessionMessage.from_dict)


def _with_id(uow: UnitOfWork, conversation_id: str, message_id: int) -> Iterator[tuple[Run, SessionMessage]]:
    """Yield the messages with an id: one, unless several processes appended at once.

    Such appends move messages to later positions than ``message_id + 1``, but never to earlier ones.
    """
    for run in uow.runs.list(conversation_id, after=message_id):
        message = _message(run)
        if message.message_id == message_id:
            yield run, message
