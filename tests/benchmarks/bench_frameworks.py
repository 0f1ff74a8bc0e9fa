"""What a turn and a load cost with LangChain, LlamaIndex, Strands and Google ADK, beside each framework's own store on a disk.

    python -m tests.benchmarks.bench_frameworks [TURNS ...]

A turn is a question and an answer of 500 characters each. Each side syncs every commit to disk, except the files of Strands,
which are not synced at all. Both sides are measured in one process, by turns; the figures are medians. LangChain's own store is
that of ``langchain-community``, which is needed besides; without it LangChain is left out.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import memory
from memory import aio
from tests.benchmarks.measuring import in_turns

_SIZES = (10, 1_000)
_ROUNDS = 15
_TEXT = "x" * 500

Side = tuple[Callable[[int], Coroutine[Any, Any, None]], Callable[[], Coroutine[Any, Any, int]]]
Sides = tuple[Side, Side]
"""Ours and theirs: a function that appends so many turns, and one that loads all and returns how many messages there are."""


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or _SIZES
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'':12} {'turns':>6} {'append: ours':>14} {'theirs':>10} {'load: ours':>14} {'theirs':>10}")
    with asyncio.Runner() as runner:
        for name, sides_in in FRAMEWORKS.items():
            for size in sizes:
                with TemporaryDirectory() as folder:
                    try:
                        sides = runner.run(sides_in(Path(folder)))
                    except ModuleNotFoundError as error:
                        print(f"{name:12} left out: {error}")
                        break
                    _report(runner, name, size, sides)


def _report(runner: asyncio.Runner, name: str, size: int, sides: Sides) -> None:
    for append, load in sides:
        runner.run(append(size))
        assert runner.run(load()) == 2 * size
    (our_append, our_loading), (their_append, their_loading) = sides
    appends = in_turns(_ROUNDS, lambda: runner.run(our_append(1)), lambda: runner.run(their_append(1)))
    loads = in_turns(_ROUNDS, lambda: runner.run(our_loading()), lambda: runner.run(their_loading()))
    ours, theirs, our_load, their_load = (f"{seconds * 1000:.2f} ms" for seconds in (*appends, *loads))
    print(f"{name:12} {size:>6,} {ours:>14} {theirs:>10} {our_load:>14} {their_load:>10}", flush=True)


async def _langchain(folder: Path) -> Sides:
    from langchain_community.chat_message_histories import SQLChatMessageHistory  # type: ignore[import-not-found,unused-ignore]
    from langchain_core.messages import AIMessage, HumanMessage

    from memory.bridges.langchain import MessageHistory

    def side(history: Any) -> Any:
        async def append(turns: int) -> None:
            history.add_messages([HumanMessage(_TEXT), AIMessage(_TEXT)] * turns)

        async def load() -> int:
            return len(history.messages)

        return append, load

    ours = MessageHistory("one", memory.connect(f"sqlite:///{folder}/ours.db"))
    return side(ours), side(SQLChatMessageHistory("one", connection=f"sqlite:///{folder}/theirs.db"))


async def _llama_index(folder: Path) -> Sides:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

    from memory.bridges.llama_index import AsyncChatStore

    def side(store: Any) -> Any:
        async def append(turns: int) -> None:
            turn = [ChatMessage(role="user", content=_TEXT), ChatMessage(role="assistant", content=_TEXT)]
            await store.add_messages("one", turn * turns)

        async def load() -> int:
            return len(await store.get_messages("one"))

        return append, load

    ours = AsyncChatStore(await aio.connect(f"sqlite:///{folder}/ours.db"))
    return side(ours), side(SQLAlchemyChatStore("messages", f"sqlite+aiosqlite:///{folder}/theirs.db"))


async def _strands(folder: Path) -> Sides:
    from strands.session.file_session_manager import FileSessionManager
    from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

    from memory.bridges.strands import SessionRepository

    def side(repository: Any) -> Any:
        if repository.read_session("one") is None:
            repository.create_session(Session("one", SessionType.AGENT))
        repository.create_agent("one", SessionAgent("agent", {}, {}))
        count = 0

        async def append(turns: int) -> None:
            nonlocal count
            for role in ("user", "assistant") * turns:
                message = SessionMessage.from_message({"role": role, "content": [{"text": _TEXT}]}, count)
                repository.create_message("one", "agent", message)
                count += 1

        async def load() -> int:
            return len(repository.list_messages("one", "agent"))

        return append, load

    ours = SessionRepository(memory.connect(f"sqlite:///{folder}/ours.db"))
    return side(ours), side(FileSessionManager("one", storage_dir=str(folder / "theirs")))


async def _google_adk(folder: Path) -> Sides:
    from google.adk.events.event import Event
    from google.adk.sessions.base_session_service import BaseSessionService
    from google.adk.sessions.sqlite_session_service import SqliteSessionService
    from google.genai import types

    from memory.bridges.google_adk import SessionService

    async def side(service: BaseSessionService) -> Any:
        session = await service.create_session(app_name="app", user_id="ada", session_id="one")

        async def append(turns: int) -> None:
            for author in ("user", "agent") * turns:
                content = types.Content(role="user" if author == "user" else "model", parts=[types.Part(text=_TEXT)])
                await service.append_event(session, Event(author=author, content=content))

        async def load() -> int:
            found = await service.get_session(app_name="app", user_id="ada", session_id="one")
            return len(found.events) if found else 0

        return append, load

    ours = SessionService(await aio.connect(f"sqlite:///{folder}/ours.db"))
    return await side(ours), await side(SqliteSessionService(str(folder / "theirs.db")))


FRAMEWORKS: dict[str, Callable[[Path], Coroutine[Any, Any, Sides]]] = {
    "LangChain": _langchain,
    "LlamaIndex": _llama_index,
    "Strands": _strands,
    "Google ADK": _google_adk,
}

if __name__ == "__main__":
    main()
