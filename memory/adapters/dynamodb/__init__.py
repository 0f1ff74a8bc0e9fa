"""Amazon DynamoDB adapter."""

from memory.adapters.dynamodb.repository import DynamoDbRepository, open_url
from memory.adapters.dynamodb.table_options import TableOptions

__all__ = ["DynamoDbRepository", "TableOptions", "open_url"]
