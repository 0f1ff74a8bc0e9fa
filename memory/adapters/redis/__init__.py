"""Redis adapter: conversations in hashes, searched with RediSearch, readable with redis-om's models."""

from memory.adapters.redis.repository import RedisRepository, open_url

__all__ = ["RedisRepository", "open_url"]
