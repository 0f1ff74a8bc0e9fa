"""The hashes as redis-om models: their fields are what is stored, and their schema is the index's."""

from typing import Any, Final, NamedTuple

from redis_om import Field, HashModel
from redis_om.model.model import model_registry

from memory.domain.records import ConversationRecord, RunRecord

RECORD_FIELDS: Final = ConversationRecord._fields
"""The fields of a conversation's hash that make its record; all others are for the index."""

RUN_FIELDS: Final = RunRecord._fields[1:]
"""The fields of a run's hash; its position is in its key."""


class Models(NamedTuple):
    """The models of one store: redis-om binds a class to its client and its prefix."""

    conversation: type[HashModel]
    run: type[HashModel]

    @property
    def index_schema(self) -> tuple[str, ...]:
        """The arguments of FT.CREATE after the index's name: redis-om's, but for what nobody searches."""
        schema: str = self.conversation.redisearch_schema()
        keys = self.conversation.make_primary_key("")
        for given, wanted in (
            (f" {keys} ", f" {keys}{{ "),  # the brace of a hash tag: no other store's prefix goes on like that
            (" pk TAG SEPARATOR |", ""),
            (" by_id TAG SEPARATOR | SORTABLE", " by_id TAG SORTABLE UNF NOINDEX"),  # only ever sorted by
        ):
            assert given in schema, schema  # noqa: S101  # a redis-om that writes schemas otherwise
            schema = schema.replace(given, wanted)
        return tuple(schema.split())


def bind(client: Any, prefix: str, index: str) -> Models:
    """Return models for a client and a prefix of keys.

    A field that is not ``index=True`` is stored only. Numbers above 2**53 are stored exactly and indexed as the nearest double;
    what is loaded from a sortable field is that double, which is why times are there twice.
    """

    class Conversation(HashModel, index=True):  # type: ignore[call-arg, misc]  # redis-om has no types
        id: str
        metadata: str
        version: int
        incarnation: str
        run_count: int = Field(index=True)
        last_position: int
        created_at: int
        updated_at: int
        expires_at: int | None = Field(index=True, default=None)
        # for the index only
        encoding: str = Field(index=True, case_sensitive=True)
        namespace: str = Field(index=True, case_sensitive=True)
        entries: str = Field(index=True, case_sensitive=True)
        by_created_at: int = Field(index=True, sortable=True)
        by_updated_at: int = Field(index=True, sortable=True)
        by_id: str = Field(index=True, sortable=True)
        by_id_1: int = Field(index=True, sortable=True)
        by_id_2: int = Field(index=True, sortable=True)
        by_id_3: int = Field(index=True, sortable=True)

        class Meta:
            global_key_prefix = prefix
            model_key_prefix = "conversation"
            index_name = index
            database = client

    class Run(HashModel):  # type: ignore[misc]  # likewise
        id: str
        input: str
        output: str
        metadata: str
        created_at: int

        class Meta:
            global_key_prefix = prefix
            model_key_prefix = "run"
            database = client

    # redis-om migrates every model it knows of; this index is migrated here.
    model_registry.pop(f"{Conversation.__module__}.{Conversation.__qualname__}", None)
    return Models(Conversation, Run)
