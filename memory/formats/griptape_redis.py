"""Conversations of Griptape's Redis driver: the fields of one hash, each with the JSON of a conversation."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from memory.adapters.redis.errors import translate
from memory.errors import ConfigurationError
from memory.formats.envelopes import read_envelope
from memory.formats.registry import Source
from memory.port.urls import redact
from memory.transfer import ParsedConversation, RejectedConversation, read_json

_AT_ONCE: Final = 10  # fields in one answer: a conversation can be large
_TIMEOUT: Final = 30  # seconds


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of the hash that ``index`` names; a field's name is the id.

    Memory is that of some conversations, and of all ids: a server that rearranges the hash meanwhile may tell one twice.
    """
    where, index = redact(source.name), source.options["index"]
    from_url: Any = redis.Redis.from_url  # the stubs that come with redis-om know an older one
    try:
        client = from_url(source.name, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{where} is no URL of a Redis server: it looks like redis://host:6379/0") from error
    try:
        with client:
            if not client.exists(index):
                raise ConfigurationError(
                    f"{where} has no key {index!r}: --index names the `index` of Griptape's driver"
                )
            seen: set[bytes] = set()
            for field, text in client.hscan_iter(index, count=_AT_ONCE):
                if field not in seen:
                    seen.add(field)
                    yield _arrival(len(seen), field, text, source)
    except RedisError as error:
        raise translate(error, where) or ConfigurationError(f"{where}: {error}") from error


def _arrival(number: int, field: bytes, text: bytes, source: Source) -> ParsedConversation | RejectedConversation:
    try:
        id = field.decode()
    except UnicodeDecodeError:
        return RejectedConversation(number, f"the field {field[:40]!r} is no UTF-8: it cannot be an id")
    arrival = read_json(number, text, partial(_read, id, source.at), limits=source.limits)
    return (
        RejectedConversation(number, f"{id!r}: {arrival.reason}")
        if isinstance(arrival, RejectedConversation)
        else arrival
    )


def _read(id: str, at: int, value: Any) -> Any:
    return read_envelope(id, value, at)
