"""Google ADK's session service in a store, with ADK's own runner and agents."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError as SessionExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.models import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.adk.tools.tool_context import ToolContext
from google.genai import types

import memory
from memory import aio
from memory.bridges.google_adk import SessionService

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::UserWarning:google"),  # of features that are experiments
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of ADK's dependencies
]

ADA: Any = {"app_name": "travel", "user_id": "ada"}
EVE: Any = {"app_name": "travel", "user_id": "eve"}


class Scripted(BaseLlm):
    """A model that gives one answer after the other."""

    model: str = "scripted"
    answers: list[types.Part]

    async def generate_content_async(self, *_: Any, **__: Any) -> AsyncGenerator[LlmResponse, None]:
        yield LlmResponse(content=types.Content(role="model", parts=[self.answers.pop(0)]))


def note(topic: str, tool_context: ToolContext) -> str:
    """Remember a topic."""
    for key in ("topic", "user:topic", "app:topic", "temp:topic"):
        tool_context.state[key] = topic
    return "noted"


@pytest.fixture  # state of users and applications is written with the session's, which Griptape Cloud refuses
def sessions(atomic_store: aio.Store) -> SessionService:
    return SessionService(atomic_store, metadata={"customer": "ada"})


def said(
    text: str = "Hi", delta: dict[str, Any] | None = None, *, at: float | None = None, author: str = "user"
) -> Event:
    content = types.Content(role="user" if author == "user" else "model", parts=[types.Part(text=text)])
    event = Event(author=author, content=content, actions=EventActions(state_delta=delta or {}))
    return event if at is None else event.model_copy(update={"timestamp": at})


def texts(session: Session | None) -> list[str | None]:
    assert session is not None
    return [event.content.parts[0].text for event in session.events if event.content and event.content.parts]


async def talk(service: Any, *answers: types.Part) -> None:
    agent = LlmAgent(name="helper", model=Scripted(answers=list(answers)), tools=[note])
    runner = Runner(app_name="travel", agent=agent, session_service=service)
    message = types.Content(role="user", parts=[types.Part(text="Where is it?")])
    async for _ in runner.run_async(user_id="ada", session_id="trip", new_message=message):
        pass


async def test_a_runner_continues_a_session(atomic_store: aio.Store, sessions: SessionService) -> None:
    await sessions.create_session(**ADA, session_id="trip")
    call = types.Part(function_call=types.FunctionCall(name="note", args={"topic": "Rome"}))
    await talk(sessions, call, types.Part(text="Noted."))
    await talk(sessions, types.Part(text="Tomorrow."))
    found = await sessions.get_session(**ADA, session_id="trip")
    assert texts(found) == ["Where is it?", None, None, "Noted.", "Where is it?", "Tomorrow."]
    assert found is not None
    assert found.state == {"topic": "Rome", "user:topic": "Rome", "app:topic": "Rome"}
    runs = await atomic_store.runs.list("travel/ada/trip")
    assert [run.output is None for run in runs] == [True, False, True, False, True, False]
    assert await atomic_store.conversations.count(memory.where("state.topic") == "Rome") == 3
    page = await atomic_store.conversations.find(memory.where("customer") == "ada")
    assert [conversation.id for conversation in page] == ["travel/ada/trip"]


async def test_an_event_is_stored_without_loss(aio_store: aio.Store) -> None:
    sessions = SessionService(aio_store)
    event = Event(
        invocation_id="invocation",
        author="helper",
        content=types.Content(role="model", parts=[types.Part.from_bytes(data=b"\x89\xff", mime_type="image/png")]),
        partial=False,
        turn_complete=True,
        interrupted=True,
        error_code="code",
        error_message="message",
        long_running_tool_ids={"tool"},
        custom_metadata={"key": [1, None]},
        grounding_metadata=types.GroundingMetadata(search_entry_point=types.SearchEntryPoint(sdk_blob=b"\xff")),
        usage_metadata=types.GenerateContentResponseUsageMetadata(prompt_token_count=1, total_token_count=2),
        input_transcription=types.Transcription(text="spoken", finished=True),
        actions=EventActions(artifact_delta={"file": 0}, transfer_to_agent="other", escalate=True),
        timestamp=1700000000.123456,
    )
    session = await sessions.create_session(**ADA)
    await sessions.append_event(session, event)
    found = await sessions.get_session(**ADA, session_id=session.id)
    assert found is not None
    assert found.events == [event]
    assert found == session


async def test_it_does_what_the_service_in_memory_does(sessions: SessionService) -> None:
    async def do(service: Any) -> list[Any]:
        one = await service.create_session(
            **ADA, session_id=" one ", state={"a": 1, "user:b": 2, "app:c": 3, "temp:d": 4}
        )
        two = await service.create_session(**ADA, session_id="two")
        eve = await service.create_session(**EVE, session_id="one")
        done: list[Any] = [one.id, dict(one.state), dict(two.state), dict(eve.state)]
        start = eve.last_update_time
        await service.append_event(one, said("1", {"a": None, "e": [1], "app:c": 5, "temp:f": 6}, at=start + 30))
        await service.append_event(one, said("2", at=start + 40, author="helper"))
        await service.append_event(eve, said("3", {"user:b": 7}, at=start + 20))
        partial = said("4", at=start + 50)
        partial.partial = True
        await service.append_event(one, partial)
        done += [dict(one.state), texts(one), [event.actions.state_delta for event in one.events]]
        for config in (
            None,
            GetSessionConfig(num_recent_events=1),
            GetSessionConfig(num_recent_events=0),
            GetSessionConfig(after_timestamp=start + 35),
            GetSessionConfig(after_timestamp=start + 99),
            GetSessionConfig(num_recent_events=2, after_timestamp=start + 30),
        ):
            found = await service.get_session(**ADA, session_id="one", config=config)
            done += [texts(found), found.state, round(found.last_update_time - start, 3)]
        for user in ({"user_id": "ada"}, {"user_id": "eve"}, {"user_id": "nobody"}, {"user_id": ""}, {}):
            listed = (await service.list_sessions(app_name="travel", **user)).sessions
            done.append([(found.user_id, found.id, found.state, found.events) for found in listed])
        done += [await service.get_user_state(**ADA), await service.get_user_state(app_name="other", user_id="ada")]
        await service.delete_session(**ADA, session_id="one")
        await service.delete_session(**ADA, session_id="one")
        done += [await service.get_session(**ADA, session_id="one"), await service.get_user_state(**ADA)]
        return done

    assert await do(sessions) == await do(InMemorySessionService())


async def test_a_stale_session_is_refused(sessions: SessionService) -> None:
    first = await sessions.create_session(**ADA, session_id="trip")
    other = await sessions.get_session(**ADA, session_id="trip")
    assert other is not None
    await sessions.append_event(other, said("by the other"))
    with pytest.raises(StaleSessionError, match="modified in storage since it was loaded"):
        await sessions.append_event(first, said("too late", {"topic": "Rome"}))
    found = await sessions.get_session(**ADA, session_id="trip")
    assert texts(found) == ["by the other"]
    assert found is not None
    assert "topic" not in found.state
    await sessions.append_event(found, said("again"))
    assert texts(await sessions.get_session(**ADA, session_id="trip")) == ["by the other", "again"]


async def test_a_session_made_again_is_another_one(sessions: SessionService) -> None:
    first = await sessions.create_session(**ADA, session_id="trip")
    await sessions.delete_session(**ADA, session_id="trip")
    with pytest.raises(SessionNotFoundError):
        await sessions.append_event(first, said())
    await sessions.create_session(**ADA, session_id="trip")
    with pytest.raises(StaleSessionError):
        await sessions.append_event(first, said())


async def test_an_application_can_make_the_session_object_itself(sessions: SessionService) -> None:
    made = await sessions.create_session(**ADA, session_id="trip")
    await sessions.append_event(made, said("first"))
    copied = Session.model_validate(made.model_dump())
    await sessions.append_event(copied, said("second"))
    stale = Session.model_validate(made.model_dump())
    with pytest.raises(StaleSessionError):
        await sessions.append_event(stale, said("third"))


async def test_an_edit_of_other_metadata_does_not_make_a_session_stale(
    atomic_store: aio.Store, sessions: SessionService
) -> None:
    session = await sessions.create_session(**ADA, session_id="trip")
    async with atomic_store.begin() as uow:
        (await uow.conversations.get("travel/ada/trip")).metadata["title"] = "Rome"
    await sessions.append_event(session, said("Hi", {"topic": "Rome"}))
    found = await atomic_store.conversations.get("travel/ada/trip")
    assert (found.metadata["title"], found.metadata["state"], found.last_position) == ("Rome", {"topic": "Rome"}, 1)


async def test_of_writers_of_one_session_one_wins(sessions: SessionService) -> None:
    session = await sessions.create_session(**ADA, session_id="trip")
    for turn in range(6):
        deltas = [{f"by{turn}": n} if turn % 2 else {} for n in range(4)]
        latest = await sessions.get_session(**ADA, session_id="trip")
        assert latest is not None
        copies = [latest.model_copy(deep=True) for _ in range(4)]
        results = await asyncio.gather(
            *(sessions.append_event(copy, said(f"{turn}", delta)) for copy, delta in zip(copies, deltas, strict=True)),
            return_exceptions=True,
        )
        assert [type(result) for result in results if not isinstance(result, Event)] == [StaleSessionError] * 3
    found = await sessions.get_session(**ADA, session_id=session.id)
    assert texts(found) == ["0", "1", "2", "3", "4", "5"]
    assert found is not None
    assert found.state.keys() == {"by1", "by3", "by5"}


async def test_sessions_that_write_one_state_at_once_lose_nothing(sessions: SessionService) -> None:
    made = await asyncio.gather(
        *(sessions.create_session(**ADA, session_id=str(n), state={f"app:made{n}": n}) for n in range(6))
    )
    await asyncio.gather(
        *(sessions.append_event(one, said("Hi", {f"user:by{one.id}": 1, "app:last": 1})) for one in made)
    )
    assert await sessions.get_user_state(**ADA) == {f"by{n}": 1 for n in range(6)}
    found = await sessions.get_session(**ADA, session_id="0")
    assert found is not None
    assert {key for key in found.state if key.startswith("app:made")} == {f"app:made{n}" for n in range(6)}


async def test_only_one_of_several_makes_a_session(sessions: SessionService) -> None:
    made = await asyncio.gather(
        *(sessions.create_session(**ADA, session_id="trip", state={"n": n}) for n in range(5)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in made) == ["AlreadyExistsError"] * 4 + ["Session"]
    assert all(isinstance(one, SessionExistsError) for one in made if not isinstance(one, Session))


async def test_names_with_slashes_are_apart(atomic_store: aio.Store, sessions: SessionService) -> None:
    await sessions.create_session(app_name="a/b", user_id="c", session_id="d", state={"app:x": 1, "user:x": 2})
    await sessions.create_session(app_name="a", user_id="b/c", session_id="d")
    await sessions.create_session(app_name="a", user_id="b", session_id="c/d")
    ids = sorted([conversation.id async for conversation in atomic_store.conversations.iterate()])
    assert ids == ["a%2Fb", "a%2Fb/c", "a%2Fb/c/d", "a/b%2Fc/d", "a/b/c%2Fd"]
    assert len((await sessions.list_sessions(app_name="a")).sessions) == 2


async def test_state_that_is_not_json_is_stored_as_text(sessions: SessionService) -> None:
    at = datetime(2026, 11, 26, tzinfo=UTC)
    session = await sessions.create_session(**ADA, state={"at": at, "tags": {"a"}})
    assert session.state == {"at": "2026-11-26T00:00:00Z", "tags": ["a"]}


async def test_more_state_than_metadata_may_have_is_refused() -> None:
    async with await aio.connect("memory://", max_metadata_values=10) as store:
        with pytest.raises(memory.InvalidValueError, match="max_metadata_values"):
            await SessionService(store).create_session(**ADA, state={"list": list(range(20))})
