"""The alias of a conversation's thread: its namespace and id, percent-encoded; a digest of them where that is too long."""

import re
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

from memory.domain.values import check_id
from memory.errors import InvalidValueError

LONGEST: Final = 200
"""Characters that an alias, and a name, may have."""

_DIGEST: Final = 65  # characters, with its "*"
_IS_DIGEST: Final = re.compile(r"(^|/)\*[0-9a-f]{64}$")

DEFAULT_NAMESPACE: Final = "default"
"""Its conversations have their bare ids as aliases: so a thread that Griptape made under an alias is a conversation in it."""


def alias_of(namespace: str, conversation_id: str) -> str:
    """Return the alias that this package gives.

    >>> alias_of("default", "support-42"), alias_of("tenant a", "50%/x")
    ('support-42', 'tenant%20a/50%25%2Fx')
    """
    prefix = "" if namespace == DEFAULT_NAMESPACE else f"{_encoded(namespace)}/"
    alias = prefix + _encoded(conversation_id)
    if len(alias) <= LONGEST:
        return alias
    # "*" is encoded everywhere else; no name holds a line's end, so no two pairs are joined alike
    digest = "*" + sha256(f"{namespace}\n{conversation_id}".encode()).hexdigest()
    return (prefix if len(prefix + digest) <= LONGEST else "") + digest


def prefix_of(namespace: str) -> str | None:
    """Return what all aliases of a namespace begin with; None where they have nothing in common."""
    prefix = f"{_encoded(namespace)}/"
    return None if namespace == DEFAULT_NAMESPACE or len(prefix) + _DIGEST > LONGEST else prefix


def aliases_of(namespace: str, conversation_id: str) -> list[str]:
    """Return the aliases a conversation may have: the one that this package gives, and the id itself if others gave it."""
    ours = alias_of(namespace, conversation_id)
    given = conversation_id
    if given != ours and place_of(given, None) == (namespace, conversation_id):
        return [ours, given]
    return [ours]


def is_digest(alias: str) -> bool:
    """Tell whether an alias has a digest in the place of an id: only our bookkeeping knows of what."""
    return _IS_DIGEST.search(alias) is not None


def place_of(alias: str, written: tuple[str, str] | None) -> tuple[str, str] | None:
    """Return the namespace and id of the conversation with this alias; None if it cannot be one's.

    Args:
        alias: as the service has it.
        written: the namespace and id that our bookkeeping names: what a digest was made of.
    """
    if written is not None and alias_of(*written) == alias:
        return written
    if is_digest(alias) or not 1 <= len(alias) <= LONGEST:
        return None
    namespace, slash, conversation_id = alias.rpartition("/")
    try:
        place = (
            check_id(unquote(namespace, errors="strict"), "namespace") if slash else DEFAULT_NAMESPACE,
            check_id(unquote(conversation_id, errors="strict"), "id"),
        )
        if alias_of(*place) == alias:
            return place
    except (InvalidValueError, UnicodeDecodeError):
        pass
    try:  # somebody else's alias, not encoded as ours are: it is the id
        return DEFAULT_NAMESPACE, check_id(alias, "id")
    except InvalidValueError:
        return None


def _encoded(text: str) -> str:
    return quote(text, safe=":@")
