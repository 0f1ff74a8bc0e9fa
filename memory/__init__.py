"""Store conversations and their runs in any store, behind one repository interface.

>>> import memory
>>> from memory import Conversation, Run, where
>>> store = memory.connect("sqlite://")
>>> with store.begin() as uow:
...     uow.conversations.add(Conversation("support-42", metadata={"customer": "ada", "priority": 3}))
...     uow.runs.append("support-42", Run(input="Where is my refund?", output="It left on Monday."))
>>> with store.begin() as uow:
...     [conversation.id for conversation in uow.conversations.find(where("priority") >= 3)]
['support-42']
>>> store.close()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from memory.core.connect import connect
from memory.core.store import Store
from memory.core.unit_of_work import UnitOfWork
from memory.domain.codecs import Versioned
from memory.domain.encoding import to_json
from memory.domain.entities import PENDING, Conversation, Run
from memory.errors import (
    AlreadyExistsError,
    ClosedError,
    CommitInDoubtError,
    CommitTooLargeError,
    ConfigurationError,
    ConflictError,
    CorruptRecordError,
    InvalidValueError,
    NotFoundError,
    PartialCommitError,
    PersistenceError,
    SchemaError,
    StoreUnavailableError,
    TransactionAbortedError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from memory.core.erasure import Erased
    from memory.core.events import (
        Committed,
        ConversationAdded,
        ConversationRemoved,
        Event,
        ExpiryChanged,
        MetadataChanged,
        RunCompleted,
        RunsAppended,
        RunsRemoved,
        RunsReplaced,
    )
    from memory.core.retention import Retained, Retention
    from memory.domain.criteria import where
    from memory.port.paging import Page
    from memory.transfer.mirroring import mirror

__all__ = [
    "PENDING",
    "AlreadyExistsError",
    "ClosedError",
    "CommitInDoubtError",
    "CommitTooLargeError",
    "Committed",
    "ConfigurationError",
    "ConflictError",
    "Conversation",
    "ConversationAdded",
    "ConversationRemoved",
    "CorruptRecordError",
    "Erased",
    "Event",
    "ExpiryChanged",
    "InvalidValueError",
    "MetadataChanged",
    "NotFoundError",
    "Page",
    "PartialCommitError",
    "PersistenceError",
    "Retained",
    "Retention",
    "Run",
    "RunCompleted",
    "RunsAppended",
    "RunsRemoved",
    "RunsReplaced",
    "SchemaError",
    "Store",
    "StoreUnavailableError",
    "TransactionAbortedError",
    "UnitOfWork",
    "UnsupportedError",
    "Versioned",
    "connect",
    "mirror",
    "to_json",
    "where",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # with it, type checkers would take every misspelt name for one of this module

    def __getattr__(name: str) -> Any:
        """Import on first use what most applications do not need."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        modules = {
            "mirror": "memory.transfer.mirroring",
            "Erased": "memory.core.erasure",
            "Retained": "memory.core.retention",
            "Retention": "memory.core.retention",
            "Page": "memory.port.paging",
            "where": "memory.domain.criteria",
        }
        value = globals()[name] = getattr(import_module(modules.get(name, "memory.core.events")), name)
        return value
