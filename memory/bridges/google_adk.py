"""Google ADK's session service in any store.

    from google.adk.runners import Runner
    from memory import aio
    from memory.bridges.google_adk import SessionService

    store = await aio.connect("postgresql+psycopg://host/chats")
    runner = Runner(app_name="travel", agent=agent, session_service=SessionService(store))

A session is a conversation, ``app/user/session``. Its runs are the session's events (`memory.bridges.messages`), and its metadata
has the session's state. The states of users and of applications are conversations without runs, ``app/user`` and ``app``.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError as SessionExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform.uuid import new_uuid
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
from google.adk.sessions.session import Session
from google.adk.sessions.state import State
from pydantic_core import to_jsonable_python

from memory import aio
from memory.bridges.messages import FRAMEWORK, check_written_by, joined_id, message_of, message_run
from memory.domain.criteria import where
from memory.domain.entities import Conversation, Run
from memory.errors import AlreadyExistsError, NotFoundError

_NAME: Final = "google-adk"
_RETRIES: Final = 20  # sessions that write the state of one application at once conflict
_Found = Mapping[str, Conversation]


class SessionService(BaseSessionService):
    """A session service. Values of states that are not JSON are stored as pydantic serializes them.

    Args:
        store: the store, which several services share.
        metadata: metadata of new sessions, for queries.
    """

    def __init__(self, store: aio.Store, *, metadata: dict[str, Any] | None = None) -> None:
        self._store = store
        self._metadata = metadata or {}

    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        """Create a session, and update the states of its user and application, in one commit.

        Raises:
            google.adk.errors.already_exists_error.AlreadyExistsError: the session exists.
        """
        session_id = (session_id or "").strip() or new_uuid()
        ids = _ids(app_name, user_id, session_id)
        session_state, *shared = _scoped(state or {})

        async def create(uow: aio.UnitOfWork) -> _Found:
            found = await uow.conversations.get_many(ids)
            metadata = {**self._metadata, **_metadata(app_name, user_id, session_id), "state": session_state}
            for id in found:
                _state(found, id)  # raises if it is not ADK's, before anything is written
            found[ids[0]] = Conversation(ids[0], metadata)
            await uow.conversations.add(found[ids[0]])
            await _update(uow, found, shared, app_name, user_id)
            return found

        try:
            found = await self._store.run(create, _RETRIES)
        except AlreadyExistsError as error:
            raise SessionExistsError(f"Session with id {session_id} already exists.") from error
        return _session(ids, found, [])

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """Return a session with its events, or those that the config selects; None if it does not exist."""
        ids = _ids(app_name, user_id, session_id.strip())
        found = await self._store.conversations.get_many(ids)
        if ids[0] not in found:
            return None
        last, config = found[ids[0]].last_position, config or GetSessionConfig()
        if config.num_recent_events is None:
            runs = await self._store.runs.list(
                ids[0], before=last + 1
            )  # later events are not in the state that was read
        else:
            recent = await self._store.runs.last(ids[0], config.num_recent_events)
            runs = [run for run in recent if cast("int", run.position) <= last]
        events = [_event(run) for run in runs]
        return _session(ids, found, [event for event in events if event.timestamp >= (config.after_timestamp or 0)])

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """Return the sessions of a user, or of all users, without their events: those that were updated last come last."""
        criterion = (where(FRAMEWORK) == _NAME) & (where("app_name") == app_name)
        if user_id is not None:
            criterion &= where("user_id") == user_id
        found = {one.id: one async for one in self._store.conversations.iterate(criterion)}
        found.update(await self._store.conversations.get_many([joined_id(app_name)]))
        sessions = [
            _session(_ids(app_name, one.metadata["user_id"], one.metadata["session_id"]), found, [])
            for one in found.values()
            if "session_id" in one.metadata
        ]
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Remove a session and its events, if it exists. The states of its user and application are kept."""
        with suppress(NotFoundError):
            async with self._store.begin() as uow:
                await uow.conversations.remove(_ids(app_name, user_id, session_id.strip())[0], force=True)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state of a user, whose keys have no prefix."""
        id = joined_id(app_name, user_id)
        found = await self._store.conversations.get_many([id])
        return _state(found, id)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event, and update the states that its actions change, in one commit.

        Raises:
            StaleSessionError: someone else appended an event since the session was read: get the session again.
            SessionNotFoundError: the session does not exist.
        """
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        ids = _ids(session.app_name, session.user_id, session.id)
        session_state, *shared = _scoped(event.actions.state_delta)

        async def append(uow: aio.UnitOfWork) -> Conversation:
            found = await uow.conversations.get_many(ids if any(shared) else ids[:1])
            if ids[0] not in found:
                raise SessionNotFoundError(f"Session {session.id} not found.")
            conversation = found[ids[0]]
            if await _is_stale(session, conversation, uow):
                raise StaleSessionError(
                    f"Session {session.id} has been modified in storage since it was loaded: get it again, then append."
                )
            conversation.metadata["state"].update(session_state)
            await _update(uow, found, shared, session.app_name, session.user_id)
            await uow.runs.append(conversation, _run(event), after=conversation.last_position)
            return conversation

        _mark(session, await self._store.run(append, _RETRIES))
        return self._commit_event_to_session(session, event)


