"""Messages of frameworks as runs: one message a run.

A message to the model is the run's ``input``, and a message of the model its ``output``; the other side is None. A turn with
several messages of the model, such as calls of tools and then an answer, is several runs.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.entities import Conversation, Run
from memory.domain.values import Json
from memory.errors import NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from memory import aio

T = TypeVar("T")

FRAMEWORK = "framework"
"""The metadata key with the name of the framework that wrote a conversation."""


def message_run(
    message: Json, *, from_model: bool, metadata: dict[str, Json] | None = None, id: str | None = None
) -> Run:
    """Return the run of a message.

    >>> run = message_run({"role": "user", "content": "Hi"}, from_model=False)
    >>> message_of(run, lambda message: message["content"])
    'Hi'
    """
    sides: tuple[Json, Json] = (None, message) if from_model else (message, None)
    return Run(*sides, metadata or {}) if id is None else Run(*sides, metadata or {}, id)


def message_of(run: Run, read: Callable[[dict[str, Any]], T]) -> T:
    """Return the message of a run that `message_run` made.

    Args:
        run: the run.
        read: makes the framework's message of the stored one; what it raises for another one is the cause of the error.

    Raises:
        UnsupportedError: something else wrote the run: an import, the application, or another framework.
    """
    message, other = (run.input, run.output) if run.output is None else (run.output, run.input)
    why: Exception | None = None
    if other is None and isinstance(message, dict):
        try:
            return read(message)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            why = error
    raise UnsupportedError(
        f"the run at position {run.position} is no message of this framework: an import, the application or another framework "
        "wrote it"
    ) from why


def check_written_by(framework: str, conversation: Conversation) -> Conversation:
    """Return a conversation with metadata that this framework's bridge wrote.

    Raises:
        UnsupportedError: something else made the conversation.
    """
    if conversation.metadata.get(FRAMEWORK) != framework:
        raise UnsupportedError(
            f"conversation {conversation.id!r} was not made by the bridge of {framework}, which needs its id: give the "
            "framework a namespace of its own, by store.namespace(name)"
        )
    return conversation


def append(store: Store, conversation_id: str, runs: list[Run], metadata: dict[str, Any]) -> None:
    """Append runs to a conversation, which is created with this metadata if it does not exist."""

    def create(uow: UnitOfWork) -> None:
        uow.conversations.get_or_create(conversation_id, metadata)
        uow.runs.append(conversation_id, *runs)

    try:
        store.run(lambda uow: uow.runs.append(conversation_id, *runs))
    except NotFoundError:
        store.run(create)


async def append_async(store: "aio.Store", conversation_id: str, runs: list[Run], metadata: dict[str, Any]) -> None:
    """Append runs as `append` does, in a store of `memory.aio`."""

    async def create(uow: "aio.UnitOfWork") -> None:
        await uow.conversations.get_or_create(conversation_id, metadata)
        await uow.runs.append(conversation_id, *runs)

    try:
        await store.run(lambda uow: uow.runs.append(conversation_id, *runs))
    except NotFoundError:
        await store.run(create)


def remove(store: Store, conversation_id: str) -> None:
    """Remove a conversation, whether it exists or not, and whatever others write meanwhile."""
    with suppress(NotFoundError):
        store.run(lambda uow: uow.conversations.remove(conversation_id, force=True))


def joined_id(*parts: str) -> str:
    """Return the id of a conversation with several names, such as an application's, a user's and a session's.

    >>> joined_id("travel", "ada", "2026/11")
    'travel/ada/2026%2F11'
    """
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
