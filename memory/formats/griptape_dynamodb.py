"""Read the table of Griptape's DynamoDB driver: each item has the JSON of one conversation in an attribute."""

import base64
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from memory.adapters.dynamodb.clients import checked
from memory.adapters.dynamodb.errors import code_of, translate
from memory.domain.values import Json
from memory.errors import ConfigurationError, InvalidValueError
from memory.formats.envelopes import read_envelope
from memory.formats.registry import Source
from memory.transfer import ParsedConversation, RejectedConversation, read_json

_TRIES: Final = 7


def read(source: Source) -> Iterator[ParsedConversation | RejectedConversation]:
    """Yield the conversations of a table, page by page, with consistent reads.

    The conversation's id is the partition key; with a sort key, the id is ``partition/sort`` (each with ``/`` and ``%``
    percent-encoded). Other attributes of the item are kept in the conversation's metadata, under ``griptape``.
    """
    options = source.options
    where = f"table {source.name!r}"
    try:
        client = checked(  # a truncated page must be an error, not the end of the table
            boto3.client(
                "dynamodb",
                region_name=options.get("region"),
                endpoint_url=options.get("endpoint"),
                config=Config(retries={"mode": "standard", "total_max_attempts": _TRIES}),
            )
        )
        with closing(client):
            number = 0
            for page in client.get_paginator("scan").paginate(TableName=source.name, ConsistentRead=True):
                for item in page["Items"]:
                    number += 1
                    yield _parse_item(number, item, source)
    except (BotoCoreError, ClientError) as error:
        if code_of(error) == "ResourceNotFoundException":
            raise ConfigurationError(f"{where} does not exist in this region and account") from error
        raise translate(error, where) or ConfigurationError(f"{where}: {error}") from error
    except ValueError as error:  # from botocore: the endpoint is not a URL
        raise ConfigurationError(f"{where}: {error}") from error


def _parse_item(number: int, item: dict[str, Any], source: Source) -> ParsedConversation | RejectedConversation:
    options = source.options
    names = [options["partition_key"], *([options["sort_key"]] if "sort_key" in options else [])]
    try:
        keys = [_key(item, name) for name in names]
    except InvalidValueError as error:
        return RejectedConversation(number, str(error))
    id = id_of_keys(keys)
    attribute = options["value_attribute"]
    text = item.get(attribute, {}).get("S")
    if text is None:
        return RejectedConversation(number, f"{id!r}: the attribute {attribute!r} of the item is not a string")
    extra: dict[str, Json] = {}
    if len(keys) > 1:
        extra["key"] = {name: _json(item[name]) for name in names}
    others = {name: _json(value) for name, value in item.items() if name not in (*names, attribute)}
    if others:
        extra["attributes"] = others
    read = partial(read_envelope, id, at=source.at, extra=extra)
    return read_json(number, text.encode(), read, limits=source.limits, id=id)


def id_of_keys(keys: list[str]) -> str:
    """Return the id of the conversation with these keys.

    >>> id_of_keys(["a/b"]), id_of_keys(["a/b", "1"])
    ('a/b', 'a%2Fb/1')
    """
    return keys[0] if len(keys) == 1 else "/".join(key.replace("%", "%25").replace("/", "%2F") for key in keys)


def _key(item: dict[str, Any], name: str) -> str:
    for kind, value in item.get(name, {}).items():
        if kind in ("S", "N"):
            return str(value)
    raise InvalidValueError(f"the attribute {name!r} of the item is not a string or number")


def _json(value: Any) -> Json:
    """Return an attribute as DynamoDB JSON, with bytes as base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return list(map(_json, value))
    return {name: _json(part) for name, part in value.items()} if isinstance(value, dict) else value
