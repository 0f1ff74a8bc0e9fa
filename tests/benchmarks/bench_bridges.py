"""What an append of a turn and a load cost through the bridges, beside the frameworks' own stores.

    python -m tests.benchmarks.bench_bridges [TURNS ...]

A turn is a question and an answer of 500 characters each. Both sides are measured in turns in the same process, on a sqlite file
that is synced in each commit, which is also the default of the SDK's session. pydantic-ai has no durable store: the one in memory
shows the costs of its own code.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from agents import Session as AgentsSession
from agents import SQLiteSession
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationStore as PydanticStore
from pydantic_ai.conversation_store import InMemoryConversationStore
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart

from memory import aio
from memory.bridges.openai_agents import Session
from memory.bridges.pydantic_ai import ConversationStore
from tests.benchmarks.measuring import timed

_SIZES = (10, 1_000)
_ROUNDS = 40
_WINDOW = 20  # messages
_TEXT = "x" * 500
_ITEMS: Any = [{"role": "user", "content": _TEXT}, {"role": "assistant", "content": _TEXT}]
Append: TypeAlias = Callable[[int], Awaitable[object]]
Load: TypeAlias = Callable[[int | None], Awaitable[object]]


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or _SIZES
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; fastest of {_ROUNDS} rounds in ms")
    print(f"{'':14} {'turns':>6} {'append':>8} {'theirs':>8} {'load':>8} {'theirs':>8} {'load 20':>8} {'theirs':>8}")
    with asyncio.Runner() as runner:
        for name, calls in (("openai-agents", _of_sessions), ("pydantic-ai", _of_conversations)):
            for size in sizes:
                with TemporaryDirectory() as folder:
                    _report(runner, name, size, calls, Path(folder))


def _report(runner: asyncio.Runner, name: str, size: int, calls: Any, folder: Path) -> None:
    store: aio.Store = runner.run(aio.connect(f"sqlite:///{folder}/ours.db"))
    sides: list[tuple[Append, Load]] = calls(store, folder)
    for append, _ in sides:
        runner.run(_await(append, size))

    def fastest(calls: list[Callable[[Any], Awaitable[object]]], argument: object) -> list[float]:
        rounds = [[timed(lambda: runner.run(_await(call, argument))) for call in calls] for _ in range(_ROUNDS)]  # noqa: B023
        return [min(times) * 1e3 for times in zip(*rounds, strict=True)]

    loads = [fastest([load for _, load in sides], limit) for limit in (None, _WINDOW)]
    times = [*fastest([append for append, _ in sides], 1), *loads[0], *loads[1]]
    print(f"{name:14} {size:>6,} {' '.join(f'{time:8.2f}' for time in times)}", flush=True)
    runner.run(store.close())


async def _await(call: Callable[[Any], Awaitable[object]], argument: object) -> None:
    await call(argument)


def _of_sessions(store: aio.Store, folder: Path) -> list[tuple[Append, Load]]:
    sessions: list[AgentsSession] = [Session("s", store), SQLiteSession("s", folder / "theirs.db")]

    def append(session: AgentsSession) -> Append:
        return lambda turns: session.add_items(_ITEMS * turns)

    return [(append(session), session.get_items) for session in sessions]


def _of_conversations(store: aio.Store, folder: Path) -> list[tuple[Append, Load]]:  # noqa: ARG001  # it needs no file
    stores: list[PydanticStore] = [ConversationStore(store), InMemoryConversationStore()]

    def append(conversations: PydanticStore) -> Append:
        async def save(turns: int) -> None:
            conversation = await conversations.load("c", limit=_WINDOW) or Conversation(conversation_id="c")
            conversation.messages.extend(_messages() * turns)
            await conversations.save(conversation)

        return save

    def load(conversations: PydanticStore) -> Load:
        return lambda limit: conversations.load("c", limit=limit)

    return [(append(each), load(each)) for each in stores]


def _messages() -> list[ModelMessage]:
    return [ModelRequest(parts=[UserPromptPart(_TEXT)]), ModelResponse(parts=[TextPart(_TEXT)])]


if __name__ == "__main__":
    main()
