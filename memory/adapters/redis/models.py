"""The redis-om model of conversations, for applications that read or search them with redis-om.

    Conversation = conversation_model(redis.Redis(decode_responses=True))
    Conversation.get(primary_key("default", "support-42"))
    Conversation.find((Conversation.namespace == "default") & (Conversation.updated_at > since)).all()
    Conversation.find(Conversation.entries == entry_token("default", "customer.tier", "gold")).all()

Times are microseconds since 1970. Do not write with the model: ``save`` bypasses the sorted sets and the versions.
"""

from functools import cache
from typing import Any, Final

from pydantic import model_validator
from redis_om import Field, HashModel
from redis_om.model.model import model_registry

from memory.adapters.redis.keys import CONVERSATION, DEFAULT_PREFIX, Keys, primary_key
from memory.adapters.redis.tokens import Tokens
from memory.domain.criteria import where
from memory.domain.records import ConversationRecord
from memory.domain.values import Json
from memory.port.index import KeyIn, plan

__all__ = ["conversation_model", "entry_token", "primary_key"]

RECORD_FIELDS: Final = ConversationRecord._fields
"""The fields of a conversation's hash that form its record. The other fields are only searched."""


def conversation_model(database: Any, prefix: str = DEFAULT_PREFIX) -> Any:
    """Return the redis-om model of the conversations of one store.

    Args:
        database: the client that the model uses. redis-om's ``find`` requires ``decode_responses=True``.
        prefix: the prefix of the store's keys.

    Fields without ``index=True`` cannot be searched. Numbers above 2**53 are stored exactly but indexed as the nearest double.
    """
    client = database

    class Conversation(HashModel, index=True):  # type: ignore[call-arg, misc]  # redis-om has no types
        # Namespaces and ids cannot contain the separator, so the index never splits them.
        namespace: str = Field(index=True, case_sensitive=True, separator="\x7f")
        id: str
        metadata: str
        version: int
        incarnation: str
        run_count: int = Field(index=True)
        last_position: int
        created_at: int = Field(index=True)
        updated_at: int = Field(index=True)
        expires_at: int | None = Field(index=True, default=None)
        expires_after: int | None = None
        last_run_at: int = Field(index=True)
        entries: str = Field(index=True, case_sensitive=True)

        @model_validator(mode="before")
        @classmethod
        def _with_primary_key(cls, fields: dict[str, Any]) -> dict[str, Any]:
            """Set the primary key, which is not a field of the hash; without it redis-om would generate another one."""
            return {"pk": primary_key(fields["namespace"], fields["id"]), **fields}

        class Meta:
            global_key_prefix = prefix
            model_key_prefix = CONVERSATION
            primary_key_pattern = "/{pk}"
            index_name = Keys(prefix).index
            database = client

    # Unregister the model: redis-om's Migrator migrates all registered models, but `memory migrate` creates this index.
    model_registry.pop(f"{Conversation.__module__}.{Conversation.__qualname__}", None)
    return Conversation


@cache
def index_arguments(prefix: str) -> list[str]:
    """Return the arguments of FT.CREATE that follow the index's name."""
    schema: str = conversation_model(None, prefix).redisearch_schema()
    return schema.split(" ")


def entry_token(namespace: str, path: str | tuple[str, ...], value: Json) -> str:
    """Return the tag in ``entries`` of all conversations whose metadata has this scalar value at the path.

    >>> entry_token("default", "customer.tier", "gold") == entry_token("default", ("customer", "tier"), "gold")
    True
    """
    lookup, _ = plan(where(path) == value)
    assert isinstance(lookup, KeyIn)  # noqa: S101  # an equality becomes one lookup
    (token,) = Tokens(namespace).equal(lookup.path, lookup.keys)
    return token
