from collections.abc import Callable
from typing import Any

from memory import Conversation, Store

Opened = Callable[..., Store[Any]]


def add(store: Store[Any], metadata: Any, id: str = "a") -> None:
    with store.begin() as uow:
        uow.conversations.add(Conversation(id, metadata))
