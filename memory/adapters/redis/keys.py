"""The names of a store's keys. All keys are built here."""

import re
from typing import Final
from urllib.parse import quote

from memory.errors import ConfigurationError

DEFAULT_PREFIX: Final = "memory"
CONVERSATION: Final = "conversation"
ORDERS: Final = ("id", "created_at", "updated_at", "expires_at")
"""The sorted sets of a namespace. Members are ids; scores are times, or 0 in the order by id."""

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]*")  # the characters that `quote` does not escape


def primary_key(namespace: str, conversation_id: str) -> str:
    """Return the primary key of a conversation, for redis-om's ``get``.

    Characters other than letters, digits and ``_.-~`` are escaped as ``%XX``, so that every pair has a unique key.

    >>> primary_key("default", "support 42")
    'default/support%2042'
    """
    return f"{quoted(namespace)}/{quoted(conversation_id)}"


def quoted(name: str) -> str:
    """Escape a namespace or an id for use in a key. The scripts escape ids in the same way (`quoted` in shared.lua)."""
    return name if _PLAIN.fullmatch(name) else quote(name, safe="")


class Keys:
    """The names of all keys under one prefix.

    A prefix cannot contain the slash that follows the kind, so no other store's keys begin like this store's conversations.

    >>> Keys("memory").conversation("default", "support 42")
    'memory:conversation:/default/support%2042'
    """

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"the key prefix must have 1 to 100 of the characters A-Z a-z 0-9 _ . : -, not be {prefix!r:.110}"
            )
        self.prefix: Final = prefix
        self.index: Final = f"{prefix}:conversations"  # an alias: the index itself has this name and a version
        self.namespaces: Final = f"{prefix}:namespaces"

    def conversation(self, namespace: str, conversation_id: str) -> str:
        """Return the key of a conversation's hash."""
        return self.of_namespace(CONVERSATION, namespace) + quoted(conversation_id)

    def runs(self, namespace: str, conversation_id: str) -> str:
        """Return the key of the sorted set of a conversation's runs."""
        return self.of_namespace("runs", namespace) + quoted(conversation_id)

    def receipt(self, namespace: str, token: str) -> str:
        """Return the key of a change set's receipt."""
        return self.of_namespace("receipt", namespace) + quoted(token)

    def orders(self, namespace: str) -> list[str]:
        """Return the keys of the sorted sets of a namespace, in the order of `ORDERS`."""
        return [self.order(namespace, field) for field in ORDERS]

    def order(self, namespace: str, field: str) -> str:
        """Return the key of the sorted set that orders a namespace's conversations by a field."""
        return f"{self.prefix}:by_{field}:/{quoted(namespace)}"

    def of_namespace(self, kind: str, namespace: str) -> str:
        """Return the common prefix of all keys of a kind in a namespace; the quoted id follows it."""
        return f"{self.prefix}:{kind}:/{quoted(namespace)}/"
