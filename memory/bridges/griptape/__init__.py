"""Keep Griptape's conversation memory in any store. Needs the extra ``griptape``.

>>> import memory
>>> from griptape.memory.structure import ConversationMemory
>>> driver = RepositoryConversationMemoryDriver(store=memory.connect("memory://"), conversation_id="support-42")
>>> ConversationMemory(conversation_memory_driver=driver).runs
[]
"""

from memory.bridges.griptape.artifacts import RawArtifact
from memory.bridges.griptape.driver import RepositoryConversationMemoryDriver
from memory.bridges.griptape.summary import PersistentSummaryConversationMemory

__all__ = ["PersistentSummaryConversationMemory", "RawArtifact", "RepositoryConversationMemoryDriver"]
