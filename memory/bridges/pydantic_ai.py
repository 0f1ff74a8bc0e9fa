"""pydantic-ai's conversation store in any store.

    from pydantic_ai import Agent, Conversation
    from memory import aio
    from memory.bridges.pydantic_ai import ConversationStore

    conversations = ConversationStore(await aio.connect("postgresql+psycopg://host/chats"))
    conversation = await conversations.load("support-42") or Conversation(conversation_id="support-42")
    result = await agent.run("Where is my refund?", conversation=conversation)
    await conversations.save(result, scope="ada")

Each entry of a conversation's log is a run (`memory.bridges.messages`) with the entry's id. The runs are in the order of their
saves, those of all branches together. The record is in the conversation's metadata. A save writes both in one commit.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter
from pydantic_ai import conversation_store
from pydantic_ai.conversation_store import ConversationConflict, ConversationEntry, ConversationRecord
from pydantic_ai.messages import ModelMessagesTypeAdapter

from memory import NotFoundError, aio, where
from memory.bridges.messages import FRAMEWORK, message_of, message_run
from memory.domain.entities import Conversation, Run
from memory.domain.timestamps import format_timestamp
from memory.domain.values import to_microseconds

T = TypeVar("T")

_NAME: Final = "pydantic-ai"
_SCOPE: Final = "scope"
_FIELDS: Final = "_record"  # not indexed, so that a save writes few index entries, whatever the record has
_OURS: Final = where(FRAMEWORK) == _NAME
_LAST_SAVED_FIRST: Final = f"-metadata.{_NAME}.updated_at"
_RECORD: Final = TypeAdapter(ConversationRecord)


class _EntryId(str):
    """The id of an entry that was read, with its conversation: pydantic-ai reads a history by the id of its last entry alone."""

    conversation_id: str

    def __new__(cls, id: str, conversation_id: str) -> "_EntryId":
        self = super().__new__(cls, id)
        self.conversation_id = conversation_id
        return self

    def __reduce__(self) -> tuple[Any, ...]:  # for copies and pickles
        return _EntryId, (str(self), self.conversation_id)


class ConversationStore(conversation_store.ConversationStore):
    """A conversation store of pydantic-ai. Its own methods (``load``, ``save``, ``branch``, ``fork``) use those of this class.

    A fork copies the entries that it keeps, so that each conversation is complete by itself: it loads in one read, and ``delete``
    erases all of its messages, but not those of its forks.

    Args:
        store: the store, which others may share.
        metadata: metadata of new conversations, for queries. The application may change it later, and add to it.
    """

    def __init__(self, store: aio.Store, *, metadata: dict[str, Any] | None = None) -> None:
        self._store = store
        self._metadata = metadata or {}

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        found = await self._store.conversations.get_many([conversation_id])
        return _record(found[conversation_id]) if conversation_id in found else None

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        criterion = _OURS if scope is None else _OURS & (where(_SCOPE) == scope)
        conversations = self._store.conversations
        if limit is None:
            found = [conversation async for conversation in conversations.iterate(criterion)]
        elif limit:
            found = list(await conversations.find(criterion, order=_LAST_SAVED_FIRST, limit=limit))
        else:
            found = []
        records = [record for conversation in found if (record := _record(conversation)) is not None]
        return sorted(records, key=lambda record: record.updated_at, reverse=True)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        async def write(uow: aio.UnitOfWork) -> None:
            conversation = await uow.conversations.get_or_create(record.conversation_id, dict(self._metadata))
            _check_revision(conversation, expected_revision)
            if record.head_id not in (None, _stored(conversation).get("head_id"), *new_ids):
                await uow.runs.append(conversation, *await self._missing(uow, record))
            conversation.metadata.update(_metadata(record))
            await uow.runs.append(conversation, *[_run(entry) for entry in new_entries])

        new_ids = [entry.id for entry in new_entries]
        await self._run(record.conversation_id, write)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        async def delete(uow: aio.UnitOfWork) -> None:
            conversation = await uow.conversations.get(conversation_id)
            _check_revision(conversation, expected_revision)
            await uow.conversations.remove(conversation)

        await self._run(conversation_id, delete)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        return (await self.read_history(entry_id, limit=1))[0]

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """Return the entries up to this one, oldest first, or the last ``limit`` of them.

        An id that this store has returned is found at once, one that the application stored by reading all conversations.

        Raises:
            KeyError: the entry does not exist.
        """
        if head_id is None or limit == 0:
            return []
        conversation_id, runs = await self._history(head_id, limit)
        messages = ModelMessagesTypeAdapter.validate_python([message_of(run, dict) for run in runs])
        return [_entry(conversation_id, run, message) for run, message in zip(runs, messages, strict=True)]

    async def _history(self, head_id: str, limit: int | None) -> tuple[str, list[Run]]:
        """Return the runs up to this one, and the id of their conversation."""
        if isinstance(head_id, _EntryId):
            id = head_id.conversation_id
            if (runs := await self._chain(id, head_id, limit)) or await self._store.conversations.exists(id):
                return id, runs
        else:
            async for conversation in self._store.conversations.iterate(_OURS):
                if runs := await self._chain(conversation.id, head_id, limit):
                    return conversation.id, runs
        raise KeyError(head_id)

    async def _chain(self, conversation_id: str, head_id: str, limit: int | None) -> list[Run]:
        if limit is None:
            return _chain(await self._store.runs.list(conversation_id), head_id)
        runs = await self._store.runs.last(conversation_id, limit)
        if len(runs) == limit:  # otherwise these are all
            if len(chain := _chain(runs, head_id, are_all=False)) == limit:
                return chain
            runs = await self._store.runs.list(conversation_id)
        return _chain(runs, head_id)[-limit:]

    async def _missing(self, uow: aio.UnitOfWork, record: ConversationRecord) -> list[Run]:
        """Return the runs of the history up to the record's head that the conversation does not have: all, if it is a fork."""
        assert record.head_id is not None  # noqa: S101
        there = {run.id for run in await uow.runs.list(record.conversation_id)}
        if record.head_id in there:
            return []
        try:
            _, history = await self._history(record.head_id, None)
        except KeyError as error:
            raise ConversationConflict(record.conversation_id) from error
        return [replace(run, position=None) for run in history if run.id not in there]

    async def _run(self, conversation_id: str, work: Callable[[aio.UnitOfWork], Awaitable[T]]) -> T:
        """Do the work, again if someone else changed the conversation, for instance its other metadata."""
        try:
            return await self._store.run(work)
        except NotFoundError as error:
            raise ConversationConflict(conversation_id) from error


