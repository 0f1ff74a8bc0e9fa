"""The names of keys: one place for each thing that is kept, and one hash slot for each conversation."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from memory.errors import ConfigurationError

DEFAULT_PREFIX: Final = "memory"
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]*")  # what `quote` leaves as it is


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of all keys under one prefix.

    A namespace and an id become ``{namespace/id}`` with everything but letters, digits and ``_.-~`` written as ``%XX``: two
    that differ have names that differ, none of them holds a brace, and the braces are Redis's hash tag. No kind of key is the
    beginning of another, so that the index, which takes all keys with a beginning, takes conversations only.

    >>> Keys("memory").conversation("default", "support 42")
    'memory:conversation:{default/support%2042}'
    """

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigurationError(
                f"the prefix of keys has 1 to 100 of the characters A-Z a-z 0-9 _ . : -, unlike {self.prefix!r:.110}"
            )

    @property
    def index(self) -> str:
        """The alias of the index; the index itself has its version after it."""
        return f"{self.prefix}:conversations"

    def conversation(self, namespace: str, conversation_id: str) -> str:
        """Return the key of a conversation's hash."""
        return f"{self.prefix}:conversation:{_tag(namespace, conversation_id)}"

    def positions(self, namespace: str, conversation_id: str) -> str:
        """Return the key of the sorted set of the positions that have a run."""
        return f"{self.prefix}:positions:{_tag(namespace, conversation_id)}"

    def runs(self, namespace: str, conversation_id: str) -> str:
        """Return what the keys of a conversation's runs begin with; the position follows."""
        return f"{self.prefix}:run:{_tag(namespace, conversation_id)}:"

    def receipt(self, namespace: str, token: str) -> str:
        """Return the key of a change set's receipt."""
        return f"{self.prefix}:receipt:{_tag(namespace, token)}"

    def namespace_of(self, conversation_key: str) -> str:
        """Return the namespace of a conversation's key."""
        return unquote(conversation_key.partition("{")[2].partition("/")[0])

    def of_the_same(self, conversation_key: str) -> tuple[str, str]:
        """Return the key of the positions, and the beginning of the runs' keys, that belong to a conversation's key."""
        tag = conversation_key.removeprefix(f"{self.prefix}:conversation:")
        return f"{self.prefix}:positions:{tag}", f"{self.prefix}:run:{tag}:"


def _tag(namespace: str, name: str) -> str:
    if _PLAIN.fullmatch(namespace) and _PLAIN.fullmatch(name):
        return f"{{{namespace}/{name}}}"
    return f"{{{quote(namespace, safe='')}/{quote(name, safe='')}}}"
