"""Read the hash of Griptape's Redis driver: each field has the JSON of one conversation."""

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

_PAGE: Final = 10  # fields in one HSCAN response: a conversation can be large
_TIMEOUT: Final = 30  # seconds


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of the hash named by ``index``; a field's name is the conversation's id.

    All ids are held in memory, because HSCAN may return a field twice when the server rehashes.
    """
    where, index = redact(source.name), source.options["index"]
    from_url: Any = redis.Redis.from_url  # the stubs installed with redis-om are for an older version
    try:
        client = from_url(source.name, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{where} is not the URL of a Redis server: write redis://host:6379/0") from error
    try:
        with client:
            if not client.exists(index):
                raise ConfigurationError(
                    f"{where} has no key {index!r}: set --index to the `index` of Griptape's driver"
                )
            seen: set[bytes] = set()
            for field, text in client.hscan_iter(index, count=_PAGE):
                if field not in seen:
                    seen.add(field)
                    yield _parse_field(len(seen), field, text, source)
    except RedisError as error:
        raise translate(error, where) or ConfigurationError(f"{where}: {error}") from error


def _parse_field(number: int, field: bytes, text: bytes, source: Source) -> ParsedConversation | RejectedConversation:
    try:
        id = field.decode()
    except UnicodeDecodeError:
        return RejectedConversation(number, f"the field name {field[:40]!r} is not UTF-8 and cannot be an id")
    return read_json(number, text, partial(read_envelope, id, at=source.at), limits=source.limits, id=id)