def _ids(app_name: str, user_id: str, session_id: str) -> list[str]:
    """Return the ids of the conversations of a session, and of the states of its user and its application."""
    return [joined_id(app_name, user_id, session_id), joined_id(app_name, user_id), joined_id(app_name)]


def _metadata(*names: str) -> dict[str, Any]:
    return {FRAMEWORK: _NAME, **dict(zip(("app_name", "user_id", "session_id"), names, strict=False)), "state": {}}


def _scoped(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the values of a session, of its user and of its application. Temporary ones are left out."""
    scoped: dict[str, dict[str, Any]] = {"": {}, State.USER_PREFIX: {}, State.APP_PREFIX: {}, State.TEMP_PREFIX: {}}
    for key, value in to_jsonable_python(state, fallback=str).items():
        prefix = next((prefix for prefix in scoped if prefix and key.startswith(prefix)), "")
        scoped[prefix][key.removeprefix(prefix)] = value
    return list(scoped.values())[:3]


async def _update(
    uow: aio.UnitOfWork, found: _Found, deltas: list[dict[str, Any]], app_name: str, user_id: str
) -> None:
    """Update the states of the user and the application."""
    for names, delta in zip(((app_name, user_id), (app_name,)), deltas, strict=True):
        if delta:
            id = joined_id(*names)
            conversation = await uow.conversations.get_or_create(id, _metadata(*names))
            check_written_by(_NAME, conversation)
            conversation.metadata["state"].update(delta)
            cast("dict[str, Conversation]", found)[id] = conversation


def _state(found: _Found, id: str) -> dict[str, Any]:
    return dict(check_written_by(_NAME, found[id]).metadata["state"]) if id in found else {}


def _session(ids: list[str], found: _Found, events: list[Event]) -> Session:
    conversation = found[ids[0]]
    state = _state(found, ids[0])
    for id, prefix in zip(ids[1:], (State.USER_PREFIX, State.APP_PREFIX), strict=True):
        state |= {prefix + key: value for key, value in _state(found, id).items()}
    names = {name: conversation.metadata[name] for name in ("app_name", "user_id")}
    session = Session(id=conversation.metadata["session_id"], **names, state=state, events=events)
    return _mark(session, conversation)


def _mark(session: Session, conversation: Conversation) -> Session:
    """Set what a session has of its conversation, as ADK's own services do."""
    assert conversation.last_run_at is not None  # noqa: S101  # it was read or written
    session.last_update_time = conversation.last_run_at.timestamp()
    session._storage_update_marker = _marker(conversation)  # noqa: SLF001
    return session


def _marker(conversation: Conversation) -> str:
    """Return a text that every event changes, but not an edit of other metadata."""
    assert conversation.record is not None  # noqa: S101  # it was read or written
    return f"{conversation.record.incarnation}/{conversation.last_position}"


async def _is_stale(session: Session, conversation: Conversation, uow: aio.UnitOfWork) -> bool:
    if (marker := session._storage_update_marker) is not None:  # noqa: SLF001
        return marker != _marker(conversation)
    last = await uow.runs.last(conversation, 1)  # the application made the session object itself
    return [_event(run).id for run in last] != [event.id for event in session.events[-1:]]


def _run(event: Event) -> Run:
    role = event.content.role if event.content else None
    run = message_run(event.model_dump(mode="json", exclude_none=True), from_model="user" not in (event.author, role))
    return replace(run, created_at=datetime.fromtimestamp(event.timestamp, UTC))


def _event(run: Run) -> Event:
    return message_of(run, Event.model_validate)
