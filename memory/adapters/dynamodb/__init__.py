"""Amazon DynamoDB adapter."""

from memory.adapters.dynamodb.repository import DynamoDbRepository, open_url

__all__ = ["DynamoDbRepository", "open_url"]
