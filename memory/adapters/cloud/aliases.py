"""The alias of a conversation's thread: namespace and id, percent-encoded, or a digest of them where that is too long."""

import re
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

from memory.domain.values import check_id
from memory.errors import InvalidValueError

LONGEST: Final = 200
"""How many characters an alias, and a name, may have."""

DEFAULT_NAMESPACE: Final = "default"
"""Its aliases are the bare ids, so a thread that Griptape made under an alias is a conversation in this namespace."""

_DIGEST: Final = re.compile(r"(^|/)\*[0-9a-f]{64}$")


def alias_of(namespace: str, conversation_id: str) -> str:
    """Return the alias under which this package creates the thread of a conversation.

    >>> alias_of("default", "support-42"), alias_of("tenant a", "50%/x")
    ('support-42', 'tenant%20a/50%25%2Fx')
    """
    prefix = "" if namespace == DEFAULT_NAMESPACE else f"{quote(namespace, safe=':@')}/"
    alias = prefix + quote(conversation_id, safe=":@")
    if len(alias) <= LONGEST:
        return alias
    # Only a digest begins with "*", which is encoded elsewhere; ids hold no line end, so each pair has its own digest.
    digest = "*" + sha256(f"{namespace}\n{conversation_id}".encode()).hexdigest()
    return (prefix if len(prefix + digest) <= LONGEST else "") + digest


def is_digest(alias: str) -> bool:
    """Return whether an alias ends in a digest, so that only our envelope names the conversation."""
    return _DIGEST.search(alias) is not None


def place_of(alias: str, written: tuple[str, str] | None = None) -> tuple[str, str] | None:
    """Return an alias's namespace and id, or ``written`` where it is only their digest; None if no conversation can have it."""
    if written is not None and alias_of(*written) == alias:
        return written
    if is_digest(alias) or len(alias) > LONGEST:
        return None
    namespace, slash, conversation_id = alias.rpartition("/")
    place = unquote(namespace) if slash else DEFAULT_NAMESPACE, unquote(conversation_id)
    try:
        if alias_of(*place) != alias:  # not encoded as we do it: another program's alias, which is the id
            place = DEFAULT_NAMESPACE, alias
        return check_id(place[0], "namespace"), check_id(place[1], "id")
    except (InvalidValueError, UnicodeEncodeError):
        return None
