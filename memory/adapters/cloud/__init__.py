"""Griptape Cloud adapter: a conversation is a thread, a run is a message. It needs the extra ``cloud``."""

from memory.adapters.cloud.repository import GriptapeCloudRepository, open_url

__all__ = ["GriptapeCloudRepository", "open_url"]