def _record(conversation: Conversation) -> ConversationRecord | None:
    """Return the record in a conversation's metadata; None if pydantic-ai has not saved it."""
    fields = _stored(conversation)
    if not fields:
        return None
    scope = conversation.metadata.get(_SCOPE)
    record = _RECORD.validate_python({**fields, "conversation_id": conversation.id, _SCOPE: scope})
    if record.head_id is not None:
        record.head_id = _EntryId(record.head_id, conversation.id)
    record.branches = [_EntryId(tip, conversation.id) for tip in record.branches]
    return record


def _metadata(record: ConversationRecord) -> dict[str, Any]:
    """Return the metadata with a record: its fields under a key that is not indexed, and some again for queries."""
    searched: dict[str, Any] = {
        "updated_at": format_timestamp(to_microseconds(record.updated_at, "updated_at")),  # always of the same length
        "forked_from": record.forked_from,
        "is_waiting": record.deferred_tool_requests is not None,
        _FIELDS: _RECORD.dump_python(record, mode="json", exclude={"conversation_id", _SCOPE}),
    }
    return {FRAMEWORK: _NAME, _NAME: searched, **({} if record.scope is None else {_SCOPE: record.scope})}


def _stored(conversation: Conversation) -> dict[str, Any]:
    """Return the stored fields of a conversation's record; none if pydantic-ai has not saved it."""
    fields: dict[str, Any] = conversation.metadata.get(_NAME, {}).get(_FIELDS, {})
    return fields


def _check_revision(conversation: Conversation, expected: str | None) -> None:
    revision = _stored(conversation).get("revision")
    is_foreign = revision is None and conversation.run_count > 0
    if revision != expected or is_foreign:
        raise ConversationConflict(conversation.id)


def _run(entry: ConversationEntry) -> Run:
    [message] = ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")
    parent = None if entry.parent_id is None else str(entry.parent_id)  # not an _EntryId
    metadata: dict[str, Any] = {"kind": entry.kind, "parent_id": parent}
    return message_run(message, from_model=entry.message.kind == "response", metadata=metadata, id=str(entry.id))


def _entry(conversation_id: str, run: Run, message: Any) -> ConversationEntry:
    parent = run.metadata["parent_id"]
    return ConversationEntry(
        id=_EntryId(run.id, conversation_id),
        parent_id=None if parent is None else _EntryId(parent, conversation_id),
        message=message,
        kind=run.metadata["kind"],
    )


def _chain(runs: list[Run], head_id: str, *, are_all: bool = True) -> list[Run]:
    """Return the runs of a history, oldest first: the run with this id, the one before it, and so on.

    If these are all runs of the conversation, a history goes on with the run stored before one that the application or a
    retention has removed.
    """
    ids = {run.id for run in runs}
    skips = are_all and (isinstance(head_id, _EntryId) or head_id in ids)
    chain, wanted = [], head_id
    for run in reversed(runs):  # a run is after the one before it
        if "parent_id" in run.metadata and (run.id == wanted or (skips and wanted and wanted not in ids)):
            chain.append(run)
            wanted = run.metadata["parent_id"]
    return chain[::-1]
