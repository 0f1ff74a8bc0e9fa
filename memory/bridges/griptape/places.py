"""Driver options that replace Griptape's own drivers: which store to use, and how to import the old conversation once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import quote

from memory.core.store import Store
from memory.domain.values import now
from memory.errors import ConfigurationError, CorruptRecordError
from memory.formats.envelopes import read_envelope
from memory.formats.griptape_local import id_of
from memory.formats.registry import name_of
from memory.port.changes import Change
from memory.port.urls import sqlite_url
from memory.transfer.parsing import parse

if TYPE_CHECKING:
    import boto3

LegacyLoader: TypeAlias = Callable[[], Change | None]
"""Returns the change that imports the old conversation; None if there is none. Called if the store has none either."""

_Options: TypeAlias = dict[str, Any]


def nothing() -> None:
    """Return None: there is no old conversation."""


def local(persist_file: str | None) -> _Options:
    """Return the options that replace a `LocalConversationMemoryDriver`."""
    if persist_file is None:
        return {"store": "memory://"}
    path = Path(persist_file)
    id = id_of(name_of(persist_file))  # the same id as from `memory import`
    return {
        "store": sqlite_url(Path(f"{path}.sqlite")),
        "conversation_id": id,
        "load_legacy": lambda: _envelope(id, _read_file(path), f"the file {path}"),
    }


def _read_file(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")  # Griptape writes ASCII in any locale
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptRecordError(f"the file {path} cannot be read: {error}") from error


def redis(
    address: tuple[str, int, str, str | None], index: str, db: int, conversation_id: str | None, client: Any
) -> _Options:
    """Return the options that replace a `RedisConversationMemoryDriver` with this host, port, username and password."""
    host, port, username, password = address
    user = f"{quote(username, safe='')}:{quote(password, safe='')}@" if password is not None else ""
    url = f"redis://{user}{f'[{host}]' if ':' in host else host}:{port}"
    options: _Options = {"store": url, "namespace": index if db == 0 else f"{index}@{db}"}
    if conversation_id is None:
        return options  # a new id, so there is no old conversation

    def load_legacy() -> Change | None:
        import redis as driver

        from memory.adapters.redis.errors import translate

        where = f"the field {conversation_id!r} of the Redis hash {index!r}"
        made: Any = cast(Any, driver.Redis).from_url(url, db=db) if client is None else None
        try:
            found = (client or made).hget(index, conversation_id)
        except driver.RedisError as error:
            raise translate(error, where) or ConfigurationError(f"{where}: {error}") from error
        finally:
            if made is not None:
                made.close()
        return _envelope(conversation_id, found, where)

    return {**options, "conversation_id": conversation_id, "load_legacy": load_legacy}


def dynamodb(
    table_name: str,
    key: dict[str, str | int],
    value_attribute_key: str,
    session: "boto3.Session | None",
    memory_table: str | None,
) -> _Options:
    """Return the options that replace an `AmazonDynamoDbConversationMemoryDriver`."""
    if memory_table is None:
        raise ConfigurationError(
            f"memory_table is missing: this driver stores each run as an item, and the table {table_name} has other keys. Create "
            "a table with `memory migrate --store dynamodb://NAME`, and pass memory_table='NAME'. A conversation in the old "
            "table is imported when it is first loaded; the old item is not changed"
        )
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from memory.adapters.dynamodb import DynamoDbRepository
    from memory.adapters.dynamodb.clients import checked
    from memory.adapters.dynamodb.errors import code_of, translate
    from memory.formats.griptape_dynamodb import id_of_keys

    session = boto3.Session() if session is None else session
    id = id_of_keys(list(map(str, key.values())))
    where = f"the item {key} of the table {table_name}"

    def load_legacy() -> Change | None:
        resource = session.resource("dynamodb")
        checked(resource.meta.client)  # an answer that is cut off would say that there is no old conversation
        try:
            item = resource.Table(table_name).get_item(Key=key, ConsistentRead=True).get("Item", {})
        except (BotoCoreError, ClientError) as error:
            if code_of(error) == "ResourceNotFoundException":
                return None  # Griptape's table was deleted
            raise translate(error, where) or ConfigurationError(f"{where}: {error}") from error
        finally:
            resource.meta.client.close()
        return _envelope(id, item.get(value_attribute_key), where)

    return {
        "store": Store(DynamoDbRepository(memory_table, session=session)),
        "owned": True,
        "namespace": f"{table_name}:{value_attribute_key}",
        "conversation_id": id,
        "load_legacy": load_legacy,
    }


def cloud(thread_id: str | None, alias: str | None, base_url: str | None, api_key: str | None) -> _Options:
    """Return the options that replace a `GriptapeCloudConversationMemoryDriver`."""
    from memory.adapters.cloud import GriptapeCloudRepository

    base_url = base_url or os.environ.get("GT_CLOUD_BASE_URL") or "https://cloud.griptape.ai"
    thread_id = thread_id or (os.environ.get("GT_CLOUD_THREAD_ID") if alias is None else None)
    repository = GriptapeCloudRepository(base_url, api_key)
    options: _Options = {"store": Store(repository), "owned": True, "url": f"griptape+{base_url.rstrip('/')}"}
    if thread_id is None:
        return options if alias is None else {**options, "conversation_id": alias}
    place = repository.conversation_of(thread_id)
    if place is None:
        raise ConfigurationError(
            f"the thread {thread_id!r} has no alias, by which this driver finds the conversation: set one, or pass alias="
        )
    return {**options, "namespace": place[0], "conversation_id": place[1]}


def _envelope(id: str, text: object, what: str) -> Change | None:
    """Return the change that creates a conversation from the JSON text of Griptape's driver; None if there is no text."""
    if text is None:
        return None
    try:
        value = parse(text if isinstance(text, (str, bytes)) else str(text))
        return read_envelope(id, value, now())
    except (ValueError, RecursionError) as error:  # including InvalidValueError
        raise CorruptRecordError(f"{what} is not a conversation of Griptape: {error}") from error
