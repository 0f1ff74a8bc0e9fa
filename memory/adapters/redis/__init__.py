"""Conversations in Redis: hashes and RediSearch, through redis-om's models."""

from memory.adapters.redis.repository import RedisRepository, open_url

__all__ = ["RedisRepository", "open_url"]
