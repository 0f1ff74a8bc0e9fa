"""Read the threads of Griptape Cloud, by any author. Each is a conversation whose id is the thread's alias or own id."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from memory.adapters.cloud import GriptapeCloudRepository
from memory.adapters.cloud.records import DEFAULT_NAMESPACE, Thread
from memory.domain.entities import Run
from memory.domain.records import decode_metadata
from memory.errors import ConfigurationError
from memory.formats.builders import conversation
from memory.formats.envelopes import metadata_of
from memory.formats.registry import Source
from memory.port.changes import Change
from memory.port.urls import redact
from memory.transfer.parsing import ParsedConversation, RejectedConversation, try_parse

_MEMORIES: Final = frozenset(["ConversationMemory", "SummaryConversationMemory"])
_MEMORY_FIELDS: Final = frozenset(["type", "max_runs", "autoload", "autoprune", "summary", "summary_index", "offset"])


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of an organization.

    Threads that this package wrote in other namespaces are skipped: use ``memory copy`` for them. A thread without an alias,
    or with an alias that another thread has too, gets its own id as the conversation's id.
    """
    host = source.name if "://" in source.name else f"https://{source.name}"
    if not host.startswith(("https://", "http://")) or "@" in host or "?" in host:
        raise ConfigurationError(f"{redact(source.name)} is not a host: write one such as https://cloud.griptape.ai")
    repository = GriptapeCloudRepository(host)
    try:
        ids: set[str] = set()
        for number, (thread, runs) in enumerate(repository.threads(DEFAULT_NAMESPACE), 1):
            place = thread.place
            id = thread.id if place is None or place[1] in ids else place[1]
            ids.add(id)
            size = sum(len(run.to_record().input) + len(run.to_record().output) for run in runs)
            yield try_parse(number, size, partial(_read, id, thread, runs))
    finally:
        repository.close()


def _read(id: str, thread: Thread, runs: list[Run]) -> Change:
    stored = thread.state.record
    metadata = decode_metadata(stored.metadata, f"the metadata of thread {thread.id}")
    if thread.envelope is None:
        # Up to Griptape 0.30, the thread's metadata is the memory without its runs.
        is_memory = metadata.get("type") in _MEMORIES and metadata.keys() <= _MEMORY_FIELDS
        named = {"thread_id": thread.id, "alias": thread.alias, "name": thread.name}
        metadata = metadata_of(metadata if is_memory else {"metadata": metadata}, {"thread": {**named}})
    return conversation(id, metadata, runs, stored.created_at, thread.updated_at)
