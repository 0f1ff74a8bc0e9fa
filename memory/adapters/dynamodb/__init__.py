"""Conversations in Amazon DynamoDB."""

from memory.adapters.dynamodb.definition import TableOptions
from memory.adapters.dynamodb.repository import DynamoDbRepository, open_url

__all__ = ["DynamoDbRepository", "TableOptions", "open_url"]
