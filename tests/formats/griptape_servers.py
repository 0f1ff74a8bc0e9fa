"""Griptape's own drivers for servers, in a process of their own: importing griptape changes `json` for the whole process.

``python griptape_servers.py redis URL INDEX ID TEXT...``, ``dynamodb ENDPOINT TABLE ID SORT TEXT...`` or
``cloud HOST ALIAS TEXT...``
stores a run for each text, and prints what Griptape then has.
"""

import json
import sys
from typing import Any
from urllib.parse import urlsplit

import boto3
from griptape.artifacts import JsonArtifact, TextArtifact  # type: ignore[import-untyped]
from griptape.drivers.memory.conversation.amazon_dynamodb import (  # type: ignore[import-untyped]
    AmazonDynamoDbConversationMemoryDriver,
)
from griptape.drivers.memory.conversation.griptape_cloud import (  # type: ignore[import-untyped]
    GriptapeCloudConversationMemoryDriver,
)
from griptape.drivers.memory.conversation.redis import RedisConversationMemoryDriver  # type: ignore[import-untyped]
from griptape.memory.structure import Run  # type: ignore[import-untyped]


def driver_of(kind: str, arguments: list[str]) -> tuple[Any, list[str]]:
    if kind == "redis":
        url, index, id, *texts = arguments
        parts = urlsplit(url)
        at = {"host": parts.hostname, "port": parts.port, "password": None, "username": None}
        return RedisConversationMemoryDriver(**at, index=index, conversation_id=id), texts
    if kind == "dynamodb":
        endpoint, table, id, sort, *texts = arguments
        resource = boto3.resource("dynamodb", endpoint_url=endpoint).Table(table)
        keys: dict[str, Any] = {"partition_key": "entryId", "partition_key_value": id, "value_attribute_key": "memory"}
        keys |= {"sort_key": "sortKey", "sort_key_value": int(sort)} if sort else {}
        return AmazonDynamoDbConversationMemoryDriver(table=resource, table_name=table, **keys), texts
    host, alias, *texts = arguments
    named = {"alias": alias} if alias else {}
    return GriptapeCloudConversationMemoryDriver(base_url=host, api_key="key-of-org-a", **named), texts


def main() -> None:
    kind, *arguments = sys.argv[1:]
    driver, texts = driver_of(kind, arguments)
    runs = [Run(meta={"n": 1}, input=TextArtifact(text), output=JsonArtifact({"a": [text]})) for text in texts]
    driver.store(runs, {"customer": "ada"})
    sys.stdout.write(
        json.dumps({"runs": [run.to_dict() for run in runs], "thread": getattr(driver, "thread_id", None)})
    )


if __name__ == "__main__":
    main()
